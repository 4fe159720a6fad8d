//! Loading a cache from its backup. One save or load at a time: the turn of the tier.
//!
//! `async-cache-tier` opens a file, with any content in memory: its entries are cold, and read on
//! request. A user's own backend returns all its entries at once: those whose keys are not in
//! memory come in, older than every entry in memory.

use std::hash::Hash;
use std::time::Duration;

use async_cache_core::entry::{Meta, NewEntry};
use async_cache_core::shard::Restored;
use async_cache_core::time::Stamp;
use async_cache_disk::DiskErrorKind;
use async_cache_tier::journal::{self, JournalOptions};
use async_cache_tier::{Memory, OpeningOutcome, open};

use crate::backup::{BackendKind, Backup, CacheBackend, SavedEntry};
use crate::error::BackupError;
use crate::host::FileHost;
use crate::inner::Inner;
use crate::sync;

/// The outcome of loading a cache from its backup.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Opening {
    /// Entries that came back. The entries of a snapshot are counted, not read.
    pub entries: u64,
    /// The size of the file in bytes; 0 for a backend of the user's own.
    pub bytes: u64,
    /// How long ago the snapshot was saved, by the wall clock. `None` for a backend of the user's
    /// own, or if there was nothing.
    pub age: Option<Duration>,
    /// The duration of the loading.
    pub took: Duration,
    /// Why nothing came back although the backup is not empty. It was logged, too.
    pub warning: Option<BackupError>,
}

impl<K: Hash + Eq + 'static, V: Clone + 'static> Inner<K, V> {
    /// Loads from the backup: its entries that are not in memory come in, older than every entry in
    /// memory. Without a backup, nothing happens.
    pub(crate) fn load_backup(&self) -> Result<Opening, BackupError> {
        let Some(Backup(kind)) = &self.backup else { return Ok(Opening::default()) };
        let started = self.clock.now();
        let mut opening = match kind {
            BackendKind::Disk(disk, codec) => {
                let host = FileHost::new(self, disk, *codec);
                let opened = match self.open_journal(&host)? {
                    Some(opened) => Some(opened),
                    None => open::open(&host, sync::turn(&self.tier))?,
                };
                opened.map_or_else(Opening::default, |opened| Opening {
                    entries: opened.entries as u64,
                    bytes: opened.bytes,
                    age: Some(Duration::from_nanos(host.wall().saturating_sub(opened.saved_at))),
                    ..Opening::default()
                })
            }
            BackendKind::Whole(backend, _) => self.load_whole(&**backend)?,
        };
        opening.took = self.clock.now().since(started);
        Ok(opening)
    }

    /// Opens the journal, if the cache has one and it is not open. `None`: the file is opened as a
    /// snapshot.
    fn open_journal(&self, host: &FileHost<'_, K, V>) -> Result<Option<OpeningOutcome>, BackupError> {
        if let Some(journal) = self.tier.journal() {
            return Ok(Some(journal.present(host)));
        }
        let Some(options) = host.file.disk.journal_of(self.maxsize) else { return Ok(None) };
        if self.tier.keeps_writes() {
            return Ok(None); // Another process had the journal when the cache was made.
        }
        let options = JournalOptions { disk_bytes: options.disk_bytes };
        match journal::open(host, &mut sync::turn(&self.tier), options)? {
            Ok(opened) => Ok(Some(opened)),
            Err(error) => {
                let place = host.file.disk.path().display();
                if *error.kind() == DiskErrorKind::NotAFile {
                    return Err(error.into());
                }
                tracing::warn!(
                    "{place}: there is no journal, so only what a save writes survives this process: {error}"
                );
                if host.file.disk.merges() {
                    self.keep_writes();
                }
                Ok(None)
            }
        }
    }

    fn load_whole(&self, backend: &dyn CacheBackend<K, V>) -> Result<Opening, BackupError> {
        // Dropped after the turn has ended: a user's destructor may save.
        let mut refused = Vec::new();
        let turn = sync::turn(&self.tier);
        let entries = backend.load();
        let entries = entries.map_err(|source| BackupError::Backend { action: "load", source })?;
        self.tier.loaded(entries.len(), self.maxsize);
        // Expired entries take no room from the entries that come in.
        self.reclaim();
        let mut restored = 0;
        for SavedEntry { key, value, ttl } in entries.into_iter().rev() {
            let hash = self.hash(&key);
            let meta = Meta { deadline: self.deadline(ttl), stamp: Stamp::UNKNOWN, origin: None };
            let now = self.now(); // After the deadline, so that no time to live is none at all.
            let restoring = {
                let mut tiered = self.shard(hash).write();
                // No file is open under a cache with such a backend, so no probe is stale.
                let probed = tiered.shard.epoch().answered(None);
                match tiered.shard.address(hash, probed, |known| *known == key) {
                    Ok(at) => {
                        let trust = self.tier.trust_in_files();
                        tiered.shard.restore(at, NewEntry { key, value, meta }, trust, now)
                    }
                    Err(_) => Restored::Refused(NewEntry { key, value, meta }),
                }
            };
            match restoring {
                Restored::Stored => restored += 1,
                Restored::Refused(entry) => refused.push(entry),
            }
        }
        drop(turn);
        Ok(Opening { entries: restored, ..Opening::default() })
    }
}
