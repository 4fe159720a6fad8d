//! Indexing: segments that cannot be read now, and several threads at once.

use std::io;
use std::ops::Range;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::hooked::Hooked;
use super::{PATH, State, key, maintain, open, put, sized, state, state_of, value};
use crate::sample::{SAVED_AT, file};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::DiskStore;
use async_cache_disk::{DiskErrorKind, RealDisk, Vfs};

const BYTES: u32 = 4096 + 600;

/// Fills some segments.
fn fill(store: &DiskStore, keys: Range<u8>) -> State {
    for i in keys.clone() {
        put(store, &key(i), &value(i.into(), 300), SAVED_AT).unwrap();
    }
    keys.map(|i| (i, value(i.into(), 300))).collect()
}

/// A store with sealed segments that no run indexes.
fn with_tails(disk: &FakeDisk) -> (DiskStore, State) {
    let store = open(disk, BYTES);
    let mut expected = fill(&store, 0..6);
    store.delete(&key(0), None, SAVED_AT).unwrap();
    expected.remove(&0);
    assert_eq!(state(&store), expected);
    (store, expected)
}

#[test]
fn a_segment_that_cannot_be_read_now_is_indexed_later() {
    let disk = FakeDisk::new();
    let (store, expected) = with_tails(&disk);
    disk.fail_every("read_at", io::ErrorKind::Other);
    for _ in 0..5 {
        assert_eq!(store.maintain(SAVED_AT).unwrap_err().kind(), &DiskErrorKind::Io);
    }
    disk.repair();
    assert_eq!(state(&store), expected, "nothing is lost");
    maintain(&store, SAVED_AT).unwrap();
    assert!(store.stats().runs > 0);
    assert_eq!(state(&store), expected);
    drop(store);
    assert_eq!(state(&open(&disk, BYTES)), expected);
}

/// Else the tails would grow without end.
#[test]
fn a_segment_that_can_never_be_read_is_damaged_in_the_end() {
    let disk = FakeDisk::new();
    let (store, _) = with_tails(&disk);
    disk.fail_every("read_at", io::ErrorKind::Other);
    let failures = (0..100).take_while(|_| store.maintain(SAVED_AT).is_err()).count();
    assert!((2..50).contains(&failures), "{failures}");
    disk.repair();
    maintain(&store, SAVED_AT).unwrap();
    put(&store, &key(1), b"later", SAVED_AT).unwrap();
    // What could not be read is hidden; the open segment has the delete.
    assert_eq!(state(&store), State::from([(1, b"later".to_vec())]));
}

/// While the first call writes an index, another segment becomes full, and a second call begins.
#[test]
fn two_threads_that_maintain_at_once_leave_no_segment_without_an_index() {
    let disk = FakeDisk::new();
    let mut hooked = Hooked::new(&disk);
    let (began, has_begun) = channel();
    let (second_ended, has_ended) = channel::<()>();
    let gate = Mutex::new(Some((began, has_ended)));
    hooked.before_create = Arc::new(move |path| {
        let is_run = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('i'));
        let gate = gate.lock().unwrap().take_if(|_| is_run);
        if let Some((began, has_ended)) = gate {
            began.send(()).unwrap();
            // The second call has to wait for this one.
            let _ = has_ended.recv_timeout(Duration::from_millis(300));
        }
    });
    let store = file(&hooked.as_vfs(), PATH).store(sized(BYTES), SAVED_AT).unwrap();
    let mut expected = fill(&store, 0..6);
    thread::scope(|scope| {
        let first = scope.spawn(|| store.maintain(SAVED_AT));
        has_begun.recv().unwrap();
        expected.extend(fill(&store, 10..16));
        let second = scope.spawn(|| {
            let maintained = store.maintain(SAVED_AT);
            let _ = second_ended.send(());
            maintained
        });
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
    });
    assert_eq!(state_of(&store, 16), expected);
    store.close(SAVED_AT).unwrap();
    assert_eq!(state_of(&open(&disk, BYTES), 16), expected);
}

/// On real files.
#[test]
fn threads_that_write_and_maintain_lose_nothing() {
    const THREADS: u8 = 4;
    let folder = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let cache = file(&vfs, folder.path().join("pages.cache"));
    let store = cache.store(sized(BYTES), SAVED_AT).unwrap();
    thread::scope(|scope| {
        for i in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for round in 0..15 {
                    put(store, &key(i), &value(round, 300), SAVED_AT).unwrap();
                    put(store, &key(10 + i), &value(round, 20), SAVED_AT).unwrap();
                    let _ = store.maintain(SAVED_AT).unwrap();
                }
            });
        }
    });
    let values = (0..THREADS).flat_map(|i| [(i, value(14, 300)), (10 + i, value(14, 20))]);
    let expected: State = values.collect();
    assert_eq!(state_of(&store, 20), expected);
    store.close(SAVED_AT).unwrap();
    assert_eq!(state_of(&cache.store(sized(BYTES), SAVED_AT).unwrap(), 20), expected);
}
