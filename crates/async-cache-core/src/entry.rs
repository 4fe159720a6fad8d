//! Entries as they are read and written, and values as loads yield them.

use crate::cold::Rank;
use crate::time::{Deadline, Stamp};

/// The facts about an entry besides key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// When the entry stops being served.
    pub deadline: Deadline,
    /// When the entry was written, or the place of its record in a shard that keeps places;
    /// [`Stamp::UNKNOWN`] in a shard that keeps neither.
    pub stamp: Stamp,
    /// The rank of the record with this key in the opened snapshot, cold or not, if there is one.
    pub origin: Option<Rank>,
}

impl Meta {
    /// For a new entry, written at `stamp`: the shard knows its origin.
    pub const fn written_at(stamp: Stamp, deadline: Deadline) -> Self {
        Self { deadline, stamp, origin: None }
    }
}

/// An entry from a file or another tier, where it was written before.
#[derive(Debug)]
pub struct NewEntry<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
    /// The rest. When the entry is inserted, `origin` is replaced by the rank in the key's address.
    pub meta: Meta,
}

/// An entry, as read.
#[derive(Debug)]
pub struct Entry<'a, K, V> {
    /// The key.
    pub key: &'a K,
    /// The value.
    pub value: &'a V,
    /// The rest.
    pub meta: Meta,
}

/// The result of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched<V> {
    /// The value.
    pub value: V,
    /// When the value stops being served.
    pub deadline: Deadline,
    /// When the value was written, if the tier it comes from knows; not used for
    /// [`ValueSource::Loader`].
    pub stamp: Stamp,
    /// Where the value comes from.
    pub from: ValueSource,
}

impl<V> Fetched<V> {
    /// A value from the caller's loader. Its stamp is that of the beginning of the load, because
    /// the value may have been read from the origin that early.
    pub const fn loaded(value: V, deadline: Deadline) -> Self {
        Self { value, deadline, stamp: Stamp::UNKNOWN, from: ValueSource::Loader }
    }
}

/// The source of a loaded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// The caller's loader, and so the origin of the data.
    Loader,
    /// Another tier of the cache, where the value was written at the accompanying stamp.
    Tier,
}
