//! Hygiene: every variable of an expansion is made by [`local`], so it cannot collide with an
//! argument of the user.

use proc_macro2::{Ident, Span};

/// A variable of the expansion, distinct from a user's variable of the same name.
pub(crate) fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}
