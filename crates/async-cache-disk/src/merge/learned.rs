//! Facts learned by a process from its own earlier saves, and needed by each further save.
//!
//! Rules:
//! 1. an entry refused by a save, because a later write or a delete of its key is known, is
//!    *superseded*. No later save of the process writes the entry, even if the later write has left
//!    the file since. The entry is identified by the hash of its key and its own time of writing: a
//!    later write of the key is not superseded;
//! 2. only present entries of the process are remembered: every save makes the list anew, from its
//!    refused entries;
//! 3. a process applies its own deletes to its own entries when they happen. So a floor counts for
//!    entries of the process only as far as deletes of *others* may be among the forgotten deletes;
//! 4. which deletes of a file are those of others is known only for the file that the process wrote
//!    last. In a file that another process wrote since, each listed delete may be a delete of
//!    others, and so may each forgotten delete: even if the floor is the same, because a delete
//!    earlier than the floor may have been forgotten since.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use siphasher::sip128::SipHasher13;

use crate::error::DiskError;
use crate::random::random;
use crate::snapshot::Snapshot;
use crate::tombstones::{KeyKind, Tombstones};

/// Facts learned by a process from its own earlier saves: a value per cache, given to
/// [`Save::write`](crate::Save::write) in [`Known`](crate::Known), and replaced by
/// [`Merged::learned`](crate::Merged::learned).
#[derive(Clone, Default)]
pub struct Learned {
    /// The last opened or written file, if the process has all its entries.
    holds: Option<[u8; 16]>,
    wrote: Option<Wrote>,
    superseded: Arc<Superseded>,
}

/// The file written last by the process.
#[derive(Debug, Clone, Copy)]
struct Wrote {
    file_id: [u8; 16],
    floor: u64,
    others: Others,
}

/// The latest deletes by, possibly, other processes; zero: there are none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Others {
    /// Among the forgotten deletes of the file.
    pub(super) forgotten: u64,
    /// Among the listed deletes of the file.
    pub(super) listed: u64,
}

/// Entries of the process, replaced by later writes or deletes.
#[derive(Clone, Default)]
pub(super) struct Superseded {
    /// Of all saves of the process; none before the first.
    hasher: Option<SipHasher13>,
    /// By the hash of the key: when the entry was written.
    times: HashMap<u128, u64>,
}

impl Learned {
    /// Called when a file was opened, with its id if the process has all its entries.
    pub fn opened(&mut self, holds: Option<[u8; 16]>) {
        self.holds = holds;
    }

    /// The last opened or written file, if the process has all its entries.
    pub fn holds(&self) -> Option<[u8; 16]> {
        self.holds
    }

    /// The deletes of others in a file about to be joined.
    pub(super) fn others(&self, theirs: &Snapshot, tombstones: &Tombstones) -> Others {
        let listed = tombstones.latest_delete();
        let is_ours = |wrote: &Wrote| wrote.file_id == theirs.file_id() && wrote.floor == tombstones.floor();
        match self.wrote.filter(is_ours) {
            Some(wrote) => wrote.others, // Rule 4.
            None => Others { forgotten: tombstones.floor(), listed },
        }
    }

    pub(super) fn superseded(&self) -> &Superseded {
        &self.superseded
    }

    /// The facts after a save that wrote this file.
    pub(super) fn after(
        file_id: [u8; 16],
        has_all: bool,
        floor: u64,
        others: Others,
        superseded: Superseded,
    ) -> Self {
        Self {
            holds: has_all.then_some(file_id),
            wrote: Some(Wrote { file_id, floor, others }),
            superseded: Arc::new(superseded),
        }
    }
}

impl fmt::Debug for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let superseded = self.superseded.times.len();
        let mut debug = f.debug_struct("Learned");
        debug.field("holds", &self.holds).field("wrote", &self.wrote);
        debug.field("superseded", &superseded).finish()
    }
}

impl Superseded {
    /// An empty list with hashes of its own.
    pub(super) fn random(path: &Path) -> Result<Self, DiskError> {
        let hasher = SipHasher13::new_with_key(&random(path)?);
        Ok(Self { hasher: Some(hasher), times: HashMap::new() })
    }

    /// An empty list with this list's hashes, if there are any.
    pub(super) fn emptied(&self) -> Option<Self> {
        self.hasher.map(|hasher| Self { hasher: Some(hasher), times: HashMap::new() })
    }

    /// The hash of a key; different for an eager key and a canonical key with the same bytes.
    pub(super) fn hash(&self, kind: KeyKind, key: &[u8]) -> u128 {
        let hash = self.hasher.as_ref().map_or(0, |hasher| hasher.hash(key).as_u128());
        match kind {
            KeyKind::Canonical => hash,
            KeyKind::Eager => !hash,
        }
    }

    pub(super) fn contains(&self, hash: u128, written_at: u64) -> bool {
        self.times.get(&hash).is_some_and(|known| written_at <= *known)
    }

    pub(super) fn insert(&mut self, hash: u128, written_at: u64) {
        let known = self.times.entry(hash).or_default();
        *known = written_at.max(*known);
    }
}
