//! The contract of every place where entries persist: the same tests without a backend, over
//! [`DiskBackend`], over a user's own backend, and over a `DiskBackend` wrapped in a user's own;
//! and the effects of a failing backend on a cache.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::stage::{one_thread, within_limit};
use async_cache::{
    AsyncCache, BackendError, BackupError, CacheBackend, Clock, DiskBackend, Eviction, ManualClock,
    SavedEntry,
};
use async_cache_disk::CacheFile;
use async_cache_disk::fake::FakeDisk;

type Cache = AsyncCache<String, u64>;
type Entry = SavedEntry<String, u64>;

/// A user's own backend, in memory.
#[derive(Clone, Debug)]
struct Shelf {
    entries: Arc<Mutex<Vec<Entry>>>,
    fails: Arc<Mutex<Option<Cow<'static, str>>>>,
}

impl Shelf {
    fn new() -> Self {
        Self { entries: Arc::default(), fails: Arc::default() }
    }

    fn fail(&self, why: &'static str) {
        *self.fails.lock().unwrap() = Some(why.into());
    }

    fn check(&self) -> Result<(), BackendError> {
        self.fails.lock().unwrap().as_deref().map_or(Ok(()), |why| Err(why.into()))
    }
}

impl CacheBackend<String, u64> for Shelf {
    fn load(&self) -> Result<Vec<Entry>, BackendError> {
        self.check()?;
        Ok(self.entries.lock().unwrap().clone())
    }

    fn save(&self, entries: &mut dyn Iterator<Item = Entry>) -> Result<(), BackendError> {
        self.check()?;
        *self.entries.lock().unwrap() = entries.collect();
        Ok(())
    }

    fn clear(&self) -> Result<(), BackendError> {
        self.check()?;
        self.entries.lock().unwrap().clear();
        Ok(())
    }
}

/// A user's own backend that keeps its entries in a file of ours.
struct Wrapped(DiskBackend);

impl CacheBackend<String, u64> for Wrapped {
    fn load(&self) -> Result<Vec<Entry>, BackendError> {
        self.0.load()
    }

    fn save(&self, entries: &mut dyn Iterator<Item = Entry>) -> Result<(), BackendError> {
        self.0.save(entries)
    }

    fn clear(&self) -> Result<(), BackendError> {
        CacheBackend::<String, u64>::clear(&self.0)
    }
}

/// The place where a contract test keeps its entries.
enum Place {
    Nowhere,
    Disk(FakeDisk),
    Own(Shelf),
    Wrapped(FakeDisk),
}

impl Place {
    fn disk(disk: &FakeDisk) -> DiskBackend {
        DiskBackend::new("/cache").vfs(disk.as_vfs())
    }

    fn open(&self, maxsize: Option<usize>) -> (Cache, ManualClock) {
        let (clock, hands) = Clock::manual();
        let builder = AsyncCache::builder().clock(clock.clone()).shards(1).eviction(Eviction::Lru);
        let builder = match maxsize {
            Some(maxsize) => builder.maxsize(maxsize),
            None => builder,
        };
        let builder = match self {
            Self::Nowhere => builder,
            Self::Disk(disk) => builder.backup(Self::disk(disk)),
            Self::Own(own) => builder.backup(own.clone()),
            Self::Wrapped(disk) => builder.backup(Wrapped(Self::disk(disk).clock(clock))),
        };
        (builder.build().unwrap(), hands)
    }

    fn keeps(&self) -> bool {
        !matches!(self, Self::Nowhere)
    }

    /// Saves, and opens the saved entries.
    fn reopen(&self, cache: &Cache, maxsize: Option<usize>) -> (Cache, ManualClock) {
        let size = cache.len() as u64;
        assert_eq!(cache.save_to_backup().unwrap().entries, if self.keeps() { size } else { 0 });
        let (cache, hands) = self.open(maxsize);
        assert!(cache.opening().warning.is_none());
        if !self.keeps() {
            assert_eq!((cache.len(), cache.opening().entries), (0, 0));
        }
        (cache, hands)
    }
}

fn key(number: u64) -> String {
    format!("key {number}")
}

/// Makes a module for each place, containing every contract test.
macro_rules! contract {
    ($($(#[$doc:meta])* fn $name:ident($place:ident) $body:block)+) => {
        mod contract {
            use super::*;
            $($(#[$doc])* pub(super) fn $name($place: &Place) $body)+
        }
        contract!(@places {$($name)+} nowhere: Place::Nowhere, on_disk: Place::Disk(FakeDisk::new()),
            in_a_backend_of_ones_own: Place::Own(Shelf::new()), in_a_wrapped_disk: Place::Wrapped(FakeDisk::new()),);
    };
    (@places $names:tt $($module:ident: $place:expr,)+) => {
        $(contract!(@place $module $place; $names);)+
    };
    (@place $module:ident $place:expr; {$($name:ident)+}) => {
        mod $module {
            use super::*;
            $(#[test]
            fn $name() {
                within_limit(|| contract::$name(&$place));
            })+
        }
    };
}

contract! {
    fn what_was_set_is_there_and_comes_back(place) {
        let (mut cache, _) = place.open(None);
        (0..20).for_each(|number| cache.set(key(number), number));
        for _ in 0..2 {
            assert_eq!(cache.len(), 20);
            assert!((0..20).all(|number| cache.get(&key(number)) == Some(number)));
            assert!(!cache.contains("other"));
            let (next, _) = place.reopen(&cache, None);
            if place.keeps() {
                assert_eq!(next.opening().entries, 20);
                cache = next;
            }
        }
    }

    fn what_was_deleted_or_cleared_does_not_come_back(place) {
        let (cache, _) = place.open(None);
        (0..4).for_each(|number| cache.set(key(number), number));
        let cache = if place.keeps() { place.reopen(&cache, None).0 } else { cache };
        cache.delete(&key(1));
        assert_eq!((cache.get(&key(1)), cache.len()), (None, 3));
        let cache = if place.keeps() { place.reopen(&cache, None).0 } else { cache };
        assert_eq!((cache.get(&key(1)), cache.len()), (None, 3));
        cache.clear();
        assert_eq!((cache.get(&key(2)), cache.len()), (None, 0));
        assert_eq!(place.reopen(&cache, None).0.len(), 0);
    }

    fn what_was_loaded_is_kept_and_not_loaded_again(place) {
        let runtime = one_thread();
        let (cache, _) = place.open(None);
        let load = |value| move || async move { Ok::<u64, ()>(value) };
        assert_eq!(runtime.block_on(cache.get_or_load("a", load(1))).unwrap(), 1);
        assert_eq!(runtime.block_on(cache.get_or_load("a", load(2))).unwrap(), 1);
        let (next, _) = place.reopen(&cache, None);
        let expected = if place.keeps() { 1 } else { 3 };
        assert_eq!(runtime.block_on(next.get_or_load("a", load(3))).unwrap(), expected);
    }

    fn a_time_to_live_goes_on_where_it_stopped(place) {
        let (cache, hands) = place.open(None);
        cache.set_with_ttl(key(1), 1, Some(Duration::from_secs(10)));
        cache.set_with_ttl(key(2), 2, None);
        hands.advance(Duration::from_secs(4));
        assert_eq!(cache.get(&key(1)), Some(1));
        let (next, later) = place.reopen(&cache, None);
        // A manual clock starts at the same time in every life, so here the wall clock was set back
        // by 4 seconds: no life gets longer.
        let (cache, hands) = if place.keeps() { (next, later) } else { (cache, hands) };
        hands.advance(Duration::new(5, 999_999_999));
        assert_eq!(cache.get(&key(1)), Some(1));
        hands.advance(Duration::from_nanos(1));
        assert_eq!((cache.get(&key(1)), cache.get(&key(2))), (None, Some(2)));
    }

    fn in_a_smaller_cache_the_most_recently_used_remain(place) {
        let (cache, _) = place.open(Some(6));
        (0..6).for_each(|number| cache.set(key(number), number));
        assert_eq!(cache.get(&key(0)), Some(0));
        let (next, _) = place.reopen(&cache, Some(3));
        if place.keeps() {
            let there: Vec<_> = (0..6).filter(|&number| next.contains(&key(number))).collect();
            assert_eq!((there, next.len()), (vec![0, 4, 5], 3));
            next.set(key(7), 7);
            assert!(!next.contains(&key(4)), "the coldest of them makes room first");
        }
    }

    fn saves_and_loads_in_the_background_and_again_are_the_same(place) {
        let (cache, _) = place.open(None);
        cache.set(key(1), 1);
        let saved = one_thread().block_on(cache.save_to_backup_async()).unwrap();
        assert_eq!((saved.entries, saved.left_out), (u64::from(place.keeps()), 0));
        assert_eq!(cache.stats().saves, u64::from(place.keeps()));
        cache.clear();
        cache.set(key(2), 2);
        let loaded = cache.load_from_backup().unwrap();
        assert_eq!(loaded.entries, u64::from(place.keeps()));
        assert_eq!((cache.get(&key(1)), cache.get(&key(2))), (place.keeps().then_some(1), Some(2)));
    }

    fn what_was_set_since_is_newer_than_the_backup(place) {
        let (cache, _) = place.open(None);
        cache.set(key(1), 1);
        cache.save_to_backup().unwrap();
        cache.set(key(1), 2);
        cache.load_from_backup().unwrap();
        assert_eq!((cache.get(&key(1)), cache.len()), (Some(2), 1));
    }
}

// Failures

#[test]
fn a_backend_that_fails_to_load_leaves_an_empty_cache_and_a_warning() {
    let shelf = Shelf::new();
    shelf.fail("the shelf is locked");
    let cache: Cache = AsyncCache::builder().backup(shelf.clone()).build().unwrap();
    let warning = cache.opening().warning.as_ref().unwrap();
    assert!(matches!(warning, BackupError::Backend { action: "load", .. }), "{warning:?}");
    assert_eq!(warning.to_string(), "the backend could not load the cache: the shelf is locked");
    assert_eq!((cache.len(), cache.opening().entries), (0, 0));
    let again = cache.load_from_backup().unwrap_err();
    assert!(matches!(again, BackupError::Backend { action: "load", .. }), "{again:?}");
}

#[test]
fn a_backend_that_fails_to_save_is_an_error_of_the_save() {
    let shelf = Shelf::new();
    let cache: Cache = AsyncCache::builder().backup(shelf.clone()).build().unwrap();
    cache.set(key(1), 1);
    cache.save_to_backup().unwrap();
    shelf.fail("the shelf is full");
    cache.set(key(2), 2);
    let error = cache.save_to_backup().unwrap_err();
    assert_eq!(error.to_string(), "the backend could not save the cache: the shelf is full");
    let error = one_thread().block_on(cache.save_to_backup_async()).unwrap_err();
    assert!(matches!(error, BackupError::Backend { action: "save", .. }), "{error:?}");
    assert_eq!((cache.len(), cache.stats().saves, shelf.entries.lock().unwrap().len()), (2, 1, 1));
}

#[test]
fn a_backend_that_stops_in_the_middle_of_the_entries_is_no_harm() {
    struct TakesOne;
    impl CacheBackend<String, u64> for TakesOne {
        fn load(&self) -> Result<Vec<Entry>, BackendError> {
            Ok(Vec::new())
        }
        fn save(&self, entries: &mut dyn Iterator<Item = Entry>) -> Result<(), BackendError> {
            entries.next().map(drop).ok_or_else(|| "there was one".into())
        }
        fn clear(&self) -> Result<(), BackendError> {
            Ok(())
        }
    }
    let cache: Cache = AsyncCache::builder().backup(TakesOne).build().unwrap();
    (0..500).for_each(|number| cache.set(key(number), number));
    assert_eq!(cache.save_to_backup().unwrap().entries, 1);
    assert_eq!(cache.len(), 500);
}

/// The backend holds its own cache, and uses the cache in the middle of a save: no lock of an entry
/// is held.
#[test]
fn a_backend_may_use_the_cache_while_it_saves() {
    #[derive(Clone, Default)]
    struct Nosy(Arc<Mutex<Option<Cache>>>);
    impl CacheBackend<String, u64> for Nosy {
        fn load(&self) -> Result<Vec<Entry>, BackendError> {
            Ok(Vec::new())
        }
        fn save(&self, entries: &mut dyn Iterator<Item = Entry>) -> Result<(), BackendError> {
            let cache = self.0.lock().unwrap().clone().ok_or("it was put there")?;
            for entry in entries {
                cache.set(entry.key.clone(), entry.value + 1);
                cache.delete("nothing");
                cache.get(&entry.key).ok_or("it was just set")?;
            }
            cache.clear();
            Ok(())
        }
        fn clear(&self) -> Result<(), BackendError> {
            Ok(())
        }
    }
    within_limit(|| {
        let nosy = Nosy::default();
        let cache: Cache = AsyncCache::builder().backup(nosy.clone()).build().unwrap();
        (0..200).for_each(|number| cache.set(key(number), number));
        *nosy.0.lock().unwrap() = Some(cache.clone());
        assert_eq!(cache.save_to_backup().unwrap().entries, 200);
        assert!(cache.is_empty());
        nosy.0.lock().unwrap().take();
    });
}

#[test]
fn what_a_backend_brings_twice_or_expired_is_taken_once_or_not_at_all() {
    let shelf = Shelf::new();
    let entry = |number, value, ttl| SavedEntry { key: key(number), value, ttl };
    *shelf.entries.lock().unwrap() =
        vec![entry(1, 1, None), entry(1, 2, None), entry(2, 3, Some(Duration::ZERO)), entry(3, 4, None)];
    let cache: Cache = AsyncCache::builder().backup(shelf).build().unwrap();
    assert_eq!((cache.get(&key(1)), cache.get(&key(2)), cache.get(&key(3))), (Some(2), None, Some(4)));
    assert_eq!((cache.len(), cache.opening().entries), (2, 2), "the later one was used last");
}

// `DiskBackend` on its own

#[test]
fn a_disk_backend_without_a_cache_saves_loads_and_clears() {
    let (clock, hands) = Clock::manual();
    let fake = FakeDisk::new();
    let disk = Place::disk(&fake).clock(clock);
    let backend: &dyn CacheBackend<String, u64> = &disk;
    assert_eq!(backend.load().unwrap(), []);
    backend.clear().unwrap();
    let entry = |number, ttl: Option<u64>| SavedEntry {
        key: key(number),
        value: number,
        ttl: ttl.map(Duration::from_secs),
    };
    backend.save(&mut [entry(1, None), entry(2, Some(10)), entry(3, Some(4))].into_iter()).unwrap();
    hands.advance(Duration::from_secs(4));
    assert_eq!(backend.load().unwrap(), [entry(1, None), entry(2, Some(6))]);
    assert_eq!(disk.path().to_str(), Some("/cache"));
    backend.clear().unwrap();
    assert_eq!((backend.load().unwrap(), fake.files()), (Vec::new(), vec!["/cache.lock".into()]));
}

#[test]
fn without_a_cache_too_it_waits_for_a_save_of_another_process() {
    let fake = FakeDisk::new();
    let disk = Place::disk(&fake).lock_timeout(Duration::ZERO);
    let replacing = disk.clone().without_merging();
    let entry = |number| SavedEntry { key: key(number), value: number, ttl: None };
    let save =
        |backend: &dyn CacheBackend<String, u64>, number| backend.save(&mut [entry(number)].into_iter());
    let backend: &dyn CacheBackend<String, u64> = &disk;
    save(backend, 1).unwrap();
    let saving = CacheFile::new(fake.as_vfs(), disk.path()).lock(Duration::ZERO).unwrap();
    for error in [save(backend, 2).unwrap_err(), backend.clear().unwrap_err()] {
        assert!(error.to_string().contains("another process has held the lock"), "{error}");
    }
    assert_eq!(backend.load().unwrap(), [entry(1)]);
    save(&replacing, 3).unwrap();
    assert_eq!(backend.load().unwrap(), [entry(3)]);
    drop(saving);
    save(backend, 4).unwrap();
    assert_eq!(backend.load().unwrap(), [entry(4)]);
    backend.clear().unwrap();
    assert_eq!(backend.load().unwrap(), []);
}
