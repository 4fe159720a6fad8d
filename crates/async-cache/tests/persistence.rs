//! Data that survives a process, seen through the public interface: each "life" is a cache with its
//! own clocks over the same disk. Most tests use the fake disk, whose files can be inspected,
//! damaged and filled up; some use the real disk.
#![allow(clippy::disallowed_methods)] // the test is the stranger that touches the file
#![allow(clippy::print_stdout)] // seeds

mod lost_writes;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::stage::{number_from_env, one_thread, poll_once, several_threads, until, within_limit};
use async_cache::{
    AsyncCache, BackupError, BuildError, Builder, Clock, DiskBackend, DiskErrorKind, Eviction, ManualClock,
};
use async_cache_disk::fake::{FakeDisk, Fault};
use async_cache_disk::{EagerStep, Snapshot, Step, WriteOptions, Writer};
use fastrand::Rng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const PATH: &str = "/var/cache/app.cache";

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn at(wall_seconds: u64) -> SystemTime {
    UNIX_EPOCH + seconds(1_000_000 + wall_seconds)
}

fn backend(disk: &FakeDisk) -> DiskBackend {
    DiskBackend::new(PATH).vfs(disk.as_vfs())
}

/// A new process, whose wall clock shows `wall_seconds`.
fn life<K, V>(disk: &FakeDisk, wall_seconds: u64) -> (Builder<K, V>, ManualClock)
where
    K: Hash + Eq + Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
    V: Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
{
    let (clock, hands) = Clock::manual();
    hands.set_wall(at(wall_seconds));
    (AsyncCache::builder().clock(clock).backup(backend(disk)), hands)
}

/// A new process at an arbitrary time.
fn open<K, V>(disk: &FakeDisk) -> AsyncCache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
    V: Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
{
    life(disk, 0).0.build().unwrap()
}

/// A disk with a saved cache of `0..count`, each value ten times its key, coldest first.
fn saved_numbers(count: u64) -> FakeDisk {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.shards(1).eviction(Eviction::Lru).build().unwrap();
    (0..count).for_each(|key| cache.set(key, key * 10));
    assert_eq!(cache.save_to_backup().unwrap().entries, count);
    disk
}

/// Which of the first `count` keys are present; does not touch the entries.
fn there(cache: &AsyncCache<u64, u64>, count: u64) -> Vec<u64> {
    (0..count).filter(|key| cache.contains(key)).collect()
}

// Types

/// Saves one entry, and reads it in the next life.
fn comes_back<K, V, Q>(backup: &DiskBackend, key: K, value: V, asked: &Q)
where
    K: std::borrow::Borrow<Q>
        + Hash
        + Eq
        + Clone
        + Send
        + Sync
        + Serialize
        + for<'d> Deserialize<'d>
        + 'static,
    V: Clone + PartialEq + Debug + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
    Q: Hash + Eq + ToOwned<Owned = K> + Debug + Sync + ?Sized,
{
    let first = AsyncCache::builder().backup(backup.clone()).build().unwrap();
    first.set(key, value.clone());
    assert_eq!(first.save_to_backup().unwrap().entries, 1);
    drop(first);

    let next: AsyncCache<K, V> = AsyncCache::builder().backup(backup.clone()).build().unwrap();
    assert!(next.contains(asked));
    let load = || async { panic!("it does not have to load") };
    let loaded: Result<V, async_cache::LoadError<()>> = one_thread().block_on(next.get_or_load(asked, load));
    assert_eq!(loaded.unwrap(), value);
    assert_eq!(next.get(asked), Some(value));
    assert_eq!((next.stats().cold_hits, next.stats().hits, next.stats().loads), (1, 2, 0));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    title: String,
    links: Vec<(u32, Option<String>)>,
    score: f64,
}

fn page() -> Page {
    Page { title: "t".into(), links: vec![(1, None), (2, Some("x".into()))], score: 0.5 }
}

#[test]
fn values_and_keys_of_many_types_come_back_without_a_load() {
    within_limit(|| {
        comes_back(&backend(&FakeDisk::new()), "key".to_owned(), page(), "key");
        comes_back(&backend(&FakeDisk::new()), u64::MAX, page(), &u64::MAX);
        comes_back(&backend(&FakeDisk::new()), (7_u8, "x".to_owned()), vec![page()], &(7_u8, "x".to_owned()));
        comes_back(&backend(&FakeDisk::new()), vec![1_u8, 200], String::new(), &[1_u8, 200][..]);
        comes_back(&backend(&FakeDisk::new()), (), Some(1_i128 << 100), &());
        comes_back(&backend(&FakeDisk::new()), "big".to_owned(), "x".repeat(3 << 20), "big");
    });
}

#[test]
fn on_a_real_disk_folders_are_made_and_the_file_comes_back() {
    within_limit(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/app.cache");
        comes_back(&DiskBackend::new(&path), "key".to_owned(), page(), "key");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let beside = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(beside, 2, "it and its lock; no temporary file is left");
    });
}

#[test]
fn a_first_life_finds_nothing_and_warns_of_nothing() {
    let disk = FakeDisk::new();
    let cache: AsyncCache<u64, u64> = open(&disk);
    let opening = cache.opening();
    assert!(opening.warning.is_none() && opening.age.is_none());
    assert_eq!((opening.entries, opening.bytes, cache.len()), (0, 0, 0));
    assert!(disk.files().is_empty(), "opening writes nothing");
}

#[test]
fn an_opening_tells_what_came_back() {
    let disk = FakeDisk::new();
    let (builder, _) = life(&disk, 100);
    let cache = builder.build().unwrap();
    (0..5_u64).for_each(|key| cache.set(key, key));
    let saved = cache.save_to_backup().unwrap();
    let cache: AsyncCache<u64, u64> = life(&disk, 130).0.build().unwrap();
    let opening = cache.opening();
    assert_eq!((opening.entries, opening.bytes, opening.age), (5, saved.bytes, Some(seconds(30))));
    assert!(opening.warning.is_none());
}

// Time

#[test]
fn ten_seconds_left_are_six_when_it_is_reopened_four_seconds_later() {
    let disk = FakeDisk::new();
    let (builder, _) = life(&disk, 0);
    let cache = builder.build().unwrap();
    cache.set_with_ttl("key".to_owned(), 1, Some(seconds(10)));
    cache.save_to_backup().unwrap();

    for touched_at_once in [true, false] {
        let (builder, hands) = life(&disk, 4);
        let cache: AsyncCache<String, u32> = builder.build().unwrap();
        if touched_at_once {
            assert_eq!(cache.get("key"), Some(1));
        }
        hands.advance(Duration::new(5, 999_999_999));
        assert_eq!((cache.get("key"), cache.contains("key")), (Some(1), true));
        hands.advance(Duration::from_nanos(1));
        assert_eq!((cache.get("key"), cache.contains("key")), (None, false));
        hands.advance(Duration::from_millis(2)); // sizes lag by a tick
        assert_eq!(cache.len(), 0);
    }
}

#[test]
fn what_expired_between_two_lives_is_gone_everywhere() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.build().unwrap();
    cache.set_with_ttl("short".to_owned(), 1, Some(seconds(10)));
    cache.set_with_ttl("long".to_owned(), 2, Some(seconds(20)));
    cache.save_to_backup().unwrap();

    let reopened = || life::<String, u32>(&disk, 10).0.build().unwrap();
    assert_eq!(reopened().get("short"), None);
    assert!(!reopened().contains("short"));
    assert_eq!(reopened().len(), 1);
    assert_eq!(reopened().metrics().size, 1);
    assert_eq!(reopened().save_to_backup().unwrap().entries, 1);
    assert_eq!(reopened().get("long"), Some(2));
}

#[test]
fn no_time_to_live_stays_none() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.default_ttl(seconds(1)).build().unwrap();
    cache.set_with_ttl(1_u64, 1_u64, None);
    cache.save_to_backup().unwrap();
    let (builder, hands) = life(&disk, 1_000_000_000);
    let cache: AsyncCache<u64, u64> = builder.default_ttl(seconds(1)).build().unwrap();
    hands.advance(seconds(1_000_000_000));
    assert_eq!((cache.get(&1), cache.len()), (Some(1), 1));
    hands.advance(seconds(1_000_000_000));
    cache.save_to_backup().unwrap();
    assert_eq!(life(&disk, 3_000_000_000).0.build().unwrap().get(&1_u64), Some(1_u64));
}

#[test]
fn a_wall_clock_that_was_set_back_lengthens_no_life() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 1000).0.build().unwrap();
    cache.set_with_ttl(1_u64, 1_u64, Some(seconds(10)));
    cache.save_to_backup().unwrap();
    let (builder, hands) = life(&disk, 0);
    let cache: AsyncCache<u64, u64> = builder.build().unwrap();
    hands.advance(seconds(9));
    assert_eq!(cache.get(&1), Some(1));
    hands.advance(seconds(1));
    assert_eq!(cache.get(&1), None);
}

/// The clock is set back before every life, and in the middle of it; the entry is never touched, so
/// it is copied as bytes.
#[test]
fn a_wall_clock_that_is_set_back_again_and_again_lengthens_no_life() {
    for touched in [false, true] {
        let disk = FakeDisk::new();
        let cache = life(&disk, 1000).0.build().unwrap();
        cache.set_with_ttl(1_u64, 1_u64, Some(seconds(10)));
        cache.save_to_backup().unwrap();
        for wall in [900, 800, 700] {
            let (builder, hands) = life(&disk, wall);
            let cache: AsyncCache<u64, u64> = builder.build().unwrap();
            if touched {
                assert_eq!(cache.get(&1), Some(1));
            }
            hands.advance(seconds(2));
            cache.save_to_backup().unwrap();
            hands.set_wall(at(wall - 50));
            hands.advance(seconds(1));
            cache.save_to_backup().unwrap();
        }
        // Nine seconds have passed.
        let (builder, hands) = life(&disk, 0);
        let cache: AsyncCache<u64, u64> = builder.build().unwrap();
        assert!(cache.contains(&1), "one second is left");
        hands.advance(seconds(1));
        assert_eq!((cache.get(&1), cache.len()), (None, 0));
    }
}

/// The second load reads the file beside the opened one; the clock of later saves must not be set
/// back to that file.
#[test]
fn loading_again_under_a_wall_clock_that_was_set_back_lengthens_no_life() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 1000).0.build().unwrap();
    cache.set_with_ttl(1_u64, 1_u64, Some(seconds(10)));
    cache.save_to_backup().unwrap();

    let (builder, hands) = life(&disk, 0);
    let cache: AsyncCache<u64, u64> = builder.build().unwrap();
    cache.set(2, 2);
    hands.advance(seconds(6));
    cache.load_from_backup().unwrap();
    cache.save_to_backup().unwrap();

    let (builder, hands) = life(&disk, 0);
    let cache: AsyncCache<u64, u64> = builder.build().unwrap();
    assert!(cache.contains(&1), "four seconds are left");
    hands.advance(seconds(4));
    assert_eq!(cache.get(&1), None);
}

#[test]
fn a_wall_clock_that_jumps_forward_shortens_only_what_is_reopened() {
    let disk = FakeDisk::new();
    let (builder, hands) = life(&disk, 0);
    let cache = builder.build().unwrap();
    cache.set_with_ttl(1_u64, 1_u64, Some(seconds(10)));
    hands.set_wall(at(5000));
    assert_eq!(cache.get(&1), Some(1), "in memory the monotonic clock counts");
    cache.save_to_backup().unwrap();
    assert_eq!(life(&disk, 5004).0.build().unwrap().get(&1_u64), Some(1_u64));
    assert_eq!(life::<u64, u64>(&disk, 5010).0.build().unwrap().get(&1), None);
}

#[test]
fn an_entry_that_is_set_anew_has_a_life_of_its_own() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.build().unwrap();
    cache.set_with_ttl(1_u64, 1_u64, Some(seconds(10)));
    cache.save_to_backup().unwrap();
    let (builder, hands) = life(&disk, 4);
    let cache: AsyncCache<u64, u64> = builder.build().unwrap();
    cache.set_with_ttl(1, 2, Some(seconds(100)));
    hands.advance(seconds(50));
    assert_eq!((cache.get(&1), cache.len()), (Some(2), 1));
}

/// No read and no `len` helps: with room for a hundred, expired entries make room before live
/// entries are evicted.
#[test]
fn expired_cold_entries_are_reclaimed_by_later_writes() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.build().unwrap();
    (0..100_u64).for_each(|key| cache.set_with_ttl(key, key, Some(seconds(10))));
    cache.save_to_backup().unwrap();
    let cache: AsyncCache<u64, u64> = life(&disk, 20).0.maxsize(100).shards(1).build().unwrap();
    (1000..1050).for_each(|key| cache.set(key, key));
    let stats = cache.stats();
    assert!(stats.evictions <= 1, "only the first write came before any reclaiming: {stats:?}");
    assert_eq!((stats.size, stats.cold, stats.evictions + stats.expirations), (50, 0, 100));
}

// Order and size

#[test]
fn the_most_recently_used_remain_in_a_smaller_cache() {
    let disk = FakeDisk::new();
    let exact = |maxsize| life::<u64, u64>(&disk, 0).0.maxsize(maxsize).shards(1).eviction(Eviction::Lru);
    let cache = exact(10).build().unwrap();
    (0..10).for_each(|key| cache.set(key, key));
    assert_eq!((cache.get(&2), cache.get(&0)), (Some(2), Some(0)));
    cache.save_to_backup().unwrap();

    let cache = exact(4).build().unwrap();
    assert_eq!((there(&cache, 10), cache.len(), cache.opening().entries), (vec![0, 2, 8, 9], 4, 4));
    // The coldest first: 8, 9, 2, 0; but then 9 is used.
    assert_eq!(cache.get(&9), Some(9));
    for (new, left) in [(10, vec![0, 2, 9, 10]), (11, vec![0, 9, 10, 11]), (12, vec![9, 10, 11, 12])] {
        cache.set(new, new);
        assert_eq!((there(&cache, 20), cache.len()), (left, 4));
    }
    cache.set(13, 13);
    assert_eq!(there(&cache, 20), [10, 11, 12, 13], "now that none is cold, hot ones go");
    assert_eq!(cache.stats().evictions, 4);
}

#[test]
fn order_survives_several_lives_of_hot_and_cold_entries() {
    let disk = saved_numbers(8);
    let exact = |maxsize| life::<u64, u64>(&disk, 0).0.maxsize(maxsize).shards(1).eviction(Eviction::Lru);
    for used in [3, 0, 5] {
        let cache = exact(8).build().unwrap();
        assert_eq!(cache.get(&used), Some(used * 10));
        assert_eq!(cache.save_to_backup().unwrap().entries, 8);
    }
    // 1 2 4 6 7 3 0 5
    assert_eq!(there(&exact(5).build().unwrap(), 8), [0, 3, 5, 6, 7]);
    assert_eq!(there(&exact(2).build().unwrap(), 8), [0, 5]);
}

#[test]
fn by_default_what_was_used_remains_in_a_smaller_cache() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.maxsize(1000).shards(4).build().unwrap();
    (0..200_u64).for_each(|key| cache.set(key, key));
    for key in (0..200).step_by(10) {
        assert_eq!((cache.get(&key), cache.get(&key)), (Some(key), Some(key)));
    }
    cache.save_to_backup().unwrap();
    let cache: AsyncCache<u64, u64> = life(&disk, 0).0.maxsize(80).build().unwrap();
    assert_eq!(cache.len(), 80);
    assert!((0..200).step_by(10).all(|key| cache.contains(&key)), "{:?}", there(&cache, 200));
}

#[test]
fn sizes_count_cold_entries() {
    let disk = saved_numbers(50);
    let cache: AsyncCache<u64, u64> = open(&disk);
    assert_eq!((cache.len(), cache.metrics().size, cache.stats().cold), (50, 50, 50));
    assert_eq!(cache.get(&7), Some(70));
    cache.set(8, 0);
    cache.set(100, 0);
    assert_eq!((cache.len(), cache.metrics().size, cache.stats().cold), (51, 51, 48));
}

#[test]
fn a_cache_of_size_zero_opens_nothing_and_saves_nothing() {
    let disk = saved_numbers(3);
    let cache: AsyncCache<u64, u64> = life(&disk, 0).0.maxsize(0).build().unwrap();
    assert_eq!((cache.get(&1), cache.contains(&1), cache.len()), (None, false, 0));
    assert_eq!(cache.save_to_backup().unwrap().entries, 0);
}

#[test]
fn with_several_shards_maxsize_counts_what_is_hot_and_cold_in_all_of_them() {
    let disk = saved_numbers(64);
    let cache: AsyncCache<u64, u64> = life(&disk, 0).0.maxsize(64).shards(8).build().unwrap();
    for key in 1000..1032 {
        cache.set(key, key);
        assert_eq!(cache.len(), 64);
    }
    assert_eq!(there(&cache, 64), (32..64).collect::<Vec<_>>(), "the coldest made room");
    // By now shards hold more or less than their shares. They shrink when the last cold entry has
    // left.
    for key in 2000..3000 {
        cache.set(key, key);
        assert!(cache.len() <= 64, "{}", cache.len());
    }
}

// Writes to cold entries

#[test]
fn what_was_set_deleted_or_loaded_over_a_cold_entry_stays_so() {
    let disk = saved_numbers(5);
    for saves in 0..3 {
        let cache: AsyncCache<u64, u64> = open(&disk);
        if saves == 0 {
            cache.set(0, 1);
            cache.delete(&1);
            cache.delete(&2);
            let load = || async { Ok::<_, ()>(22) };
            assert_eq!(one_thread().block_on(cache.get_or_load(&2, load)).unwrap(), 22);
        }
        assert_eq!([0, 1, 2, 3].map(|key| cache.get(&key)), [Some(1), None, Some(22), Some(30)]);
        assert_eq!((cache.len(), cache.contains(&1), cache.contains(&4)), (4, false, true));
        assert_eq!(cache.save_to_backup().unwrap().entries, 4);
    }
}

#[test]
fn what_is_not_saved_is_found_as_it_was() {
    let disk = saved_numbers(3);
    let cache: AsyncCache<u64, u64> = open(&disk);
    cache.set(0, 1);
    cache.delete(&1);
    cache.clear();
    drop(cache);
    let cache: AsyncCache<u64, u64> = open(&disk);
    assert_eq!([0, 1, 2].map(|key| cache.get(&key)), [Some(0), Some(10), Some(20)]);
}

#[test]
fn a_cleared_cache_is_empty_in_the_next_life_too() {
    let disk = saved_numbers(100);
    let cache: AsyncCache<u64, u64> = open(&disk);
    assert_eq!(cache.get(&1), Some(10));
    cache.clear();
    assert_eq!((cache.len(), cache.get(&1), cache.get(&2), cache.contains(&3)), (0, None, None, false));
    cache.set(2, 21);
    assert_eq!(cache.save_to_backup().unwrap().entries, 1);
    let cache: AsyncCache<u64, u64> = open(&disk);
    assert_eq!((cache.len(), cache.get(&2)), (1, Some(21)));
}

#[test]
fn a_cold_entry_does_not_come_back_when_its_hot_version_is_evicted() {
    for replaced in [true, false] {
        let disk = saved_numbers(2);
        let small = || life::<u64, u64>(&disk, 0).0.maxsize(2).shards(1).eviction(Eviction::Lru);
        let cache = small().build().unwrap();
        if replaced {
            cache.set(1, 11);
        } else {
            assert_eq!(cache.get(&1), Some(10));
        }
        cache.set(100, 0);
        cache.set(101, 0);
        assert_eq!((cache.get(&1), cache.contains(&1), cache.len()), (None, false, 2));
        cache.save_to_backup().unwrap();
        let cache = small().build().unwrap();
        assert_eq!((cache.get(&1), cache.len()), (None, 2));
    }
}

/// Counts how often a value is read from a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Counted(u64);

static DECODED: AtomicUsize = AtomicUsize::new(0);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.fetch_add(1, SeqCst);
        u64::deserialize(deserializer).map(Self)
    }
}

#[test]
fn what_is_not_touched_is_copied_and_never_decoded() {
    let disk = saved_numbers(300);
    let before = disk.bytes(Path::new(PATH)).unwrap().len();
    for _ in 0..2 {
        let cache: AsyncCache<u64, Counted> = open(&disk);
        let saved = cache.save_to_backup().unwrap();
        assert_eq!((saved.entries, saved.bytes, cache.stats().cold), (300, before as u64, 300));
        assert_eq!(DECODED.load(SeqCst), 0);
    }
    assert_eq!(open(&disk).get(&299_u64), Some(Counted(2990)));
    assert_eq!(DECODED.load(SeqCst), 1);
}

// Many lives

/// The expected entries: the value, and its deadline on a clock that never stops.
type Model = BTreeMap<u64, (u64, Option<u64>)>;

struct World {
    disk: FakeDisk,
    cache: AsyncCache<u64, u64>,
    hands: ManualClock,
    now: u64,
    model: Model,
    saved: Model,
    shards: usize,
}

impl World {
    fn reopen(&mut self, later: u64) {
        let wall = self.hands.wall() + seconds(later);
        let (builder, hands) = life(&self.disk, 0);
        hands.set_wall(wall);
        self.now += later;
        (self.cache, self.hands) = (builder.shards(self.shards).build().unwrap(), hands);
        self.model = self.saved.clone();
    }

    fn live(&self) -> Model {
        let live = self.model.iter().filter(|(_, (_, until))| until.is_none_or(|until| until > self.now));
        live.map(|(key, entry)| (*key, *entry)).collect()
    }

    fn step(&mut self, rng: &mut Rng) {
        let (key, value) = (rng.u64(..40), rng.u64(..1000));
        let expected = self.live().get(&key).map(|(value, _)| *value);
        match rng.u32(..100) {
            0..25 => assert_eq!(self.cache.get(&key), expected, "key {key}"),
            25..35 => assert_eq!(self.cache.contains(&key), expected.is_some(), "key {key}"),
            35..55 => {
                let ttl = rng.bool().then(|| rng.u64(..30));
                self.cache.set_with_ttl(key, value, ttl.map(seconds));
                self.model.insert(key, (value, ttl.map(|ttl| self.now + ttl)));
            }
            55..65 => {
                self.cache.delete(&key);
                self.model.remove(&key);
            }
            65..75 => {
                let by = rng.u64(..6);
                self.now += by;
                // And a tick, by which sizes lag; there are too few ticks to add up to a second.
                self.hands.advance(seconds(by) + Duration::from_millis(2));
            }
            75..85 => assert_eq!(self.cache.len(), self.live().len()),
            85..91 => {
                let saved = self.cache.save_to_backup().unwrap();
                assert_eq!((saved.entries, saved.left_out), (self.live().len() as u64, 0));
                self.saved = self.live();
            }
            91..97 => self.reopen(rng.u64(..3)),
            97 => {
                self.cache.clear();
                self.model.clear();
            }
            _ => {
                self.cache.load_from_backup().unwrap();
                let live = self.live();
                self.model = self.saved.clone();
                self.model.extend(live);
            }
        }
    }
}

#[test]
fn many_lives_go_as_a_naive_model_says() {
    within_limit(|| {
        let first = number_from_env("ASYNC_CACHE_SEED", fastrand::u64(..1 << 32));
        for seed in first..first + number_from_env("ASYNC_CACHE_ROUNDS", 60) {
            println!("ASYNC_CACHE_SEED={seed}");
            let (mut rng, disk) = (Rng::with_seed(seed), FakeDisk::new());
            disk.keep_no_log();
            let shards = [1, 4][rng.usize(..2)];
            let (builder, hands) = life(&disk, 0);
            let cache = builder.shards(shards).build().unwrap();
            let (model, saved) = (Model::new(), Model::new());
            let mut world = World { disk, cache, hands, now: 0, model, saved, shards };
            for _ in 0..400 {
                world.step(&mut rng);
            }
        }
    });
}

// Loading again

#[test]
fn an_empty_cache_opens_the_snapshot_when_it_loads_again() {
    let disk = saved_numbers(10);
    let cache: AsyncCache<u64, u64> = open(&disk);
    cache.clear();
    let opening = cache.load_from_backup().unwrap();
    assert_eq!((opening.entries, cache.len(), cache.stats().cold), (10, 10, 10));
    assert_eq!(cache.get(&3), Some(30));
}

#[test]
fn what_is_in_memory_stays_when_the_backup_is_loaded_and_is_newer() {
    let disk = saved_numbers(4);
    let cache: AsyncCache<u64, u64> =
        life(&disk, 0).0.maxsize(5).shards(1).eviction(Eviction::Lru).build().unwrap();
    cache.clear();
    cache.set(0, 1);
    cache.set(100, 2);
    let opening = cache.load_from_backup().unwrap();
    assert_eq!((opening.entries, cache.len(), cache.stats().cold), (3, 5, 0));
    assert_eq!((cache.get(&0), cache.get(&3)), (Some(1), Some(30)));
    // 1, 2 came from the backup and were not used: they are the first to leave, in their order.
    cache.set(101, 0);
    assert_eq!((cache.contains(&1), cache.contains(&2)), (false, true));
    cache.set(102, 0);
    assert_eq!((cache.contains(&2), cache.contains(&100)), (false, true));
}

#[test]
fn what_does_not_fit_is_not_loaded_and_nothing_in_memory_makes_room() {
    let disk = saved_numbers(10);
    let cache: AsyncCache<u64, u64> =
        life(&disk, 0).0.maxsize(4).shards(1).eviction(Eviction::Lru).build().unwrap();
    cache.clear();
    (100..103).for_each(|key| cache.set(key, key));
    assert_eq!(cache.load_from_backup().unwrap().entries, 1);
    assert_eq!((there(&cache, 200), cache.len()), (vec![9, 100, 101, 102], 4));
}

#[test]
fn a_backup_that_cannot_be_loaded_leaves_the_cache_as_it_was() {
    let disk = saved_numbers(3);
    let cache: AsyncCache<u64, u64> = open(&disk);
    cache.set(100, 1);
    disk.put(Path::new(PATH), b"something else altogether");
    let error = cache.load_from_backup().unwrap_err();
    assert!(matches!(&error, BackupError::Disk(error) if *error.kind() == DiskErrorKind::Foreign), "{error}");
    assert_eq!((cache.len(), cache.get(&100), cache.get(&2)), (4, Some(1), Some(20)));
}

/// A cold entry is replaced by the file's entry for its key; it stayed, and the other process's
/// later write was not visible.
#[test]
fn what_is_saved_by_others_is_found_when_the_backup_is_loaded() {
    let disk = saved_numbers(2);
    let cache: AsyncCache<u64, u64> = open(&disk);
    cache.delete(&0);
    let other: AsyncCache<u64, u64> = open(&disk);
    other.set(5, 50);
    other.set(1, 11);
    other.save_to_backup().unwrap();
    cache.set(100, 0);
    cache.load_from_backup().unwrap();
    assert_eq!([0, 1, 5].map(|key| cache.get(&key)), [Some(0), Some(11), Some(50)]);
    assert_eq!(cache.get(&100), Some(0), "what is in memory stays");
}

// Saving while other threads run

#[test]
fn a_save_beside_readers_and_writers_keeps_values_that_were_there() {
    within_limit(|| {
        let disk = saved_numbers(400);
        disk.keep_no_log();
        let cache: AsyncCache<u64, u64> = life(&disk, 0).0.shards(4).build().unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for seed in 0..2 {
                let (cache, stop) = (&cache, &stop);
                scope.spawn(move || {
                    let mut rng = Rng::with_seed(seed);
                    while !stop.load(SeqCst) {
                        // The first half is written, and only ever has its own values; the other
                        // half is read.
                        let key = rng.u64(..400);
                        if key < 200 {
                            cache.set(key, key * 10 + rng.u64(..10));
                        } else {
                            assert_eq!(cache.get(&key), Some(key * 10));
                        }
                    }
                });
            }
            for _ in 0..20 {
                assert_eq!(cache.save_to_backup().unwrap().entries, 400);
                let copy: AsyncCache<u64, u64> = open(&disk);
                assert_eq!(copy.len(), 400);
                for key in 0..400 {
                    assert_eq!(copy.get(&key).map(|value| value / 10), Some(key), "key {key}");
                }
            }
            stop.store(true, SeqCst);
        });
    });
}

#[test]
fn two_saves_at_once_both_succeed_and_do_not_meet() {
    within_limit(|| {
        let disk = saved_numbers(200);
        let cache: AsyncCache<u64, u64> = open(&disk);
        disk.repair(); // forgets the calls
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(cache.save_to_backup().unwrap().entries, 200));
            }
        });
        let calls = disk.calls().into_iter().map(|call| call.name);
        let ends: Vec<_> = calls.filter(|name| ["create_new", "rename"].contains(name)).collect();
        assert_eq!(ends, ["create_new", "rename"].repeat(4), "one after the other");
        assert_eq!((disk.files().len(), cache.stats().saves), (2, 4), "the file and its lock");
        assert_eq!(open::<u64, u64>(&disk).get(&7), Some(70));
    });
}

#[test]
fn a_save_in_the_background_is_a_save() {
    within_limit(|| {
        let (disk, runtime) = (saved_numbers(3), one_thread());
        let cache: AsyncCache<u64, u64> = open(&disk);
        cache.set(3, 30);
        let saved = runtime.block_on(cache.save_to_backup_async()).unwrap();
        assert_eq!((saved.entries, saved.left_out, saved.set_aside), (4, 0, None));
        assert_eq!(open::<u64, u64>(&disk).len(), 4);
        disk.fail_every("sync", io::ErrorKind::Other);
        runtime.block_on(cache.save_to_backup_async()).unwrap_err();
    });
}

#[test]
fn a_save_in_the_background_goes_on_when_its_future_is_dropped() {
    within_limit(|| {
        let disk = saved_numbers(3);
        let cache: AsyncCache<u64, u64> = open(&disk);
        cache.set(3, 30);
        several_threads().block_on(async {
            let saving = cache.clone();
            let mut saving = Box::pin(async move { saving.save_to_backup_async().await });
            let _ = poll_once(&mut saving);
            drop(saving);
            until(|| cache.stats().saves == 1).await;
        });
        assert_eq!(open::<u64, u64>(&disk).len(), 4);
    });
}

#[test]
fn a_save_in_the_background_of_a_runtime_that_is_gone_is_an_error() {
    within_limit(|| {
        let disk = saved_numbers(3);
        let cache: AsyncCache<u64, u64> = open(&disk);
        let gone = one_thread();
        let handle = gone.handle().clone();
        drop(gone);
        let saving = {
            let _entered = handle.enter();
            let mut saving = Box::pin(cache.save_to_backup_async());
            match poll_once(&mut saving) {
                std::task::Poll::Ready(saved) => saved,
                std::task::Poll::Pending => one_thread().block_on(saving),
            }
        };
        assert!(matches!(saving, Err(BackupError::Interrupted(_))), "{saving:?}");
    });
}

// Entries of another program

/// Adds eager entries to the file, like another program that loads and saves it; they have no
/// deadline, or a deadline so many seconds from now.
fn add_eager(disk: &FakeDisk, entries: &[(&str, Option<u64>)]) {
    let (vfs, path) = (disk.as_vfs(), Path::new(PATH));
    let old = Snapshot::open_any_version(&vfs, path).unwrap().unwrap();
    let mut writer = Writer::create(&vfs, path, WriteOptions::new(old.version(), old.saved_at())).unwrap();
    let mut records = old.records();
    while let Some(Step::Record(record)) = records.next_step() {
        writer.copy(&record).unwrap();
    }
    for (key, ttl) in entries {
        let deadline = ttl.map(|ttl| old.saved_at() + ttl * 1_000_000_000);
        writer.push_eager(key.as_bytes(), b"pickled", deadline).unwrap();
    }
    writer.finish().unwrap();
}

/// The keys of the eager entries in the file.
fn eager_keys(disk: &FakeDisk) -> Vec<String> {
    let snapshot = Snapshot::open_any_version(&disk.as_vfs(), Path::new(PATH)).unwrap().unwrap();
    let (mut records, mut keys) = (snapshot.eager(), Vec::new());
    while let Some(EagerStep::Record(record)) = records.next_step() {
        assert_eq!(record.value, b"pickled");
        keys.push(String::from_utf8(record.key.to_vec()).unwrap());
    }
    keys
}

#[test]
fn entries_that_only_another_program_can_read_are_kept_until_they_expire_or_the_cache_is_cleared() {
    within_limit(|| {
        let disk = saved_numbers(3);
        add_eager(&disk, &[("short", Some(10)), ("long", Some(1000)), ("for ever", None)]);

        let (builder, hands) = life::<u64, u64>(&disk, 1);
        let cache = builder.build().unwrap();
        assert_eq!((cache.opening().entries, cache.len(), there(&cache, 9).len()), (3, 3, 3));
        assert_eq!((cache.save_to_backup().unwrap().entries, cache.len()), (3, 3));
        assert_eq!(eager_keys(&disk), ["short", "long", "for ever"]);

        // Also when no entry is cold any more, and the rest of the file has been closed.
        for key in 0..4 {
            cache.set(key, key);
        }
        assert_eq!((0..5).filter(|key| cache.get(key).is_some()).count(), 4);
        assert_eq!((cache.stats().cold, cache.save_to_backup().unwrap().entries), (0, 4));
        assert_eq!(eager_keys(&disk), ["short", "long", "for ever"]);

        hands.advance(seconds(20));
        cache.save_to_backup().unwrap();
        assert_eq!(eager_keys(&disk), ["long", "for ever"]);

        cache.clear();
        cache.set(7, 7);
        cache.save_to_backup().unwrap();
        assert_eq!(eager_keys(&disk), [""; 0]);
    });
}

// Damage

/// Runs a function and returns the warnings logged in the meantime on this thread.
///
/// One subscriber for the whole process: with a subscriber for each test, `tracing` may record for
/// good that nothing listens to a warning that another thread logs for the first time.
fn warnings(work: impl FnOnce()) -> Vec<String> {
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    thread_local! {
        static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }
    struct Log;
    struct Message(String);
    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }
    }
    impl Subscriber for Log {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::WARN
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut message = Message(String::new());
            event.record(&mut message);
            LOGGED.with_borrow_mut(|logged| logged.push(message.0));
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
    LOGGED.take();
    work();
    LOGGED.take()
}

#[test]
fn values_that_no_longer_decode_are_misses_counted_and_reported_once() {
    let disk = saved_numbers(3);
    let logged = warnings(|| {
        let cache: AsyncCache<u64, Page> = open(&disk);
        assert_eq!(cache.len(), 3);
        for key in 0..3 {
            assert_eq!((cache.get(&key), cache.contains(&key)), (None, false));
        }
        assert_eq!((cache.stats().undecodable, cache.stats().misses, cache.len()), (3, 3, 0));
        assert_eq!(cache.get(&1), None);
        assert_eq!(cache.stats().undecodable, 3, "each once");
        let loaded = one_thread().block_on(cache.get_or_load(&1, || async { Ok::<_, ()>(page()) }));
        assert_eq!(loaded.unwrap(), page());
        assert_eq!(cache.save_to_backup().unwrap().entries, 1);
    });
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(logged[0].contains(PATH) && logged[0].contains("undecodable"), "{logged:?}");
}

/// Replaces the single occurrence of `what` in the file.
fn damage(disk: &FakeDisk, what: &[u8]) {
    let mut bytes = disk.bytes(Path::new(PATH)).unwrap();
    let places: Vec<_> = (0..bytes.len() - what.len()).filter(|&at| bytes[at..].starts_with(what)).collect();
    assert_eq!(places.len(), 1);
    bytes[places[0]] ^= 0x40;
    disk.overwrite(Path::new(PATH), &bytes);
}

fn saved_texts() -> FakeDisk {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.shards(1).build().unwrap();
    (0..20_u64).for_each(|key| cache.set(key, format!("the text of {key}.")));
    cache.save_to_backup().unwrap();
    disk
}

#[test]
fn a_damaged_record_is_a_miss_and_the_rest_is_served() {
    for opened_before in [true, false] {
        let disk = saved_texts();
        let early = opened_before.then(|| open::<u64, String>(&disk));
        damage(&disk, b"the text of 7.");
        damage(&disk, b"the text of 12.");
        let cache = early.unwrap_or_else(|| open(&disk));
        for key in 0..20 {
            let expected = (![7, 12].contains(&key)).then(|| format!("the text of {key}."));
            assert_eq!(cache.get(&key), expected);
        }
        assert_eq!((cache.stats().undecodable, cache.len()), (2, 18));
        assert_eq!(cache.save_to_backup().unwrap().entries, 18);
        assert_eq!(open::<u64, String>(&disk).len(), 18);
    }
}

#[test]
fn a_save_leaves_out_what_is_damaged_and_counts_it() {
    let disk = saved_texts();
    damage(&disk, b"the text of 7.");
    let cache: AsyncCache<u64, String> = open(&disk);
    assert_eq!(cache.save_to_backup().unwrap().entries, 19);
    assert_eq!((cache.stats().undecodable, cache.len()), (1, 19));
    let cache: AsyncCache<u64, String> = open(&disk);
    assert_eq!((cache.get(&7), cache.get(&8).as_deref()), (None, Some("the text of 8.")));
}

#[test]
fn a_damaged_entry_that_is_set_anew_is_there_once() {
    let disk = saved_texts();
    damage(&disk, b"the text of 7.");
    let cache: AsyncCache<u64, String> = open(&disk);
    cache.set(7, "new".into());
    assert_eq!((cache.get(&7).as_deref(), cache.len()), (Some("new"), 20));
    assert_eq!(cache.save_to_backup().unwrap().entries, 20);
    assert_eq!(open::<u64, String>(&disk).get(&7).as_deref(), Some("new"));
}

#[test]
fn a_file_that_is_cut_while_open_is_misses() {
    for kept in [0, 1, 4096, 4200] {
        let disk = saved_texts();
        let cache: AsyncCache<u64, String> = open(&disk);
        assert_eq!(cache.get(&3).as_deref(), Some("the text of 3."));
        let bytes = disk.bytes(Path::new(PATH)).unwrap();
        disk.overwrite(Path::new(PATH), &bytes[..kept]);
        let found = (0..20).filter_map(|key| cache.get(&key)).collect::<Vec<_>>();
        assert_eq!(found, ["the text of 3."], "what is in memory stays");
        cache.save_to_backup().unwrap();
        assert_eq!(open::<u64, String>(&disk).get(&3).as_deref(), Some("the text of 3."));
    }
}

#[test]
fn a_file_that_is_overwritten_while_open_is_misses_and_never_the_others_values() {
    let (disk, other) = (saved_texts(), FakeDisk::new());
    let writer = life(&other, 0).0.shards(1).build().unwrap();
    (0..20_u64).for_each(|key| writer.set(key, format!("one other of {key}.")));
    writer.save_to_backup().unwrap();
    let cache: AsyncCache<u64, String> = open(&disk);
    assert_eq!(cache.get(&3).as_deref(), Some("the text of 3."));
    disk.overwrite(Path::new(PATH), &other.bytes(Path::new(PATH)).unwrap());
    let found = (0..20).filter_map(|key| cache.get(&key)).collect::<Vec<_>>();
    assert_eq!(found, ["the text of 3."]);
}

#[test]
fn a_file_that_is_replaced_while_open_serves_on() {
    let disk = saved_texts();
    let cache: AsyncCache<u64, String> = open(&disk);
    let other: AsyncCache<u64, String> = open(&disk);
    other.set(3, "new".into());
    other.save_to_backup().unwrap();
    assert_eq!(cache.get(&3).as_deref(), Some("the text of 3."));
    // The later write wins, in either order of saves.
    cache.save_to_backup().unwrap();
    assert_eq!(open::<u64, String>(&disk).get(&3).as_deref(), Some("new"));
}

#[test]
fn without_merging_the_later_save_wins_and_takes_no_lock() {
    let disk = FakeDisk::new();
    let life = || AsyncCache::<u64, u64>::builder().backup(backend(&disk).without_merging()).build().unwrap();
    let (cache, other) = (life(), life());
    other.set(1, 1);
    cache.set(2, 2);
    other.save_to_backup().unwrap();
    cache.save_to_backup().unwrap();
    assert_eq!((life().get(&1), life().get(&2), disk.files().len()), (None, Some(2), 1));
}

#[test]
fn what_one_cache_deleted_stays_gone_though_another_one_has_it_and_saves_later() {
    let disk = saved_numbers(4);
    let [cache, other]: [AsyncCache<u64, u64>; 2] = [open(&disk), open(&disk)];
    cache.delete(&1);
    other.set(7, 70);
    cache.save_to_backup().unwrap();
    assert_eq!(other.get(&1), Some(10), "it serves its own memory");
    other.save_to_backup().unwrap();
    let reborn: AsyncCache<u64, u64> = open(&disk);
    assert_eq!([0, 1, 2, 3, 7].map(|key| reborn.get(&key)), [Some(0), None, Some(20), Some(30), Some(70)]);
}

#[test]
fn what_one_cache_cleared_stays_gone_and_what_another_one_wrote_later_stays() {
    let disk = saved_numbers(4);
    let [cache, other]: [AsyncCache<u64, u64>; 2] = [open(&disk), open(&disk)];
    assert_eq!(other.get(&2), Some(20));
    cache.clear();
    cache.save_to_backup().unwrap();
    other.save_to_backup().unwrap();
    assert_eq!(open::<u64, u64>(&disk).len(), 0);
    other.set(2, 21);
    other.save_to_backup().unwrap();
    cache.save_to_backup().unwrap();
    let reborn: AsyncCache<u64, u64> = open(&disk);
    assert_eq!((reborn.get(&2), reborn.len()), (Some(21), 1));
}

#[test]
fn a_foreign_file_is_an_empty_cache_and_a_warning_and_is_set_aside_not_destroyed() {
    let foreign = b"a diary that somebody keeps there";
    let disk = FakeDisk::new();
    disk.put(Path::new(PATH), foreign);
    let logged = warnings(|| {
        let cache: AsyncCache<u64, u64> = open(&disk);
        let warning = cache.opening().warning.as_ref().unwrap();
        assert!(matches!(warning, BackupError::Disk(error) if *error.kind() == DiskErrorKind::Foreign));
        assert!(warning.to_string().contains(PATH), "{warning}");
        assert_eq!((cache.len(), cache.opening().entries), (0, 0));
        assert_eq!(disk.bytes(Path::new(PATH)).unwrap(), foreign, "opening leaves it alone");
        cache.set(1, 1);
        let aside = cache.save_to_backup().unwrap().set_aside.unwrap();
        assert_eq!(disk.bytes(&aside).unwrap(), foreign);
        assert_eq!(cache.save_to_backup().unwrap().set_aside, None);
    });
    assert_eq!(logged.len(), 2, "at the opening and at the save: {logged:?}");
    assert_eq!(open::<u64, u64>(&disk).get(&1), Some(1));
}

#[test]
fn a_damaged_header_is_an_empty_cache_and_the_file_is_set_aside() {
    let disk = saved_numbers(3);
    let mut bytes = disk.bytes(Path::new(PATH)).unwrap();
    bytes[70] ^= 1;
    disk.overwrite(Path::new(PATH), &bytes);
    let cache: AsyncCache<u64, u64> = open(&disk);
    let warning = cache.opening().warning.as_ref().unwrap();
    assert!(
        matches!(warning, BackupError::Disk(error) if *error.kind() == DiskErrorKind::Damaged),
        "{warning}"
    );
    assert_eq!(cache.len(), 0);
    let aside = cache.save_to_backup().unwrap().set_aside.unwrap();
    assert_eq!(disk.bytes(&aside).unwrap(), bytes);
}

#[test]
fn a_file_of_another_version_is_an_empty_cache_and_is_replaced() {
    let disk = FakeDisk::new();
    let of_version = |version: &str| -> AsyncCache<u64, u64> {
        AsyncCache::builder().backup(backend(&disk).version(version)).build().unwrap()
    };
    let cache = of_version("v1");
    cache.set(1, 1);
    cache.save_to_backup().unwrap();
    assert_eq!(of_version("v1").get(&1), Some(1));

    let cache = of_version("v2");
    let warning = cache.opening().warning.as_ref().unwrap().to_string();
    assert!(warning.contains("v1") && warning.contains("v2"), "{warning}");
    assert_eq!((cache.get(&1), cache.len()), (None, 0));
    assert_eq!(of_version("v1").get(&1), Some(1), "opening leaves it alone");
    cache.set(2, 2);
    assert_eq!(cache.save_to_backup().unwrap().set_aside, None);
    assert_eq!((of_version("v2").get(&2), of_version("v1").len(), disk.files().len()), (Some(2), 0, 2));
}

// Impossible requests

#[test]
fn a_path_that_is_a_directory_is_an_error_of_the_build() {
    let folder = tempfile::tempdir().unwrap();
    let built = AsyncCache::<u64, u64>::builder().backup(DiskBackend::new(folder.path())).build();
    let error = built.unwrap_err();
    let BuildError::Backup(BackupError::Disk(disk)) = &error else { panic!("{error:?}") };
    assert_eq!(*disk.kind(), DiskErrorKind::NotAFile);
    assert!(error.to_string().contains("directory"), "{error}");
}

#[test]
fn a_folder_that_is_a_file_is_a_clear_error_and_the_cache_serves() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let path = file.join("app.cache");
    let cache = AsyncCache::builder().backup(DiskBackend::new(&path)).build().unwrap();
    assert!(cache.opening().warning.is_some());
    cache.set(1_u64, 1_u64);
    let error = cache.save_to_backup().unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
    assert_eq!((cache.get(&1), cache.stats().saves), (Some(1), 0));
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

/// Its name, and how to make the disk fail.
type Failure = (&'static str, fn(&FakeDisk));

#[test]
fn a_save_that_fails_leaves_the_old_file_and_the_cache_as_they_were() {
    let failures: [Failure; 5] = [
        ("write", |disk| disk.inject(disk.calls().len() + 12, Fault::Full)),
        ("sync", |disk| disk.fail_every("sync", io::ErrorKind::Other)),
        ("create", |disk| disk.fail_every("create_new", io::ErrorKind::PermissionDenied)),
        ("rename", |disk| disk.fail_every("rename", io::ErrorKind::PermissionDenied)),
        ("writes", |disk| disk.fail_every("write_at", io::ErrorKind::StorageFull)),
    ];
    for (name, fail) in failures {
        let disk = saved_numbers(300);
        let old = disk.bytes(Path::new(PATH)).unwrap();
        let cache: AsyncCache<u64, u64> = open(&disk);
        cache.set(1, 11);
        fail(&disk);
        let error = cache.save_to_backup().expect_err(name);
        assert!(error.to_string().contains(PATH), "{name}: {error}");
        let full = matches!(&error, BackupError::Disk(error) if *error.kind() == DiskErrorKind::Full);
        assert_eq!(full, name.starts_with("write"), "{name}: {error}");
        assert_eq!(disk.bytes(Path::new(PATH)).unwrap(), old, "{name}");
        assert_eq!((cache.get(&1), cache.get(&2), cache.len()), (Some(11), Some(20), 300), "{name}");
        disk.repair();
        assert_eq!(open::<u64, u64>(&disk).get(&1), Some(10), "{name}");
        assert_eq!((disk.files().len(), cache.stats().saves), (2, 0), "{name}: no temporary file is left");
        assert_eq!(cache.save_to_backup().unwrap().entries, 300, "{name}");
        assert_eq!(open::<u64, u64>(&disk).get(&1), Some(11), "{name}");
    }
}

/// A value that serde can decode but not always encode.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Moody(u64);

impl Serialize for Moody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 13 {
            return Err(serde::ser::Error::custom("not this one"));
        }
        serializer.serialize_newtype_struct("Moody", &self.0)
    }
}

#[test]
fn a_value_that_cannot_be_encoded_is_left_out_and_counted_and_reported_once() {
    let disk = FakeDisk::new();
    let logged = warnings(|| {
        let cache: AsyncCache<u64, Moody> = open(&disk);
        for (key, value) in [(1, 13), (2, 2), (3, 13)] {
            cache.set(key, Moody(value));
        }
        let saved = cache.save_to_backup().unwrap();
        assert_eq!((saved.entries, saved.left_out, cache.len()), (1, 2, 3));
    });
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(logged[0].contains("not this one"), "{logged:?}");
    let cache: AsyncCache<u64, Moody> = open(&disk);
    assert_eq!((cache.get(&2), cache.get(&1), cache.len()), (Some(Moody(2)), None, 1));
}

#[test]
fn a_value_that_could_not_be_encoded_does_not_bring_back_the_one_it_replaced() {
    let disk = saved_numbers(3);
    let cache: AsyncCache<u64, Moody> = open(&disk);
    cache.set(1, Moody(13));
    cache.save_to_backup().unwrap();
    assert_eq!(open::<u64, Moody>(&disk).get(&1), None);
}

#[test]
fn keys_and_values_that_were_saved_are_in_the_file_once_each() {
    use async_cache::CacheBackend;
    let disk = saved_numbers(30);
    let cache: AsyncCache<u64, u64> = open(&disk);
    (0..10).for_each(|key| cache.set(key, 1));
    (10..20).for_each(|key| assert_eq!(cache.get(&key), Some(key * 10)));
    cache.save_to_backup().unwrap();
    let entries: Vec<async_cache::SavedEntry<u64, u64>> = backend(&disk).load().unwrap();
    assert_eq!((entries.len(), entries.iter().map(|e| e.key).collect::<BTreeSet<_>>().len()), (30, 30));
    assert!(entries.iter().all(|e| e.value == if e.key < 10 { 1 } else { e.key * 10 } && e.ttl.is_none()));
}

/// The expired entry was still in memory, and prevented the load.
#[test]
fn what_expired_in_memory_is_loaded_from_the_backup() {
    let disk = saved_numbers(3);
    let (builder, hands) = life(&disk, 0);
    let cache: AsyncCache<u64, u64> = builder.build().unwrap();
    cache.set_with_ttl(1, 11, Some(seconds(1)));
    cache.set(7, 70);
    hands.advance(seconds(2));
    assert_eq!(cache.get(&1), None);
    // The two cold entries are read anew.
    assert_eq!(cache.load_from_backup().unwrap().entries, 3);
    assert_eq!((cache.get(&1), cache.len()), (Some(10), 4));
}

#[test]
fn a_file_that_was_taken_in_only_in_part_is_joined_by_the_next_save() {
    let disk = FakeDisk::new();
    let (builder, hands) = life(&disk, 0);
    let cache: AsyncCache<u64, u64> = builder.build().unwrap();
    cache.set(1, 10);
    hands.advance(seconds(1));
    let (builder, _) = life(&disk, 1);
    let other: AsyncCache<u64, u64> = builder.build().unwrap();
    other.set(1, 11);
    other.set(2, 20);
    other.save_to_backup().unwrap();
    hands.advance(seconds(1));
    // Entries in memory stay, though the file has a newer one.
    cache.load_from_backup().unwrap();
    assert_eq!((cache.get(&1), cache.get(&2)), (Some(10), Some(20)));
    cache.save_to_backup().unwrap();
    let later = open(&disk);
    assert_eq!((later.get(&1), later.get(&2)), (Some(11), Some(20)));
}

/// Runs a function, once, at the next save of a value.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Hooked(u64);

type Hook = Box<dyn FnOnce() + Send>;
static HOOK: std::sync::Mutex<Option<Hook>> = std::sync::Mutex::new(None);

impl Serialize for Hooked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hook = HOOK.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        serializer.serialize_newtype_struct("Hooked", &self.0)
    }
}

/// A cleared cache numbers its entries from the start, so the running save mistook new entries for
/// those on its list.
#[test]
fn a_save_that_a_clear_and_new_entries_overtake_keeps_no_key_twice() {
    use async_cache::CacheBackend;
    within_limit(|| {
        let disk = saved_numbers(5);
        let cache: AsyncCache<u64, Hooked> = life(&disk, 0).0.shards(1).build().unwrap();
        (100..110).for_each(|key| cache.set(key, Hooked(1)));
        let overtakes = cache.clone();
        *HOOK.lock().unwrap() = Some(Box::new(move || {
            overtakes.clear();
            (0..5).for_each(|key| overtakes.set(key, Hooked(key * 10 + 1)));
        }));
        cache.save_to_backup().unwrap();
        let entries: Vec<async_cache::SavedEntry<u64, u64>> = backend(&disk).load().unwrap();
        let keys: BTreeSet<_> = entries.iter().map(|entry| entry.key).collect();
        assert_eq!(keys.len(), entries.len(), "{entries:?}");
        // The entries copied and encoded before the clear.
        assert_eq!(keys, BTreeSet::from([0, 1, 2, 3, 4, 100]));
        cache.save_to_backup().unwrap();
        let cache: AsyncCache<u64, u64> = open(&disk);
        assert_eq!((there(&cache, 200), cache.get(&4)), (vec![0, 1, 2, 3, 4], Some(41)));
    });
}

// Keys with the same serde representation

/// Two kinds of keys that are written as the same number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
enum Id {
    User(u32),
    Order(u32),
}

/// The bytes alone once decided which entry a key has, so a caller asking for the user got an
/// order.
#[test]
fn unequal_keys_that_are_written_alike_never_get_each_others_values() {
    let disk = FakeDisk::new();
    let first: AsyncCache<Id, String> = open(&disk);
    first.set(Id::Order(1), "order".to_owned());
    first.save_to_backup().unwrap();
    let next: AsyncCache<Id, String> = open(&disk);
    assert_eq!(
        (next.contains(&Id::Order(1)), next.get(&Id::Order(1))),
        (false, None),
        "it decodes as a user"
    );
    assert_eq!(next.get(&Id::User(1)).as_deref(), Some("order"), "which is what the file says");

    let disk = FakeDisk::new();
    let first: AsyncCache<Option<Option<u8>>, u8> = open(&disk);
    first.set(None, 1);
    first.save_to_backup().unwrap();
    let next: AsyncCache<Option<Option<u8>>, u8> = open(&disk);
    assert_eq!((next.contains(&Some(None)), next.get(&Some(None))), (false, None));
    next.set(Some(None), 2);
    assert_eq!((next.get(&None), next.get(&Some(None))), (Some(1), Some(2)));
}

// A file that could not be read

/// A cache that started empty because of a passing error once replaced a file full of entries;
/// later it set the file aside, with a further copy for every such start.
#[test]
fn a_file_that_could_not_be_opened_is_joined_by_the_save_once_it_can_be_read() {
    let disk = saved_numbers(100);
    for start in 1..=3 {
        disk.fail_every("open", io::ErrorKind::PermissionDenied);
        // Later than all times in the file.
        let (builder, _hands) = life::<u64, u64>(&disk, start * 10);
        let cache = builder.build().unwrap();
        let warning = cache.opening().warning.as_ref().expect("it says why").to_string();
        assert!(warning.contains(PATH), "{warning}");
        cache.set(1, start);
        assert!(cache.save_to_backup().is_err(), "what cannot be read is not replaced");
        disk.repair();
        let saved = cache.save_to_backup().unwrap();
        assert_eq!((saved.entries, saved.set_aside), (100, None));
        let again: AsyncCache<u64, u64> = open(&disk);
        assert_eq!((again.len(), again.get(&1), again.get(&2)), (100, Some(start), Some(20)));
    }
}

#[test]
fn where_saves_do_not_merge_a_file_that_could_not_be_opened_is_set_aside_and_not_replaced() {
    let disk = saved_numbers(100);
    let old = disk.bytes(Path::new(PATH)).unwrap();
    let backend = || DiskBackend::new(PATH).vfs(disk.as_vfs()).without_merging();
    disk.fail_every("open", io::ErrorKind::PermissionDenied);
    let cache: AsyncCache<u64, u64> = AsyncCache::builder().backup(backend()).build().unwrap();
    disk.repair();
    cache.set(1, 11);
    let saved = cache.save_to_backup().unwrap();
    assert_eq!(saved.entries, 1);
    assert_eq!(disk.bytes(&saved.set_aside.expect("the old file is somewhere")).unwrap(), old);
    assert_eq!(cache.save_to_backup().unwrap().set_aside, None, "its own file it replaces");
}

/// The cache has not seen deletes made in the meantime, so nothing of the old file may come back
/// afterwards.
#[test]
fn a_cache_that_is_switched_off_saves_an_empty_file() {
    let disk = saved_numbers(3);
    let cache: AsyncCache<u64, u64> = life(&disk, 0).0.maxsize(0).build().unwrap();
    cache.delete(&1);
    cache.save_to_backup().unwrap();
    assert!(open::<u64, u64>(&disk).is_empty());
}

// Drop

/// A value that saves its former cache when it is dropped.
#[derive(Clone)]
struct Saver(Arc<std::sync::Mutex<Option<AsyncCache<u64, Saver>>>>);

impl Drop for Saver {
    fn drop(&mut self) {
        let cache = self.0.try_lock().ok().and_then(|mut cache| cache.take());
        if let Some(cache) = cache {
            cache.save_to_backup().unwrap();
        }
    }
}

struct OneSaver(Arc<std::sync::Mutex<Option<AsyncCache<u64, Saver>>>>);

impl async_cache::CacheBackend<u64, Saver> for OneSaver {
    fn load(&self) -> Result<Vec<async_cache::SavedEntry<u64, Saver>>, async_cache::BackendError> {
        Ok(vec![async_cache::SavedEntry { key: 1, value: Saver(Arc::clone(&self.0)), ttl: None }])
    }

    fn save(
        &self,
        entries: &mut dyn Iterator<Item = async_cache::SavedEntry<u64, Saver>>,
    ) -> Result<(), async_cache::BackendError> {
        entries.for_each(drop);
        Ok(())
    }

    fn clear(&self) -> Result<(), async_cache::BackendError> {
        Ok(())
    }
}

/// Entries refused by a load from the backup were dropped while the save lock was held, and waited
/// for the lock.
#[test]
fn what_a_backup_brings_in_vain_may_save_the_cache_when_it_is_dropped() {
    within_limit(|| {
        let slot = Arc::default();
        let cache = AsyncCache::builder().backup(OneSaver(Arc::clone(&slot))).build().unwrap();
        *slot.lock().unwrap() = Some(cache.clone());
        cache.load_from_backup().unwrap();
        assert!(slot.lock().unwrap().is_none(), "it was dropped, and saved");
        assert_eq!(cache.stats().saves, 1);
    });
}
