//! `#[invalidates]`: its options and its expansion.
//!
//! The expanded write makes one guard for each target, which invalidates at once. Then it runs the
//! write as the user wrote it, in a future or closure of its own that owns the arguments. At the
//! end the guards are dropped, and invalidate again. So the write, however it ends, has ended and
//! dropped everything it held before the second invalidation. A `fn` that returns a future (which
//! `#[async_trait]` makes of an `async fn`) has only begun when it returns: then the guards are
//! moved into the future (`futures`).

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Expr, ExprPath, FnArg, ItemFn, Path, ReturnType, Signature, Token, Type};

use crate::futures::{self, Future};
use crate::hygiene::local;
use crate::key_expression::references;
use crate::mistakes::Mistakes;
use crate::place;
use crate::signature::Argument;

/// One cache that the write invalidates.
struct Target {
    path: ExprPath,
    /// Whether the path is written with parentheses: the cache of a method.
    is_method: bool,
    key: Option<Vec<Expr>>,
    clear_all: Option<Span>,
}

pub(crate) fn expand(attribute: TokenStream, function: TokenStream) -> syn::Result<TokenStream> {
    let (targets, krate) = parse(attribute)?;
    let function: ItemFn = syn::parse2(function).map_err(|error| {
        syn::Error::new(error.span(), format!("this stands on a function with a body ({error})"))
    })?;
    let krate = place::of_async_cache(krate.as_ref());
    let arguments = Argument::all(&function.sig);
    let mut mistakes = Mistakes::default();
    if let Some(word) = &function.sig.constness {
        mistakes.at(word, "a `const fn` writes nothing");
    }
    for target in &targets {
        let has_own_key = target.key.is_some() || target.clear_all.is_some();
        if target.is_method && !has_own_key {
            let message = "the cache of a method cannot tell how many arguments name an entry: add `key = (id)`, with \
                           the arguments of this write that do, or `clear_all`";
            mistakes.at(&target.path, message);
        } else if !has_own_key && arguments.is_empty() {
            mistakes.at(
                &target.path,
                "this write has no arguments that could name an entry: add `key = (id)` or `clear_all`",
            );
        }
    }
    mistakes.none_or_error()?;
    let guards = targets.iter().map(|target| guard(&krate, target, &arguments)).collect::<Vec<_>>();
    write(&krate, &guards, &arguments, &function)
}

/// The write with its guards around it.
pub(crate) fn write(
    krate: &TokenStream,
    guards: &[TokenStream],
    arguments: &[Argument],
    function: &ItemFn,
) -> syn::Result<TokenStream> {
    let ItemFn { attrs, vis, sig, block } = function;
    let future = if sig.asyncness.is_some() { None } else { futures::returned(&sig.output)? };
    let mut sig = sig.clone();
    let destructure = name_inputs(&mut sig, arguments);
    let body = run(krate, &sig, &quote!(#destructure #block));
    let (kept, written) = (local("guards"), local("written"));
    let end = end(krate, future);
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            let #kept = (#(#guards,)*);
            #[allow(unused_braces, clippy::let_unit_value, clippy::semicolon_if_nothing_returned)]
            let #written = #body;
            #end
        }
    })
}

/// Replaces patterns of the signature that are not names by names. Returns the statements that
/// destructure the arguments at the beginning of the write.
fn name_inputs(sig: &mut Signature, arguments: &[Argument]) -> TokenStream {
    let mut destructure = TokenStream::new();
    let mut names = arguments.iter().map(|argument| &argument.name);
    for input in &mut sig.inputs {
        if let FnArg::Typed(typed) = input
            && let Some(name) = names.next()
        {
            let pattern = &typed.pat;
            destructure.extend(quote!(let #pattern = #name;));
            *typed.pat = syn::parse_quote!(#name);
        }
    }
    destructure
}

/// Runs the contents of the write in a future or closure that owns the arguments.
fn run(krate: &TokenStream, sig: &Signature, contents: &TokenStream) -> TokenStream {
    match (&sig.output, sig.asyncness.is_some()) {
        (ReturnType::Type(_, ty), true) if !has_impl_trait(ty) => {
            let written = local("written");
            quote! {
                async move {
                    // Tells the compiler the type of the block before it checks the contents.
                    #[allow(unreachable_code, clippy::diverging_sub_expression, clippy::empty_loop)]
                    #[allow(clippy::needless_return, clippy::let_unit_value)]
                    if false {
                        let #written: #ty = loop {};
                        return #written;
                    }
                    #contents
                }.await
            }
        }
        (_, true) => quote!(async move { #contents }.await),
        (ReturnType::Type(_, ty), false) if !has_impl_trait(ty) => {
            quote!(#krate::__private::run(move || -> #ty { #contents }))
        }
        (_, false) => quote!(#krate::__private::run(move || { #contents })),
    }
}

/// Drops the guards and returns the result: at once, or when the returned future ends.
fn end(krate: &TokenStream, future: Option<Future>) -> TokenStream {
    let (kept, written) = (local("guards"), local("written"));
    let end = quote! {
        #[allow(unreachable_code)]
        ::core::mem::drop(#kept);
        #[allow(unreachable_code, clippy::unit_arg)]
        #written
    };
    let Some(future) = future else { return end };
    let waits = quote! {
        async move {
            #[allow(clippy::let_unit_value)]
            let #written = #written.await;
            #end
        }
    };
    match future {
        Future::Plain => waits,
        Future::Boxed => quote!(#krate::__private::Box::pin(#waits)),
    }
}

fn guard(krate: &TokenStream, target: &Target, arguments: &[Argument]) -> TokenStream {
    let Target { path, is_method, key, clear_all } = target;
    let span = path.span();
    if clear_all.is_some() {
        return match is_method {
            true => quote_spanned!(span=> #path().clearing()),
            false => quote_spanned!(span=> #path::function().clearing()),
        };
    }
    let all: Vec<_> = arguments.iter().collect();
    let references = references(&all);
    let guard = match key {
        Some(key) if *is_method => match &**key {
            [one] => quote_spanned!(span=> #path().invalidating(#one)),
            several => quote_spanned!(span=> #path().invalidating((#(#several),*))),
        },
        Some(key) => {
            // The additional reference is removed again later, and a `String` becomes a `&str`.
            let key = key.iter().map(|part| quote_spanned!(part.span()=> &(#part)));
            quote_spanned!(span=> #path::invalidating(#(#key),*))
        }
        None => {
            // The arguments are references by now.
            let names = arguments.iter().map(|argument| &argument.name);
            quote_spanned! {span=>
                #path::invalidating_first(
                    #krate::__private::FirstArguments::<{ #path::ARITY }>::first((#(#names,)*))
                )
            }
        }
    };
    let made = local("guard");
    quote! {{
        #[allow(unused_variables, clippy::used_underscore_binding)]
        let #made = {
            #references
            #guard
        };
        #made
    }}
}

fn has_impl_trait(ty: &Type) -> bool {
    crate::mentions::mentions(quote!(#ty), &Ident::new("impl", Span::call_site()))
}

fn parse(attribute: TokenStream) -> syn::Result<(Vec<Target>, Option<Path>)> {
    let mut krate = None;
    let all = |input: ParseStream<'_>| {
        let mut targets: Vec<Target> = Vec::new();
        while !input.is_empty() {
            if input.peek(Token![crate]) && input.peek2(Token![=]) {
                input.parse::<Token![crate]>()?;
                input.parse::<Token![=]>()?;
                krate = Some(input.call(Path::parse_mod_style)?);
            } else {
                item(input, &mut targets)?;
            }
            if !input.is_empty() {
                input.parse::<Token![,]>().map_err(|error| {
                    syn::Error::new(error.span(), "a comma stands between a function and what belongs to it")
                })?;
            }
        }
        Ok(targets)
    };
    let targets = all.parse2(attribute)?;
    if targets.is_empty() {
        let message = "say which cached function this write invalidates: `#[invalidates(get_product)]`";
        return Err(syn::Error::new(Span::call_site(), message));
    }
    Ok((targets, krate))
}

fn item(input: ParseStream<'_>, targets: &mut Vec<Target>) -> syn::Result<()> {
    // Parsed as in an expression, so that a type may have parameters:
    // `Repository::<User>::row_cache()`.
    let path = input.parse::<ExprPath>().map_err(|error| {
        syn::Error::new(error.span(), "here stands the name of a cached function, `key = ...` or `clear_all`")
    })?;
    let is_option = path.path.is_ident("key") && input.peek(Token![=]) || path.path.is_ident("clear_all");
    if !is_option {
        let is_method = input.peek(syn::token::Paren);
        if is_method {
            let inside;
            syn::parenthesized!(inside in input);
            if !inside.is_empty() {
                return Err(inside.error("the key of an entry is written behind it: `, key = (id)`"));
            }
        }
        if input.peek(Token![=]) {
            let message =
                format!("there is no option `{}`; there are `key = (id)` and `clear_all`", quote!(#path));
            return Err(syn::Error::new(path.span(), message));
        }
        targets.push(Target { path, is_method, key: None, clear_all: None });
        return Ok(());
    }
    let Some(target) = targets.last_mut() else {
        let message = "this belongs to a cached function, whose name stands before it: `#[invalidates(get_product, ...)]`";
        return Err(syn::Error::new(path.span(), message));
    };
    if target.key.is_some() || target.clear_all.is_some() {
        let message = "there is a `key` or `clear_all` for this function already; leave one out";
        return Err(syn::Error::new(path.span(), message));
    }
    if path.path.is_ident("clear_all") {
        target.clear_all = Some(path.span());
        return Ok(());
    }
    input.parse::<Token![=]>()?;
    target.key = Some(match input.parse::<Expr>()? {
        Expr::Tuple(tuple) => tuple.elems.into_iter().collect(),
        Expr::Paren(one) => vec![*one.expr],
        one => vec![one],
    });
    Ok(())
}
