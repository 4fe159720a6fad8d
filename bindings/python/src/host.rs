//! The cache in memory, in the form for `async-cache-tier`: one shard behind the interpreter's
//! lock.

use std::sync::Arc;

use async_cache_core::listing::{Listing, Ticket, keep_last};
use async_cache_core::time::{Deadline, Time};
use async_cache_tier::{Memory, Taken, Tier, Under, clock};
use pyo3::prelude::*;

use crate::cache::Cache;
use crate::pace::LockSlice;
use crate::raw::Ref;
use crate::room::Room;
use crate::target::TargetFile;

/// The number of entries listed under one borrow; listing takes about as long as a slice.
const LISTED: usize = 4096;

/// A cache in memory; with a [`TargetFile`], including its file.
pub(crate) struct CacheHost<'c, 'py, F> {
    pub(crate) py: Python<'py>,
    pub(crate) cache: &'c Cache,
    pub(crate) target: F,
}

/// A cache with a file.
pub(crate) type FileHost<'c, 'py> = CacheHost<'c, 'py, Arc<TargetFile>>;

impl<F> Memory for CacheHost<'_, '_, F> {
    type Key = Ref;
    type Value = Ref;
    type Room = Ref<Room>;

    fn tier(&self) -> &Tier {
        &self.cache.tier
    }

    fn maxsize(&self) -> Option<usize> {
        self.cache.state.borrow(self.py).tiered.shard.maxsize()
    }

    fn shards(&self) -> usize {
        1
    }

    fn shard<R>(&self, _: usize, work: impl FnOnce(&mut Under<Self>) -> R) -> R {
        work(&mut self.cache.state.borrow(self.py).tiered)
    }

    fn read<R>(&self, _: usize, work: impl FnOnce(&Under<Self>) -> R) -> R {
        work(&self.cache.state.borrow(self.py).tiered)
    }

    fn all_shards<R>(&self, work: impl FnOnce(&mut [&mut Under<Self>]) -> R) -> R {
        work(&mut [&mut self.cache.state.borrow(self.py).tiered])
    }

    fn list(&self, _: usize) -> Vec<Ticket> {
        let len = self.shard(0, |tiered| {
            tiered.shard.begin_listing();
            tiered.shard.store().len()
        });
        // Includes room for entries used in the meantime, which are listed again.
        let mut tickets = Vec::with_capacity(len + len / 8 + LISTED);
        let mut slice = LockSlice::begin();
        while self.shard(0, |tiered| tiered.shard.list_some(LISTED, &mut tickets)) != Listing::Done {
            slice.rest_if_over(self.py);
        }
        self.py.detach(|| keep_last(tickets))
    }

    fn take(&self, _: usize, tickets: &[Ticket], into: &mut Vec<Taken<Ref, Ref>>) {
        into.reserve(tickets.len());
        let state = self.cache.state.borrow(self.py);
        into.extend(tickets.iter().filter_map(|&ticket| {
            let entry = state.tiered.shard.store().redeem(ticket)?;
            Some(Taken {
                key: Ok(entry.key.copy(self.py)),
                value: Ok(entry.value.copy(self.py)),
                deadline: entry.meta.deadline,
                stamp: entry.meta.stamp,
            })
        }));
    }

    fn copy_key(&self, key: &Ref) -> Option<Ref> {
        Some(key.copy(self.py))
    }

    fn copy_value(&self, value: &Ref) -> Ref {
        value.copy(self.py)
    }

    fn time(&self) -> Time {
        clock::now()
    }

    fn has_passed(&self, deadline: Deadline) -> bool {
        clock::has_passed(deadline)
    }

    fn wall(&self) -> u64 {
        clock::wall()
    }
}

impl Cache {
    /// The cache with its file, if there is one.
    pub(crate) fn file_host<'c, 'py>(&'c self, py: Python<'py>) -> Option<FileHost<'c, 'py>> {
        let target = self.state.borrow(py).target.clone()?;
        Some(CacheHost { py, cache: self, target })
    }
}
