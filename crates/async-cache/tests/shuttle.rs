//! Small scenes under the model checker, which chooses the running thread at every lock: one load
//! of a key at a time, no caller hangs (the checker reports a deadlock), and no value from before a
//! write is served or stored after the write.
//!
//! Run with `RUSTFLAGS="--cfg shuttle"`, in release. Operations that the checker sees as one step
//! are named in `src/sync.rs`.
#![cfg(shuttle)]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_cache::{AsyncCache, BatchLoader, CacheBackend, DiskBackend, LoadError, SavedEntry};
use async_cache_disk::fake::FakeDisk;
use shuttle::future::{block_on, spawn, yield_now};
use shuttle::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use shuttle::thread;

type Cache = AsyncCache<u32, usize>;

fn cache() -> Cache {
    AsyncCache::builder().shards(1).build().unwrap()
}

/// The origin of loads: its value counts up, and its loads are counted.
#[derive(Default)]
struct Origin {
    version: AtomicUsize,
    started: AtomicUsize,
    running: AtomicUsize,
    peak: AtomicUsize,
}

struct Run(Arc<Origin>);

impl Drop for Run {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Origin {
    async fn load(self: Arc<Self>) -> Result<usize, &'static str> {
        let run = Run(Arc::clone(&self));
        self.started.fetch_add(1, SeqCst);
        self.peak.fetch_max(self.running.fetch_add(1, SeqCst) + 1, SeqCst);
        let value = self.version.load(SeqCst);
        yield_now().await;
        drop(run);
        Ok(value)
    }

    fn rest(&self) -> (usize, usize) {
        (self.running.load(SeqCst), self.peak.load(SeqCst))
    }
}

type Outcome = Result<usize, LoadError<&'static str>>;

fn call(cache: &Cache, origin: &Arc<Origin>) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
    let (cache, origin) = (cache.clone(), Arc::clone(origin));
    Box::pin(async move { cache.get_or_load(&1, || origin.load()).await })
}

/// Polls a call some times, then drops it.
async fn give_up_after(mut call: Pin<Box<dyn Future<Output = Outcome> + Send>>, polls: usize) {
    for _ in 0..polls {
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        yield_now().await;
    }
}

/// With random scheduling, and with random scheduling that switches rarely.
fn check(scene: fn()) {
    shuttle::check_random(scene, 15_000);
    shuttle::check_pct(scene, 15_000, 3);
}

#[test]
fn two_callers_of_one_key_share_one_load() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let other = spawn(call(&cache, &origin));
        let mine = block_on(call(&cache, &origin)).unwrap();
        assert_eq!((mine, block_on(other).unwrap().unwrap()), (0, 0));
        assert_eq!(origin.started.load(SeqCst), 1);
        assert_eq!((cache.get(&1), cache.stats().loads), (Some(0), 1));
    }
    check(scene);
    shuttle::check_dfs(scene, Some(20_000));
}

#[test]
fn a_leader_who_leaves_does_not_take_the_load_from_who_joined() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let mut leader = call(&cache, &origin);
        if leader.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return; // the load ended before the caller
        }
        let mut joiner = call(&cache, &origin);
        let polled = joiner.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let leaves = spawn(give_up_after(leader, 1));
        let value = match polled {
            Poll::Ready(value) => value,
            Poll::Pending => block_on(joiner),
        };
        assert_eq!(value.unwrap(), 0);
        block_on(leaves).unwrap();
        assert_eq!((origin.started.load(SeqCst), origin.rest()), (1, (0, 1)));
    }
    check(scene);
}

/// The last caller leaves, another caller joins, and the load ends: in any order.
#[test]
fn who_joins_a_load_that_is_being_stopped_is_answered_and_no_two_loads_run_at_once() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let leaves = spawn(give_up_after(call(&cache, &origin), 1));
        let leaves_later = spawn(give_up_after(call(&cache, &origin), 2));
        let stays = spawn(call(&cache, &origin));
        assert_eq!(block_on(stays).unwrap().unwrap(), 0);
        block_on(leaves).unwrap();
        block_on(leaves_later).unwrap();
        assert_eq!(origin.rest(), (0, 1));
        assert_eq!(cache.get(&1), Some(0));
    }
    check(scene);
}

#[test]
fn when_all_leave_no_load_is_left() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let callers = [1, 2].map(|polls| spawn(give_up_after(call(&cache, &origin), polls)));
        for caller in callers {
            block_on(caller).unwrap();
        }
        // A load that was being polled is dropped by its polling task, a little later.
        while origin.running.load(SeqCst) > 0 {
            thread::yield_now();
        }
        assert_eq!(block_on(call(&cache, &origin)).unwrap(), 0);
        assert_eq!(origin.peak.load(SeqCst), 1);
    }
    check(scene);
}

/// The load never ends by itself, so it must be stopped: by the last caller to leave, or by the
/// task that was polling it at that moment.
#[test]
fn a_load_that_never_ends_is_dropped_when_all_have_left() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let callers = [1, 2].map(|polls| {
            let (cache, origin) = (cache.clone(), Arc::clone(&origin));
            let endless = move || async move {
                let _run = Run(Arc::clone(&origin));
                origin.running.fetch_add(1, SeqCst);
                std::future::pending().await
            };
            spawn(give_up_after(Box::pin(async move { cache.get_or_load(&1, endless).await }), polls))
        });
        for caller in callers {
            block_on(caller).unwrap();
        }
        // The polling task may be a little later. Until then, a new caller would join the endless
        // load.
        while cache.stats().load_errors < cache.stats().loads {
            thread::yield_now();
        }
        assert_eq!(origin.running.load(SeqCst), 0);
        assert_eq!(block_on(call(&cache, &origin)).unwrap(), 0);
    }
    check(scene);
}

/// Changes the origin, then the cache. From then on no value older than `1` may be served,
/// regardless of loads.
fn nothing_old_after(write: fn(&Cache, usize)) {
    let (cache, origin) = (cache(), Arc::new(Origin::default()));
    let callers = [(); 2].map(|()| spawn(call(&cache, &origin)));
    let quits = spawn(give_up_after(call(&cache, &origin), 2));
    let (written, writing) = (cache.clone(), Arc::clone(&origin));
    let writer = thread::spawn(move || {
        writing.version.store(1, SeqCst);
        write(&written, 1);
        assert_ne!(written.get(&1), Some(0), "stored after it was overtaken");
        assert_eq!(block_on(call(&written, &writing)).unwrap(), 1, "joined a load that was overtaken");
    });
    for caller in callers {
        block_on(caller).unwrap().unwrap();
    }
    block_on(quits).unwrap();
    writer.join().unwrap();
    assert_eq!(cache.get(&1), Some(1), "an older load landed last");
}

#[test]
fn a_load_that_began_before_a_set_never_lands_after_it() {
    check(|| nothing_old_after(|cache, version| cache.set(1, version)));
}

#[test]
fn a_load_that_began_before_a_delete_never_lands_after_it() {
    check(|| nothing_old_after(|cache, _| cache.delete(&1)));
}

#[test]
fn a_load_that_began_before_a_clear_never_lands_after_it() {
    check(|| nothing_old_after(|cache, _| cache.clear()));
}

/// The number of superseded loads in all runs of the scene below.
static SUPERSEDED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Two callers whose loads fail with an error of another type, a caller whose load returns an older
/// value, and a caller that cannot use the errors: it is answered by its own load at the latest,
/// and a superseded load answers its own callers and stores nothing.
#[test]
fn a_caller_that_a_load_brought_nothing_supersedes_the_next_one_which_stores_nothing() {
    async fn load_otherwise(cache: Cache, origin: Arc<Origin>, fails: bool) -> Result<usize, LoadError<u8>> {
        let load = move || async move {
            let value = origin.load().await.unwrap();
            if fails { Err(0) } else { Ok(value) }
        };
        cache.get_or_load(&1, load).await
    }
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let others = [true, true, false].map(|fails| {
            let (cache, origin) = (cache.clone(), Arc::clone(&origin));
            spawn(load_otherwise(cache, origin, fails))
        });
        let own = Arc::new(Origin::default());
        own.version.store(1, SeqCst);
        let mine = block_on(call(&cache, &own)).unwrap();
        let served = cache.get(&1);
        assert_eq!(served, Some(mine), "what was superseded is not stored, and nothing else is superseded");
        for other in others {
            assert!(matches!(block_on(other).unwrap(), Ok(0 | 1) | Err(LoadError::Failed(_))));
        }
        assert_eq!(cache.get(&1), served, "a load that was superseded landed last");
        SUPERSEDED.fetch_add(cache.stats().fenced, std::sync::atomic::Ordering::Relaxed);
        assert_eq!((own.started.load(SeqCst) <= 1, own.running.load(SeqCst)), (true, 0));
    }
    check(scene);
    assert_ne!(SUPERSEDED.load(std::sync::atomic::Ordering::Relaxed), 0, "the scene never came to it");
}

// With a snapshot

const VALUES: [(u32, usize); 3] = [(1, 10), (2, 20), (3, 30)];

/// A cache of two shards over a snapshot, and the snapshot.
fn opened() -> (Cache, DiskBackend) {
    let disk = DiskBackend::new(Path::new("/cache")).vfs(FakeDisk::new().as_vfs());
    disk.save(&mut VALUES.map(|(key, value)| SavedEntry { key, value, ttl: None }).into_iter()).unwrap();
    (AsyncCache::builder().shards(2).backup(disk.clone()).build().unwrap(), disk)
}

/// The entries in the file, each key once.
fn saved(disk: &DiskBackend) -> BTreeMap<u32, usize> {
    let entries: Vec<SavedEntry<u32, usize>> = disk.load().unwrap();
    let count = entries.len();
    let map: BTreeMap<_, _> = entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    assert_eq!(map.len(), count, "a key was saved twice");
    map
}

#[test]
fn a_save_beside_a_promotion_a_set_and_a_delete_keeps_each_entry_as_it_was_at_some_time() {
    fn scene() {
        let (cache, disk) = opened();
        let clones = [(); 3].map(|()| cache.clone());
        let [promotes, sets, deletes] = clones;
        let threads = [
            thread::spawn(move || assert_eq!(promotes.get(&1), Some(10))),
            thread::spawn(move || sets.set(2, 21)),
            thread::spawn(move || deletes.delete(&3)),
        ];
        let during = cache.save_to_backup().unwrap();
        let map = saved(&disk);
        assert_eq!(map.len() as u64, during.entries);
        assert_eq!(map.get(&1), Some(&10));
        assert!(matches!(map.get(&2), Some(20 | 21)), "{map:?}");
        assert!(matches!(map.get(&3), None | Some(30)), "{map:?}");
        for thread in threads {
            thread.join().unwrap();
        }
        cache.save_to_backup().unwrap();
        assert_eq!(saved(&disk), BTreeMap::from([(1, 10), (2, 21)]));
    }
    check(scene);
}

/// A new entry does not know that its key is in a closed snapshot.
#[test]
fn a_save_beside_a_clear_and_new_entries_keeps_no_key_twice_and_nothing_old_later() {
    fn scene() {
        let (cache, disk) = opened();
        cache.set(4, 40);
        assert_eq!(cache.get(&3), Some(30));
        let clears = cache.clone();
        let clearing = thread::spawn(move || {
            clears.clear();
            clears.set(1, 11);
            clears.set(2, 21);
        });
        cache.save_to_backup().unwrap();
        for (key, value) in saved(&disk) {
            let before = VALUES.contains(&(key, value)) || (key, value) == (4, 40);
            assert!(before || value == 11 || value == 21, "{key} was never {value}");
        }
        clearing.join().unwrap();
        cache.save_to_backup().unwrap();
        assert_eq!(saved(&disk), BTreeMap::from([(1, 11), (2, 21)]));
    }
    check(scene);
}

#[test]
fn a_cold_entry_is_served_before_a_clear_or_not_at_all() {
    fn scene() {
        let (cache, _) = opened();
        let clears = cache.clone();
        let clearing = thread::spawn(move || {
            clears.clear();
            assert_eq!((clears.get(&1), clears.contains(&2)), (None, false));
        });
        assert!(matches!(cache.get(&1), None | Some(10)));
        clearing.join().unwrap();
        assert_eq!((cache.get(&1), cache.len()), (None, 0));
    }
    check(scene);
}

#[test]
fn two_readers_of_a_cold_entry_both_get_it() {
    fn scene() {
        let (cache, _) = opened();
        let other = cache.clone();
        let reading = thread::spawn(move || assert_eq!(other.get(&1), Some(10)));
        assert_eq!(cache.get(&1), Some(10));
        reading.join().unwrap();
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.cold_hits, stats.size), (2, 0, 1, 3));
    }
    check(scene);
    shuttle::check_dfs(scene, Some(20_000));
}

#[test]
fn a_cold_entry_that_was_set_or_deleted_never_comes_back() {
    fn scene() {
        let (cache, _) = opened();
        let writes = cache.clone();
        let writing = thread::spawn(move || {
            writes.set(1, 11);
            assert_eq!(writes.get(&1), Some(11));
            writes.delete(&2);
            assert_eq!((writes.get(&2), writes.contains(&2)), (None, false));
        });
        let reads = cache.clone();
        let reading = thread::spawn(move || (reads.get(&1), reads.get(&2)));
        let (one, two) = reading.join().unwrap();
        assert!(matches!(one, Some(10 | 11)) && matches!(two, None | Some(20)), "{one:?} {two:?}");
        writing.join().unwrap();
        assert_eq!((cache.get(&1), cache.get(&2), cache.len()), (Some(11), None, 2));
    }
    check(scene);
}

/// The snapshot is opened under an empty cache, or read as a whole into a filled one, while other
/// threads read and write.
#[test]
fn loading_from_the_backup_beside_reads_and_writes_keeps_what_was_written() {
    fn scene() {
        let (cache, disk) = opened();
        cache.clear();
        let (reads, writes) = (cache.clone(), cache.clone());
        let reading = thread::spawn(move || assert!(matches!(reads.get(&1), None | Some(10))));
        let writing = thread::spawn(move || {
            writes.set(2, 21);
            assert_eq!(writes.get(&2), Some(21));
        });
        cache.load_from_backup().unwrap();
        assert_eq!(cache.get(&1), Some(10));
        reading.join().unwrap();
        writing.join().unwrap();
        assert_eq!((cache.get(&2), cache.len()), (Some(21), 3));
        cache.save_to_backup().unwrap();
        assert_eq!(saved(&disk), BTreeMap::from([(1, 10), (2, 21), (3, 30)]));
    }
    check(scene);
}

/// All shards have the snapshot, or none: otherwise a key in the file could be counted, but not
/// found.
#[test]
fn loading_from_the_backup_beside_a_clear_leaves_everything_or_nothing() {
    fn scene() {
        let (cache, disk) = opened();
        let clears = cache.clone();
        let clearing = thread::spawn(move || clears.clear());
        cache.load_from_backup().unwrap();
        clearing.join().unwrap();
        let found = VALUES.iter().filter(|(key, _)| cache.contains(key)).count();
        assert!(found == 0 || found == VALUES.len(), "{found} of {}", VALUES.len());
        assert_eq!(cache.len(), found);
        for (key, _) in &VALUES {
            cache.delete(key);
        }
        cache.save_to_backup().unwrap();
        assert_eq!((cache.len(), saved(&disk)), (0, BTreeMap::new()));
    }
    check(scene);
}

/// The reader read the old file; when it stores the entry, a newer file is open.
#[test]
fn what_was_read_from_one_snapshot_is_not_kept_under_the_next() {
    fn scene() {
        let (cache, disk) = opened();
        let reads = cache.clone();
        let reading = thread::spawn(move || assert!(matches!(reads.get(&1), None | Some(10 | 11))));
        cache.clear();
        disk.save(&mut [SavedEntry { key: 1_u32, value: 11_usize, ttl: None }].into_iter()).unwrap();
        cache.load_from_backup().unwrap();
        assert_eq!(cache.get(&1), Some(11));
        reading.join().unwrap();
        assert_eq!((cache.get(&1), cache.len()), (Some(11), 1));
    }
    check(scene);
}

#[test]
fn two_saves_at_once_leave_one_whole_file() {
    fn scene() {
        let (cache, disk) = opened();
        cache.set(4, 40);
        let other = cache.clone();
        let saving = thread::spawn(move || other.save_to_backup().unwrap().entries);
        assert_eq!((cache.save_to_backup().unwrap().entries, saving.join().unwrap()), (4, 4));
        assert_eq!(saved(&disk), BTreeMap::from([(1, 10), (2, 20), (3, 30), (4, 40)]));
    }
    check(scene);
}

// Batches

type Loader = BatchLoader<u32, usize, &'static str>;

/// A batch loader over the origin: each key's value is its version. Batches leave when they have
/// `max_size` keys, or when all other tasks had a turn.
fn batches(cache: &Cache, origin: &Arc<Origin>, max_size: usize) -> Loader {
    let origin = Arc::clone(origin);
    BatchLoader::builder(cache).window(Duration::ZERO).max_size(max_size).build(move |keys: Vec<u32>| {
        let origin = Arc::clone(&origin);
        async move {
            let version = origin.load().await?;
            Ok(keys.into_iter().map(|key| (key, version)).collect::<BTreeMap<_, _>>())
        }
    })
}

type BatchCall = Pin<Box<dyn Future<Output = Outcome> + Send>>;

fn call_batch(loader: &Loader, key: u32) -> BatchCall {
    let loader = loader.clone();
    Box::pin(async move { loader.get(&key).await.map(Option::unwrap) })
}

#[test]
fn callers_of_a_batch_are_all_answered_and_each_key_is_asked_for_once() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let loader = batches(&cache, &origin, 2);
        let others = [1, 2].map(|key| spawn(call_batch(&loader, key)));
        let single = spawn(call(&cache, &origin));
        assert_eq!(block_on(call_batch(&loader, 1)).unwrap(), 0);
        for other in others {
            assert_eq!(block_on(other).unwrap().unwrap(), 0);
        }
        assert_eq!(block_on(single).unwrap().unwrap(), 0);
        assert_eq!((cache.stats().loads, cache.len()), (2, 2));
    }
    check(scene);
}

/// A scene that ends earlier drops tasks in the middle of their work, and a dropped task may hold a
/// lock that another task's destructor needs. For scenes in which every key is stored at most once.
fn until_every_flight_has_ended(cache: &Cache) {
    let is_over = || {
        let stats = cache.stats();
        stats.load_errors + cache.len() as u64 == stats.loads
    };
    while !is_over() {
        thread::yield_now();
    }
}

/// The last caller leaves, another caller arrives, and the batch leaves: in any order.
#[test]
fn whoever_stays_is_answered_whether_the_others_leave_before_the_batch_or_after() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let loader = batches(&cache, &origin, 2);
        let leaving = [(1, 1), (1, 2), (2, 1)]
            .map(|(key, polls)| spawn(give_up_after(call_batch(&loader, key), polls)));
        let stays = spawn(call_batch(&loader, 1));
        assert_eq!(block_on(stays).unwrap().unwrap(), 0);
        for leaver in leaving {
            block_on(leaver).unwrap();
        }
        assert_eq!(cache.get(&1), Some(0));
        until_every_flight_has_ended(&cache);
    }
    check(scene);
}

/// Keys that had left are stored, others are dropped: in either case their flights end.
#[test]
fn when_all_leave_every_flight_of_a_batch_ends() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let loader = batches(&cache, &origin, 3);
        let leaving =
            [(1, 1), (2, 2)].map(|(key, polls)| spawn(give_up_after(call_batch(&loader, key), polls)));
        for leaver in leaving {
            block_on(leaver).unwrap();
        }
        // A batch that has left continues.
        until_every_flight_has_ended(&cache);
        assert_eq!(block_on(call_batch(&loader, 1)).unwrap(), 0);
    }
    check(scene);
}

#[test]
fn a_batch_that_began_before_a_delete_never_lands_after_it() {
    fn scene() {
        let (cache, origin) = (cache(), Arc::new(Origin::default()));
        let loader = batches(&cache, &origin, 2);
        let callers = [1, 2].map(|key| spawn(call_batch(&loader, key)));
        let quits = spawn(give_up_after(call_batch(&loader, 1), 2));
        let (written, writing, asks) = (cache.clone(), Arc::clone(&origin), loader.clone());
        let writer = thread::spawn(move || {
            writing.version.store(1, SeqCst);
            written.delete(&1);
            assert_ne!(written.get(&1), Some(0), "stored after it was overtaken");
            assert_eq!(block_on(call_batch(&asks, 1)).unwrap(), 1, "joined a batch that was overtaken");
        });
        for caller in callers {
            block_on(caller).unwrap().unwrap();
        }
        block_on(quits).unwrap();
        writer.join().unwrap();
        assert_eq!(cache.get(&1), Some(1), "an older batch landed last");
    }
    check(scene);
}
