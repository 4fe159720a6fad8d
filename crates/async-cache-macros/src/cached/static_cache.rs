//! The static cache of a decorated function: its type, its constructor, and the calls on its
//! builder.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use super::Expansion;
use crate::hygiene::local;
use crate::options::{EvictionOption, ScopeOption, TtlOption};

impl Expansion<'_> {
    /// The type of the static cache.
    pub(super) fn function_type(&self) -> TokenStream {
        let (krate, key, value) = (&self.krate, &self.key.ty, &self.value);
        if self.options.is_tool() {
            quote!(#krate::agent::Tool<#key, #value>)
        } else {
            quote!(#krate::CachedFunction<#key, #value>)
        }
    }

    /// The static cache of a function.
    pub(super) fn function(&self) -> TokenStream {
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
    pub(super) fn function_of_self(&self) -> TokenStream {
        let (krate, key, value) = (&self.krate, &self.key.ty, &self.value);
        let (name, builder) = self.making();
        quote! {
            static FUNCTIONS: #krate::__private::PerType<#key, #value> = #krate::__private::PerType::new();
            FUNCTIONS.of::<Self>(#name, #builder)
        }
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
        let remote =
            self.options.remote.iter().map(|remote| quote_spanned!(remote.span()=> .remote(#remote)));
        let clock = self.options.clock.iter().map(|clock| quote_spanned!(clock.span()=> .clock(#clock)));
        let builder = local("builder");
        let build = quote! {
            |#builder| #builder
                #(#maxsize)* #(#ttl)* .eviction(#krate::Eviction::#eviction) #(#clock)* #(#backup)* #(#remote)*
        };
        (name, build)
    }

    fn scope(&self) -> TokenStream {
        let krate = &self.krate;
        match self.options.scope {
            ScopeOption::Global => quote!(#krate::agent::Scope::Global),
            ScopeOption::Session => quote!(#krate::agent::Scope::Session),
        }
    }
}
