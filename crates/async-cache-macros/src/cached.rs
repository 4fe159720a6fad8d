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
//! Hygiene: every variable of an expansion is made by [`local`], so it cannot collide with an
//! argument of the user.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, FnArg, GenericArgument, ItemFn, PathArguments, Type};

use crate::mentions::mentions;
use crate::options::{EvictionOption, Key, Options, ScopeOption, TtlOption};
use crate::place;
use crate::signature::{Argument, Cacheable, Returns};

pub(crate) fn expand(options: &Options, function: TokenStream) -> syn::Result<TokenStream> {
    let function: ItemFn = syn::parse2(function).map_err(|error| {
        syn::Error::new(error.span(), format!("this stands on an `async fn` with a body ({error})"))
    })?;
    let cacheable = Cacheable::check(options, function)?;
    let expansion = Expansion::new(options, &cacheable);
    Ok(if cacheable.is_associated { expansion.method() } else { expansion.free() })
}

/// A variable of the expansion, distinct from a user's variable of the same name.
pub(crate) fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

struct Expansion<'a> {
    options: &'a Options,
    cacheable: &'a Cacheable,
    krate: TokenStream,
    /// The types of key and value.
    key: TokenStream,
    value: TokenStream,
    /// The return type of the decorated function.
    output: TokenStream,
    /// The arguments that make the key.
    parts: Vec<&'a Argument>,
}

impl<'a> Expansion<'a> {
    fn new(options: &'a Options, cacheable: &'a Cacheable) -> Self {
        let krate = place::of_async_cache(options.place.as_ref());
        let arguments = &cacheable.arguments;
        let parts: Vec<_> = match &options.key {
            None => arguments.iter().collect(),
            Some(Key::Arguments(names)) => {
                let find = |name: &Ident| arguments.iter().find(|argument| argument.name == *name);
                names.iter().filter_map(find).collect()
            }
            Some(Key::Made(_, expression)) => {
                let tokens = expression.to_token_stream();
                arguments.iter().filter(|argument| mentions(tokens.clone(), &argument.name)).collect()
            }
        };
        let key = match &options.key {
            Some(Key::Made(ty, _)) => quote!(#ty),
            _ => one_or_tuple(parts.iter().map(|part| owned_type(&krate, part)).collect()),
        };
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
        Self { options, cacheable, krate, key, value, output, parts }
    }

    fn name(&self) -> &Ident {
        &self.cacheable.function.sig.ident
    }

    // Pieces

    /// The key of a call in its form for a look-up, and the statements that must precede it.
    fn lookup(&self) -> (TokenStream, TokenStream) {
        if let Some(Key::Made(ty, expression)) = &self.options.key {
            let references = references(&self.parts);
            let key = local("key");
            return (quote!(let #key: #ty = { #references #expression };), quote!(&#key));
        }
        (TokenStream::new(), one_or_tuple(self.parts.iter().map(|part| part.lent()).collect()))
    }

    /// `name: type` of the key's arguments, by reference.
    fn part_parameters(&self) -> Vec<TokenStream> {
        let parameter = |part: &&Argument| {
            let (name, target) = (&part.name, &part.target);
            quote!(#name: &#target)
        };
        self.parts.iter().map(parameter).collect()
    }

    /// The key from its arguments when they are references already.
    fn lookup_of_references(&self) -> (TokenStream, TokenStream) {
        if let Some(Key::Made(ty, expression)) = &self.options.key {
            let key = local("key");
            return (quote!(let #key: #ty = #expression;), quote!(&#key));
        }
        let names = self.parts.iter().map(|part| part.name.to_token_stream());
        (TokenStream::new(), one_or_tuple(names.collect()))
    }

    /// The arguments for the function that makes the cache: its name, and the calls on the builder.
    fn making(&self) -> (TokenStream, TokenStream) {
        let krate = &self.krate;
        let name = match &self.options.name {
            Some(name) => quote!(#krate::__private::Name::Given(#name)),
            None if self.cacheable.is_associated => {
                let name = self.name().to_string();
                quote!(#krate::__private::Name::Given(
                    ::core::concat!(::core::module_path!(), "::", #name)
                ))
            }
            None => {
                let name = self.name();
                quote!(#krate::__private::Name::Of(::core::any::type_name::<#name>))
            }
        };
        let maxsize =
            self.options.maxsize.iter().map(|maxsize| quote_spanned!(maxsize.span()=> .maxsize(#maxsize)));
        let ttl = self.options.ttl.iter().map(|ttl| match ttl {
            TtlOption::Milliseconds(milliseconds) => {
                quote!(.default_ttl(#krate::__private::Duration::from_millis(#milliseconds)))
            }
            TtlOption::Given(ttl) => quote_spanned!(ttl.span()=> .default_ttl(#ttl)),
        });
        let eviction = match self.options.eviction {
            EvictionOption::Adaptive => quote!(Adaptive),
            EvictionOption::Lru => quote!(Lru),
        };
        let backup =
            self.options.backup.iter().map(|backup| quote_spanned!(backup.span()=> .backup(#backup)));
        let clock = self.options.clock.iter().map(|clock| quote_spanned!(clock.span()=> .clock(#clock)));
        let builder = local("builder");
        let build = quote! {
            |#builder| #builder
                #(#maxsize)* #(#ttl)* .eviction(#krate::Eviction::#eviction) #(#clock)* #(#backup)*
        };
        (name, build)
    }

    /// The static cache of a function.
    fn function(&self) -> TokenStream {
        let krate = &self.krate;
        let (name, builder) = self.making();
        let ty = self.function_type();
        match &self.options.resource {
            None => quote! {
                static FUNCTION: #ty = #krate::CachedFunction::new(#name, #builder);
                &FUNCTION
            },
            Some(resource) => {
                let scope = self.scope();
                quote! {
                    static FUNCTION: #ty = #krate::agent::Tool::new(#name, #resource, #scope, #builder);
                    &FUNCTION
                }
            }
        }
    }

    /// The static caches of a method, and the cache for this `Self`: a static in a generic `impl`
    /// block is shared by all of its types.
    fn function_of_self(&self) -> TokenStream {
        let (krate, key, value) = (&self.krate, &self.key, &self.value);
        let (name, builder) = self.making();
        quote! {
            static FUNCTIONS: #krate::__private::PerType<#key, #value> = #krate::__private::PerType::new();
            FUNCTIONS.of::<Self>(#name, #builder)
        }
    }

    /// The type of the static cache.
    fn function_type(&self) -> TokenStream {
        let (krate, key, value) = (&self.krate, &self.key, &self.value);
        if self.options.is_tool() {
            quote!(#krate::agent::Tool<#key, #value>)
        } else {
            quote!(#krate::CachedFunction<#key, #value>)
        }
    }

    fn scope(&self) -> TokenStream {
        let krate = &self.krate;
        match self.options.scope {
            ScopeOption::Global => quote!(#krate::agent::Scope::Global),
            ScopeOption::Session => quote!(#krate::agent::Scope::Session),
        }
    }

    /// Items of plain functions only, not of tools: the cache itself, and single entries for
    /// `#[invalidates]`.
    fn of_functions(&self) -> Option<TokenStream> {
        if self.options.is_tool() {
            return None;
        }
        let (krate, key, value) = (&self.krate, &self.key, &self.value);
        let vis = &self.cacheable.function.vis;
        let part_parameters = self.part_parameters();
        let part_names: Vec<_> = self.parts.iter().map(|part| &part.name).collect();
        let part_targets: Vec<_> = self.parts.iter().map(|part| &part.target).collect();
        let part_types: Vec<_> =
            (0..self.parts.len()).map(|number| format_ident!("AsyncCacheArgument{number}")).collect();
        let arity = self.parts.len();
        let (make_key, lookup) = self.lookup_of_references();
        Some(quote! {
                /// The cache itself.
                #[must_use]
                #vis fn cache() -> &'static #krate::AsyncCache<#key, #value> {
                    Self::function().cache()
                }

                #[doc(hidden)]
                #vis const ARITY: usize = #arity;

                #[doc(hidden)]
                #vis fn invalidating(#(#part_parameters),*) -> #krate::__private::Invalidating<#key, #value> {
                    #make_key
                    Self::function().invalidating(#lookup)
                }

                #[doc(hidden)]
                #vis fn invalidating_first<#(#part_types: #krate::__private::Borrow<#part_targets> + ?Sized),*>(
                    (#(#part_names,)*): (#(&#part_types,)*),
                ) -> #krate::__private::Invalidating<#key, #value> {
                    Self::invalidating(#(#krate::__private::lend::<#part_targets, _>(#part_names)),*)
                }
        })
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
        let (make_key, lookup) = self.lookup();
        let is_borrowed_by_key = |argument: &Argument| {
            !matches!(self.options.key, Some(Key::Made(..)))
                && self.parts.iter().any(|part| part.name == argument.name)
        };
        let owned =
            self.cacheable.arguments.iter().filter(|argument| {
                (argument.is_borrowed || is_borrowed_by_key(argument)) && !argument.is_static
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
        let (krate, (make_key, lookup)) = (&self.krate, self.lookup());
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
        let ((make_key, lookup), asked) = (self.lookup(), local("asked"));
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
        let parts = self.parts.iter().filter(|_| !matches!(self.options.key, Some(Key::Made(..))));
        let parts = parts.map(|part| {
            let target = &part.target;
            quote_spanned!(target.span()=> #krate::__private::can_be_a_key::<#target>();)
        });
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
            const _: fn() = || { #(#parts)* #value };
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

    // The whole

    fn free(&self) -> TokenStream {
        let ItemFn { attrs, vis, sig, .. } = &self.cacheable.function;
        let (name, krate, output) = (&sig.ident, &self.krate, &self.output);
        let (lifetimes, _, bounds) = sig.generics.split_for_impl();
        let (function_type, of_functions) = (self.function_type(), self.of_functions());
        let metrics = if self.options.is_tool() { quote!(agent::AgentMetrics) } else { quote!(Metrics) };
        let cfgs: Vec<_> = attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect();
        let lints: Vec<_> = attrs.iter().filter(|attribute| is_lint(attribute)).collect();
        let attrs = attrs.iter().filter(|attribute| !attribute.path().is_ident("expect"));
        let (parameters, names) = (self.parameters(), self.names());
        let function = self.function();
        let asked = local("asked");
        let miss = self.miss(&quote!(Self::function()), &quote!(Self::origin), &asked);
        let ask = self.ask(&quote!(#name::function()), &quote!(#name::miss(#asked, #(#names),*)));
        let refresh = self.refresh(&quote!(Self::function()), &quote!(Self::miss(#asked, #(#names),*)));
        let origin = self.origin(&format_ident!("origin", span = name.span()));
        let part_parameters = self.part_parameters();
        let (make_key, lookup) = self.lookup_of_references();
        let check = self.check(&cfgs);
        let title = format!("The cache of the function [`{name}`](fn@{name}), and what can be done with it.");
        // The checks come first, so that their compiler errors come first.
        quote! {
            #check

            #(#attrs)*
            #[allow(clippy::used_underscore_binding)]
            #vis async fn #name #lifetimes (#(#parameters),*) -> #output #bounds {
                #ask
            }

            #(#cfgs)*
            #[doc = #title]
            #[allow(non_camel_case_types, missing_debug_implementations, clippy::exhaustive_enums)]
            #vis enum #name {}

            #(#cfgs)*
            #(#lints)*
            #[allow(dead_code, clippy::too_many_arguments, clippy::needless_pass_by_value, clippy::ptr_arg)]
            #[allow(clippy::used_underscore_binding)]
            #[allow(clippy::trivially_copy_pass_by_ref, clippy::needless_lifetimes, clippy::implicit_hasher)]
            impl #name {
                /// Removes the result stored for these arguments. A running call is fenced: it
                /// stores nothing.
                #vis fn invalidate(#(#part_parameters),*) {
                    #make_key
                    Self::function().invalidate(#lookup);
                }

                /// Calls the function anew and stores its result. A call that was running is
                /// fenced; callers that arrive meanwhile share the new call.
                ///
                /// # Errors
                /// As the function's own.
                #vis async fn refresh #lifetimes (#(#parameters),*) -> #output #bounds {
                    #refresh
                }

                /// Removes all results, fences all running calls, and resets the counters.
                #vis fn clear() {
                    Self::function().clear();
                }

                /// Hits, misses, size and hit rate.
                #[must_use]
                #vis fn metrics() -> #krate::#metrics {
                    Self::function().metrics()
                }

                /// All counters.
                #[must_use]
                #vis fn stats() -> #krate::Stats {
                    Self::function().stats()
                }

                /// Builds the cache and opens its file, if not done yet.
                ///
                /// # Errors
                /// If the backup can never work.
                #vis fn init() -> #krate::__private::Result<(), #krate::BuildError> {
                    Self::function().init()
                }

                /// Saves every entry to the backup; blocks the thread.
                ///
                /// # Errors
                /// If the save fails. The data saved before stays intact.
                #vis fn save_to_backup() -> #krate::__private::Result<#krate::Saved, #krate::BackupError> {
                    Self::function().save_to_backup()
                }

                /// Saves every entry to the backup, in the background.
                ///
                /// # Errors
                /// If the save fails. The data saved before stays intact.
                #vis async fn save_to_backup_async() -> #krate::__private::Result<#krate::Saved, #krate::BackupError> {
                    Self::function().save_to_backup_async().await
                }

                /// Loads the entries of the backup that are not in memory; blocks the thread.
                ///
                /// # Errors
                /// If the load fails. The cache is unchanged.
                #vis fn load_from_backup() -> #krate::__private::Result<#krate::Opening, #krate::BackupError> {
                    Self::function().load_from_backup()
                }

                #[doc(hidden)]
                #[must_use]
                #vis fn function() -> &'static #function_type {
                    #function
                }

                #of_functions

                async fn miss #lifetimes (#asked: #krate::__private::MissedCall, #(#parameters),*) -> #output #bounds {
                    #miss
                }

                #origin
            }

        }
    }

    fn method(&self) -> TokenStream {
        let ItemFn { attrs, vis, sig, .. } = &self.cacheable.function;
        let (name, krate, output) = (&sig.ident, &self.krate, &self.output);
        let (lifetimes, _, bounds) = sig.generics.split_for_impl();
        let (key, value) = (&self.key, &self.value);
        let cfgs: Vec<_> = attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect();
        let attrs = attrs.iter().filter(|attribute| !attribute.path().is_ident("expect"));
        let (parameters, names) = (self.parameters(), self.names());
        let receiver = sig.inputs.first().filter(|input| matches!(input, FnArg::Receiver(_)));
        let receiver = receiver.map(without_mut);
        // With its comma, if there is a receiver.
        let receiver = receiver.iter().map(|receiver| quote!(#receiver,)).collect::<TokenStream>();
        let (cache_name, refresh_name) = (format_ident!("{name}_cache"), format_ident!("{name}_refresh"));
        let (miss_name, origin_name) = (format_ident!("{name}_miss"), format_ident!("{name}_origin"));
        let function = self.function_of_self();
        let asked = local("asked");
        let handle = quote!(Self::#cache_name());
        let miss = self.miss(&handle, &quote!(Self::#origin_name), &asked);
        let this = self.cacheable.receiver.iter().map(|_| quote!(self,));
        let miss_call = quote!(Self::#miss_name(#(#this)* #asked, #(#names),*));
        let (ask, refresh) = (self.ask(&handle, &miss_call), self.refresh(&handle, &miss_call));
        let origin = self.origin(&origin_name);
        let check = self.check(&[]);
        let cache_doc =
            format!("The cache of the method [`{name}`](Self::{name}), one for all instances of the type.");
        let refresh_doc = format!(
            "Calls [`{name}`](Self::{name}) anew and stores what it returns. A call that runs is fenced; those who \
             call meanwhile share this one.\n\n# Errors\nAs the method's own."
        );
        quote! {
            #(#attrs)*
            #[allow(clippy::used_underscore_binding)]
            #vis async fn #name #lifetimes (#receiver #(#parameters),*) -> #output #bounds {
                #check
                #ask
            }

            #(#cfgs)*
            #[doc = #cache_doc]
            #[must_use]
            #[allow(dead_code)]
            #vis fn #cache_name() -> &'static #krate::CachedFunction<#key, #value> {
                #function
            }

            #(#cfgs)*
            #[doc = #refresh_doc]
            #[allow(dead_code, clippy::used_underscore_binding)]
            #vis async fn #refresh_name #lifetimes (#receiver #(#parameters),*) -> #output #bounds {
                #refresh
            }

            #(#cfgs)*
            #[doc(hidden)]
            #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value, clippy::used_underscore_binding)]
            async fn #miss_name #lifetimes (
                #receiver #asked: #krate::__private::MissedCall, #(#parameters),*
            ) -> #output #bounds {
                #miss
            }

            #(#cfgs)*
            #origin
        }
    }
}

/// `let name = &name;` for every argument that is not a reference already.
pub(crate) fn references(arguments: &[&Argument]) -> TokenStream {
    let owned = arguments.iter().filter(|argument| !argument.is_borrowed).map(|argument| &argument.name);
    quote!(#(let #owned = &#owned;)*)
}

/// A single item unchanged, several as a tuple.
fn one_or_tuple(mut things: Vec<TokenStream>) -> TokenStream {
    if things.len() == 1 { things.remove(0) } else { quote!((#(#things),*)) }
}

/// The type in which the key and the load keep an argument.
fn owned_type(krate: &TokenStream, argument: &Argument) -> TokenStream {
    let target = &argument.target;
    if argument.is_borrowed {
        quote_spanned!(target.span()=> <#target as #krate::__private::ToOwned>::Owned)
    } else {
        quote!(#target)
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

/// Removes `mut` from `mut self`, which concerns the method's body only.
fn without_mut(receiver: &FnArg) -> FnArg {
    let mut receiver = receiver.clone();
    if let FnArg::Receiver(receiver) = &mut receiver
        && receiver.reference.is_none()
    {
        receiver.mutability = None;
    }
    receiver
}
