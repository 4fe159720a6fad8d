//! The extension types: the numbers of the file format, and one that no file has.

pub(crate) use async_cache_disk::values::*;

/// While a circle is looked at: one of its objects.
pub(super) const HOLE: i8 = 27;
