//! The shared state of a cache: its shards, and every operation on one key that does not load.
//!
//! Invariants:
//! 1. no user code runs while a shard is locked, but `Eq` of keys, and `Clone` of values on a hit and of both
//!    in a save. What leaves the cache is dropped after the lock is released;
//! 2. an operation that writes a key first asks the opened snapshot for the key's rank, without a lock. The
//!    core checks under the lock that the same snapshot is open (`async_cache_core::probe`); so a key is
//!    never hot and cold at once;
//! 3. locks are taken in this order: the save lock, then shards by number; a thread that holds one shard
//!    takes a second one only when it takes all.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use async_cache_core::address::Address;
use async_cache_core::entry::{Meta, NewEntry};
use async_cache_core::order::Eviction;
use async_cache_core::probe::{Epoch, Probed, Stale};
use async_cache_core::removed::Removed;
use async_cache_core::shard::{self, Cleared, Config};
use async_cache_core::stats::Stats;
use async_cache_core::time::{Deadline, FileClock, Now, Stamp, Time};
use crossbeam_utils::CachePadded;
use foldhash::quality::RandomState;

use crate::backup::opened::{ColdCounts, ColdEntry, Opened};
use crate::backup::{Backup, Kind};
use crate::clock::Clock;
use crate::room::Room;
use crate::sharing::Sharing;
use crate::shrinking::Shrinking;
use crate::sync::{Mutex, RwLock, parallelism};
use crate::tally::Tally;

/// Entries below which one more shard is not worth its imbalance.
const ENTRIES_PER_SHARD: usize = 512;

type ClearedShard<K, V> = (Cleared<K, V>, Option<Arc<Opened<K, V>>>);
/// A shard of the core, with the rooms of this front.
pub(crate) type Core<K, V> = shard::Shard<K, V, Arc<Room<V>>>;
type Shards<K, V> = Box<[CachePadded<RwLock<Shard<K, V>>>]>;

pub(crate) struct Inner<K, V> {
    shards: Shards<K, V>,
    hasher: RandomState,
    pub(crate) clock: Clock,
    pub(crate) default_ttl: Option<Duration>,
    eviction: Eviction,
    pub(crate) maxsize: Option<usize>,
    pub(crate) backup: Option<Backup<K, V>>,
    /// Held by a save or a load from the backup: one at a time. The clock of the file that was opened or
    /// saved last.
    pub(crate) saving: Mutex<Option<FileClock>>,
    /// What [`Inner::changes`] was when the last save that succeeded began. Written under `saving`.
    pub(crate) saved_changes: AtomicU64,
    /// What is kept for saves that merge, if they do.
    pub(crate) sharing: Option<Sharing>,
    /// Whether the file could not be read when it was opened last: then a save must not replace it.
    pub(crate) unread: AtomicBool,
    /// Entries of others that saves drop.
    pub(crate) shrinking: Shrinking,
    /// Hits under a shared lock; those that took a shard alone are counted there.
    hits: Tally,
    /// What happens to cold entries without a shard.
    pub(crate) cold_counts: Arc<ColdCounts>,
}

/// One shard, as it stands behind its lock.
#[derive(Debug)]
pub(crate) struct Shard<K, V> {
    pub(crate) cache: Core<K, V>,
    /// The snapshot that the cold entries are in. All shards have the same one or none, but while one is
    /// opened or let go.
    pub(crate) opened: Option<Arc<Opened<K, V>>>,
}

/// The snapshot under a shard at one moment: where a key is looked for that is not in memory.
pub(crate) struct Under<K, V> {
    pub(crate) opened: Option<Arc<Opened<K, V>>>,
    epoch: Epoch,
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

/// How many shards a cache gets unless it is told: a few per processor, but not so many that their parts get
/// small.
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
    ) -> Self {
        let shards = shards.clamp(1, maxsize.unwrap_or(usize::MAX).max(1)).min(1 << 16);
        let merges = matches!(&backup, Some(Backup(Kind::Disk(disk, _))) if disk.merges());
        let file = merges.then(|| clock.start_file(0));
        let shard = |number: usize| {
            let share = maxsize.map(|max| max / shards + usize::from(number < max % shards));
            let mut cache = Core::new(Config { maxsize, share, eviction });
            if merges {
                cache.keep_times();
            }
            CachePadded::new(RwLock::new(Shard { cache, opened: None }))
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            hasher: RandomState::default(),
            clock,
            default_ttl,
            eviction,
            maxsize,
            backup,
            saving: Mutex::new(file),
            sharing: merges.then(Sharing::default),
            saved_changes: AtomicU64::new(0),
            unread: AtomicBool::new(false),
            shrinking: Shrinking::default(),
            hits: Tally::new(),
            cold_counts: Arc::default(),
        }
    }

    pub(crate) fn shards(&self) -> &[CachePadded<RwLock<Shard<K, V>>>] {
        &self.shards
    }

    pub(crate) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The shard of a hash: by its upper half, for the lower one is the store's.
    #[inline]
    pub(crate) fn shard(&self, hash: u64) -> &RwLock<Shard<K, V>> {
        let number = ((hash >> 32) * self.shards.len() as u64) >> 32;
        &self.shards[number as usize]
    }

    pub(crate) fn deadline(&self, ttl: Option<Duration>) -> Deadline {
        ttl.map_or(Deadline::NEVER, |ttl| Deadline::after(self.clock.now(), ttl))
    }

    /// The time of an operation at `time`. Reads the wall clock if the cache keeps times of writing.
    #[inline]
    pub(crate) fn at(&self, time: Time) -> Now {
        match self.sharing {
            Some(_) => Now::new(time, Stamp::from_nanos(self.clock.wall())),
            None => Now::without_wall(time),
        }
    }

    /// Reclaims what has expired, so that sizes count live entries only.
    pub(crate) fn reclaim(&self) {
        let now = self.clock.now();
        for shard in &self.shards {
            let mut removed = Removed::default();
            shard.write().cache.reclaim_all(Now::without_wall(now), &mut removed);
            drop(removed);
        }
        if let Some(opened) = self.opened() {
            opened.reclaim_all(now);
        }
    }

    pub(crate) fn opened(&self) -> Option<Arc<Opened<K, V>>> {
        self.shards[0].read().opened.clone()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.reclaim();
        let mut stats = Stats::default();
        for shard in &self.shards {
            stats += &shard.read().cache.stats();
        }
        if let Some(opened) = self.opened() {
            stats.cold = opened.cold.live();
            stats.size += stats.cold;
        }
        stats.hits += self.hits.count();
        self.cold_counts.add_to(&mut stats);
        stats
    }

    /// Counts up with everything that a save would show.
    pub(crate) fn changes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().cache.changes()).sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.reclaim();
        let hot: usize = self.shards.iter().map(|shard| shard.read().cache.store().len()).sum();
        hot + self.opened().map_or(0, |opened| opened.cold.live())
    }

    pub(crate) fn clear(&self) {
        self.empty(Shard::clear);
        self.hits.reset();
        self.cold_counts.reset();
    }

    /// Removes everything, and what was counted stays.
    pub(crate) fn remove_all(&self) {
        self.empty(Shard::remove_all);
    }

    fn empty(&self, empty: impl Fn(&mut Shard<K, V>) -> ClearedShard<K, V>) {
        self.shrinking.cleared();
        // All shards at once, or a snapshot that is opened meanwhile would stay under some of them only.
        let mut shards: Vec<_> = self.shards.iter().map(|shard| shard.write()).collect();
        if let Some(sharing) = &self.sharing {
            let now = self.at(self.clock.now());
            let stamps = shards.iter_mut().filter_map(|shard| shard.cache.stamp_delete(now));
            let stamp = stamps.max().unwrap_or(Stamp::UNKNOWN);
            for shard in &mut shards {
                shard.cache.not_before(stamp);
            }
            sharing.bury_all(stamp.as_nanos());
        }
        let cleared: Vec<_> = shards.iter_mut().map(|shard| empty(shard)).collect();
        drop(shards);
        drop(cleared);
    }

    /// Lets go of the snapshot once none of its entries is cold, so that writes need not ask it any more. Not
    /// while a save reads it.
    fn let_go_if_spent(&self, opened: &Arc<Opened<K, V>>) {
        if opened.cold.live() > 0 {
            return;
        }
        // Dropped after the save lock is released, for it may use the cache when it is dropped.
        let mut removed = Vec::new();
        let Some(_no_save) = self.saving.try_lock() else { return };
        for shard in &self.shards {
            let mut shard = shard.write();
            if shard.opened.as_ref().is_some_and(|current| Arc::ptr_eq(current, opened)) {
                removed.push(shard.let_go());
            }
        }
    }
}

impl<K, V> Shard<K, V> {
    /// The snapshot that is open now.
    pub(crate) fn under(&self) -> Under<K, V> {
        Under { opened: self.opened.clone(), epoch: self.cache.epoch() }
    }

    /// Opens a snapshot under an empty shard; returns the snapshot before it.
    pub(crate) fn open(&mut self, opened: Arc<Opened<K, V>>) -> Option<Arc<Opened<K, V>>> {
        self.cache.open(Arc::clone(&opened.cold), &[]).expect("nothing is in memory");
        self.opened.replace(opened)
    }

    /// Empties the shard; the caller drops what was in it behind the lock.
    fn clear(&mut self) -> ClearedShard<K, V> {
        (self.cache.clear(), self.opened.take())
    }

    /// [`Shard::clear`], and what was counted stays.
    fn remove_all(&mut self) -> ClearedShard<K, V> {
        (self.cache.remove_all(), self.opened.take())
    }

    fn let_go(&mut self) -> Removed<K, V> {
        self.opened = None;
        self.cache.close_snapshot()
    }
}

impl<K: Hash + Eq, V: Clone> Inner<K, V> {
    /// Serves a key from memory, and counts the hit. `Err`: the key is not there; the snapshot that may have it.
    #[inline]
    pub(crate) fn hot(&self, hash: u64, is_key: impl Fn(&K) -> bool) -> Result<V, Under<K, V>> {
        if self.eviction == Eviction::Lru {
            return self.hot_in_order(hash, is_key);
        }
        let shard = self.shard(hash).read();
        if let Some(slot) = shard.cache.find(hash, is_key)
            && let Some(value) = shard.cache.hit(slot, |deadline| self.clock.has_passed(deadline))
        {
            self.hits.raise();
            return Ok(value.clone());
        }
        Err(shard.under())
    }

    /// [`Inner::hot`] where the order of use is kept exactly, which takes the shard alone.
    fn hot_in_order(&self, hash: u64, is_key: impl Fn(&K) -> bool) -> Result<V, Under<K, V>> {
        let mut shard = self.shard(hash).write();
        if let Some(slot) = shard.cache.find(hash, is_key)
            && let Some(value) = shard.cache.hit_mut(slot, |deadline| self.clock.has_passed(deadline))
        {
            return Ok(value.clone());
        }
        Err(shard.under())
    }

    /// Serves a key from the opened snapshot, counts the hit, and keeps the entry in memory from now on.
    /// `Err`: the snapshot does not have it; the answer, for a write of the key.
    #[cold]
    pub(crate) fn cold(&self, hash: u64, key: K, under: Under<K, V>) -> Result<V, Probed> {
        let Under { opened, epoch } = under;
        let Some(opened) = opened else { return Err(epoch.answered(None)) };
        let (rank, value, deadline, stamp) =
            match opened.read(&key, |deadline| self.clock.has_passed(deadline)) {
                ColdEntry::Found { rank, value, deadline, stamp } => (rank, value, deadline, stamp),
                ColdEntry::Absent(rank) => {
                    self.let_go_if_spent(&opened);
                    // Somebody else may have made it hot between the two looks.
                    return match rank.map(|_| self.hot(hash, |known| *known == key)) {
                        Some(Ok(value)) => Ok(value),
                        _ => Err(epoch.answered(rank)),
                    };
                }
            };
        let served = value.clone();
        let now = self.clock.now();
        let promoted = {
            let mut shard = self.shard(hash).write();
            let at = shard.cache.address(hash, epoch.answered(Some(rank)), |known| *known == key);
            let new = NewEntry { key, value, meta: Meta::written_at(stamp, deadline) };
            match at {
                Ok(at) => shard.cache.promote(at, new, Now::without_wall(now)),
                Err(Stale) => Err(new),
            }
        };
        match promoted {
            Ok(removed) => {
                drop(removed);
                opened.reclaim_some(now);
                Ok(served)
            }
            // It left the cold set meanwhile: hot by another reader, or overtaken by a write.
            Err(new) => self.hot(hash, |known| *known == new.key).map_err(|_| epoch.answered(Some(rank))),
        }
    }

    /// Counts a call that was not served.
    pub(crate) fn miss(&self, hash: u64) {
        self.shard(hash).read().cache.miss();
    }

    /// Whether a key would be served now.
    pub(crate) fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.hash(key);
        let is_hot = |shard: &Shard<K, V>| {
            shard.cache.find(hash, |known| known.borrow() == key).is_some_and(|slot| {
                shard.cache.live(slot, |deadline| self.clock.has_passed(deadline)).is_some()
            })
        };
        let opened = {
            let shard = self.shard(hash).read();
            if is_hot(&shard) {
                return true;
            }
            shard.opened.clone()
        };
        let Some(opened) = opened else { return false };
        opened.contains(&key.to_owned(), |deadline| self.clock.has_passed(deadline))
            // It may have become hot between the two looks.
            || is_hot(&self.shard(hash).read())
    }

    /// Asks the opened snapshot, if there is one, for the rank of a key that is about to be written.
    pub(crate) fn probe(&self, hash: u64, key: &K) -> (Probed, Option<Arc<Opened<K, V>>>) {
        let Under { opened, epoch } = self.shard(hash).read().under();
        let rank = opened.as_ref().and_then(|opened| opened.rank(key));
        if let Some(opened) = &opened {
            self.let_go_if_spent(opened);
        }
        (epoch.answered(rank), opened)
    }

    /// Locks the shard of a key for a write, and finds the key in it. `Err`: another snapshot was opened since the
    /// probe.
    pub(crate) fn write<R>(
        &self,
        hash: u64,
        is_key: impl Fn(&K) -> bool,
        probed: Probed,
        work: impl FnOnce(&mut Core<K, V>, Address) -> R,
    ) -> Result<R, Stale> {
        let mut shard = self.shard(hash).write();
        let at = shard.cache.address(hash, probed, is_key)?;
        Ok(work(&mut shard.cache, at))
    }

    pub(crate) fn set(&self, key: K, value: V, deadline: Deadline) {
        let hash = self.hash(&key);
        let now = self.clock.now();
        loop {
            let (probed, opened) = self.probe(hash, &key);
            if let Some(opened) = &opened {
                // What has expired goes before anything is evicted.
                opened.reclaim_some(now);
            }
            let removed = {
                let mut shard = self.shard(hash).write();
                let Ok(at) = shard.cache.address(hash, probed, |known| *known == key) else { continue };
                shard.cache.set(at, key, value, deadline, self.at(now))
            };
            drop(removed);
            return;
        }
    }

    /// A key as the file has it, if saves merge; `None` if no file can hold it.
    fn key_in_file(&self, key: &K) -> Option<Vec<u8>> {
        self.sharing.as_ref()?;
        let Some(Backup(Kind::Disk(_, codec))) = &self.backup else { return None };
        let mut bytes = Vec::new();
        (codec.encode_key)(key, &mut bytes).ok().map(|()| bytes)
    }

    pub(crate) fn delete(&self, key: &K) {
        let hash = self.hash(key);
        let now = self.clock.now();
        let bytes = self.key_in_file(key);
        loop {
            let (probed, _) = self.probe(hash, key);
            let work = |cache: &mut Core<K, V>, at: Address| {
                let now = self.at(now);
                if let (Some(sharing), Some(bytes)) = (&self.sharing, &bytes)
                    && let Some(stamp) = cache.stamp_delete(now)
                {
                    sharing.bury(bytes, stamp.as_nanos());
                }
                cache.delete(at, now)
            };
            let removed = self.write(hash, |known| known == key, probed, work);
            if let Ok(removed) = removed {
                drop(removed);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faster of foldhash's two variants left one of five shards without any of a hundred consecutive keys, once in
    /// a while: with some seeds its upper bits hardly depend on small keys.
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
