//! Reading all entries in order, with large reads.
//!
//! States:
//! 1. **Counting**: every record is an entry, each begins at the end of the previous record, and
//!    ranks are counted. Holds as long as every passed record, wanted or not, verified. (An
//!    unverified length could lead to a later record, whose rank would then be miscounted.)
//! 2. **By the index**: from the first invalid record on, or from the start if the file holds
//!    records that are no entries, offsets and ranks come from the index, which is read once for
//!    this. Entries that no valid bucket names are lost.
//!
//! The walk never returns from 2 to 1.

use std::fmt;

use super::lookup::Scratch;
use super::opened::Snapshot;
use super::source::{Item, Loss, Record, Source};
use super::window::{Loaded, Reader};
use crate::format::page::Page;

/// Ranks and their offsets, as named by the index. Memory: 16 bytes for each.
struct Named {
    /// Ascending by rank.
    places: Vec<(u32, u64)>,
    /// Elements before this index have lower ranks than all future requests.
    next: usize,
}

impl Named {
    /// The offset of a rank. Ranks are requested in ascending order. If two buckets name the rank,
    /// the latter counts.
    fn offset(&mut self, rank: u32) -> Option<u64> {
        let mut found = None;
        while let Some((named, offset)) = self.places.get(self.next).filter(|(named, _)| *named <= rank) {
            found = (*named == rank).then_some(*offset);
            self.next = self.next.saturating_add(1);
        }
        found
    }

    /// The first named rank from this rank on. No lower rank is requested from now on.
    fn next_from(&mut self, rank: u32) -> Option<u32> {
        loop {
            match self.places.get(self.next) {
                Some((named, _)) if *named < rank => self.next = self.next.saturating_add(1),
                place => return place.map(|(named, _)| *named),
            }
        }
    }
}

/// Goes through all entries, coldest first. Made by [`Snapshot::records`]. It owns its snapshot, so
/// it can be kept between calls; a call reads about 1 MiB or a record, whichever is larger.
pub struct Records {
    reader: Reader,
    next_rank: u32,
    /// Counting: where the next record begins.
    next_offset: u64,
    /// State 2: the ranks named by the index, with their offsets.
    named: Option<Named>,
    scratch: Scratch,
}

impl Snapshot {
    /// Reads all entries from the coldest to the most recently used.
    pub fn records(&self) -> Records {
        Records::new(self.clone())
    }
}

impl Records {
    fn new(snapshot: Snapshot) -> Self {
        let next_offset = snapshot.header().record_section.offset;
        let mut records = Self {
            next_rank: 0,
            next_offset,
            named: None,
            scratch: Scratch::new(),
            reader: Reader::new(snapshot),
        };
        let header = records.reader.snapshot.header();
        if header.records != header.entries {
            records.go_by_the_index();
        }
        records
    }

    /// The next entry with a wanted rank, or the loss of it; `None` at the end. Unwanted entries
    /// are passed silently. Each rank is passed to `wanted` once, in ascending order.
    pub fn next_wanted(&mut self, mut wanted: impl FnMut(u32) -> bool) -> Option<Item<'_>> {
        while self.next_rank < self.reader.snapshot.header().entries {
            let rank = self.next_rank;
            self.next_rank = rank.saturating_add(1);
            let known = self.reader.snapshot.known_rank(rank);
            let want = known.is_some_and(&mut wanted);
            if !want && self.named.is_some() {
                continue;
            }
            let loaded = self.load_rank(rank);
            if let Some(known) = known.filter(|_| want) {
                return Some(self.step(rank, known, loaded));
            }
        }
        None
    }

    /// Every entry of a lower rank was passed.
    pub(crate) fn next_rank(&self) -> u32 {
        self.next_rank
    }

    fn load_rank(&mut self, rank: u32) -> Option<Loaded> {
        let section = self.reader.snapshot.header().record_section;
        if self.named.is_none() {
            if let Some(loaded) = self.reader.load(section, self.next_offset) {
                self.next_offset = self.next_offset.saturating_add(loaded.total());
                return Some(loaded);
            }
            self.go_by_the_index();
        }
        let offset = self.named.as_mut()?.offset(rank)?;
        let loaded = self.reader.load(section, offset);
        if loaded.is_none() {
            self.reader.snapshot.damage_log().count_record();
        }
        loaded
    }

    /// `rank` is the rank in the file, `known` the rank known to the user.
    fn step(&mut self, rank: u32, known: u32, loaded: Option<Loaded>) -> Item<'_> {
        let Self { reader: Reader { snapshot, window, decompressor }, scratch, .. } = self;
        let was_loaded = loaded.is_some();
        let record = loaded.and_then(|loaded| {
            Record::of(snapshot, Some(known), &loaded.layout, window.get(&loaded)?, decompressor)
        });
        if was_loaded && record.is_none() {
            snapshot.damage_log().count_record(); // its value does not decompress
        }
        match record {
            Some(record) if snapshot.is_visible(record.key, rank, scratch) => Item::Entry(record),
            _ => Item::Lost(Loss::Entry { rank: known }),
        }
    }

    fn go_by_the_index(&mut self) {
        let snapshot = &self.reader.snapshot;
        let mut places = Vec::new(); // Rule 4 of the module: grows as slots are seen.
        snapshot.each_bucket(|_, page| {
            let slots = page.into_iter().flat_map(Page::slots);
            places.extend(
                slots
                    .filter(|slot| slot.rank < snapshot.header().entries)
                    .map(|slot| (slot.rank, slot.offset)),
            );
        });
        places.sort_by_key(|(rank, _)| *rank); // stable, see `Named::offset`
        self.named = Some(Named { places, next: 0 });
    }
}

impl Source for Records {
    fn next(&mut self) -> Option<Item<'_>> {
        self.next_wanted(|_| true)
    }

    fn skip_lost(&mut self) -> u32 {
        let next_rank = self.next_rank;
        let Some(named) = &mut self.named else { return 0 };
        let entries = self.reader.snapshot.header().entries;
        let next_named = named.next_from(next_rank).unwrap_or(entries);
        self.next_rank = next_named.max(next_rank);
        self.next_rank.saturating_sub(next_rank)
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Records");
        debug
            .field("snapshot", &self.reader.snapshot)
            .field("next_rank", &self.next_rank)
            .finish_non_exhaustive()
    }
}
