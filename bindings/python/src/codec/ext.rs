//! The extension types: the numbers of the file format, and one that no file has.

pub(crate) use async_cache_disk::values::*;

/// During the examination of a circle: one of its objects.
pub(super) const HOLE: i8 = 27;
