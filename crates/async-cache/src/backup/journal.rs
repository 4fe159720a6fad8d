//! The options of a journal.

use std::time::Duration;

/// The shortest time between two syncs.
const SHORTEST: Duration = Duration::from_millis(1);

/// A journal beside the file of a cache, in the folder `<path>.d`: every write is on file when its
/// call returns, so it survives a crash of the process. For
/// [`DiskBackend::journal`](crate::DiskBackend::journal).
///
/// - **A crash of the process**, `kill -9` included, loses nothing.
/// - **A power loss**, or a crash of the system, loses at most the writes of the last
///   [`flush_every`](Self::flush_every) before it. What is left is what was written first: no write
///   without the earlier ones. [`AsyncCache::flush`](crate::AsyncCache::flush) waits until
///   everything is durable.
/// - **A save** is a flush, and takes as long as syncing what was written since the last one.
/// - **When the last handle is dropped**, a cache with less than 64 MiB is folded into the file at
///   the path, and the folder is removed. The thread that drops it waits for that.
/// - **A write that does not reach the disk** (a full disk) is in memory all the same, and is
///   counted in [`Stats::write_errors`](crate::Stats::write_errors); the first one is logged. What
///   a failed delete has deleted does not come back.
/// - **One process at a time** has the journal. Another process that opens the path gets the file
///   without the journal, and a warning; its saves merge into the file, as without a journal.
///
/// The journal has the same trust, secret and version as the file.
#[derive(Clone, Debug)]
pub struct Journal {
    pub(crate) flush_every: Duration,
    pub(crate) disk_bytes: Option<u64>,
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journal {
    /// A journal that is synced every second, for as many entries as the cache may have.
    pub fn new() -> Self {
        Self { flush_every: Duration::from_secs(1), disk_bytes: None }
    }

    /// Syncs at this interval if there is something to sync, on a thread of its own. At least a
    /// millisecond. Default: a second.
    #[must_use]
    pub fn flush_every(mut self, interval: Duration) -> Self {
        self.flush_every = interval.max(SHORTEST);
        self
    }

    /// Gives the disk a limit of its own, in bytes. Then [`maxsize`](crate::Builder::maxsize)
    /// limits memory only: an entry that leaves memory stays on the disk, and its next request
    /// reads it back, until the disk needs its room. The oldest entries make room, except those
    /// in memory, and those that were read from the disk some time after they were written. The
    /// files may exceed the limit by a segment, 8 MiB. Default: the disk holds no more entries than
    /// `maxsize`.
    #[must_use]
    pub fn disk_bytes(mut self, bytes: u64) -> Self {
        self.disk_bytes = Some(bytes);
        self
    }
}
