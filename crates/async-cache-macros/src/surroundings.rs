//! Whether a function without `self` stands in an `impl` block.
//!
//! An attribute sees its function and nothing around it, but the items permitted beside a function
//! differ between an `impl` block and a module. This file owns the answer, determined in this
//! order:
//! 1. yes, if the attribute says `associated`;
//! 2. yes, if the function names `Self`, which has no meaning elsewhere;
//! 3. as in the source file, if the function is found there. A function written by a macro is not
//!    found, and is treated as a free function.
//!
//! A file is parsed once for each compilation, and only if it contains functions without `self`.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;

use proc_macro2::{Ident, Span};
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{Block, ItemFn, Signature};

use crate::mentions::mentions;

pub(crate) fn is_associated(function: &ItemFn) -> bool {
    names_self(function)
        || Functions::around(function).is_some_and(|functions| functions.have_in_impl(function))
}

fn names_self(function: &ItemFn) -> bool {
    /// Skips items in the body, because their `Self` is a different type.
    struct Names(bool);
    impl Visit<'_> for Names {
        fn visit_item(&mut self, _: &syn::Item) {}

        fn visit_path(&mut self, path: &syn::Path) {
            self.0 |= path.segments.first().is_some_and(|first| first.ident == "Self");
            visit::visit_path(self, path);
        }

        fn visit_macro(&mut self, call: &syn::Macro) {
            self.0 |= mentions(call.tokens.clone(), &Ident::new("Self", Span::call_site()));
        }
    }
    let mut names = Names(false);
    names.visit_signature(&function.sig);
    names.visit_block(&function.block);
    names.0
}

/// The functions of a file, as text without white space: a signature, and a signature with its
/// body.
#[derive(Default)]
struct Functions {
    in_impls: HashSet<String>,
    elsewhere: HashSet<String>,
}

/// A file as it was when it was parsed, and its functions.
type Parsed = (String, Rc<Functions>);

thread_local! {
    static FILES: RefCell<HashMap<PathBuf, Parsed>> = RefCell::default();
}

impl Functions {
    /// The functions of the file that contains a given function.
    fn around(function: &ItemFn) -> Option<Rc<Self>> {
        let path = function.sig.ident.span().unwrap().local_file()?;
        let text = std::fs::read_to_string(&path).ok()?;
        FILES.with_borrow_mut(|files| {
            if let Some((known, functions)) = files.get(&path)
                && *known == text
            {
                return Some(Rc::clone(functions));
            }
            let mut functions = Self::default();
            functions.visit_file(&syn::parse_file(&text).ok()?);
            let functions = Rc::new(functions);
            files.insert(path, (text, Rc::clone(&functions)));
            Some(functions)
        })
    }

    fn have_in_impl(&self, function: &ItemFn) -> bool {
        let (signature, whole) = texts(&function.sig, &function.block);
        // The body counts only if the signature does not distinguish the two.
        self.in_impls.contains(&signature)
            && (!self.elsewhere.contains(&signature)
                || self.in_impls.contains(&whole) && !self.elsewhere.contains(&whole))
    }
}

fn texts(signature: &Signature, block: &Block) -> (String, String) {
    let text = |tokens: proc_macro2::TokenStream| tokens.to_string().split_whitespace().collect::<String>();
    let signature = text(signature.to_token_stream());
    let whole = format!("{signature}{}", text(block.to_token_stream()));
    (signature, whole)
}

impl<'a> Visit<'a> for Functions {
    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        self.in_impls.extend(<[String; 2]>::from(texts(&function.sig, &function.block)));
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_item_fn(&mut self, function: &'a ItemFn) {
        self.elsewhere.extend(<[String; 2]>::from(texts(&function.sig, &function.block)));
        visit::visit_item_fn(self, function);
    }
}
