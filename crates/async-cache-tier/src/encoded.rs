//! Records on their way to the file: encoded singly, written many at a time.
//!
//! Encoding runs a user's code, and writing blocks: a front does them in different ways
//! ([`Host::blocking`](crate::Host::blocking)), and switches between them rarely.

use async_cache_core::time::Stamp;
use async_cache_disk::{DiskError, KeyKind, Output, Pushed, Times};

use crate::host::{Host, Refusal};

/// The most bytes that are encoded before they are written (except for a single large value).
const MOST_BYTES: usize = 1 << 18;

/// Encoded records, in the order of their writing.
#[derive(Debug, Default)]
pub struct Encoded {
    bytes: Vec<u8>,
    records: Vec<EncodedRecord>,
}

#[derive(Debug)]
struct EncodedRecord {
    /// The end of the key in `bytes`. The key begins at the end of the previous record.
    key_end: usize,
    value_end: usize,
    times: Times,
    kind: KeyKind,
}

/// Entries that are too large for the format.
#[derive(Debug, Default)]
pub struct TooLarge {
    /// How many.
    pub count: u64,
    /// The error of the first.
    pub first: Option<DiskError>,
}

impl Encoded {
    /// Whether it is time to write.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= MOST_BYTES
    }

    /// Appends a record. Nothing is appended on an error.
    ///
    /// # Errors
    /// The reason why the entry cannot be written, or a fault that must end the save.
    pub fn push<H: Host>(
        &mut self,
        host: &H,
        key: &H::Key,
        value: &H::Value,
        times: Times,
    ) -> Result<(), Refusal<H::Error>> {
        let start = self.bytes.len();
        let mut encode = || -> Result<EncodedRecord, Refusal<H::Error>> {
            let kind = host.record_key(key, &mut self.bytes)?;
            let key_end = self.bytes.len();
            host.record_value(value, &mut self.bytes)?;
            Ok(EncodedRecord { key_end, value_end: self.bytes.len(), times, kind })
        };
        match encode() {
            Ok(record) => {
                self.records.push(record);
                Ok(())
            }
            Err(refusal) => {
                self.bytes.truncate(start);
                Err(refusal)
            }
        }
    }

    /// The key of the last record, if only the front can compare it.
    pub(crate) fn last_eager_key(&self) -> Option<&[u8]> {
        let last = self.records.last().filter(|last| last.kind == KeyKind::Eager)?;
        Some(&self.bytes[self.start_of_last()..last.key_end])
    }

    /// Removes the last record.
    pub(crate) fn pop(&mut self) {
        let start = self.start_of_last();
        if self.records.pop().is_some() {
            self.bytes.truncate(start);
        }
    }

    fn start_of_last(&self) -> usize {
        self.records.len().checked_sub(2).map_or(0, |before| self.records[before].value_end)
    }

    /// Writes all records with `push`, and empties the buffer.
    ///
    /// # Errors
    /// The first error of `push`.
    pub fn write(
        &mut self,
        mut push: impl FnMut(KeyKind, &[u8], &[u8], Times) -> Result<Pushed, DiskError>,
    ) -> Result<TooLarge, DiskError> {
        let (mut start, mut too_large) = (0, TooLarge::default());
        for record in &self.records {
            let key = &self.bytes[start..record.key_end];
            let value = &self.bytes[record.key_end..record.value_end];
            start = record.value_end;
            if let Pushed::TooLarge(error) = push(record.kind, key, value, record.times)? {
                too_large.count += 1;
                too_large.first.get_or_insert(error);
            }
        }
        self.bytes.clear();
        self.records.clear();
        Ok(too_large)
    }

    /// [`Encoded::write`], to a save: the save leaves out records that the merge does not admit.
    pub(crate) fn write_to(&mut self, output: &mut Output) -> Result<TooLarge, DiskError> {
        self.write(|kind, key, value, times| match kind {
            KeyKind::Canonical => output.push(key, value, times),
            KeyKind::Eager => output.push_eager(key, value, times),
        })
    }
}

/// The times of an entry, as a file has them.
pub(crate) fn times(deadline: Option<u64>, stamp: Stamp) -> Times {
    Times { deadline, written_at: Some(stamp.as_nanos()) }
}
