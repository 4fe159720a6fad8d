//! The name of a cached function, in messages and in its file.
//!
//! Owns the rule that two functions have different names unless the user names them alike: a file
//! is marked with the name, and entries of a function must never be served by another function, in
//! this process or in the next.
//!
//! | function | name |
//! |---|---|
//! | `name = "..."` | as given |
//! | free | the path of the type with its name, `shop::price`; in the body of another function the path too, `shop::main::price` |
//! | in an `impl` block of a generic type | as given, and the type: `Repository::row of shop::Repository<shop::User>` |

use std::any::type_name;
use std::fmt;

/// The name of a cached function.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub enum Name {
    /// As given by the user, or as made by a method of a generic type.
    Given(&'static str),
    /// The path of a type, from [`std::any::type_name`], which is no constant yet.
    Of(fn() -> &'static str),
}

impl Name {
    pub(crate) fn get(self) -> &'static str {
        match self {
            Self::Given(name) => name,
            Self::Of(path) => path(),
        }
    }

    /// The name of a method in an `impl` block of `T`. If the type is generic, the block has a
    /// method for each type, so the name includes the type. The name is made once for each type,
    /// and kept for ever, like the type's cache.
    pub(super) fn of_method<T: ?Sized>(self) -> Self {
        let (name, path) = (self.get(), type_name::<T>());
        if !path.contains('<') {
            return self;
        }
        Self::Given(Box::leak(format!("{name} of {path}").into_boxed_str()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.get(), f)
    }
}
