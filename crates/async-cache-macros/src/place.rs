//! Where the expansion finds async-cache.
//!
//! Owns the path: the `crate` option, or otherwise the name that the user's `Cargo.toml` gives to
//! the dependency.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use syn::Path;

pub(crate) fn of_async_cache(option: Option<&Path>) -> TokenStream {
    if let Some(path) = option {
        return quote!(#path);
    }
    match crate_name("async-cache") {
        Ok(FoundCrate::Name(name)) => {
            let name = Ident::new(&name, Span::call_site());
            quote!(::#name)
        }
        // In async-cache's own tests and examples; without a Cargo.toml the usual name is the best
        // guess.
        Ok(FoundCrate::Itself) | Err(_) => quote!(::async_cache),
    }
}
