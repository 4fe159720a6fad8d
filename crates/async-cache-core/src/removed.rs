//! Keys and values that left a shard, and the causes.
//!
//! Dropping a key or a value runs user code. So a shard drops none: it returns them, and the front
//! drops them where no lock and no borrow of the cache is held.

use crate::time::Stamp;

/// Why a value left, or never came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Another value was written under its key.
    Replaced,
    /// Its key was deleted.
    Deleted,
    /// The entry made room for another entry.
    Evicted,
    /// Its deadline has passed.
    Expired,
    /// The value was not stored: its deadline had passed when it was written, or the cache holds
    /// nothing.
    Refused,
    /// The value was loaded, and not stored: its key was written, deleted or cleared during the
    /// load.
    Fenced,
}

/// A value that left.
#[derive(Debug)]
pub struct Departed<K, V> {
    /// Its key. `None` if the key stays: under another value, or as a [lost write](crate::ledger).
    pub key: Option<K>,
    /// The value.
    pub value: V,
    /// The cause.
    pub cause: Cause,
    /// The stamp of an entry that was evicted, expired, or removed by its hash; else
    /// [`Stamp::UNKNOWN`].
    pub stamp: Stamp,
}

/// Keys and values that left a shard. Drop them where no lock and no borrow of the cache is held. A
/// single value costs no allocation.
#[derive(Debug)]
#[must_use = "drop it where no lock and no borrow of the cache is held"]
pub struct Removed<K, V> {
    first: Option<Departed<K, V>>,
    more: Vec<Departed<K, V>>,
    /// Keys of lost writes that were dropped from a full list.
    pub(crate) forgotten: Vec<K>,
}

impl<K, V> Default for Removed<K, V> {
    fn default() -> Self {
        Self { first: None, more: Vec::new(), forgotten: Vec::new() }
    }
}

impl<K, V> Removed<K, V> {
    /// The number of values that left.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// Whether no value left.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The values that left, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Departed<K, V>> {
        self.first.iter().chain(&self.more)
    }

    /// The values that left, in order.
    pub fn into_entries(self) -> impl Iterator<Item = Departed<K, V>> {
        self.first.into_iter().chain(self.more)
    }

    pub(crate) fn push(&mut self, key: Option<K>, value: V, cause: Cause) {
        self.push_stamped(key, value, cause, Stamp::UNKNOWN);
    }

    pub(crate) fn push_stamped(&mut self, key: Option<K>, value: V, cause: Cause, stamp: Stamp) {
        let departed = Departed { key, value, cause, stamp };
        match self.first {
            None => self.first = Some(departed),
            Some(_) => self.more.push(departed),
        }
    }
}
