//! The expansion of a method, and of an associated function without `self`: items in the user's own
//! `impl` block, prefixed by the method's name.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{FnArg, ItemFn};

use super::Expansion;
use crate::hygiene::local;

impl Expansion<'_> {
    pub(super) fn method(&self) -> TokenStream {
        let ItemFn { attrs, vis, sig, .. } = &self.cacheable.function;
        let (name, krate, output) = (&sig.ident, &self.krate, &self.output);
        let (lifetimes, _, bounds) = sig.generics.split_for_impl();
        let (key, value) = (&self.key.ty, &self.value);
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
