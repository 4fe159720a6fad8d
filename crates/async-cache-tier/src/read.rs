//! Reading single entries of a snapshot in use. A front decodes them. [`Opened`] has the rules.

use std::cell::RefCell;
use std::fmt::Display;
use std::sync::atomic::Ordering;

use async_cache_core::cold::Rank;
use async_cache_core::time::{Deadline, Stamp};
use async_cache_disk::Scratch;

use crate::host::{Host, NamedKey, Refusal};
use crate::opened::Opened;

/// Why an entry is lost whose record did not come back from the file.
pub(crate) const DAMAGED: &str = "its record is damaged or cannot be read";

/// The file's answer for a key.
pub(crate) enum ColdEntry<V> {
    /// Nothing that can be served; the rank, if there is a record.
    Absent(Option<Rank>),
    /// A value, as long as its rank is still cold.
    Found { rank: Rank, value: V, deadline: Deadline, stamp: Stamp },
}

impl Opened {
    /// The rank of a key, cold or not, for a caller that is about to write the key.
    pub(crate) fn rank<H: Host>(
        &self,
        host: &H,
        bytes: &[u8],
        is_key: impl FnOnce(&[u8]) -> bool,
    ) -> Option<Rank> {
        with_scratch(|scratch| {
            let rank = self.snapshot().locate(bytes, scratch);
            self.lose_all(host, scratch.lost());
            rank.filter(|_| is_key(bytes)) // Rule 3.
        })
    }

    /// Reads and decodes the entry of a key, if it is still cold and has not expired.
    ///
    /// # Errors
    /// An interrupt of the decoding: the entry stays cold.
    pub(crate) fn read<H: Host>(
        &self,
        host: &H,
        key: &impl NamedKey<H>,
        bytes: &[u8],
    ) -> Result<ColdEntry<H::Value>, H::Error> {
        // The look-up borrows nothing but the bytes while the user's code decodes.
        with_scratch(|scratch| {
            let Some(found) = self.snapshot().find(bytes, scratch) else {
                self.lose_all(host, scratch.lost());
                return Ok(ColdEntry::Absent(None));
            };
            if !key.is_key_of(host, bytes) {
                return Ok(ColdEntry::Absent(None)); // Rule 3.
            }
            let rank = found.rank;
            let is_settled = self.is_settled();
            if !is_settled || !self.cold().contains(rank) {
                return Ok(ColdEntry::Absent(Some(rank))); // Rule 5.
            }
            let deadline = self.clock.deadline_from_file(found.deadline);
            if host.has_passed(deadline) {
                self.expire(rank);
                return Ok(ColdEntry::Absent(Some(rank)));
            }
            let stamp = Stamp::from_file(found.written_at);
            match host.decode_value(found.value) {
                Ok(value) => Ok(ColdEntry::Found { rank, value, deadline, stamp }),
                Err(Refusal::End(error)) => Err(error),
                Err(Refusal::Entry(why)) => {
                    if self.cold().take(rank) {
                        self.report(host, &host.name_of(bytes, rank), &why);
                    }
                    Ok(ColdEntry::Absent(Some(rank)))
                }
            }
        })
    }

    /// Whether the file has a live entry under a key. The value is not decoded.
    pub(crate) fn contains<H: Host>(&self, host: &H, key: &impl NamedKey<H>, bytes: &[u8]) -> bool {
        with_scratch(|scratch| {
            let found = self.snapshot().find(bytes, scratch).map(|found| (found.rank, found.deadline));
            self.lose_all(host, scratch.lost());
            found.is_some_and(|(rank, deadline)| {
                key.is_key_of(host, bytes)
                    && self.is_settled()
                    && self.cold().contains(rank)
                    && !host.has_passed(self.clock.deadline_from_file(deadline))
            })
        })
    }

    /// Takes an entry out of the cold set that cannot be served (rule 4).
    pub(crate) fn lose<H: Host>(&self, host: &H, rank: Rank, why: &str) {
        if self.cold().take(rank) {
            self.report(host, &format!("entry {rank}"), why);
        }
    }

    fn lose_all<H: Host>(&self, host: &H, ranks: &[Rank]) {
        for &rank in ranks {
            self.lose(host, rank, DAMAGED);
        }
    }

    /// Counts an entry that cannot be served. The first one is reported.
    pub(crate) fn report<H: Host>(&self, host: &H, entry: &dyn Display, why: &str) {
        self.counts.undecodable.fetch_add(1, Ordering::Relaxed);
        if !self.is_reported.swap(true, Ordering::Relaxed) {
            let snapshot = self.snapshot();
            host.warn(&format!(
                "{}: {entry} cannot be served and counts as a miss: {why}; further ones are counted in {} only",
                snapshot.path().display(),
                H::UNDECODABLE,
            ));
        }
    }
}

thread_local! {
    /// One per thread. Taken out during use: decoding runs user code, which may come back here.
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

/// Runs `work` with this thread's buffers for look-ups. A thread that is ending may have dropped
/// them: if a destructor of another thread-local uses the cache, it gets new buffers.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    let mut scratch = SCRATCH.try_with(RefCell::take).ok().flatten().unwrap_or_default();
    let result = work(&mut scratch);
    let _ = SCRATCH.try_with(|place| place.replace(Some(scratch)));
    result
}
