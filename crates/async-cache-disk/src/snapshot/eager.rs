//! Reading eager records: the entries that no look-up finds, because their keys have no canonical
//! encoding.
//!
//! Eager records follow each other, and only a valid record determines the start of the next. So
//! the first invalid record makes the rest unreadable, for every walk through the same snapshot
//! (rule 2 of the module).

use std::fmt;

use super::opened::Snapshot;
use super::source::{Item, Loss, Record, Source};
use super::window::{Loaded, Reader};
use crate::format::header::Section;

/// Goes through the eager records, coldest first. Made by [`Snapshot::eager`]. It owns its
/// snapshot, so it can be kept between calls; a call reads about 1 MiB or a record, whichever is
/// larger.
pub struct EagerRecords {
    reader: Reader,
    /// From the next record to the end of the section. Empty at the end, and behind a lost record.
    rest: Section,
}

impl Snapshot {
    /// Reads all eager records from the coldest to the most recently used.
    pub fn eager(&self) -> EagerRecords {
        EagerRecords::new(self.clone())
    }
}

impl EagerRecords {
    fn new(snapshot: Snapshot) -> Self {
        let rest = snapshot.header().eager_section.unwrap_or_default();
        Self { reader: Reader::new(snapshot), rest }
    }

    fn load(&mut self, rest: Section) -> Option<Loaded> {
        if rest.bytes <= self.reader.snapshot.damage_log().dead_eager_bytes() {
            return None;
        }
        self.reader.load(rest, rest.offset)
    }
}

impl Source for EagerRecords {
    /// A loss covers the rest of the section, and is the last item.
    fn next(&mut self) -> Option<Item<'_>> {
        let rest = self.rest;
        if rest.bytes == 0 {
            return None;
        }
        let loaded = self.load(rest);
        let next = loaded.as_ref().map_or(rest.end(), |loaded| rest.offset.saturating_add(loaded.total()));
        self.rest = Section { offset: next, bytes: rest.end().saturating_sub(next) };
        let Self { reader: Reader { snapshot, window, decompressor }, .. } = self;
        let record = loaded.and_then(|loaded| {
            Record::of(snapshot, None, &loaded.layout, window.get(&loaded)?, decompressor)
        });
        if record.is_none() {
            snapshot.damage_log().record_dead_eager_bytes(rest.bytes);
            self.rest.bytes = 0;
        }
        let lost = Loss::Bytes { offset: rest.offset, bytes: rest.bytes };
        Some(record.map_or(Item::Lost(lost), Item::Entry))
    }
}

impl fmt::Debug for EagerRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("EagerRecords");
        debug.field("snapshot", &self.reader.snapshot).field("rest", &self.rest).finish_non_exhaustive()
    }
}
