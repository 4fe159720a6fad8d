//! The expression of a key: how the arguments of a call become the key of its entry.
//!
//! Decides the arguments that are part of the key, the type of the key, and its form in a look-up.
//! For the arguments `id: u64, name: &str`:
//!
//! | option | parts | type | form in a look-up |
//! |---|---|---|---|
//! | none | all arguments | `(u64, String)` | `(&id, name)` |
//! | `key = id` | the named arguments | `u64` | `&id` |
//! | `key: T = f(id)` | the arguments in the expression | `T` | `&key`, after `let key: T = f(id)` |
//!
//! A look-up of the first two forms borrows the arguments, so a hit clones none of them. The
//! expression of the third form sees references to the arguments, so it cannot move them.
//!
//! Knows the option `key` and the arguments; knows neither the cache nor the load.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Expr, Type};

use crate::hygiene::local;
use crate::mentions::mentions;
use crate::options::Key;
use crate::signature::Argument;

pub(crate) struct KeyExpression<'a> {
    /// The arguments that make the key.
    pub(crate) parts: Vec<&'a Argument>,
    /// The type of the key.
    pub(crate) ty: TokenStream,
    /// The key's type and its expression, if the attribute contains them.
    made: Option<(&'a Type, &'a Expr)>,
}

impl<'a> KeyExpression<'a> {
    pub(crate) fn new(option: Option<&'a Key>, arguments: &'a [Argument], krate: &TokenStream) -> Self {
        let parts: Vec<_> = match option {
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
        let made = match option {
            Some(Key::Made(ty, expression)) => Some((&**ty, expression)),
            _ => None,
        };
        let ty = match made {
            Some((ty, _)) => quote!(#ty),
            None => one_or_tuple(parts.iter().map(|part| owned_type(krate, part)).collect()),
        };
        Self { parts, ty, made }
    }

    /// The key of a call in its form for a look-up, and the statements that must precede it.
    pub(crate) fn lookup(&self) -> (TokenStream, TokenStream) {
        if let Some((ty, expression)) = self.made {
            let references = references(&self.parts);
            let key = local("key");
            return (quote!(let #key: #ty = { #references #expression };), quote!(&#key));
        }
        (TokenStream::new(), one_or_tuple(self.parts.iter().map(|part| part.lent()).collect()))
    }

    /// As [`KeyExpression::lookup`], where the arguments are the parameters of
    /// [`KeyExpression::part_parameters`], so references already.
    pub(crate) fn lookup_of_references(&self) -> (TokenStream, TokenStream) {
        if let Some((ty, expression)) = self.made {
            let key = local("key");
            return (quote!(let #key: #ty = #expression;), quote!(&#key));
        }
        let names = self.parts.iter().map(|part| part.name.to_token_stream());
        (TokenStream::new(), one_or_tuple(names.collect()))
    }

    /// `name: type` of the key's arguments, by reference.
    pub(crate) fn part_parameters(&self) -> Vec<TokenStream> {
        let parameter = |part: &&Argument| {
            let (name, target) = (&part.name, &part.target);
            quote!(#name: &#target)
        };
        self.parts.iter().map(parameter).collect()
    }

    /// Whether a look-up borrows the argument.
    pub(crate) fn borrows(&self, argument: &Argument) -> bool {
        self.made.is_none() && self.parts.iter().any(|part| part.name == argument.name)
    }

    /// Statements that compile only if each part can be a key, each placed at the part's type.
    pub(crate) fn checks(&self, krate: &TokenStream) -> TokenStream {
        let parts = self.parts.iter().filter(|_| self.made.is_none());
        let checks = parts.map(|part| {
            let target = &part.target;
            quote_spanned!(target.span()=> #krate::__private::can_be_a_key::<#target>();)
        });
        checks.collect()
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
