//! The expansion of a free function: the function, and the `enum` with its associated functions.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ItemFn;

use super::{Expansion, is_lint};
use crate::hygiene::local;

impl Expansion<'_> {
    pub(super) fn free_function(&self) -> TokenStream {
        let ItemFn { attrs, vis, sig, .. } = &self.cacheable.function;
        let name = &sig.ident;
        let cfgs: Vec<_> = attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect();
        let lints: Vec<_> = attrs.iter().filter(|attribute| is_lint(attribute)).collect();
        let check = self.check(&cfgs);
        let decorated = self.decorated_function();
        let title = format!("The cache of the function [`{name}`](fn@{name}), and what can be done with it.");
        let (of_entries, of_metrics, of_backup) = (self.of_entries(), self.of_metrics(), self.of_backup());
        let (static_cache, of_functions) = (self.static_cache(), self.of_functions());
        let load = self.load();
        // The checks come first, so that their compiler errors come first.
        quote! {
            #check

            #decorated

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
                #of_entries
                #of_metrics
                #of_backup
                #static_cache
                #of_functions
                #load
            }
        }
    }

    /// The function that asks the cache.
    fn decorated_function(&self) -> TokenStream {
        let ItemFn { attrs, vis, sig, .. } = &self.cacheable.function;
        let (name, output) = (&sig.ident, &self.output);
        let (lifetimes, _, bounds) = sig.generics.split_for_impl();
        let attrs = attrs.iter().filter(|attribute| !attribute.path().is_ident("expect"));
        let (parameters, names, asked) = (self.parameters(), self.names(), local("asked"));
        let ask = self.ask(&quote!(#name::function()), &quote!(#name::miss(#asked, #(#names),*)));
        quote! {
            #(#attrs)*
            #[allow(clippy::used_underscore_binding)]
            #vis async fn #name #lifetimes (#(#parameters),*) -> #output #bounds {
                #ask
            }
        }
    }

    /// Items that change entries.
    fn of_entries(&self) -> TokenStream {
        let ItemFn { vis, sig, .. } = &self.cacheable.function;
        let output = &self.output;
        let (lifetimes, _, bounds) = sig.generics.split_for_impl();
        let part_parameters = self.key.part_parameters();
        let (make_key, lookup) = self.key.lookup_of_references();
        let (parameters, names, asked) = (self.parameters(), self.names(), local("asked"));
        let refresh = self.refresh(&quote!(Self::function()), &quote!(Self::miss(#asked, #(#names),*)));
        quote! {
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
        }
    }

    /// Items that read counters.
    fn of_metrics(&self) -> TokenStream {
        let (krate, vis) = (&self.krate, &self.cacheable.function.vis);
        let metrics = if self.options.is_tool() { quote!(agent::AgentMetrics) } else { quote!(Metrics) };
        quote! {
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
        }
    }

    /// Items that open, save and load the backup.
    fn of_backup(&self) -> TokenStream {
        let (krate, vis) = (&self.krate, &self.cacheable.function.vis);
        quote! {
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
        }
    }

    /// The item that contains the static cache.
    fn static_cache(&self) -> TokenStream {
        let vis = &self.cacheable.function.vis;
        let (function_type, function) = (self.function_type(), self.function());
        quote! {
            #[doc(hidden)]
            #[must_use]
            #vis fn function() -> &'static #function_type {
                #function
            }
        }
    }

    /// Items of plain functions only, not of tools: the cache itself, and single entries for
    /// `#[invalidates]`.
    fn of_functions(&self) -> Option<TokenStream> {
        if self.options.is_tool() {
            return None;
        }
        let (krate, key, value) = (&self.krate, &self.key.ty, &self.value);
        let vis = &self.cacheable.function.vis;
        let part_parameters = self.key.part_parameters();
        let part_names: Vec<_> = self.key.parts.iter().map(|part| &part.name).collect();
        let part_targets: Vec<_> = self.key.parts.iter().map(|part| &part.target).collect();
        let part_types: Vec<_> =
            (0..self.key.parts.len()).map(|number| format_ident!("AsyncCacheArgument{number}")).collect();
        let arity = self.key.parts.len();
        let (make_key, lookup) = self.key.lookup_of_references();
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

    /// The item for a call that memory cannot answer, and the function as the user wrote it.
    fn load(&self) -> TokenStream {
        let sig = &self.cacheable.function.sig;
        let (krate, output) = (&self.krate, &self.output);
        let (lifetimes, _, bounds) = sig.generics.split_for_impl();
        let (parameters, asked) = (self.parameters(), local("asked"));
        let miss = self.miss(&quote!(Self::function()), &quote!(Self::origin), &asked);
        let origin = self.origin(&format_ident!("origin", span = sig.ident.span()));
        quote! {
            async fn miss #lifetimes (#asked: #krate::__private::MissedCall, #(#parameters),*) -> #output #bounds {
                #miss
            }

            #origin
        }
    }
}
