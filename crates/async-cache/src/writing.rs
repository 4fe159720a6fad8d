//! Writes of keys: memory, the file, and the tier beyond one host.
//!
//! Rules:
//! 1. user code that encodes runs before a shard is locked; entries that leave the cache are
//!    dropped after the lock is released;
//! 2. a value is put into the tier under the lock of its shard, before memory is written. So two
//!    writes of a key reach memory and the tier in the same order;
//! 3. the tier may allow memory a shorter life than the user gave. If the tier allows less than it
//!    told before the lock, memory and the file keep nothing: the value is on its way to the tier;
//! 4. a removal reaches the tier before memory. A load that begins in between reads what the
//!    removal left.

use std::hash::Hash;
use std::time::Duration;

use async_cache_core::probe::Probed;
use async_cache_core::time::{Deadline, Time};
use async_cache_tier::cold;
use async_cache_tier::journal::Journal;
use async_cache_tier::writes::CounterFate;

use crate::host::AskedKey;
use crate::inner::Inner;
use crate::remote::Prepared;

/// A write on its way to the tier beyond one host.
struct BeyondHost<'c, K, V> {
    inner: &'c Inner<K, V>,
    ttl: Option<Duration>,
    write: Option<Prepared>,
}

impl<'c, K, V> BeyondHost<'c, K, V> {
    /// Encodes the write, with nothing locked, and cuts the deadline to what the tier allows.
    #[inline]
    fn of(
        inner: &'c Inner<K, V>,
        key: &K,
        value: &V,
        ttl: Option<Duration>,
        deadline: &mut Deadline,
    ) -> Self {
        let mut write = None;
        if let Some(remote) = &inner.remote {
            write = remote.prepare(key, value);
            if write.is_some() {
                *deadline = remote.deadline_of_put(*deadline, inner.clock.now());
            }
        }
        Self { inner, ttl, write }
    }

    /// Puts the write, under the lock of the shard; returns the deadline for memory: past, if the
    /// tier allows less than before.
    #[inline]
    fn put(&mut self, hash: u64, deadline: Deadline) -> Deadline {
        match (self.write.take(), &self.inner.remote) {
            (Some(write), Some(remote)) => {
                let now = self.inner.now();
                let is_kept = remote.put(write, hash, deadline, self.ttl, now);
                if is_kept { deadline } else { Deadline::after(now.time, Duration::ZERO) }
            }
            _ => deadline,
        }
    }
}

impl<K: Hash + Eq, V: Clone> Inner<K, V> {
    /// Stores a value for this time to live. While no snapshot is open, the shard is locked once,
    /// since there is nothing to ask before the write. While no entry has a deadline, no clock is
    /// read.
    pub(crate) fn set(&self, key: K, value: V, ttl: Option<Duration>) {
        let hash = self.hash(&key);
        let (time, mut deadline) = match ttl {
            None => (None, Deadline::NEVER),
            Some(ttl) => {
                let now = self.clock.now();
                (Some(now), Deadline::after(now, ttl))
            }
        };
        let mut beyond = BeyondHost::of(self, &key, &value, ttl, &mut deadline);
        if let Some(journal) = self.tier.journal() {
            return self.set_in_journal(journal, hash, key, value, deadline, beyond);
        }
        let mut tiered = self.shard(hash).write();
        let at = tiered.shard.address(hash, Probed::default(), |known| *known == key);
        let Ok(at) = at else {
            drop(tiered);
            return self.set_over(hash, key, value, deadline, beyond);
        };
        let time = match time {
            Some(time) => time,
            None if tiered.shard.watches_time() => self.clock.now(),
            None => Time::default(),
        };
        let deadline = beyond.put(hash, deadline);
        let removed = tiered.shard.set(at, key, value, deadline, self.at(time));
        drop(tiered);
        drop(removed);
        self.tell_remote();
    }

    /// [`Inner::set`] of a cache with a journal.
    fn set_in_journal(
        &self,
        journal: &Journal,
        hash: u64,
        key: K,
        value: V,
        deadline: Deadline,
        mut beyond: BeyondHost<'_, K, V>,
    ) {
        let Some(host) = self.file_host() else { return };
        // Encoding has no error that ends an operation in this front.
        let Ok(write) = journal.encode(&host, &key, &value, deadline) else { return };
        let now = self.now();
        let mut tiered = self.shard(hash).write();
        let probed = tiered.shard.epoch().answered(None);
        let Ok(at) = tiered.shard.address(hash, probed, |known| *known == key) else { return };
        let kept = beyond.put(hash, deadline);
        if kept != deadline {
            // The record has the longer life.
            drop(tiered);
            let deleted = cold::delete(&host, &AskedKey { hash, key: &key });
            deleted.unwrap_or_else(|error| tracing::warn!("a key could not be deleted: {error}"));
            return self.tell_remote();
        }
        let meta = journal.append(&write, tiered.shard.stamp_at(&at), deadline);
        let removed = tiered.shard.set_stamped(at, key, value, meta, now);
        drop(tiered);
        journal.after_write(&host, &removed);
        self.tell_remote();
    }

    /// [`Inner::set`] while a snapshot is open.
    #[cold]
    fn set_over(&self, hash: u64, key: K, value: V, deadline: Deadline, mut beyond: BeyondHost<'_, K, V>) {
        let now = self.now();
        loop {
            let probed = self.probe(hash, &key); // Invariant 2.
            let removed = {
                let mut tiered = self.shard(hash).write();
                let Ok(at) = tiered.shard.address(hash, probed, |known| *known == key) else { continue };
                let deadline = beyond.put(hash, deadline);
                tiered.shard.set(at, key, value, deadline, now)
            };
            drop(removed);
            return self.tell_remote();
        }
    }

    /// After a write, with nothing locked: the tier beyond one host has something to send.
    #[inline]
    fn tell_remote(&self) {
        if let Some(remote) = &self.remote {
            remote.look();
        }
    }

    pub(crate) fn delete(&self, key: &K) {
        if let Some(remote) = &self.remote {
            remote.invalidate(key);
            remote.look();
        }
        let hash = self.hash(key);
        if let Some(host) = self.file_host() {
            // Only the codec of this front could fail, and its errors are faults of a single entry.
            let deleted = cold::delete(&host, &AskedKey { hash, key });
            deleted.unwrap_or_else(|error| tracing::warn!("a key could not be deleted: {error}"));
            return;
        }
        let now = self.now();
        let removed = {
            let mut tiered = self.shard(hash).write();
            let probed = tiered.shard.epoch().answered(None);
            let at = tiered.shard.address(hash, probed, |known| known == key);
            at.map(|at| tiered.shard.delete(at, now))
        };
        drop(removed);
    }

    pub(crate) fn clear(&self) {
        self.clear_remote();
        self.empty(CounterFate::Reset);
        self.hits.reset();
    }

    /// Removes everything; the counters stay.
    pub(crate) fn remove_all(&self) {
        self.clear_remote();
        self.empty(CounterFate::Kept);
    }

    fn clear_remote(&self) {
        if let Some(remote) = &self.remote {
            remote.clear();
            remote.look();
        }
    }
}
