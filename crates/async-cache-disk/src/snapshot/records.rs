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

use super::unpack::{Stored, unpack};
use super::window::{Loaded, Window};
use super::{Scratch, Snapshot};
use crate::compress::Decompressor;
use crate::format::page::Page;
use crate::format::record::RecordLayout;

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
    snapshot: Snapshot,
    next_rank: u32,
    /// Counting: where the next record begins.
    next_offset: u64,
    /// State 2: the ranks named by the index, with their offsets.
    named: Option<Named>,
    window: Window,
    decompressor: Decompressor,
    scratch: Scratch,
}

/// The result of [`Records::next_wanted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'r> {
    /// An entry.
    Record(Record<'r>),
    /// An entry that could not be read or verified, or that a look-up could not have found.
    Lost {
        /// The rank of the entry.
        rank: u32,
    },
}

/// An entry that was read and verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'r> {
    /// Its place in the order of use; 0 is the coldest.
    pub rank: u32,
    /// The deadline, in nanoseconds since the Unix epoch by the clock that wrote the file; `None`:
    /// never expires.
    pub deadline: Option<u64>,
    /// The time of writing, by the same clock, if the file has it.
    pub written_at: Option<u64>,
    /// The key's bytes.
    pub key: &'r [u8],
    /// The value's bytes.
    pub value: &'r [u8],
    /// The record as stored in its file, for copying.
    pub(crate) stored: Stored<'r>,
}

impl<'r> Record<'r> {
    /// The record in these bytes, which verified; `None` if its value does not decompress.
    pub(super) fn of(
        snapshot: &'r Snapshot,
        rank: u32,
        layout: &RecordLayout,
        bytes: &'r [u8],
        decompressor: &'r mut Decompressor,
    ) -> Option<Self> {
        Some(Self {
            rank,
            deadline: layout.deadline,
            written_at: layout.written_at,
            key: bytes.get(layout.key.clone())?,
            value: unpack(snapshot, layout, bytes, decompressor)?,
            stored: Stored::new(snapshot, layout, bytes)?,
        })
    }
}

impl Records {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        let next_offset = snapshot.header().record_section.offset;
        let mut records = Self {
            next_rank: 0,
            next_offset,
            named: None,
            window: Window::new(),
            decompressor: Decompressor::default(),
            scratch: Scratch::new(),
            snapshot,
        };
        if records.snapshot.header().records != records.snapshot.header().entries {
            records.go_by_the_index();
        }
        records
    }

    /// The next entry, or [`Step::Lost`] for it; `None` at the end.
    pub fn next_step(&mut self) -> Option<Step<'_>> {
        self.next_wanted(|_| true)
    }

    /// The next entry with a wanted rank, or [`Step::Lost`] for it; `None` at the end. Unwanted
    /// entries are passed silently. Each rank is passed to `wanted` once, in ascending order.
    pub fn next_wanted(&mut self, mut wanted: impl FnMut(u32) -> bool) -> Option<Step<'_>> {
        while self.next_rank < self.snapshot.header().entries {
            let rank = self.next_rank;
            self.next_rank = rank.saturating_add(1);
            let known = self.snapshot.known_rank(rank);
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

    /// Passes the entries that follow and are lost because no bucket names them, and returns their
    /// number. A header may count billions of entries that do not exist; a caller that goes through
    /// all entries calls this after a loss, so that its time depends only on the entries that
    /// exist.
    pub fn skip_lost(&mut self) -> u32 {
        let next_rank = self.next_rank;
        let Some(named) = &mut self.named else { return 0 };
        let entries = self.snapshot.header().entries;
        let next_named = named.next_from(next_rank).unwrap_or(entries);
        self.next_rank = next_named.max(next_rank);
        self.next_rank.saturating_sub(next_rank)
    }

    fn load_rank(&mut self, rank: u32) -> Option<Loaded> {
        let section = self.snapshot.header().record_section;
        if self.named.is_none() {
            if let Some(loaded) = self.window.load(&self.snapshot, section, self.next_offset) {
                self.next_offset = self.next_offset.saturating_add(loaded.total());
                return Some(loaded);
            }
            self.go_by_the_index();
        }
        let offset = self.named.as_mut()?.offset(rank)?;
        let loaded = self.window.load(&self.snapshot, section, offset);
        if loaded.is_none() {
            self.snapshot.0.damage.record();
        }
        loaded
    }

    /// `rank` is the rank in the file, `known` the rank known to the user.
    fn step(&mut self, rank: u32, known: u32, loaded: Option<Loaded>) -> Step<'_> {
        let Self { window, snapshot, decompressor, scratch, .. } = self;
        let was_loaded = loaded.is_some();
        let record = loaded.and_then(|loaded| {
            Record::of(snapshot, rank, &loaded.layout, window.get(&loaded)?, decompressor)
        });
        if was_loaded && record.is_none() {
            snapshot.0.damage.record(); // its value does not decompress
        }
        match record {
            Some(record) if snapshot.is_visible(record.key, rank, scratch) => {
                Step::Record(Record { rank: known, ..record })
            }
            _ => Step::Lost { rank: known },
        }
    }

    fn go_by_the_index(&mut self) {
        let snapshot = &self.snapshot;
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

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Records");
        debug.field("snapshot", &self.snapshot).field("next_rank", &self.next_rank).finish_non_exhaustive()
    }
}
