//! The shared state of a cache: its shards, and every operation on a key that does not load.
//!
//! Invariants:
//! 1. the only user code that runs while a shard is locked is `Eq` of keys, and `Clone` of values
//!    on a hit and of both in a save. Entries that leave the cache are dropped after the lock is
//!    released;
//! 2. every write of a key first asks the opened snapshot for the key's rank, without a lock. The
//!    shard accepts no answer of another snapshot ([`Probed`]), so a key is never hot and cold at
//!    once;
//! 3. lock order: the turn, then shards by number, then the locks of the
//!    [`Tier`](async_cache_tier::Tier) and of its journal. A thread that holds a shard takes a
//!    second shard only when it takes all.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_cache_core::address::Address;
use async_cache_core::order::Eviction;
use async_cache_core::probe::Probed;
use async_cache_core::removed::Removed;
use async_cache_core::shard::{Config, Shard};
use async_cache_core::stats::Stats;
use async_cache_core::time::{Deadline, Now, Stamp, Time};
use async_cache_tier::cold::{self, ColdAnswer};
use async_cache_tier::journal::{self, DiskWait, Journal, Served};
use async_cache_tier::suspects::Suspects;
use async_cache_tier::writes::{self, CounterFate};
use async_cache_tier::{Opened, Tier, Tiered, UnderShard};
use crossbeam_utils::CachePadded;
use foldhash::quality::RandomState;

use crate::backup::{BackendKind, Backup};
use crate::clock::Clock;
use crate::host::{AskedKey, CacheHost, FileHost};
use crate::lookup::Lookup;
use crate::remote::RemoteTier;
use crate::room::Room;
use crate::sync::{RwLock, parallelism};
use crate::tally::Tally;

/// With fewer entries, a further shard is not worth its imbalance.
const ENTRIES_PER_SHARD: usize = 512;

/// A shard of the core, with the rooms of this front.
pub(crate) type Core<K, V> = Shard<K, V, Arc<Room<V>>>;
/// A shard behind its lock.
pub(crate) type Locked<K, V> = RwLock<Tiered<K, V, Arc<Room<V>>>>;
type Shards<K, V> = Box<[CachePadded<Locked<K, V>>]>;

pub(crate) struct Inner<K, V> {
    shards: Shards<K, V>,
    hasher: RandomState,
    pub(crate) clock: Clock,
    pub(crate) default_ttl: Option<Duration>,
    eviction: Eviction,
    pub(crate) maxsize: Option<usize>,
    pub(crate) backup: Option<Backup<K, V>>,
    /// The state of the cache beside its shards: the file, and the turn.
    pub(crate) tier: Tier,
    /// The tier beyond one host.
    pub(crate) remote: Option<RemoteTier<K, V>>,
    /// Whether a warning about dropped entries of others was logged.
    pub(crate) has_warned_of_room: AtomicBool,
    /// Hits under a shared lock; hits with an exclusive shard are counted there.
    pub(crate) hits: Tally,
}

impl<K, V> fmt::Debug for Inner<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncCache")
            .field("maxsize", &self.maxsize)
            .field("default_ttl", &self.default_ttl)
            .field("eviction", &self.eviction)
            .field("shards", &self.shards.len())
            .field("backup", &self.backup)
            .finish_non_exhaustive()
    }
}

/// The default number of shards: a few per processor, but not so many that their parts get small.
pub(crate) fn default_shards(maxsize: Option<usize>) -> usize {
    let wanted = parallelism() * 4;
    let sensible = maxsize.map_or(usize::MAX, |max| max / ENTRIES_PER_SHARD);
    wanted.min(sensible).max(1)
}

impl<K, V> Inner<K, V> {
    pub(crate) fn new(
        maxsize: Option<usize>,
        shards: usize,
        eviction: Eviction,
        default_ttl: Option<Duration>,
        clock: Clock,
        backup: Option<Backup<K, V>>,
        remote: Option<RemoteTier<K, V>>,
    ) -> Self {
        let shards = shards.clamp(1, maxsize.unwrap_or(usize::MAX).max(1)).min(1 << 16);
        let tier = Tier::default();
        let disk = match &backup {
            Some(Backup(BackendKind::Disk(disk, _))) => Some(disk),
            _ => None,
        };
        if disk.is_some_and(|disk| disk.merges() && disk.journal_of(maxsize).is_none()) {
            tier.keep_writes();
        }
        let shard = |number: usize| {
            let share = maxsize.map(|max| max / shards + usize::from(number < max % shards));
            let mut tiered = Tiered::new(Shard::new(Config { maxsize, share, eviction }));
            if tier.keeps_writes() {
                tiered.shard.keep_times();
            }
            CachePadded::new(RwLock::new(tiered))
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            hasher: RandomState::default(),
            clock,
            default_ttl,
            eviction,
            maxsize,
            backup,
            tier,
            remote,
            has_warned_of_room: AtomicBool::new(false),
            hits: Tally::new(),
        }
    }

    pub(crate) fn shards(&self) -> &[CachePadded<Locked<K, V>>] {
        &self.shards
    }

    pub(crate) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Keeps the times of writing from now on, for saves that merge.
    pub(crate) fn keep_writes(&self) {
        self.tier.keep_writes();
        for shard in &self.shards {
            shard.write().shard.keep_times();
        }
    }

    /// The shard of a hash: by its upper half, because the lower half belongs to the store.
    #[inline]
    pub(crate) fn shard(&self, hash: u64) -> &Locked<K, V> {
        &self.shards[self.number(hash)]
    }

    #[inline]
    pub(crate) fn number(&self, hash: u64) -> usize {
        (((hash >> 32) * self.shards.len() as u64) >> 32) as usize
    }

    pub(crate) fn deadline(&self, ttl: Option<Duration>) -> Deadline {
        ttl.map_or(Deadline::NEVER, |ttl| Deadline::after(self.clock.now(), ttl))
    }

    /// The time of a write. The wall clock is read only if the times of writing are kept.
    #[inline]
    pub(crate) fn now(&self) -> Now {
        self.at(self.clock.now())
    }

    /// The time of a write, if the monotonic clock was read already.
    #[inline]
    pub(crate) fn at(&self, time: Time) -> Now {
        if self.tier.keeps_writes() {
            Now::new(time, Stamp::from_nanos(self.clock.wall()))
        } else {
            Now::without_wall(time)
        }
    }

    /// Reclaims expired entries, so that sizes count only live entries.
    pub(crate) fn reclaim(&self) {
        let now = self.now();
        for shard in &self.shards {
            let mut removed = Removed::default();
            shard.write().shard.reclaim_all(now, &mut removed);
            drop(removed);
        }
        if let Some(opened) = self.opened() {
            opened.reclaim_all(now.time);
        }
    }

    fn opened(&self) -> Option<Arc<Opened>> {
        self.shards[0].read().opened().cloned()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.reclaim();
        let mut stats = Stats::default();
        for shard in &self.shards {
            stats += &shard.read().shard.stats();
        }
        if let Some(opened) = self.opened() {
            stats.cold = opened.cold().live();
            stats.size += stats.cold;
        }
        if let Some(journal) = self.tier.journal() {
            stats.cold = journal.cold();
            stats.size += stats.cold;
        }
        stats.hits += self.hits.count();
        self.tier.add_to(&mut stats);
        stats
    }

    /// Counts up with every change that a save would show.
    pub(crate) fn changes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().shard.changes()).sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.reclaim();
        let hot: usize = self.shards.iter().map(|shard| shard.read().shard.store().len()).sum();
        let in_journal = self.tier.journal().map_or(0, Journal::cold);
        hot + in_journal + self.opened().map_or(0, |opened| opened.cold().live())
    }
}

impl<K: Hash + Eq, V: Clone> Inner<K, V> {
    /// Serves a key from memory, and counts the hit. `Err`: the key is not in memory; the snapshot
    /// that may have it.
    #[inline]
    pub(crate) fn hot(&self, hash: u64, is_key: impl Fn(&K) -> bool) -> Result<V, UnderShard> {
        if self.eviction == Eviction::Lru {
            return self.hot_in_order(hash, is_key);
        }
        let tiered = self.shard(hash).read();
        let has_passed = |deadline| self.clock.has_passed(deadline);
        let Some(value) = tiered.shard.hit(hash, is_key, has_passed, V::clone) else {
            return Err(tiered.under());
        };
        // On the way of a hit alone, and before the hit is counted.
        drop(tiered);
        self.hits.raise();
        Ok(value)
    }

    /// [`Inner::hot`] where the order of use is kept exactly, which takes the shard alone.
    fn hot_in_order(&self, hash: u64, is_key: impl Fn(&K) -> bool) -> Result<V, UnderShard> {
        let mut tiered = self.shard(hash).write();
        let has_passed = |deadline| self.clock.has_passed(deadline);
        let value = tiered.shard.hit_in_order(hash, is_key, has_passed, V::clone);
        value.ok_or_else(|| tiered.under())
    }

    /// The cache with its file, if there is a file.
    pub(crate) fn file_host(&self) -> Option<FileHost<'_, K, V>> {
        match &self.backup {
            Some(Backup(BackendKind::Disk(disk, codec))) => Some(FileHost::new(self, disk, *codec)),
            _ => None,
        }
    }

    /// [`Inner::cold`] for a key that is neither loaded nor written. The key is made only if a
    /// snapshot is open.
    pub(crate) fn served_cold(&self, hash: u64, key: impl Lookup<K>, under: UnderShard) -> Option<V> {
        let has_file = under.opened.is_some() || self.tier.journal().is_some();
        if has_file { self.cold(hash, &key.to_key(), under).ok() } else { None }
    }

    /// Serves a key from the opened snapshot, counts the hit, and keeps the entry in memory from
    /// now on. `Err`: the key is not there; the probe for a write or a load of the key.
    pub(crate) fn cold(&self, hash: u64, key: &K, under: UnderShard) -> Result<V, Probed> {
        let epoch = under.epoch;
        if let Some(journal) = self.tier.journal() {
            return match self.cold_in_journal(journal, hash, key, DiskWait::Allowed) {
                Served::Hit(value) => Ok(value),
                Served::Suspect | Served::Absent | Served::WouldWait => Err(epoch.answered(None)),
            };
        }
        if under.opened.is_none() {
            return Err(epoch.answered(None));
        }
        let Some(host) = self.file_host() else { return Err(epoch.answered(None)) };
        match cold::serve(&host, &AskedKey { hash, key }, under, self.suspects()) {
            Ok(ColdAnswer::Served(value)) => Ok(value),
            Ok(ColdAnswer::Suspect(probed) | ColdAnswer::Absent(probed)) => Err(probed),
            Err(error) => {
                // No read of an entry ends in an error of the file: a damaged entry is a miss.
                tracing::warn!("an entry could not be read: {error}");
                Err(epoch.answered(None))
            }
        }
    }

    /// Serves a key from the journal, counts the hit, and keeps the entry in memory from now on.
    #[cold]
    pub(crate) fn cold_in_journal(&self, journal: &Journal, hash: u64, key: &K, wait: DiskWait) -> Served<V> {
        let Some(host) = self.file_host() else { return Served::Absent };
        // Reading ends in no error: a damaged entry is a miss.
        let asked = AskedKey { hash, key };
        journal::serve(&host, journal, &asked, wait, self.suspects()).unwrap_or(Served::Absent)
    }

    /// Counts a call that was not served.
    pub(crate) fn miss(&self, hash: u64) {
        self.shard(hash).read().shard.miss();
    }

    /// Whether a key would be served now.
    pub(crate) fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.hash(key);
        let is_hot = |tiered: &Tiered<K, V, _>| {
            let slot = tiered.shard.find(hash, |known| known.borrow() == key);
            let has_passed = |deadline| self.clock.has_passed(deadline);
            slot.is_some_and(|slot| tiered.shard.live(slot, has_passed).is_some())
        };
        let opened = {
            let tiered = self.shard(hash).read();
            if is_hot(&tiered) {
                return true;
            }
            tiered.opened().cloned()
        };
        let Some(host) = self.file_host() else { return false };
        let asked = |key| AskedKey { hash, key };
        let is_in_file = match (self.tier.journal(), opened) {
            (Some(journal), _) => journal::contains(&host, journal, &asked(&key.to_owned())),
            (None, Some(opened)) => cold::contains(&host, &asked(&key.to_owned()), &opened),
            (None, None) => return false,
        };
        is_in_file.unwrap_or(false)
            // The key may have become hot between the two looks.
            || is_hot(&self.shard(hash).read())
    }

    /// Asks the opened snapshot, if any, for the facts that a write of this key needs.
    pub(crate) fn probe(&self, hash: u64, key: &K) -> Probed {
        let epoch = {
            let tiered = self.shard(hash).read();
            if tiered.opened().is_none() {
                return tiered.shard.epoch().answered(None);
            }
            tiered.shard.epoch()
        };
        let probed = self.file_host().map(|host| cold::probe(&host, &AskedKey { hash, key }));
        probed.and_then(Result::ok).unwrap_or_else(|| epoch.answered(None))
    }

    /// Locks the shard of a key for a write, and finds the key there. `None`: another snapshot was
    /// opened since the probe.
    pub(crate) fn write<R>(
        &self,
        hash: u64,
        is_key: impl Fn(&K) -> bool,
        probed: Probed,
        work: impl FnOnce(&mut Core<K, V>, Address) -> R,
    ) -> Option<R> {
        let mut tiered = self.shard(hash).write();
        let at = tiered.shard.address(hash, probed, is_key).ok()?;
        Some(work(&mut tiered.shard, at))
    }

    /// Whether entries are served of which changes on other hosts may have been missed.
    pub(crate) fn suspects(&self) -> Suspects {
        self.remote.as_ref().map_or(Suspects::Withheld, RemoteTier::suspects)
    }

    /// The cache without its file, for operations that copy no key.
    pub(crate) fn memory(&self) -> CacheHost<'_, K, V, ()> {
        CacheHost { inner: self, clone_key: |_| unreachable!("no key is copied"), file: () }
    }

    /// Removes everything in this process.
    pub(crate) fn empty(&self, counters: CounterFate) {
        drop(writes::clear(&self.memory(), counters));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faster of foldhash's two variants left one of five shards without any of a hundred
    /// consecutive keys, once in a while: with some seeds its upper bits hardly depend on small
    /// keys.
    #[test]
    fn consecutive_keys_spread_over_all_shards_whatever_the_seed() {
        for _ in 0..5000 {
            let hasher = RandomState::default();
            let mut counts = [0; 5];
            for key in 0_u64..100 {
                counts[(((hasher.hash_one(key) >> 32) * 5) >> 32) as usize] += 1;
            }
            assert!(!counts.contains(&0), "{counts:?}");
        }
    }
}
