//! What a cache remembers of its own writes so that its saves can merge with those of other processes.
//!
//! Rules:
//! 1. whoever deletes or clears takes the time of it, and notes it here, under the shard's lock or all of them. So a
//!    write of the same key that comes after it has a later time;
//! 2. the lock of the tombstones is taken last, and nothing of the user's runs under it;
//! 3. what is loaded from the file undoes deletes that were not saved: so they are forgotten then.

use async_cache_disk::{KeyKind, Merged, Tombstones};
use parking_lot::Mutex;

/// There if the cache has a file that its saves merge with.
#[derive(Debug, Default)]
pub(crate) struct Sharing(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    tombstones: Tombstones,
    /// The file that was opened or saved last, if the cache has everything that is in it.
    holds: Option<[u8; 16]>,
}

impl Sharing {
    pub(crate) fn bury(&self, key: &[u8], time: u64) {
        self.0.lock().tombstones.delete(KeyKind::Canonical, key, time);
    }

    pub(crate) fn bury_all(&self, time: u64) {
        self.0.lock().tombstones.clear(time);
    }

    /// A file was opened.
    pub(crate) fn opened(&self, file_id: [u8; 16]) {
        *self.0.lock() = Known { tombstones: Tombstones::default(), holds: Some(file_id) };
    }

    /// The cache does not have all that is in the file that was opened, so the next save has to join it.
    pub(crate) fn holds_nothing(&self) {
        self.0.lock().holds = None;
    }

    /// What a save has to know.
    pub(crate) fn to_join(&self) -> (Tombstones, Option<[u8; 16]>) {
        let known = self.0.lock();
        (known.tombstones.clone(), known.holds)
    }

    /// A save that merged has ended.
    pub(crate) fn merged(&self, merged: &Merged) {
        let mut known = self.0.lock();
        known.tombstones.subtract(&merged.tombstones);
        known.holds = merged.holds;
    }
}
