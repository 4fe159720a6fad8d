//! Saving the cache to its backup, and the log messages about it.
//!
//! `async-cache-tier` saves to a file. A user's own backend gets every entry that has not expired,
//! copied in slices of a few dozen, each under a shared lock held for microseconds (longer only for
//! large `Clone`s). Rules:
//! 1. one save or load at a time: the turn of the [`Tier`](async_cache_tier::Tier);
//! 2. `changes` is read while the turn is held. A later change counts for the next save, even if
//!    this save writes it too;
//! 3. the warning about entries of others dropped for lack of room is logged once in the life of a
//!    cache, and only if the backup had more entries than `maxsize`: caches with the same `maxsize`
//!    drop entries of each other in every save.

use std::fmt::Display;
use std::hash::Hash;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use async_cache_tier::journal::{self, JournalSaved};
use async_cache_tier::{HotEntries, Taken, Turn, save};

use crate::backup::{BackendKind, Backup, CacheBackend, DiskBackend, SavedEntry};
use crate::error::BackupError;
use crate::host::{CacheHost, FileHost};
use crate::inner::Inner;
use crate::sync;

/// The outcome of a save.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// Entries that were saved.
    pub entries: u64,
    /// The size of the file in bytes; 0 for a backend of the user's own.
    pub bytes: u64,
    /// Entries that should have been saved and were not: they could not be cloned or encoded, are
    /// too large for the format, or another process may have deleted them and the file no longer
    /// knows whether it did. A warning names the first entry of the former kinds, and the number of
    /// the latter.
    pub left_out: u64,
    /// Entries saved by other processes and dropped by this save: there was no room for them within
    /// [`maxsize`](crate::Builder::maxsize), or this process may have deleted them and has deleted
    /// more than it remembers. A warning is logged the first time that the file had more entries
    /// than `maxsize`.
    pub dropped: u64,
    /// The new path of a file that stood at the path and was no readable cache of this program, or
    /// could not be opened when the cache was built.
    pub set_aside: Option<PathBuf>,
}

impl<K: Hash + Eq + 'static, V: Clone + 'static> Inner<K, V> {
    /// Saves every entry that has not expired. Without a backup, nothing happens.
    pub(crate) fn save(&self) -> Result<Saved, BackupError> {
        let Some(backup) = &self.backup else { return Ok(Saved::default()) };
        let turn = sync::turn(&self.tier);
        let changes = self.changes(); // Rule 2.
        self.save_in(turn, backup, changes)
    }

    /// [`Inner::save`], unless nothing has changed since the last successful save; then, or without
    /// a backup, `None`.
    pub(crate) fn save_if_changed(&self) -> Result<Option<Saved>, BackupError> {
        let Some(backup) = &self.backup else { return Ok(None) };
        let turn = sync::turn(&self.tier);
        let changes = self.changes(); // Rule 2.
        if self.tier.is_saved(changes) {
            return Ok(None);
        }
        self.save_in(turn, backup, changes).map(Some)
    }

    fn save_in(
        &self,
        turn: Turn<'_>,
        Backup(kind): &Backup<K, V>,
        changes: u64,
    ) -> Result<Saved, BackupError> {
        let saved = match kind {
            BackendKind::Disk(disk, codec) if self.tier.journal().is_some_and(|it| !it.is_closed()) => {
                let host = FileHost::new(self, disk, *codec);
                let flushed = self.tier.journal().map(|journal| journal::save(&host, journal)).transpose();
                let saved = |saved: Option<JournalSaved>| {
                    let JournalSaved { entries, bytes } = saved.unwrap_or_default();
                    Saved { entries, bytes, ..Saved::default() }
                };
                flushed.map(saved).map_err(Into::into)
            }
            BackendKind::Disk(disk, codec) => {
                let saved = save::save(&FileHost::new(self, disk, *codec), turn);
                saved.map(|saved| self.report(disk, saved)).map_err(Into::into)
            }
            BackendKind::Whole(backend, clone_key) => self.save_whole(turn, &**backend, *clone_key),
        };
        match &saved {
            Ok(_) => self.tier.saved(changes),
            Err(_) => self.tier.count_save_error(),
        }
        saved
    }

    fn save_whole(
        &self,
        _turn: Turn<'_>,
        backend: &dyn CacheBackend<K, V>,
        clone_key: fn(&K) -> K,
    ) -> Result<Saved, BackupError> {
        let host = CacheHost { inner: self, clone_key, file: () };
        let now = self.clock.now();
        let (mut entries, mut left_out) = (0, 0);
        let listed = HotEntries::list(&host);
        let live = listed.taken(&host).filter(|taken| !taken.deadline.has_passed(now));
        let mut all = live.filter_map(|Taken { key, value, deadline, .. }| {
            match key.and_then(|key| Ok((key, value?))) {
                Ok((key, value)) => {
                    entries += 1;
                    Some(SavedEntry { key, value, ttl: deadline.remaining(now) })
                }
                Err(why) => {
                    left_out += 1;
                    if left_out == 1 {
                        log_left_out(&"the backup", None, &why);
                    }
                    None
                }
            }
        });
        backend.save(&mut all).map_err(|source| BackupError::Backend { action: "save", source })?;
        self.tier.count_save();
        let dropped = self.tier.replaced_backup();
        if dropped > 0 {
            self.log_dropped(&"the backup", dropped);
        }
        Ok(Saved { entries, left_out, dropped, ..Saved::default() })
    }

    /// Logs the warnings about a save to a file.
    fn report(&self, disk: &DiskBackend, saved: save::SaveOutcome) -> Saved {
        let place = disk.path().display();
        if let Some((name, why)) = &saved.left_out.first {
            log_left_out(&place, name.as_deref(), why);
        }
        if saved.unsure > 0 {
            tracing::warn!(
                "{place}: {} entries are left out of the save: other processes have deleted more keys than \
                 the file keeps, and may have deleted these; `Saved::left_out` counts them",
                saved.unsure
            );
        }
        if saved.shrunk_to.is_some() {
            self.log_dropped(&place, saved.dropped);
        }
        if saved.unsure_of_others > 0 {
            tracing::warn!(
                "{place}: {} entries that other processes had saved are dropped: this one has deleted more \
                 keys since its last save than it remembers, and may have deleted these; save more often",
                saved.unsure_of_others
            );
        }
        disk.log_saved(&saved.file);
        Saved {
            entries: saved.file.entries.into(),
            bytes: saved.file.bytes,
            left_out: saved.left_out.count + saved.unsure,
            dropped: saved.dropped + saved.unsure_of_others,
            set_aside: saved.file.set_aside,
        }
    }

    /// Rule 3.
    fn log_dropped(&self, place: &dyn Display, dropped: u64) {
        if !self.has_warned_of_room.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{place}: this save drops {dropped} entries that were there, for this cache's maxsize is {}, \
                 less than what others keep in it; give all caches of one backup the same maxsize \
                 (`Stats::dropped` counts further ones)",
                self.maxsize.unwrap_or(0)
            );
        }
    }
}

/// Logs the first entry that a save left out; `name` is known if its key could be encoded.
fn log_left_out(place: &dyn Display, name: Option<&str>, why: &str) {
    let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
    tracing::warn!("{place}: an entry is left out of the save: {why}{name}; `Saved::left_out` counts them");
}
