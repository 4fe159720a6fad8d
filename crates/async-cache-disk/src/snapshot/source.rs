//! The form of every walk over records: entries, and losses in their place.

use super::opened::Snapshot;
use super::unpack::{Stored, unpack};
use crate::compress::Decompressor;
use crate::format::record::RecordLayout;

/// A walk over the records of a snapshot, coldest first: [`Records`](crate::Records),
/// [`EagerRecords`](crate::EagerRecords) or [`Salvage`](crate::Salvage).
pub trait Source {
    /// The next entry, or the next loss; `None` at the end.
    fn next(&mut self) -> Option<Item<'_>>;

    /// Passes the entries that follow and are lost because no bucket names them, and returns their
    /// number. A header may count billions of entries that do not exist. If a caller that goes
    /// through all entries calls this after a loss, its time depends only on the entries that
    /// exist.
    fn skip_lost(&mut self) -> u32 {
        0
    }
}

/// A step of a [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'r> {
    /// An entry that was read and verified.
    Entry(Record<'r>),
    /// Data that could not be read or verified.
    Lost(Loss),
}

/// Data that a [`Source`] could not read or verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// An entry, or an entry that a look-up could not have found.
    Entry {
        /// The rank of the entry.
        rank: u32,
    },
    /// Bytes without a valid record; how many entries they had is unknown.
    Bytes {
        /// Where they begin in the file.
        offset: u64,
        /// How many they are.
        bytes: u64,
    },
}

/// An entry that was read and verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'r> {
    /// Its place in the order of use; 0 is the coldest. `None`: an eager record, or a salvaged
    /// record that no valid bucket names.
    pub rank: Option<u32>,
    /// The deadline, in nanoseconds since the Unix epoch by the clock that wrote the file; `None`:
    /// never expires.
    pub deadline: Option<u64>,
    /// The time of writing, by the same clock, if the file has it.
    pub written_at: Option<u64>,
    /// The key's bytes. Equal keys of eager records may have different bytes, even in two records:
    /// then the later record counts.
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
        rank: Option<u32>,
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
