//! Records whose keys only a front can compare: keys of Python objects, written by a Python
//! process.
//!
//! A look-up cannot find such a record, so it is in the *eager* section of a file, which is read
//! whole. A front that can decode the keys ([`EagerEntries`]) takes them into memory when a file is
//! opened, and merges them itself. A front that cannot decode them ([`PassOn`]) keeps them in the
//! file: they are never served, they are no entries of its cache, and every save copies them, until
//! the cache is cleared.

use async_cache_core::time::{FileClock, Stamp};
use async_cache_disk::{Filling, Item, Joining, Loss, Output, Snapshot, Source, Tombstones};

use async_cache_disk::store::{EagerWrite, EntryPlace};

use crate::host::{Host, is_expired};

/// The part of openings and saves that concerns eager records.
pub trait EagerEntries<H: Host>: Sized {
    /// Restores the eager entries of a file during its opening, before the other entries. A delete
    /// missing in `before` was made after the opening began.
    ///
    /// # Errors
    /// An interrupt, or any other reason to end the operation, as for all of these.
    fn restore(
        host: &H,
        snapshot: &Snapshot,
        file: FileClock,
        before: Option<&Tombstones>,
    ) -> Result<EagerOutcome, H::Error>;
    /// Applies the eager writes of a journal to memory when the journal is opened.
    ///
    /// # Errors
    /// As above.
    fn replay(host: &H, writes: &[EagerWrite], file: FileClock) -> Result<EagerReplay, H::Error>;
    /// A save has opened the file that stands at the path, if it merges.
    ///
    /// # Errors
    /// As above.
    fn begin(host: &H, joining: &Joining, file: FileClock) -> Result<Self, H::Error>;
    /// Called when the save will write an entry of this process whose key has no canonical bytes.
    ///
    /// # Errors
    /// As above.
    fn note(&mut self, host: &H, key: &H::Key, stamp: Stamp) -> Result<(), H::Error>;
    /// How many entries were noted; `None` if eager records do not count for `maxsize`.
    fn noted(&self) -> Option<usize>;
    /// Copies records from the existing file, or from the file that was opened.
    ///
    /// # Errors
    /// As above.
    fn join(&mut self, host: &H, output: &mut Output) -> Result<(), H::Error>;
    /// Whether an entry of this process is written; `bytes` are its key's.
    ///
    /// # Errors
    /// As above.
    fn admits(
        &mut self,
        host: &H,
        output: &mut Output,
        key: &H::Key,
        bytes: &[u8],
        stamp: Stamp,
    ) -> Result<bool, H::Error>;
    /// Called when every entry of this process is written: copies records for which there is room
    /// after all.
    ///
    /// # Errors
    /// As above.
    fn fill(&mut self, host: &H, filling: &mut Filling) -> Result<(), H::Error>;
    /// How many records were not copied because of [`Host::allows`].
    fn refused(&self) -> u64;
    /// The number of records in the existing file.
    fn found(&self) -> u64;
}

/// The outcome for the eager writes of an opened journal.
#[derive(Debug, Default)]
pub struct EagerReplay {
    /// Entries that came into memory.
    pub restored: usize,
    /// The places of entries that the front cannot read, and that stay in the store.
    pub kept: Vec<EntryPlace>,
}

/// The outcome for the eager records of an opened file.
#[derive(Debug, Default)]
pub struct EagerOutcome {
    /// Records that are entries in memory now.
    pub restored: usize,
    /// Records that were not taken in: there was no room, or their key was in memory.
    pub refused: usize,
    /// Why the others could not be read.
    pub undecodable: Vec<String>,
}

impl EagerOutcome {
    /// Whether every record is in memory.
    pub(crate) fn is_complete(&self) -> bool {
        self.refused == 0 && self.undecodable.is_empty()
    }
}

/// Copies the records as bytes.
#[derive(Debug)]
pub struct PassOn {
    /// If saves merge, the existing file; else the file that was opened last.
    from: Option<Snapshot>,
    file: FileClock,
}

impl<H: Host> EagerEntries<H> for PassOn {
    /// Nothing is restored. The next save passes the records on.
    fn restore(
        host: &H,
        snapshot: &Snapshot,
        _: FileClock,
        _: Option<&Tombstones>,
    ) -> Result<EagerOutcome, H::Error> {
        *host.tier().to_pass_on.lock() = snapshot.has_eager().then(|| snapshot.clone());
        Ok(EagerOutcome::default())
    }

    /// Nothing comes in. The entries stay in the store; of those with equal bytes, the latest. Only
    /// another front knows which of them a delete means, so a delete takes all earlier ones: rather
    /// a miss than a deleted entry.
    fn replay(_: &H, writes: &[EagerWrite], _: FileClock) -> Result<EagerReplay, H::Error> {
        let mut kept: Vec<(&[u8], EntryPlace)> = Vec::new();
        for write in writes {
            match write {
                EagerWrite::Entry { key, place, .. } => {
                    kept.retain(|(known, _)| known != key);
                    kept.push((key, *place));
                }
                EagerWrite::Delete { .. } => kept.clear(),
            }
        }
        let kept = kept.into_iter().map(|(_, place)| place).collect();
        Ok(EagerReplay { restored: 0, kept })
    }

    fn begin(host: &H, joining: &Joining, file: FileClock) -> Result<Self, H::Error> {
        let theirs = joining.theirs().cloned();
        Ok(Self { from: theirs.or_else(|| host.tier().to_pass_on.lock().clone()), file })
    }

    fn note(&mut self, _: &H, _: &H::Key, _: Stamp) -> Result<(), H::Error> {
        Ok(())
    }

    fn noted(&self) -> Option<usize> {
        None
    }

    fn join(&mut self, host: &H, output: &mut Output) -> Result<(), H::Error> {
        let Some(snapshot) = &self.from else { return Ok(()) };
        let was_known = snapshot.damage().eager_bytes > 0;
        let mut records = snapshot.eager();
        while let Some(item) = records.next() {
            match item {
                Item::Entry(record) if is_expired(record.deadline, self.file) => {}
                Item::Entry(record) => {
                    // A deleted record is left out.
                    drop(output.pass_on_eager(&record).map_err(|error| host.error(error))?);
                }
                Item::Lost(Loss::Bytes { bytes, .. }) if !was_known => host.warn(&format!(
                    "{}: entries of another program, {bytes} bytes, are damaged or cannot be read, and are \
                     left out of the save",
                    snapshot.path().display()
                )),
                Item::Lost(_) => {}
            }
        }
        Ok(())
    }

    fn admits(&mut self, _: &H, _: &mut Output, _: &H::Key, _: &[u8], _: Stamp) -> Result<bool, H::Error> {
        Ok(true)
    }

    fn fill(&mut self, _: &H, _: &mut Filling) -> Result<(), H::Error> {
        Ok(())
    }

    fn refused(&self) -> u64 {
        0
    }

    fn found(&self) -> u64 {
        0
    }
}
