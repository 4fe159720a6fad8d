//! Writes that leave memory before they are saved, while several caches save to one path.

mod beside_openings;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use async_cache::{AsyncCache, Clock, Eviction, ManualClock};
use async_cache_disk::fake::FakeDisk;
use fastrand::Rng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{at, backend, seconds};
use crate::stage::{number_from_env, within_limit};

type Numbers = AsyncCache<u64, u64>;

/// Caches on one disk and one clock, by default with room for two entries.
struct Host {
    disk: FakeDisk,
    clock: Clock,
    hands: ManualClock,
}

impl Host {
    fn new() -> Self {
        let (clock, hands) = Clock::manual();
        hands.set_wall(at(0));
        Self { disk: FakeDisk::new(), clock, hands }
    }

    /// A host on which `1` was saved with the value 10.
    fn with_one() -> Self {
        let host = Self::new();
        let cache = host.cache();
        cache.set(1, 10);
        cache.save_to_backup().unwrap();
        host.tick();
        host
    }

    fn cache(&self) -> Numbers {
        self.cache_of(2, 1)
    }

    fn cache_of(&self, maxsize: usize, shards: usize) -> Numbers {
        let builder = AsyncCache::builder().clock(self.clock.clone()).backup(backend(&self.disk));
        builder.maxsize(maxsize).shards(shards).eviction(Eviction::Lru).build().unwrap()
    }

    fn tick(&self) {
        self.hands.advance(Duration::from_millis(1));
    }

    /// Another cache saves, so that the next save must join its file.
    fn another_saves(&self) {
        self.tick();
        let other = self.cache_of(10, 1);
        other.set(7, 70);
        other.save_to_backup().unwrap();
        self.tick();
    }

    fn saved(&self, key: u64) -> Option<u64> {
        self.cache().get(&key)
    }
}

/// Evicts all other entries by inserting two entries.
fn crowd_out(cache: &Numbers) {
    cache.set(100, 0);
    cache.set(101, 0);
}

#[test]
fn a_value_that_was_set_over_does_not_come_back_when_the_new_one_leaves_before_a_save() {
    let leaves: [fn(&Host, &Numbers); 4] = [
        |_, cache| {
            cache.set(1, 11);
            crowd_out(cache);
        },
        |_, cache| {
            assert_eq!(cache.get(&1), Some(10), "now it is hot");
            cache.set(1, 11);
            crowd_out(cache);
        },
        |host, cache| {
            cache.set_with_ttl(1, 11, Some(seconds(1)));
            host.hands.advance(seconds(2));
        },
        |_, cache| cache.set_with_ttl(1, 11, Some(Duration::ZERO)),
    ];
    for (number, leave) in leaves.iter().enumerate() {
        let host = Host::with_one();
        let cache = host.cache();
        host.another_saves();
        leave(&host, &cache);
        assert_eq!(cache.get(&1), None, "{number}");
        cache.save_to_backup().unwrap();
        assert_eq!(host.saved(1), None, "{number}");
    }
}

#[test]
fn a_value_that_another_one_saved_is_older_than_one_that_was_set_and_evicted() {
    let host = Host::new();
    let (cache, other) = (host.cache(), host.cache());
    other.set(1, 10);
    host.tick();
    cache.set(1, 11);
    crowd_out(&cache);
    other.save_to_backup().unwrap();
    cache.save_to_backup().unwrap();
    assert_eq!(host.saved(1), None);
    // The other cache still has the entry, until it has read the file's record.
    other.save_to_backup().unwrap();
    assert_eq!(host.saved(1), None);
    host.tick();
    other.set(1, 12);
    other.save_to_backup().unwrap();
    assert_eq!(host.saved(1), Some(12));
}

#[test]
fn a_later_write_that_has_expired_in_the_file_is_later_all_the_same() {
    let host = Host::with_one();
    let (cache, third, writer) = (host.cache(), host.cache(), host.cache());
    assert_eq!(third.get(&1), Some(10), "hot in one, cold in the other");
    writer.set_with_ttl(1, 11, Some(seconds(1)));
    writer.save_to_backup().unwrap();
    host.hands.advance(seconds(2));
    for older in [&cache, &third] {
        older.save_to_backup().unwrap();
        assert_eq!(host.saved(1), None);
    }
    assert_eq!(third.get(&1), Some(10), "it serves its own memory");
}

#[test]
fn an_eviction_of_what_was_saved_or_was_not_written_here_is_no_delete() {
    let host = Host::with_one();
    let cache = host.cache();
    cache.set(1, 11);
    cache.save_to_backup().unwrap();
    host.another_saves();
    crowd_out(&cache);
    let roomy = AsyncCache::builder().clock(host.clock.clone()).backup(backend(&host.disk));
    let roomy: Numbers = roomy.build().unwrap();
    cache.delete(&100);
    cache.delete(&101);
    cache.save_to_backup().unwrap();
    assert_eq!(host.saved(1), Some(11), "it was saved before it was evicted");
    assert_eq!(roomy.get(&1), Some(11));

    let cache = host.cache();
    assert_eq!(cache.get(&1), Some(11));
    host.another_saves();
    crowd_out(&cache);
    cache.delete(&100);
    cache.delete(&101);
    cache.save_to_backup().unwrap();
    assert_eq!(host.saved(1), Some(11), "it was only read here");
}

/// The monotonic clock had stopped in the meantime, and times of writing were derived from it.
#[test]
fn after_a_suspended_night_the_later_of_two_writes_is_the_later_one() {
    let host = Host::new();
    let [early, late] = [host.cache(), host.cache()];
    host.hands.set_wall(at(8 * 3600));
    early.save_to_backup().unwrap();
    early.set(1, 10);
    early.save_to_backup().unwrap();
    host.tick();
    late.set(1, 11);
    late.save_to_backup().unwrap();
    assert_eq!(host.saved(1), Some(11));
    host.hands.set_wall(at(16 * 3600));
    early.save_to_backup().unwrap();
    early.set(2, 20);
    early.save_to_backup().unwrap();
    host.tick();
    late.delete(&2);
    late.save_to_backup().unwrap();
    assert_eq!(host.saved(2), None);
}

#[tokio::test]
async fn a_load_that_replaced_nothing_is_no_news_and_one_that_replaced_something_is() {
    let host = Host::new();
    let (cache, other) = (host.cache(), host.cache());
    other.set(1, 10);
    host.tick();
    assert_eq!(cache.get_or_load(&1, async || Ok::<_, Infallible>(11)).await.unwrap(), 11);
    crowd_out(&cache);
    other.save_to_backup().unwrap();
    cache.delete(&100);
    cache.delete(&101);
    cache.save_to_backup().unwrap();
    assert_eq!(host.saved(1), Some(10), "the other one's copy stays");

    // The value is set while its key is loaded anew: the load is fenced. But if a load replaces an
    // expired entry that must still be recorded, the loaded entry must be recorded too.
    host.tick();
    cache.set_with_ttl(1, 12, Some(seconds(1)));
    host.hands.advance(Duration::from_millis(1001));
    assert_eq!(cache.get_or_load(&1, async || Ok::<_, Infallible>(13)).await.unwrap(), 13);
    crowd_out(&cache);
    host.another_saves();
    cache.save_to_backup().unwrap();
    assert_eq!(host.saved(1), None);
}

#[test]
fn a_save_that_fails_forgets_nothing_that_was_lost() {
    let host = Host::with_one();
    let cache = host.cache();
    host.another_saves();
    cache.set(1, 11);
    cache.set(2, 20);
    host.disk.fail_every("rename", io::ErrorKind::StorageFull);
    cache.save_to_backup().unwrap_err();
    host.disk.repair();
    crowd_out(&cache); // after the failed save, and 1 must still be recorded
    cache.save_to_backup().unwrap();
    assert_eq!((host.saved(1), host.saved(101)), (None, Some(0)));
}

#[test]
fn however_much_one_cache_loses_what_others_have_stays() {
    let busy_with: [fn(&Host, &Numbers); 2] = [
        |host, cache| {
            for key in 0..70_000 {
                host.tick();
                cache.set(key, 0);
            }
        },
        |host, cache| {
            for _ in 0..70_000 {
                host.tick();
                cache.set_with_ttl(7, 0, Some(Duration::ZERO));
            }
        },
    ];
    for be_busy in busy_with {
        let host = Host::new();
        host.disk.keep_no_log();
        let (busy, later, saved) = (host.cache_of(2, 1), host.cache_of(100, 1), host.cache_of(100, 1));
        later.set(1_000_000, 1);
        saved.set(2_000_000, 2);
        saved.save_to_backup().unwrap();
        be_busy(&host, &busy);
        busy.delete(&69_999);
        busy.delete(&69_998); // makes room for others
        busy.save_to_backup().unwrap();
        later.save_to_backup().unwrap();
        let reborn = host.cache_of(100, 1);
        assert_eq!((reborn.get(&1_000_000), reborn.get(&2_000_000)), (Some(1), Some(2)));
    }
}

#[test]
fn what_has_expired_in_its_slot_when_a_save_comes_by_was_written_all_the_same() {
    let host = Host::new();
    let [cache, other] = [host.cache(), host.cache()];
    other.set(1, 10);
    host.tick();
    cache.set_with_ttl(1, 11, Some(seconds(1)));
    host.hands.advance(seconds(2));
    cache.save_to_backup().unwrap();
    other.save_to_backup().unwrap();
    assert_eq!(host.saved(1), None);
}

/// Shared, so that its drop can be observed; 2 panics on request when it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key(Arc<u64>);

static PANICS: AtomicBool = AtomicBool::new(false);

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(*self.0 != 2 || !PANICS.load(SeqCst), "a key that cannot be written");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(key)
    }
}

fn key(number: u64) -> Key {
    Key(Arc::new(number))
}

#[test]
fn of_what_a_small_cache_has_lost_it_keeps_a_few_thousand_keys() {
    let host = Host::new();
    let builder = AsyncCache::builder().clock(host.clock.clone()).backup(backend(&host.disk));
    let cache: AsyncCache<Key, u64> = builder.maxsize(16).build().unwrap();
    let keys: Vec<Key> = (0..50_000).map(key).collect();
    for key in &keys {
        cache.set(key.clone(), 0);
    }
    let alive = || keys.iter().filter(|key| Arc::strong_count(&key.0) > 1).count();
    assert!((16..5000).contains(&alive()), "{}", alive());
    cache.save_to_backup().unwrap();
    assert_eq!(alive(), 16);
}

#[test]
fn a_panic_while_a_lost_key_is_written_forgets_no_other_one() {
    let host = Host::new();
    let open = || -> AsyncCache<Key, u64> {
        let builder = AsyncCache::builder().clock(host.clock.clone()).backup(backend(&host.disk));
        builder.maxsize(2).shards(1).eviction(Eviction::Lru).build().unwrap()
    };
    open().set(key(1), 10);
    let first = open();
    first.set(key(1), 10);
    first.save_to_backup().unwrap();
    let cache = open();
    host.tick();
    let another = open();
    another.set(key(9), 90);
    another.save_to_backup().unwrap();
    host.tick();
    for number in [2, 1, 100, 101] {
        cache.set(key(number), 11);
    }
    PANICS.store(true, SeqCst);
    let save = cache.save_to_backup();
    PANICS.store(false, SeqCst);
    save.unwrap();
    cache.delete(&key(100));
    cache.delete(&key(101));
    cache.save_to_backup().unwrap();
    assert_eq!(open().get(&key(1)), None);
}

/// 666 cannot be written; a hook runs at the next read of a value.
#[derive(Clone, Debug, PartialEq)]
struct Odd(u64);

type Hook = Box<dyn FnOnce() + Send>;
static HOOK: std::sync::Mutex<Option<Hook>> = std::sync::Mutex::new(None);

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 666 {
            return Err(serde::ser::Error::custom("not this one"));
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = u64::deserialize(deserializer)?;
        let hook = HOOK.lock().unwrap().take_if(|_| value == 13);
        if let Some(hook) = hook {
            hook();
        }
        Ok(Self(value))
    }
}

fn odd(host: &Host) -> AsyncCache<u64, Odd> {
    let builder = AsyncCache::builder().clock(host.clock.clone()).backup(backend(&host.disk));
    builder.maxsize(10).shards(1).build().unwrap()
}

#[test]
fn a_value_that_cannot_be_saved_was_written_all_the_same() {
    let host = Host::new();
    let [cache, other] = [odd(&host), odd(&host)];
    other.set(1, Odd(10));
    host.tick();
    cache.set(1, Odd(666));
    assert_eq!(cache.save_to_backup().unwrap().left_out, 1);
    other.save_to_backup().unwrap();
    assert_eq!(odd(&host).get(&1), None);
}

#[test]
fn a_value_that_was_set_over_and_saved_is_never_served_by_a_later_life() {
    within_limit(|| {
        let first = number_from_env("ASYNC_CACHE_SEED", fastrand::u64(..1 << 32));
        for seed in first..first + number_from_env("ASYNC_CACHE_ROUNDS", 100) {
            println!("ASYNC_CACHE_SEED={seed}");
            let (never, zero) = (None, Some(Duration::ZERO));
            let mut rng = Rng::with_seed(seed);
            live(&mut rng, (3, 10), &[never, never, zero]);
            live(&mut rng, (1, 2), &[never, zero, Some(Duration::from_millis(3)), Some(seconds(9))]);
        }
    });
}

/// Random lives of some caches. Values count up with every write. Once a cache has saved, no cache
/// opened later serves a value from before that cache's last write of the key. (With several caches
/// this holds as long as the file need not drop anything: see docs/semantics.md.)
fn live(rng: &mut Rng, (count, maxsize): (usize, usize), ttls: &[Option<Duration>]) {
    let host = Host::new();
    host.disk.keep_no_log();
    let shards = [1, 2][rng.usize(..2)];
    let open = || host.cache_of(maxsize, shards);
    let mut caches: Vec<_> = (0..count).map(|_| (open(), BTreeMap::new())).collect();
    let mut saved = BTreeMap::<u64, u64>::new();
    for now in 1..400 {
        host.tick();
        let (key, which) = (rng.u64(..5), rng.usize(..count));
        let (cache, written) = &mut caches[which];
        match rng.u32(..100) {
            0..25 => drop(cache.get(&key)),
            25..55 => {
                cache.set_with_ttl(key, now, ttls[rng.usize(..ttls.len())]);
                written.insert(key, now);
            }
            55..62 => {
                cache.delete(&key);
                written.insert(key, now);
            }
            62..64 => {
                cache.clear();
                written.extend((0..5).map(|key| (key, now)));
            }
            64..70 => host.hands.advance(Duration::from_millis(rng.u64(..5))),
            70..75 => host.another_saves(),
            75..90 => {
                cache.save_to_backup().unwrap();
                for (key, now) in written {
                    let last = saved.entry(*key).or_default();
                    *last = (*last).max(*now);
                }
            }
            _ => {
                *cache = open();
                written.clear();
                let other = open();
                for key in 0..5 {
                    let last = saved.get(&key).copied().unwrap_or_default();
                    let got = other.get(&key);
                    assert!(got.is_none_or(|got| got >= last), "{key}: {got:?}, but {last} was saved");
                }
            }
        }
    }
}
