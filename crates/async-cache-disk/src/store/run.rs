//! A run: the index of sealed segments (file format, section 15).
//!
//! Rules:
//! 1. A bucket that could not be read, or was invalid, counts as invalid for as long as the run is
//!    open: otherwise a deleted entry could return. It hides every key that is looked up in it.
//! 2. So does an invalid list of eager records, for all eager keys.
//! 3. A run is written front to back, from slots in the order of their homes, in constant memory:
//!    only the first buckets are held back, because the chains of the last buckets end there.
//! 4. Of the slots with one home, the latest is nearest to it.
//! 5. A run with an invalid bucket does not get a filter any more: a key that was hidden stays
//!    hidden.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::filter::{FilterRoom, RunFilter};
use crate::error::DiskError;
use crate::format::address::{MAX_CHAIN, bucket_count, chain};
use crate::format::checksum::Seal;
use crate::format::page::{PAGE_BYTES, page_items};
use crate::format::store::bucket::{EagerPlaces, RunBucket, RunSlot};
use crate::format::store::header::RunCounts;
use crate::format::store::{Hash40, StorePlace};
use crate::vfs::{Patience, ReadFailure, VfsFile, read_exact_at};

/// An open run.
#[derive(Debug)]
pub(super) struct IndexRun {
    pub(super) file: Box<dyn VfsFile>,
    pub(super) number: u32,
    pub(super) seal: Seal,
    pub(super) counts: RunCounts,
    /// Rule 1.
    invalid: Mutex<HashSet<u32>>,
    has_invalid: AtomicBool,
    io_errors: AtomicU32,
    /// Rule 2.
    is_eager_invalid: AtomicBool,
    filter: OnceLock<RunFilter>,
    /// How many look-ups have found nothing here, without a filter.
    vain: AtomicU32,
}

/// A filter takes as long to make as one look-up in vain for this many buckets: buckets in their
/// order are read faster.
const BUCKETS_OF_VAIN_LOOK_UP: u32 = 4;

/// The places of a hash in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InRun {
    /// Every record with the hash, the latest first.
    Places(Vec<StorePlace>),
    /// A bucket is invalid: nobody knows what is in the run.
    Hidden,
}

impl IndexRun {
    pub(super) fn new(file: Box<dyn VfsFile>, number: u32, seal: Seal, counts: RunCounts) -> Self {
        Self {
            file,
            number,
            seal,
            counts,
            invalid: Mutex::default(),
            has_invalid: AtomicBool::new(false),
            io_errors: AtomicU32::new(0),
            is_eager_invalid: AtomicBool::new(false),
            filter: OnceLock::new(),
            vain: AtomicU32::new(0),
        }
    }

    /// The run, with a filter of all its slots.
    pub(super) fn with_filter(self, filter: Option<RunFilter>) -> Self {
        Self { filter: filter.map_or_else(OnceLock::new, OnceLock::from), ..self }
    }

    /// Whether look-ups would be faster with a filter (rule 3 of `filter`).
    pub(super) fn is_filter_due(&self) -> bool {
        let vain = self.vain.load(Ordering::Relaxed);
        self.filter.get().is_none()
            && vain > self.counts.buckets / BUCKETS_OF_VAIN_LOOK_UP
            && !self.has_invalid_bucket()
    }

    /// Makes the filter. `false` if there is no room for it, or a bucket is invalid (rule 5).
    pub(super) fn make_filter(&self, room: &Arc<FilterRoom>) -> bool {
        let Some(mut filter) = RunFilter::for_slots(self.counts.slots, room) else { return false };
        let mut slots = self.slots();
        while let Some(bucket) = slots.next_bucket() {
            for slot in bucket {
                filter.insert(slot.hash);
            }
        }
        slots.invalid == 0 && !self.has_invalid_bucket() && self.filter.set(filter).is_ok()
    }

    /// The length of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.counts.eager_section(self.seal.tag_bytes()).end()
    }

    /// The places of the records whose keys have this hash.
    pub(super) fn find(&self, hash: Hash40) -> InRun {
        self.find_with(&Patience::unlimited(), hash)
    }

    /// The same, with limited patience: if a read would wait, nothing is known.
    pub(super) fn find_with(&self, patience: &Patience, hash: Hash40) -> InRun {
        let filter = self.filter.get();
        let mut places = Vec::new();
        if filter.is_some_and(|filter| !filter.may_hold(hash)) {
            return InRun::Places(places);
        }
        for bucket in chain(hash.home(self.counts.buckets), self.counts.buckets) {
            let mut page = [0; PAGE_BYTES];
            let Some(bucket) = self.bucket_with(patience, bucket, &mut page) else { return InRun::Hidden };
            places.extend(bucket.matching(hash).map(|slot| slot.place));
            if !bucket.overflowed() {
                break;
            }
        }
        if filter.is_none() && places.is_empty() {
            self.vain.fetch_add(1, Ordering::Relaxed);
        }
        places.sort_unstable_by(|a, b| b.cmp(a));
        InRun::Places(places)
    }

    /// Reads a bucket; `None` if it is invalid, for good (rule 1).
    pub(super) fn bucket<'p>(&self, number: u32, page: &'p mut [u8; PAGE_BYTES]) -> Option<RunBucket<'p>> {
        self.bucket_with(&Patience::unlimited(), number, page)
    }

    fn bucket_with<'p>(
        &self,
        patience: &Patience,
        number: u32,
        page: &'p mut [u8; PAGE_BYTES],
    ) -> Option<RunBucket<'p>> {
        let within = u64::from(number).checked_mul(PAGE_BYTES as u64)?;
        let offset = self.counts.bucket_section().offset.checked_add(within)?;
        let read = patience.read_exact_at(&*self.file, page, offset);
        if patience.would_wait() {
            return None;
        }
        let bucket = self.count_error(read).and_then(|()| RunBucket::open(self.seal, offset, page));
        // Not locked during the read: a look-up must not wait for the reads of others.
        if bucket.is_none() {
            self.invalid().insert(number);
            self.has_invalid.store(true, Ordering::Release);
        } else if self.has_invalid.load(Ordering::Acquire) && self.invalid().contains(&number) {
            return None;
        }
        bucket
    }

    fn count_error(&self, read: Result<(), ReadFailure>) -> Option<()> {
        if let Err(ReadFailure::Io(_)) = read {
            self.io_errors.fetch_add(1, Ordering::Relaxed);
        }
        read.ok()
    }

    /// Whether a bucket counts as invalid (rule 1).
    pub(super) fn has_invalid_bucket(&self) -> bool {
        self.has_invalid.load(Ordering::Acquire)
    }

    /// How many reads have failed with an error of the system.
    pub(super) fn io_errors(&self) -> u32 {
        self.io_errors.load(Ordering::Relaxed)
    }

    fn invalid(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.invalid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The places of all eager records; `None` if the list is invalid, for good (rule 2).
    pub(super) fn eager(&self) -> Option<EagerPlaces> {
        if self.is_eager_invalid.load(Ordering::Acquire) {
            return None;
        }
        let places = self.read_eager();
        self.is_eager_invalid.fetch_or(places.is_none(), Ordering::AcqRel);
        places
    }

    fn read_eager(&self) -> Option<EagerPlaces> {
        let section = self.counts.eager_section(self.seal.tag_bytes());
        if section.bytes == 0 {
            return Some(EagerPlaces::default());
        }
        let mut unit = vec![0; usize::try_from(section.bytes).ok()?];
        self.count_error(read_exact_at(&*self.file, &mut unit, section.offset))?;
        EagerPlaces::decode(self.seal, section.offset, &unit)
    }

    /// Walks all slots, in the order of their buckets.
    pub(super) fn slots(&self) -> RunSlots<'_> {
        RunSlots { run: self, next: 0, is_passed: false, invalid: 0 }
    }
}

/// The slots of a run.
pub(super) struct RunSlots<'r> {
    run: &'r IndexRun,
    next: u32,
    /// Whether slots may have passed the last bucket that was read.
    pub(super) is_passed: bool,
    /// How many buckets could not be read.
    pub(super) invalid: u32,
}

impl RunSlots<'_> {
    /// The slots of the next bucket; `None` at the end. An invalid bucket has none.
    pub(super) fn next_bucket(&mut self) -> Option<Vec<RunSlot>> {
        if self.next >= self.run.counts.buckets {
            return None;
        }
        let number = self.next;
        self.next = self.next.saturating_add(1);
        let mut page = [0; PAGE_BYTES];
        if let Some(bucket) = self.run.bucket(number, &mut page) {
            self.is_passed = bucket.overflowed();
            return Some(bucket.slots().collect());
        }
        self.is_passed = true;
        self.invalid = self.invalid.saturating_add(1);
        Some(Vec::new())
    }
}

/// Writes the buckets of a run. `slots` makes an iterator over all slots in the order of hashes,
/// and of one hash the latest first (rules 3 and 4); it is called again with more buckets if a
/// chain grew too long. `write` takes closed buckets and their numbers. Returns the number of
/// buckets; `None` if the slots fit into no number of buckets, because hundreds have one hash.
///
/// # Errors
/// Those of `write`.
pub(super) fn write_buckets<S: Iterator<Item = RunSlot>>(
    count: u32,
    seal: Seal,
    start: u64,
    mut slots: impl FnMut() -> S,
    mut write: impl FnMut(u32, &[u8; PAGE_BYTES]) -> Result<(), DiskError>,
) -> Result<Option<u32>, DiskError> {
    let first = bucket_count(count);
    let most = count.saturating_mul(2).max(first);
    let mut buckets = first;
    loop {
        let mut filling =
            FillingRun { buckets, capacity: page_items(seal.has_mac()), seal, start, held: Vec::new() };
        if filling.fill(slots(), &mut write)? {
            return Ok(Some(buckets));
        }
        if buckets >= most {
            return Ok(None);
        }
        buckets = buckets.saturating_mul(2).min(most);
    }
}

struct FillingRun {
    buckets: u32,
    capacity: u32,
    seal: Seal,
    start: u64,
    /// Rule 3: the first buckets, until the last bucket is full.
    held: Vec<[u8; PAGE_BYTES]>,
}

/// A slot that passed full buckets, and how many.
struct Passing {
    slot: RunSlot,
    passed: u32,
}

impl FillingRun {
    /// Whether every slot found a bucket.
    fn fill(
        &mut self,
        slots: impl Iterator<Item = RunSlot>,
        write: &mut impl FnMut(u32, &[u8; PAGE_BYTES]) -> Result<(), DiskError>,
    ) -> Result<bool, DiskError> {
        let mut slots = slots.peekable();
        let mut passing = Vec::<Passing>::new();
        let held = MAX_CHAIN.min(self.buckets);
        for number in 0..self.buckets {
            let mut page = [0; PAGE_BYTES];
            let mut waiting = std::mem::take(&mut passing);
            while let Some(slot) = slots.next_if(|slot| slot.hash.home(self.buckets) == number) {
                waiting.push(Passing { slot, passed: 0 });
            }
            if !self.put(&mut page, waiting, &mut passing) {
                return Ok(false);
            }
            if number < held {
                self.held.push(page);
            } else {
                self.close(number, &mut page);
                write(number, &page)?;
            }
        }
        if slots.next().is_some() || !self.wrap(passing) {
            return Ok(false);
        }
        for (number, mut page) in (0..).zip(std::mem::take(&mut self.held)) {
            self.close(number, &mut page);
            write(number, &page)?;
        }
        Ok(true)
    }

    /// Puts what fits into a bucket; the rest passes it. `false` if a chain grew too long.
    fn put(&self, page: &mut [u8; PAGE_BYTES], waiting: Vec<Passing>, passing: &mut Vec<Passing>) -> bool {
        for Passing { slot, passed } in waiting {
            if !slot.put(page, self.capacity) {
                let passed = passed.saturating_add(1);
                if passed >= MAX_CHAIN.min(self.buckets) {
                    return false;
                }
                passing.push(Passing { slot, passed });
            }
        }
        true
    }

    /// Puts the slots that passed the last bucket into the first ones.
    fn wrap(&mut self, mut passing: Vec<Passing>) -> bool {
        let mut held = std::mem::take(&mut self.held);
        for page in &mut held {
            let waiting = std::mem::take(&mut passing);
            if !self.put(page, waiting, &mut passing) {
                return false;
            }
        }
        self.held = held;
        passing.is_empty()
    }

    fn close(&self, number: u32, page: &mut [u8; PAGE_BYTES]) {
        let within = u64::from(number).saturating_mul(PAGE_BYTES as u64);
        self.seal.close(self.start.saturating_add(within), page);
    }
}

#[cfg(test)]
pub(super) mod tests;
