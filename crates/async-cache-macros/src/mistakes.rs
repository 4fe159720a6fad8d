//! The mistakes of a user, collected so that the compiler reports all of them at once.

/// Several mistakes, reported together.
#[derive(Default)]
pub(crate) struct Mistakes(Option<syn::Error>);

impl Mistakes {
    pub(crate) fn add(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            none => *none = Some(error),
        }
    }

    pub(crate) fn at(&mut self, place: impl quote::ToTokens, message: impl std::fmt::Display) {
        self.add(syn::Error::new_spanned(place, message));
    }

    pub(crate) fn none_or_error(self) -> syn::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}
