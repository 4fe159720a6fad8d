//! The attribute macros of async-cache. Use and documentation: `async_cache::{async_lru, async_ttl,
//! invalidates}`.
//!
//! # Layout
//!
//! - `options`: the options in the attribute, parsed; `place`: where the expansion finds
//!   async-cache
//! - `signature`: the cacheable parts of a function's signature, checked; `surroundings`: whether
//!   the function stands in an `impl` block; `mentions`: whether tokens use a name
//! - `conditions`: arguments under a `#[cfg]`; `mistakes`: the user's mistakes, collected
//! - `cached`: the expansion of `#[async_lru]` and `#[async_ttl]`; `key_expression`: how the
//!   arguments of a call become its key; `hygiene`: the variables of an expansion
//! - `agent`: the options of `#[agent_invalidates]`; `#[agent_cache]` is `cached`, over a tool
//! - `invalidates`: the expansion of `#[invalidates]`, with its own options; `futures`: writes that
//!   return futures
//!
//! Two rules. A user's mistakes are reported at their places, with a correction, and all at once.
//! An expansion calls `async_cache::__private` instead of containing logic, so that the logic is
//! tested as code.

mod agent;
mod cached;
mod conditions;
mod futures;
mod hygiene;
mod invalidates;
mod key_expression;
mod mentions;
mod mistakes;
mod options;
mod place;
mod signature;
mod surroundings;

use proc_macro::TokenStream;

use options::{MacroKind, Options};

/// Caches the results of an async function; documented at `async_cache::async_lru`.
#[proc_macro_attribute]
pub fn async_lru(attribute: TokenStream, function: TokenStream) -> TokenStream {
    cache(MacroKind::Lru, attribute.into(), function.into())
}

/// Caches the results of an async function for a time; documented at `async_cache::async_ttl`.
#[proc_macro_attribute]
pub fn async_ttl(attribute: TokenStream, function: TokenStream) -> TokenStream {
    cache(MacroKind::Ttl, attribute.into(), function.into())
}

/// Makes a write invalidate the results of a cached function; documented at
/// `async_cache::invalidates`.
#[proc_macro_attribute]
pub fn invalidates(attribute: TokenStream, function: TokenStream) -> TokenStream {
    let (attribute, function) = (attribute.into(), function.into());
    let split = conditions::split("invalidates", &attribute, &function, |_| None);
    or_errors(split.unwrap_or_else(|| invalidates::expand(attribute, function)))
}

/// Caches a tool of an agent; documented at `async_cache::agent_cache`.
#[proc_macro_attribute]
pub fn agent_cache(attribute: TokenStream, function: TokenStream) -> TokenStream {
    cache(MacroKind::Agent, attribute.into(), function.into())
}

/// Makes a write invalidate the results of tools; documented at `async_cache::agent_invalidates`.
#[proc_macro_attribute]
pub fn agent_invalidates(attribute: TokenStream, function: TokenStream) -> TokenStream {
    let (attribute, function) = (attribute.into(), function.into());
    let split = conditions::split("agent_invalidates", &attribute, &function, |_| None);
    or_errors(split.unwrap_or_else(|| agent::expand(attribute, function)))
}

fn cache(
    kind: MacroKind,
    attribute: proc_macro2::TokenStream,
    function: proc_macro2::TokenStream,
) -> TokenStream {
    let name = match kind {
        MacroKind::Lru => "async_lru",
        MacroKind::Ttl => "async_ttl",
        MacroKind::Agent => "agent_cache",
    };
    // The file contains the function with its conditions, so this is the last point at which it is
    // found there.
    let associated = |function: &syn::ItemFn| {
        let is_asked = kind != MacroKind::Agent && function.sig.receiver().is_none();
        (is_asked && surroundings::is_associated(function)).then(|| quote::quote!(associated))
    };
    let split = conditions::split(name, &attribute, &function, associated);
    let expand = || Options::parse(kind, attribute).and_then(|options| cached::expand(&options, function));
    or_errors(split.unwrap_or_else(expand))
}

fn or_errors(expanded: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}
