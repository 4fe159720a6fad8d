//! Saves: beside readers, writers and other saves, and with the entries of others in the file.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::{PATH, backend, life, open, saved_numbers, seconds, there};
use crate::stage::{one_thread, poll_once, several_threads, until, within_limit};
use async_cache::{AsyncCache, BackupError};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{CacheFile, Item, Source, WriteOptions};
use fastrand::Rng;
use serde::{Deserialize, Serialize, Serializer};

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
    let file = CacheFile::new(disk.as_vfs(), PATH);
    let old = file.open().unwrap().unwrap();
    let mut writer = file.version(old.version()).write(WriteOptions::new(old.saved_at())).unwrap();
    let mut records = old.records();
    while let Some(Item::Entry(record)) = records.next() {
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
    let snapshot = CacheFile::new(disk.as_vfs(), PATH).open().unwrap().unwrap();
    let (mut records, mut keys) = (snapshot.eager(), Vec::new());
    while let Some(Item::Entry(record)) = records.next() {
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
