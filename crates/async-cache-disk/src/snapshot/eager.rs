//! Reading eager records: the entries that no look-up finds, because their keys have no canonical
//! encoding.
//!
//! Eager records follow each other, and only a valid record determines the start of the next. So
//! the first invalid record makes the rest unreadable, for every walk through the same snapshot
//! (rule 2 of the module).

use std::fmt;

use super::Snapshot;
use super::unpack::{Stored, unpack};
use super::window::{Loaded, Window};
use crate::compress::Decompressor;
use crate::format::header::Section;

/// Goes through the eager records, coldest first. Made by [`Snapshot::eager`]. It owns its
/// snapshot, so it can be kept between calls; a call reads about 1 MiB or a record, whichever is
/// larger.
pub struct EagerRecords {
    snapshot: Snapshot,
    /// From the next record to the end of the section. Empty at the end, and behind a lost record.
    rest: Section,
    window: Window,
    decompressor: Decompressor,
}

/// The result of [`EagerRecords::next_step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EagerStep<'r> {
    /// An entry.
    Record(EagerRecord<'r>),
    /// An entry that could not be read or verified, and everything behind it. This is the last
    /// step.
    Lost {
        /// The number of lost bytes, to the end of the section.
        bytes: u64,
    },
}

/// An eager record that was read and verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EagerRecord<'r> {
    /// The deadline, in nanoseconds since the Unix epoch by the clock that wrote the file; `None`:
    /// never expires.
    pub deadline: Option<u64>,
    /// The time of writing, by the same clock, if the file has it.
    pub written_at: Option<u64>,
    /// The key's bytes. Equal keys may have different bytes, even in two records: then the later
    /// record counts.
    pub key: &'r [u8],
    /// The value's bytes.
    pub value: &'r [u8],
    /// The record as stored in its file, for copying.
    pub(crate) stored: Stored<'r>,
}

impl EagerRecords {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        let rest = snapshot.header().eager_section.unwrap_or_default();
        Self { snapshot, rest, window: Window::new(), decompressor: Decompressor::default() }
    }

    /// The next entry, or [`EagerStep::Lost`] for the rest; `None` at the end.
    pub fn next_step(&mut self) -> Option<EagerStep<'_>> {
        let rest = self.rest;
        if rest.bytes == 0 {
            return None;
        }
        let loaded = self.load(rest);
        let next = loaded.as_ref().map_or(rest.end(), |loaded| rest.offset.saturating_add(loaded.total()));
        self.rest = Section { offset: next, bytes: rest.end().saturating_sub(next) };
        let Self { snapshot, window, decompressor, .. } = self;
        let record = loaded.and_then(|loaded| {
            let bytes = window.get(&loaded)?;
            let layout = &loaded.layout;
            Some(EagerRecord {
                deadline: layout.deadline,
                written_at: layout.written_at,
                key: bytes.get(layout.key.clone())?,
                value: unpack(snapshot, layout, bytes, decompressor)?,
                stored: Stored::new(snapshot, layout, bytes)?,
            })
        });
        if record.is_none() {
            snapshot.0.damage.bury_eager(rest.bytes);
            self.rest.bytes = 0;
        }
        Some(record.map_or(EagerStep::Lost { bytes: rest.bytes }, EagerStep::Record))
    }

    fn load(&mut self, rest: Section) -> Option<Loaded> {
        if rest.bytes <= self.snapshot.0.damage.dead_eager_bytes() {
            return None;
        }
        self.window.load(&self.snapshot, rest, rest.offset)
    }
}

impl fmt::Debug for EagerRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("EagerRecords");
        debug.field("snapshot", &self.snapshot).field("rest", &self.rest).finish_non_exhaustive()
    }
}
