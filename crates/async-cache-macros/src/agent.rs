//! `#[agent_invalidates]`: its options. The expansion is the same as for `#[invalidates]`, with the
//! guard of a resource.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Ident, ItemFn, LitStr, Path, Token};

use crate::mistakes::Mistakes;
use crate::options::{ScopeOption, name, scope};
use crate::signature::Argument;
use crate::{invalidates, place};

/// The options as written by the user.
struct Words {
    resource: Option<LitStr>,
    scope: ScopeOption,
    place: Option<Path>,
}

pub(crate) fn expand(attribute: TokenStream, function: TokenStream) -> syn::Result<TokenStream> {
    let words = Words::parse(attribute)?;
    let function: ItemFn = syn::parse2(function).map_err(|error| {
        syn::Error::new(error.span(), format!("this stands on a function with a body ({error})"))
    })?;
    let mut mistakes = Mistakes::default();
    if let Some(word) = &function.sig.constness {
        mistakes.at(word, "a `const fn` writes nothing");
    }
    mistakes.none_or_error()?;
    let krate = place::of_async_cache(words.place.as_ref());
    let scope = match words.scope {
        ScopeOption::Global => quote!(Global),
        ScopeOption::Session => quote!(Session),
    };
    let resource = &words.resource;
    let guard = quote!(#krate::agent::writing(#resource, #krate::agent::Scope::#scope));
    invalidates::write(&krate, &[guard], &Argument::all(&function.sig), &function)
}

impl Words {
    fn parse(attribute: TokenStream) -> syn::Result<Self> {
        let mut words = Self { resource: None, scope: ScopeOption::Global, place: None };
        let all = |input: ParseStream<'_>| {
            while !input.is_empty() {
                let word = input.call(Ident::parse_any)?;
                match &*word.to_string() {
                    "resource" => words.resource = Some(name(&word, input)?),
                    "scope" => words.scope = scope(&word, input)?,
                    "crate" => {
                        input.parse::<Token![=]>()?;
                        words.place = Some(input.call(Path::parse_mod_style)?);
                    }
                    other => {
                        let message =
                            format!("there is no option `{other}`; there are `resource`, `scope`, `crate`");
                        return Err(syn::Error::new(word.span(), message));
                    }
                }
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(())
        };
        all.parse2(attribute)?;
        if words.resource.is_none() {
            let message = "say what this write changes: `#[agent_invalidates(resource = \"files\")]`";
            return Err(syn::Error::new(Span::call_site(), message));
        }
        Ok(words)
    }
}
