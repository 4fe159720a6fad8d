//! What a cache remembers of its own writes so that its saves can merge with those of other processes.
//!
//! Rules:
//! 1. whoever deletes or clears takes the time of it and notes it under the very borrow under which it happens;
//! 2. the bytes of a key that is deleted are made before, with nothing borrowed. A key that no file could hold needs no
//!    tombstone;
//! 3. what is loaded from the file undoes deletes that were not saved before the load began: so they are forgotten then.
//!    Those that come in between are applied to what was loaded;
//! 4. what was lost (see `async_cache_core::ledger`) is noted here when a save or a load begins, beside the deletes. Its keys are encoded
//!    with nothing borrowed; if that is interrupted, it stays lost.

use async_cache_core::ledger::{LostWrites, Outcome};
use async_cache_core::removed::Removed;
use async_cache_core::time::{Now, Stamp, Time};
use async_cache_disk::{KeyKind, Known, Merged, Output, Save, Tombstones};
use pyo3::prelude::*;

use crate::cache::{Cache, Core, State};
use crate::call_key::CallKey;
use crate::clock;
use crate::codec::{self, Options};
use crate::errors;
use crate::key::{Query, StoredKey};
use crate::opened::Opened;
use crate::pace::{Slice, in_background, waiting};
use crate::raw::Ref;
use crate::target::Target;

/// There if the cache has a file that its saves merge with.
pub(crate) struct Sharing {
    options: Options,
    known: Known,
}

/// How what was lost is taken out of the core, and what has expired with it.
type TakeLost = fn(&mut Core, Now, &mut Removed<Ref, Ref>) -> LostWrites<Ref>;

/// Takes out what was lost, and no save begins: the file is about to be opened. What has expired is lost by now.
pub(crate) fn reclaim_and_take_lost(
    core: &mut Core,
    now: Now,
    removed: &mut Removed<Ref, Ref>,
) -> LostWrites<Ref> {
    core.reclaim_all(now, removed);
    core.take_lost()
}

/// A key that is about to be deleted, as a file would have it.
pub(crate) struct Doomed(Option<(KeyKind, Vec<u8>)>);

impl State {
    /// Keeps from now on what merging needs; returns what is known by now, for [`State::share_opened`].
    pub(crate) fn share(&mut self, options: Options) -> Tombstones {
        let mut known = self.to_join();
        known.learned.opened(None);
        let tombstones = known.tombstones.clone();
        self.sharing = Some(Sharing { options, known });
        tombstones
    }

    /// A file is being opened; `before` was known when that began, `holds` is the file if the cache will have all that is
    /// in it. What was deleted since leaves it.
    pub(crate) fn share_opened(&mut self, opened: &Opened, before: &Tombstones, holds: Option<[u8; 16]>) {
        if let Some(sharing) = &mut self.sharing {
            sharing.known.learned.opened(holds);
            sharing.known.tombstones = std::mem::take(&mut sharing.known.tombstones).since(before);
            for rank in opened.snapshot().ranks_of(&sharing.known.tombstones) {
                opened.cold.take(rank);
            }
        }
    }

    /// Whether an entry that comes from the file was deleted or overwritten since another state of tombstones was known.
    pub(crate) fn is_deleted_since(&self, before: &Tombstones, key: &[u8], written_at: u64) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| {
            let deleted_at = sharing.known.tombstones.deleted_at(KeyKind::Eager, key);
            deleted_at > before.deleted_at(KeyKind::Eager, key) && written_at <= deleted_at
        })
    }

    /// The time of an operation at `time`. Reads the wall clock if the cache keeps times of writing.
    #[inline]
    pub(crate) fn at(&self, time: Time) -> Now {
        match self.sharing {
            Some(_) => Now::new(time, Stamp::from_nanos(clock::wall())),
            None => Now::without_wall(time),
        }
    }

    /// Notes that a key is deleted now.
    pub(crate) fn bury(&mut self, doomed: &Doomed, now: Now) {
        if let Some(sharing) = &mut self.sharing
            && let Some((kind, key)) = &doomed.0
            && let Some(stamp) = self.core.stamp_delete(now)
        {
            sharing.known.tombstones.delete(*kind, key, stamp.as_nanos());
        }
    }

    /// Notes that everything is deleted now.
    pub(crate) fn bury_all(&mut self, now: Now) {
        if let Some(sharing) = &mut self.sharing
            && let Some(stamp) = self.core.stamp_delete(now)
        {
            sharing.known.tombstones.clear(stamp.as_nanos());
        }
    }

    /// What a save has to know of it.
    pub(crate) fn to_join(&self) -> Known {
        let known = |sharing: &Sharing| sharing.known.clone();
        self.sharing.as_ref().map(known).unwrap_or_default()
    }

    /// A save that merged has ended.
    pub(crate) fn merged(&mut self, merged: &Merged) {
        if let Some(sharing) = &mut self.sharing {
            sharing.known.tombstones.subtract(&merged.tombstones);
            sharing.known.learned = merged.learned.clone();
        }
    }
}

impl Cache {
    /// Notes what was lost since the last save or load; `take` takes it out of the core. In slices, if there is one.
    pub(crate) fn note_lost(&self, py: Python<'_>, take: TakeLost, slice: Option<Slice>) -> PyResult<()> {
        let mut removed = Removed::default();
        let lost = {
            let mut state = self.state.borrow(py);
            if state.sharing.is_none() {
                return Ok(());
            }
            take(&mut state.core, Now::without_wall(clock::now()), &mut removed)
        };
        let noted = self.note_writes(py, &lost, slice);
        if noted.is_err() {
            self.state.borrow(py).core.settle(Outcome::Unrecorded(lost));
        }
        noted
    }

    fn note_writes(&self, py: Python<'_>, lost: &LostWrites<Ref>, mut slice: Option<Slice>) -> PyResult<()> {
        for (key, stamp) in lost.overwritten() {
            let Doomed(doomed) = self.doomed(py, &StoredKey { key: key.bind(py), hash: 0 })?;
            if let (Some(sharing), Some((kind, key))) = (&mut self.state.borrow(py).sharing, doomed) {
                sharing.known.tombstones.overwrite(kind, &key, stamp.as_nanos());
            }
            if let Some(slice) = &mut slice {
                slice.end_if_over(py)?;
            }
        }
        Ok(())
    }

    /// Tells a merge of an entry of ours that is not written. Whether it would have been written otherwise.
    pub(crate) fn leave_out(
        &self,
        py: Python<'_>,
        output: &mut Output,
        key: &Bound<'_, PyAny>,
        written_at: u64,
    ) -> PyResult<bool> {
        let Doomed(doomed) = self.doomed(py, &StoredKey { key, hash: 0 })?;
        Ok(doomed.is_none_or(|(kind, key)| output.leave_out(kind, &key, written_at)))
    }

    /// A key as a file would have it, if it needs a tombstone.
    pub(crate) fn doomed(&self, py: Python<'_>, query: &impl Query) -> PyResult<Doomed> {
        let options = self.state.borrow(py).sharing.as_ref().map(|sharing| sharing.options);
        let Some(options) = options else { return Ok(Doomed(None)) };
        if let Some(bytes) = query.encode(py)? {
            return Ok(Doomed(Some((KeyKind::Canonical, bytes))));
        }
        let key = query.to_key(py)?;
        let mut bytes = Vec::new();
        let is_call = key.is_exact_instance_of::<CallKey>();
        if is_call {
            return Ok(Doomed(None));
        }
        match codec::encode_value(&key, &mut bytes, options) {
            Ok(()) => Ok(Doomed(Some((KeyKind::Eager, bytes)))),
            Err(error) if errors::is_fatal(py, &error) => Err(error),
            Err(_) => Ok(Doomed(None)),
        }
    }
}

/// Begins a save. If saves merge, takes the lock of the path and opens the file there.
pub(crate) fn begin(py: Python<'_>, target: &Target) -> PyResult<Save> {
    match target.options.merge {
        Some(limit) => waiting(py, limit, |wait| target.file.begin(Some(wait))),
        None => in_background(py, || target.file.begin(None)),
    }
}
