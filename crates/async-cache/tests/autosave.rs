//! Automatic saves: in the background, and when the last handle is dropped.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::stage::{one_thread, within_limit};
use async_cache::{AsyncCache, BackendError, CacheBackend, DiskBackend, SavedEntry};

/// So short that no test waits for it; no test depends on its length.
const OFTEN: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::from_secs(1_000_000);

type Cache = AsyncCache<u32, u32>;
type Script = Box<dyn Fn(usize) -> Result<(), BackendError> + Send + Sync>;

/// Reports every save with its number of entries; the script decides the result of the save.
struct Told {
    tell: Mutex<Sender<usize>>,
    begun: AtomicUsize,
    running: AtomicUsize,
    peak: AtomicUsize,
    script: Script,
}

impl CacheBackend<u32, u32> for Told {
    fn load(&self) -> Result<Vec<SavedEntry<u32, u32>>, BackendError> {
        Ok(Vec::new())
    }

    fn save(&self, entries: &mut dyn Iterator<Item = SavedEntry<u32, u32>>) -> Result<(), BackendError> {
        self.peak.fetch_max(self.running.fetch_add(1, SeqCst) + 1, SeqCst);
        let count = entries.count();
        self.running.fetch_sub(1, SeqCst);
        let number = self.begun.fetch_add(1, SeqCst);
        // The test may have ended.
        let _ = self.tell.lock().unwrap().send(count);
        (self.script)(number)
    }

    fn clear(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

fn told(
    script: impl Fn(usize) -> Result<(), BackendError> + Send + Sync + 'static,
) -> (Arc<Told>, Receiver<usize>) {
    let (tell, saves) = mpsc::channel();
    let [begun, running, peak] = [(); 3].map(|()| AtomicUsize::new(0));
    (Arc::new(Told { tell: Mutex::new(tell), begun, running, peak, script: Box::new(script) }), saves)
}

fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        thread::yield_now();
    }
}

#[test]
fn what_was_stored_is_saved_without_being_asked_for_on_no_runtime() {
    within_limit(|| {
        let (backend, saves) = told(|_| Ok(()));
        let cache: Cache = AsyncCache::builder().backup(backend).autosave(OFTEN).build().unwrap();
        cache.set(1, 1);
        assert_eq!(saves.recv().unwrap(), 1);
        cache.set(2, 2);
        // The first value may have been saved twice, if the second value arrived during a save.
        assert!(saves.iter().any(|count| count == 2));
        until(|| cache.stats().saves >= 2);
        assert_eq!(cache.stats().save_errors, 0);
    });
}

#[test]
fn it_outlives_the_runtime_that_the_cache_was_built_on() {
    within_limit(|| {
        let (backend, saves) = told(|_| Ok(()));
        let cache = one_thread()
            .block_on(async { AsyncCache::builder().backup(backend).autosave(OFTEN).build().unwrap() });
        cache.set(1, 1);
        assert_eq!(saves.recv().unwrap(), 1);
    });
}

#[test]
fn a_save_that_fails_or_panics_is_counted_and_tried_again() {
    within_limit(|| {
        let (backend, saves) = told(|number| match number {
            0 => Err("the disk is full".into()),
            1 => panic!("the backend broke"),
            _ => Ok(()),
        });
        let cache: Cache = AsyncCache::builder().backup(backend).autosave(OFTEN).build().unwrap();
        cache.set(1, 1);
        for _ in 0..3 {
            assert_eq!(saves.recv().unwrap(), 1);
        }
        until(|| cache.stats().saves == 1);
        assert_eq!(cache.stats().save_errors, 2);
    });
}

#[test]
fn saves_never_overlap() {
    within_limit(|| {
        let (backend, saves) = told(|_| Ok(()));
        let builder = AsyncCache::builder().backup(Arc::clone(&backend)).autosave(OFTEN);
        let cache: Cache = builder.build().unwrap();
        thread::scope(|scope| {
            for part in 0..3 {
                let cache = &cache;
                scope.spawn(move || {
                    for key in 0..200 {
                        cache.set(part * 1000 + key, key);
                        cache.save_to_backup().unwrap();
                    }
                });
            }
        });
        drop(cache);
        assert_eq!((saves.try_iter().count() >= 600, backend.peak.load(SeqCst)), (true, 1));
    });
}

#[test]
fn the_thread_keeps_no_cache_alive() {
    within_limit(|| {
        for interval in [OFTEN, NEVER] {
            let (backend, _saves) = told(|_| Ok(()));
            let builder = AsyncCache::builder().backup(Arc::clone(&backend)).autosave(interval);
            let cache: Cache = builder.build().unwrap();
            cache.set(1, 1);
            drop(cache);
            // At once, unless it is saving at the moment.
            until(|| Arc::strong_count(&backend) == 1);
        }
    });
}

#[test]
fn the_last_handle_saves_and_no_other() {
    within_limit(|| {
        let (backend, saves) = told(|_| Ok(()));
        let cache: Cache = AsyncCache::builder().backup(backend).save_on_drop().build().unwrap();
        let other = cache.clone();
        cache.set(1, 1);
        drop(cache);
        assert!(saves.try_recv().is_err());
        drop(other);
        assert_eq!(saves.try_iter().collect::<Vec<_>>(), [1]);
    });
}

#[test]
fn the_last_handle_saves_what_the_thread_has_not_and_only_that() {
    within_limit(|| {
        for is_saved_before in [true, false] {
            let (backend, saves) = told(|_| Ok(()));
            let builder = AsyncCache::builder().backup(backend).autosave(NEVER).save_on_drop();
            let cache: Cache = builder.build().unwrap();
            cache.set(1, 1);
            if is_saved_before {
                cache.save_to_backup().unwrap();
            }
            drop(cache);
            assert_eq!(saves.try_iter().count(), 1);
        }
    });
}

#[test]
fn a_last_save_that_fails_or_panics_is_no_panic_of_who_drops() {
    within_limit(|| {
        let scripts: [fn(usize) -> Result<(), BackendError>; 2] =
            [|_| Err("full".into()), |_| panic!("broken")];
        for script in scripts {
            let (backend, saves) = told(script);
            let cache: Cache = AsyncCache::builder().backup(backend).save_on_drop().build().unwrap();
            cache.set(1, 1);
            drop(cache);
            assert_eq!(saves.try_iter().count(), 1);
        }
    });
}

#[test]
fn without_a_backup_nothing_happens() {
    let cache: Cache = AsyncCache::builder().autosave(OFTEN).save_on_drop().build().unwrap();
    cache.set(1, 1);
    assert_eq!((cache.stats().saves, cache.stats().save_errors), (0, 0));
}

#[test]
fn the_next_process_finds_what_the_last_handle_saved() {
    within_limit(|| {
        let folder = tempfile::tempdir().unwrap();
        let disk = DiskBackend::new(folder.path().join("it.cache"));
        let build =
            || AsyncCache::builder().backup(disk.clone()).autosave(NEVER).save_on_drop().build().unwrap();
        let cache: Cache = build();
        cache.set(1, 10);
        drop(cache);
        let cache: Cache = build();
        assert_eq!(cache.get(&1), Some(10));
        cache.delete(&1);
        drop(cache);
        assert_eq!(build().get(&1), None);
    });
}
