//! Flushing a store. `rounds` has the rules of sharing a sync.
//!
//! Rules:
//! 1. The lock of the end is not held during a sync.
//! 2. A sync of files that were removed makes nothing durable: the folder is looked at first.
//! 3. [`DiskStore::flush_write`] reports a failed sync to the caller of each write that the failure
//!    concerns, however many calls came before.

use std::sync::Arc;

use super::segment::SegmentEnd;
use super::{DiskStore, StoreEnd, lock};
use crate::error::{DiskError, DiskErrorKind};

impl DiskStore {
    /// Makes every write that has returned durable: it survives a power loss from then on. The call
    /// returns after a sync that began after the call; callers on several threads share syncs.
    ///
    /// # Errors
    /// [`Io`](DiskErrorKind::Io) and [`Full`](DiskErrorKind::Full): nothing written since the last
    /// flush that succeeded is known to be durable, even if a later flush succeeds. For a single
    /// write, [`flush_write`](Self::flush_write) says whether it is durable.
    pub fn flush(&self) -> Result<(), DiskError> {
        self.refuse_fork()?;
        self.flushes.join(
            || self.sync_all(),
            || self.not_durable("the thread that synced the store for several callers has panicked"),
        )
    }

    /// Makes a write of this process durable. `time`: the time that the write has returned. In
    /// contrast to [`flush`](Self::flush), the call also fails if an earlier sync that concerns
    /// the write has failed, and another caller has got the error of that sync.
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush); the write is not known to be durable.
    pub fn flush_write(&self, time: u64) -> Result<(), DiskError> {
        self.flush()?;
        if lock(&self.end).durability.is_lost(time) {
            // Rule 3.
            return Err(self.not_durable("a sync has failed that concerns the write"));
        }
        Ok(())
    }

    /// Whether there are writes that a power loss may undo.
    pub fn is_dirty(&self) -> bool {
        let end = lock(&self.end);
        end.durability.is_unreported() || end.has_unsynced() || self.folder.is_unsettled()
    }

    /// Whether there may be something to flush, to [maintain](Self::maintain) or to
    /// [collect](Self::collect) before the next write. Reads no file.
    pub fn has_upkeep(&self) -> bool {
        let has_segments = !lock(&self.end).manifest.segments.is_empty();
        has_segments
            || !lock(&self.counts).is_counted()
            || self.is_dirty()
            || self.next_collection().is_some()
    }

    /// The sync of a round.
    fn sync_all(&self) -> Result<(), DiskError> {
        let (segment, latest) = {
            let end = lock(&self.end);
            (end.segment.as_ref().map(|segment| Arc::clone(segment.segment())), end.latest)
        };
        let settled = self.folder.refuse_replaced().and_then(|()| self.folder.settle());
        let Some(segment) = segment else { return settled };
        let synced = SegmentEnd::sync(&segment); // Rule 1.
        let mut end = lock(&self.end);
        let StoreEnd { segment: current, durability, latest: latest_now, .. } = &mut *end;
        let mut current = current.as_mut().filter(|current| current.segment().number == segment.number);
        match (synced, &mut current) {
            (Ok(until), Some(current)) => current.synced(until),
            (Ok(_), None) => {}
            (Err(error), current) => {
                if let Some(current) = current {
                    current.broke();
                }
                // Writes that came during the sync may be concerned, too.
                durability.failed(*latest_now);
                durability.take_unreported();
                return Err(DiskError::io("syncing a segment", &self.folder.path, error));
            }
        }
        settled?;
        if durability.take_unreported() {
            return Err(self.not_durable("a segment could not be synced"));
        }
        if current.is_some_and(|current| current.has_sync_failed()) {
            return Err(self.not_durable("an earlier sync of the segment has failed"));
        }
        durability.synced(latest);
        Ok(())
    }

    fn not_durable(&self, why: &str) -> DiskError {
        let what = format!("{why}: what was written before may not survive a power loss");
        DiskError::new(DiskErrorKind::Io, &self.folder.path, what)
    }
}
