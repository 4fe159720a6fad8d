//! The lock of a store: a single process, and a single opening in the process.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::hooked::Hooked;
use super::{State, cache, folder_of, found, key, open, put, sized, state, store_files, value, write_base};
use crate::sample::{SAVED_AT, file};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::{DiskStore, Folded};
use async_cache_disk::{CacheFile, DiskError, DiskErrorKind, RealDisk, Vfs};

fn lock_of(disk: &FakeDisk) -> PathBuf {
    folder_of(disk).join("lock")
}

fn refused(opened: Result<DiskStore, DiskError>, by: &str) {
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Locked);
    assert!(error.to_string().contains(by), "{error}");
}

#[test]
fn a_store_that_another_process_has_open_is_refused_until_that_process_ends() {
    let disk = FakeDisk::new();
    let store = open(&disk, 1 << 20);
    put(&store, &key(0), b"zero", SAVED_AT).unwrap();
    store.close(SAVED_AT).unwrap();
    let lock = lock_of(&disk);
    disk.put(&lock, b"");
    assert!(disk.lock_elsewhere(&lock));
    let before: Vec<_> = store_files(&disk).into_iter().map(|path| disk.bytes(&path)).collect();
    refused(cache(&disk).store(sized(0), SAVED_AT), "another process");
    assert_eq!(store_files(&disk).into_iter().map(|path| disk.bytes(&path)).collect::<Vec<_>>(), before);
    disk.unlock_elsewhere(&lock);
    assert_eq!(found(&open(&disk, 0), &key(0)).as_deref(), Some(&b"zero"[..]));
}

/// Closing any handle of a file releases the process's lock on the file.
#[test]
fn an_opening_that_is_refused_does_not_release_the_lock_of_the_first() {
    let disk = FakeDisk::new();
    let store = open(&disk, 1 << 20);
    let lock = lock_of(&disk);
    for _ in 0..3 {
        refused(cache(&disk).store(sized(0), SAVED_AT), "this process");
        assert!(!disk.lock_elsewhere(&lock));
    }
    drop(store);
    assert!(disk.lock_elsewhere(&lock), "a closed store has released it");
}

#[test]
fn of_many_threads_that_open_a_store_a_single_one_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages.cache");
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    for round in 0..20 {
        let stores: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| file(&vfs, &path).store(sized(0), SAVED_AT))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(stores.iter().filter(|store| store.is_ok()).count(), 1, "{stores:?}");
        let store = stores.into_iter().find_map(Result::ok).unwrap();
        put(&store, &key(round), b"value", SAVED_AT).unwrap();
    }
    let store = file(&vfs, &path).store(sized(0), SAVED_AT).unwrap();
    assert!((0..20).all(|round| found(&store, &key(round)).is_some()));
}

#[cfg(unix)]
#[test]
fn another_path_of_an_open_store_is_refused_too() {
    let folder = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).unwrap();
    let cache = |path: &Path| -> CacheFile { file(&vfs, path.join("pages.cache")) };
    let store = cache(folder.path()).store(sized(0), SAVED_AT).unwrap();
    refused(cache(&folder.path().join("link")).store(sized(0), SAVED_AT), "this process");
    drop(store);
    cache(&folder.path().join("link")).store(sized(0), SAVED_AT).unwrap();
}

#[test]
fn without_locks_there_is_no_store() {
    let disk = FakeDisk::new();
    disk.fail_every("try_lock", io::ErrorKind::Unsupported);
    refused(cache(&disk).store(sized(0), SAVED_AT), "no locks");
    disk.fail_every("try_lock", io::ErrorKind::PermissionDenied);
    assert_eq!(cache(&disk).store(sized(0), SAVED_AT).unwrap_err().kind(), &DiskErrorKind::Io);
}

/// A user removes the folder, to empty the cache; another process begins a store there.
#[test]
fn a_store_whose_folder_was_removed_says_so_and_writes_to_no_other_store() {
    for is_folded in [false, true] {
        let disk = FakeDisk::new();
        let base = write_base(&disk, 4);
        let store = open(&disk, 5000);
        put(&store, &key(0), b"zero", SAVED_AT).unwrap();
        store.delete(&key(1), None, SAVED_AT).unwrap();
        store.flush().unwrap();
        let folder = folder_of(&disk);
        for path in store_files(&disk).into_iter().chain([folder.join("lock")]) {
            disk.as_vfs().remove(&path).unwrap();
        }
        disk.as_vfs().remove_dir(&folder).unwrap();
        put(&store, &key(2), b"two", SAVED_AT).unwrap();
        for _ in 0..2 {
            let error = store.flush().unwrap_err();
            assert!(error.to_string().contains("removed or replaced"), "{error}");
        }
        let other = open(&disk, 5000);
        assert_eq!(state(&other), base);
        put(&other, &key(3), b"three", SAVED_AT).unwrap();
        let (files, expected) = (store_files(&disk), state(&other));
        let write = |number| put(&store, &key(2), &value(number, 700), SAVED_AT).is_err();
        assert!((0..20).any(write), "no further segment is created");
        assert!(store.delete(&key(3), None, SAVED_AT).is_err());
        // What could not be replaced or deleted on the disk is not served either.
        assert_eq!(state(&store), State::new());
        let _ = store.maintain(SAVED_AT);
        if is_folded {
            let Folded::Closed(_) = store.fold(&[], Duration::ZERO, SAVED_AT).unwrap_or_else(Folded::Closed)
            else {
                panic!("folded")
            };
        } else {
            store.close(SAVED_AT).unwrap_err();
        }
        assert_eq!((store_files(&disk), state(&other)), (files, expected.clone()));
        drop(other);
        assert_eq!(state(&open(&disk, 5000)), expected);
    }
}

/// Another process closes the store between the opening of the lock file and its locking, and
/// removes the folder.
#[test]
fn a_lock_file_that_was_removed_meanwhile_is_no_lock() {
    let disk = FakeDisk::new();
    let (mut hooked, meddler, attempts) = (Hooked::new(&disk), disk.clone(), AtomicU32::new(0));
    hooked.before_lock = Arc::new(move |lock| {
        if attempts.fetch_add(1, Ordering::Relaxed) < 3 {
            meddler.remove(lock).unwrap();
            meddler.remove_dir(lock.parent().unwrap()).unwrap();
        }
    });
    let vfs = hooked.as_vfs();
    let store = file(&vfs, super::PATH).store(sized(0), SAVED_AT).unwrap();
    put(&store, &key(0), b"zero", SAVED_AT).unwrap();
    assert!(!disk.lock_elsewhere(&lock_of(&disk)), "the file at the path is locked");
    refused(cache(&disk).store(sized(0), SAVED_AT), "this process");
}

#[test]
fn a_lock_file_that_is_removed_all_the_time_is_an_error_in_the_end() {
    let disk = FakeDisk::new();
    let (mut hooked, meddler) = (Hooked::new(&disk), disk.clone());
    hooked.before_lock = Arc::new(move |lock| meddler.remove(lock).unwrap());
    refused(file(&hooked.as_vfs(), super::PATH).store(sized(0), SAVED_AT), "again and again");
}

/// The folder is created before the lock is taken.
#[test]
fn a_store_that_another_process_writes_before_the_lock_is_taken_counts() {
    let other = FakeDisk::new();
    let store = open(&other, 1 << 20);
    put(&store, &key(0), b"zero", SAVED_AT).unwrap();
    store.close(SAVED_AT).unwrap();
    let files: Vec<_> =
        store_files(&other).into_iter().map(|path| (path.clone(), other.bytes(&path).unwrap())).collect();
    let disk = FakeDisk::new();
    let (mut hooked, writer) = (Hooked::new(&disk), disk.clone());
    hooked.before_lock = Arc::new(move |_| files.iter().for_each(|(path, bytes)| writer.put(path, bytes)));
    let store = file(&hooked.as_vfs(), super::PATH).store(sized(0), SAVED_AT).unwrap();
    assert_eq!(found(&store, &key(0)).as_deref(), Some(&b"zero"[..]));
}
