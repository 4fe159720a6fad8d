//! What a cache remembers of its own writes so that its saves can merge with those of other processes.
//!
//! Rules:
//! 1. whoever deletes or clears takes the time of it, and notes it here, under the shard's lock or all of them. So a
//!    write of the same key that comes after it has a later time;
//! 2. the lock of the tombstones is taken last, and nothing of the user's runs under it;
//! 3. what is loaded from the file undoes deletes that were not saved before the load began: so they are forgotten then.
//!    Those that come in between are applied to what was loaded;
//! 4. what was lost (see `async_cache_core::ledger`) is noted here when a save or a load begins, beside the deletes.

use async_cache_disk::{KeyKind, Known, Merged, Tombstones};
use parking_lot::Mutex;

/// There if the cache has a file that its saves merge with.
#[derive(Debug, Default)]
pub(crate) struct Sharing(Mutex<Known>);

impl Sharing {
    pub(crate) fn bury(&self, key: &[u8], time: u64) {
        self.0.lock().tombstones.delete(KeyKind::Canonical, key, time);
    }

    pub(crate) fn bury_all(&self, time: u64) {
        self.0.lock().tombstones.clear(time);
    }

    /// Others may have something older of a key than `time`, which was lost here.
    pub(crate) fn overwrite(&self, key: &[u8], time: u64) {
        self.0.lock().tombstones.overwrite(KeyKind::Canonical, key, time);
    }

    /// What is known now: for [`Sharing::opened`].
    pub(crate) fn known(&self) -> Tombstones {
        self.0.lock().tombstones.clone()
    }

    /// A file was opened; `before` was known when that began, `holds` is the file if the cache has all that is in it. What
    /// was deleted since.
    pub(crate) fn opened(&self, holds: Option<[u8; 16]>, before: &Tombstones) -> Tombstones {
        let mut known = self.0.lock();
        known.tombstones = std::mem::take(&mut known.tombstones).since(before);
        known.learned.opened(holds);
        known.tombstones.clone()
    }

    /// Whether an entry was deleted or overwritten since the file was opened.
    pub(crate) fn is_deleted(&self, key: &[u8], written_at: u64) -> bool {
        self.0.lock().tombstones.covers(KeyKind::Canonical, key, written_at)
    }

    /// The cache does not have all that is in the file that was opened, so the next save has to join it.
    pub(crate) fn holds_nothing(&self) {
        self.0.lock().learned.opened(None);
    }

    /// What a save has to know.
    pub(crate) fn to_join(&self) -> Known {
        self.0.lock().clone()
    }

    /// A save that merged has ended.
    pub(crate) fn merged(&self, merged: &Merged) {
        let mut known = self.0.lock();
        known.tombstones.subtract(&merged.tombstones);
        known.learned = merged.learned.clone();
    }
}
