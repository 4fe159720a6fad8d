//! Arguments that exist only under a `#[cfg]`.
//!
//! The compiler removes an excluded argument after the attribute has been expanded, from a
//! signature but not from a call. So the function is written once for each possible set of
//! arguments, each copy under the condition of its set, and the compiler expands the attribute of
//! the copy that it keeps. This file owns the step, for all attributes.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::quote;
use syn::{Attribute, FnArg, ItemFn, Meta};

use crate::place;

/// The maximum number of conditional arguments: each doubles the text.
const MOST: usize = 4;

/// The function under each set of conditions, with the attribute repeated; `None` if no argument
/// has a condition. `more` is appended to the contents of the attribute.
pub(crate) fn split(
    attribute: &str,
    words: &TokenStream,
    function: &TokenStream,
    more: impl FnOnce(&ItemFn) -> Option<TokenStream>,
) -> Option<syn::Result<TokenStream>> {
    let function: ItemFn = syn::parse2(function.clone()).ok()?;
    let conditions: Vec<Option<TokenStream>> = function.sig.inputs.iter().map(condition).collect();
    let count = conditions.iter().flatten().count();
    if count == 0 {
        return None;
    }
    if count > MOST {
        let message = format!("at most {MOST} arguments may have a `#[cfg]`");
        return Some(Err(syn::Error::new_spanned(&function.sig.inputs, message)));
    }
    let words = joined(words, more(&function));
    let krate = place_in(&words);
    let attribute = Ident::new(attribute, Span::call_site());
    let variants = (0..1_usize << count).map(|set| {
        let mut function = function.clone();
        let mut predicates = Vec::new();
        let inputs = std::mem::take(&mut function.sig.inputs).into_iter().zip(&conditions);
        for (mut input, condition) in inputs {
            if let Some(condition) = condition {
                let is_there = set >> predicates.len() & 1 == 1;
                predicates.push(if is_there { condition.clone() } else { quote!(not(#condition)) });
                if !is_there {
                    continue;
                }
                attributes(&mut input).retain(|attribute| !attribute.path().is_ident("cfg"));
            }
            function.sig.inputs.push(input);
        }
        let predicate = match &*predicates {
            [one] => one.clone(),
            several => quote!(all(#(#several),*)),
        };
        quote! {
            #[cfg(#predicate)]
            #[#krate::#attribute(#words)]
            #function
        }
    });
    Some(Ok(variants.collect()))
}

/// The condition under which an argument exists.
fn condition(argument: &FnArg) -> Option<TokenStream> {
    let (FnArg::Typed(syn::PatType { attrs, .. }) | FnArg::Receiver(syn::Receiver { attrs, .. })) = argument;
    let predicates: Vec<_> = attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .filter_map(|attribute| match &attribute.meta {
            Meta::List(list) => Some(&list.tokens),
            _ => None,
        })
        .collect();
    match &*predicates {
        [] => None,
        [one] => Some(quote!(#one)),
        several => Some(quote!(all(#(#several),*))),
    }
}

fn attributes(argument: &mut FnArg) -> &mut Vec<Attribute> {
    match argument {
        FnArg::Typed(typed) => &mut typed.attrs,
        FnArg::Receiver(receiver) => &mut receiver.attrs,
    }
}

fn joined(words: &TokenStream, more: Option<TokenStream>) -> TokenStream {
    let ends_with_comma =
        |token: &TokenTree| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',');
    match (words.clone().into_iter().last(), more) {
        (_, None) => words.clone(),
        (None, Some(more)) => more,
        (Some(last), Some(more)) if ends_with_comma(&last) => quote!(#words #more),
        (Some(_), Some(more)) => quote!(#words, #more),
    }
}

/// The path of async-cache: the value of `crate =`, if given.
fn place_in(words: &TokenStream) -> TokenStream {
    let tokens: Vec<TokenTree> = words.clone().into_iter().collect();
    let is_crate = |pair: &[TokenTree]| matches!(pair, [TokenTree::Ident(word), TokenTree::Punct(is)] if word == "crate" && is.as_char() == '=');
    let path = tokens.windows(2).position(is_crate).map(|at| {
        let end = |token: &&TokenTree| !matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',');
        tokens[at + 2..].iter().take_while(end).cloned().collect::<TokenStream>()
    });
    let path = path.and_then(|path| syn::parse2(path).ok());
    place::of_async_cache(path.as_ref())
}
