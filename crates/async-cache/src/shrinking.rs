//! Entries saved by other processes and dropped by a save of this cache: they are counted, and a
//! warning is logged when a file becomes smaller than other processes want it.
//!
//! Rules:
//! 1. a save that joins a file counts the entries that it drops. A save that replaces the backup
//!    (saves that do not merge, backends of the user's own) drops the entries for which there was
//!    no room when the backup was loaded;
//! 2. caches with the same `maxsize` drop entries of each other in every save, as soon as there are
//!    more than that together. So there is a warning only if the backup had more entries than
//!    `maxsize`: another process wants to keep more;
//! 3. a single warning in the life of a cache; `Stats::dropped` counts all.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_cache_disk::Merged;

#[derive(Debug, Default)]
pub(crate) struct Shrinking {
    /// The number of entries of the loaded backup for which there was no room, until a save has
    /// dropped them.
    no_room: AtomicU64,
    is_told: AtomicBool,
}

impl Shrinking {
    /// A backup with so many entries was loaded.
    pub(crate) fn loaded(&self, entries: usize, maxsize: Option<usize>) {
        let no_room = maxsize.map_or(0, |maxsize| entries.saturating_sub(maxsize));
        self.no_room.store(no_room as u64, Ordering::Relaxed);
    }

    /// Everything was deleted, which is no want of room.
    pub(crate) fn cleared(&self) {
        self.no_room.store(0, Ordering::Relaxed);
    }

    /// Called when a save has replaced the backup; returns how many entries of others it dropped.
    pub(crate) fn replaced(&self, place: &dyn Display, maxsize: Option<usize>) -> u64 {
        let dropped = self.no_room.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            self.tell(place, dropped, maxsize);
        }
        dropped
    }

    /// Called when a save has joined a file; returns how many entries of others it dropped.
    pub(crate) fn merged(&self, place: &dyn Display, maxsize: Option<usize>, merged: &Merged) -> u64 {
        self.no_room.store(0, Ordering::Relaxed);
        if merged.dropped > 0 && maxsize.is_some_and(|maxsize| merged.found > maxsize as u64) {
            self.tell(place, merged.dropped, maxsize); // Rule 2.
        }
        if merged.unsure > 0 {
            tracing::warn!(
                "{place}: {} entries that other processes had saved are dropped: this one has deleted more keys since \
                 its last save than it remembers, and may have deleted these; save more often",
                merged.unsure
            );
        }
        merged.dropped + merged.unsure
    }

    fn tell(&self, place: &dyn Display, dropped: u64, maxsize: Option<usize>) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{place}: this save drops {dropped} entries that were there, for this cache's maxsize is {}, less than \
                 what others keep in it; give all caches of one backup the same maxsize (`Stats::dropped` counts \
                 further ones)",
                maxsize.unwrap_or(0)
            );
        }
    }
}
