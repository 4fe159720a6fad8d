//! The expansion of `#[async_lru]` and `#[async_ttl]`.
//!
//! A function `f` becomes two items with one name: the function, which asks the cache, and, in the
//! namespace of types, an `enum f {}` whose associated functions are called as `f::invalidate(&7)`.
//! A type rather than a module, because its contents see exactly the names that the function sees,
//! even in the body of another function. The type contains:
//!
//! | name | content |
//! |---|---|
//! | `origin` | the function as the user wrote it |
//! | `function` | the static cache |
//! | `miss` | a call that memory cannot answer: moves owned arguments into a load of `origin` |
//!
//! A method has the same three items, prefixed by its name, in the user's own `impl` block, where
//! no type can stand. An associated function without `self` is treated in the same way.
//!
//! # Layout
//!
//! - this file: the types of key and value, and the bodies that functions and methods share
//! - `free_function`, `method`: the whole expansion of each
//! - `static_cache`: the static cache

mod free_function;
mod method;
mod static_cache;

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, GenericArgument, ItemFn, PathArguments, Type};

use crate::hygiene::local;
use crate::key_expression::KeyExpression;
use crate::options::Options;
use crate::place;
use crate::signature::{Argument, Cacheable, Returns};

pub(crate) fn expand(options: &Options, function: TokenStream) -> syn::Result<TokenStream> {
    let function: ItemFn = syn::parse2(function).map_err(|error| {
        syn::Error::new(error.span(), format!("this stands on an `async fn` with a body ({error})"))
    })?;
    let cacheable = Cacheable::check(options, function)?;
    let expansion = Expansion::new(options, &cacheable);
    Ok(if cacheable.is_associated { expansion.method() } else { expansion.free_function() })
}

struct Expansion<'a> {
    options: &'a Options,
    cacheable: &'a Cacheable,
    krate: TokenStream,
    key: KeyExpression<'a>,
    /// The type of the cached value.
    value: TokenStream,
    /// The return type of the decorated function.
    output: TokenStream,
}

impl<'a> Expansion<'a> {
    fn new(options: &'a Options, cacheable: &'a Cacheable) -> Self {
        let krate = place::of_async_cache(options.place.as_ref());
        let key = KeyExpression::new(options.key.as_ref(), &cacheable.arguments, &krate);
        let (value, output) = match &cacheable.returns {
            Returns::Plain(ty) => (quote!(#ty), quote!(#ty)),
            Returns::Result(ty) => {
                let (value, error) = value_and_error(&krate, ty);
                let failure = if options.is_tool() {
                    quote!(#krate::agent::ToolError<#error>)
                } else {
                    quote!(#krate::LoadError<#error>)
                };
                (value.clone(), quote!(#krate::__private::Result<#value, #failure>))
            }
        };
        Self { options, cacheable, krate, key, value, output }
    }

    fn name(&self) -> &Ident {
        &self.cacheable.function.sig.ident
    }

    /// `name: type` of all arguments except the receiver.
    fn parameters(&self) -> Vec<TokenStream> {
        let parameter = |argument: &Argument| {
            let (name, ty) = (&argument.name, &argument.ty);
            quote!(#name: #ty)
        };
        self.cacheable.arguments.iter().map(parameter).collect()
    }

    fn names(&self) -> Vec<&Ident> {
        self.cacheable.arguments.iter().map(|argument| &argument.name).collect()
    }

    /// The body of `miss`: the load, and the wait for its result. `asked` names the first argument
    /// of `miss`.
    fn miss(&self, function: &TokenStream, origin: &TokenStream, asked: &Ident) -> TokenStream {
        let krate = &self.krate;
        let (make_key, lookup) = self.key.lookup();
        let owned =
            self.cacheable.arguments.iter().filter(|argument| {
                (argument.is_borrowed || self.key.borrows(argument)) && !argument.is_static
            });
        let owned = owned.map(|argument| {
            let (name, target, lent) = (&argument.name, &argument.target, argument.lent());
            quote!(let #name = <#target as #krate::__private::ToOwned>::to_owned(#lent);)
        });
        let (this, loads) = (local("this"), local("load"));
        let (own_self, lend_self) = self.receiver(&this);
        let lend = self.cacheable.arguments.iter().map(|argument| {
            let name = &argument.name;
            if argument.is_borrowed && !argument.is_static { quote!(&#name) } else { quote!(#name) }
        });
        let call = quote!(#origin(#lend_self #(#lend),*).await);
        let (load, result) = match self.cacheable.returns {
            Returns::Plain(_) => {
                let (value, infallible) = (&self.value, quote!(#krate::__private::Infallible));
                (quote!(load_value), quote!(#krate::__private::Result::<#value, #infallible>::Ok(#call)))
            }
            Returns::Result(_) => (quote!(load), quote!(#krate::__private::Fallible::into_result(#call))),
        };
        let value = &self.value;
        let keeps = match self.options.cache_none {
            None => quote!(|_| true),
            Some(span) => quote_spanned!(span=> <#value as #krate::__private::Optional>::is_there),
        };
        quote! {
            #make_key
            let #loads = {
                #(#owned)*
                #own_self
                move || async move { #result }
            };
            #function.#load(#asked, #lookup, #keeps, #loads).await
        }
    }

    /// Keeps a method's receiver for the load, and lends it to the method.
    fn receiver(&self, this: &Ident) -> (TokenStream, TokenStream) {
        let Some(receiver) = &self.cacheable.receiver else {
            return (TokenStream::new(), TokenStream::new());
        };
        let krate = &self.krate;
        match &*receiver.ty {
            Type::Reference(reference) => {
                let target = &reference.elem;
                let span = receiver.span();
                let owned = quote_spanned!(span=> <#target as #krate::__private::ToOwned>::to_owned(self));
                (quote!(let #this: #target = #owned;), quote!(&#this,))
            }
            _ => (quote!(let #this = self;), quote!(#this,)),
        }
    }

    /// The body of the decorated function; `miss` is the call made when memory has no answer.
    fn ask(&self, function: &TokenStream, miss: &TokenStream) -> TokenStream {
        let (krate, (make_key, lookup)) = (&self.krate, self.key.lookup());
        let (asked, value) = (local("asked"), local("value"));
        let served = match self.cacheable.returns {
            Returns::Plain(_) => quote!(#value),
            Returns::Result(_) => quote!(#krate::__private::Result::Ok(#value)),
        };
        let miss_path = quote!(#krate::__private::Box::pin(#miss).await);
        // The key borrows the arguments, so it is made and dropped before the miss takes them.
        quote! {
            let #asked = {
                #make_key
                match #function.hit(#lookup) {
                    #krate::__private::Result::Ok(#value) => return #served,
                    #krate::__private::Result::Err(#asked) => #asked,
                }
            };
            #miss_path
        }
    }

    fn refresh(&self, function: &TokenStream, miss: &TokenStream) -> TokenStream {
        let ((make_key, lookup), asked) = (self.key.lookup(), local("asked"));
        quote! {
            let #asked = {
                #make_key
                #function.forget(#lookup)
            };
            #miss.await
        }
    }

    /// Checks of the types, placed at the types, and the check that prevents an `Err` behind an
    /// alias from being cached. These are items, preceded by `cfgs`.
    fn check(&self, cfgs: &[&Attribute]) -> TokenStream {
        let krate = &self.krate;
        let parts = self.key.checks(krate);
        let (value, returned) = match &self.cacheable.returns {
            Returns::Plain(ty) => (&self.value, (self.options.result.is_none()).then_some(ty)),
            Returns::Result(_) => (&self.value, None),
        };
        let span = match &self.cacheable.returns {
            Returns::Plain(ty) | Returns::Result(ty) => ty.span(),
        };
        let value = quote_spanned!(span=> #krate::__private::can_be_a_value::<#value>(););
        let message = "this function returns a `Result` under another name, and its errors would be cached: write \
                       `result` in the attribute";
        let no_result = returned.map(|ty| {
            quote_spanned! {span=>
                #(#cfgs)*
                const _: () = {
                    #[allow(unused_imports)]
                    use #krate::__private::IsNoResult as _;
                    ::core::assert!(!<#krate::__private::Returned<#ty>>::IS_RESULT, #message);
                };
            }
        });
        quote! {
            #(#cfgs)*
            const _: fn() = || { #parts #value };
            #no_result
        }
    }

    /// The function as the user wrote it, under another name.
    fn origin(&self, name: &Ident) -> TokenStream {
        let ItemFn { attrs, sig, block, .. } = &self.cacheable.function;
        let lints =
            attrs.iter().filter(|attribute| is_lint(attribute) || attribute.path().is_ident("expect"));
        let mut sig = sig.clone();
        sig.ident = name.clone();
        quote! {
            #[doc(hidden)]
            #[allow(clippy::unused_async, clippy::unused_self)]
            #(#lints)*
            #sig #block
        }
    }
}

/// The two types of a `Result`: as written, or resolved through the alias.
fn value_and_error(krate: &TokenStream, ty: &Type) -> (TokenStream, TokenStream) {
    if let Type::Path(path) = ty
        && path.path.segments.len() == 1
        && path.path.segments[0].ident == "Result"
        && let Some(PathArguments::AngleBracketed(arguments)) =
            path.path.segments.last().map(|last| &last.arguments)
        && let [GenericArgument::Type(value), GenericArgument::Type(error)] =
            &*arguments.args.iter().cloned().collect::<Vec<_>>()
    {
        return (quote!(#value), quote!(#error));
    }
    let span = ty.span();
    (
        quote_spanned!(span=> <#ty as #krate::__private::Fallible>::Value),
        quote_spanned!(span=> <#ty as #krate::__private::Fallible>::Error),
    )
}

fn is_lint(attribute: &Attribute) -> bool {
    ["allow", "warn", "deny", "forbid"].iter().any(|level| attribute.path().is_ident(level))
}
