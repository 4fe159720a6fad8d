//! Flushes: several callers, syncs that fail, and writes during a sync.

use std::io;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::hooked::Hooked;
use super::{PATH, State, cache, found, key, open, put, sized, state, value};
use crate::sample::{SAVED_AT, file};
use async_cache_disk::DiskErrorKind;
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::DiskStore;

fn survivors(disk: &FakeDisk) -> Vec<State> {
    disk.survivors().into_iter().map(|(_, survivor)| state(&open(&survivor, 1 << 20))).collect()
}

#[test]
fn writes_go_on_during_a_sync_and_are_durable_after_the_next_one() {
    let disk = FakeDisk::new();
    let (began, has_begun) = channel();
    let (release, released) = channel::<()>();
    let mut hooked = Hooked::new(&disk);
    let gate = Mutex::new((began, released));
    hooked.before_sync = Arc::new(move |_| {
        let (began, released) = &*gate.lock().unwrap_or_else(PoisonError::into_inner);
        began.send(()).unwrap();
        released.recv().unwrap();
        Ok(())
    });
    let store = file(&hooked.as_vfs(), PATH).store(sized(1 << 20), SAVED_AT).unwrap();
    put(&store, &key(0), b"before", SAVED_AT).unwrap();
    let store = &store;
    thread::scope(|scope| {
        let first = scope.spawn(|| store.flush());
        has_begun.recv().unwrap();
        let during = put(store, &key(1), b"during", SAVED_AT).unwrap();
        assert_eq!(found(store, &key(1)).as_deref(), Some(&b"during"[..]));
        store.delete(&key(0), None, SAVED_AT).unwrap();
        let second = scope.spawn(move || store.flush_write(during));
        release.send(()).unwrap();
        first.join().unwrap().unwrap();
        has_begun.recv().unwrap(); // The second call has a sync of its own.
        release.send(()).unwrap();
        second.join().unwrap().unwrap();
    });
    assert!(!store.is_dirty());
    for state in survivors(&disk) {
        assert_eq!(state, State::from([(1, b"during".to_vec())]));
    }
}

#[test]
fn a_failed_sync_is_the_error_of_every_caller_whose_write_it_concerns() {
    let disk = FakeDisk::new();
    let store = open(&disk, 1 << 20);
    let durable = put(&store, &key(0), b"durable", SAVED_AT).unwrap();
    store.flush().unwrap();
    let lost = [1, 2].map(|i| put(&store, &key(i), b"lost", SAVED_AT).unwrap());
    disk.fail_every("sync", io::ErrorKind::Other);
    assert_eq!(store.flush_write(lost[0]).unwrap_err().kind(), &DiskErrorKind::Io);
    disk.repair();
    let later = put(&store, &key(3), b"later", SAVED_AT).unwrap();
    store.flush().unwrap_err(); // The broken segment was sealed without a sync.
    for _ in 0..2 {
        assert!(lost.iter().all(|time| store.flush_write(*time).is_err()), "they stay lost");
        store.flush_write(durable).unwrap();
        store.flush_write(later).unwrap();
    }
}

/// The sync of a segment that is full happens in a write, which returns all the same.
#[test]
fn a_failed_sync_of_a_full_segment_is_reported_by_the_next_flush_and_for_every_write() {
    let disk = FakeDisk::new();
    let mut hooked = Hooked::new(&disk);
    hooked.before_sync =
        Arc::new(|path| if path.ends_with("s000001") { Err(io::ErrorKind::Other.into()) } else { Ok(()) });
    let store = file(&hooked.as_vfs(), PATH).store(sized(5000), SAVED_AT).unwrap();
    let times: Vec<u64> = (0..3).map(|i| put(&store, &key(i), &value(0, 1000), SAVED_AT).unwrap()).collect();
    store.flush().unwrap_err();
    store.flush().unwrap();
    assert!(store.flush_write(times[0]).is_err());
    store.flush_write(times[2]).unwrap();
}

#[test]
fn without_a_write_a_failed_flush_fails_again_and_does_not_claim_to_be_durable() {
    let disk = FakeDisk::new();
    let store = open(&disk, 1 << 20);
    put(&store, &key(0), b"zero", SAVED_AT).unwrap();
    disk.fail_every("sync", io::ErrorKind::Other);
    store.flush().unwrap_err();
    disk.repair();
    store.flush().unwrap_err();
    assert!(store.is_dirty());
}

/// Every thread writes and flushes; the latest value of each is durable after its flush.
#[test]
fn many_threads_share_syncs() {
    const THREADS: u8 = 5;
    const WRITES: usize = 60;
    let disk = FakeDisk::new();
    let store = cache(&disk).store(sized(20_000), SAVED_AT).unwrap();
    let flushed = Mutex::new([0; THREADS as usize]);
    let check = |disk: &FakeDisk, at_least: [usize; THREADS as usize]| {
        for (name, survivor) in disk.survivors() {
            let store = open(&survivor, 20_000);
            for (i, at_least) in (0..).zip(at_least) {
                let found = found(&store, &key(i)).unwrap_or_default();
                let is_new = (at_least..=WRITES).any(|number| found == value(number, 100));
                assert!(is_new || at_least == 0, "{name}: key {i}, {at_least}: {found:?}");
            }
        }
    };
    thread::scope(|scope| {
        for i in 0..THREADS {
            let (store, flushed): (&DiskStore, _) = (&store, &flushed);
            let (disk, check) = (&disk, &check);
            scope.spawn(move || {
                for number in 1..=WRITES {
                    put(store, &key(i), &value(number, 100), SAVED_AT).unwrap();
                    store.flush().unwrap();
                    flushed.lock().unwrap()[usize::from(i)] = number;
                    if i == 0 && number % 20 == 0 {
                        let at_least = *flushed.lock().unwrap();
                        check(disk, at_least);
                    }
                }
            });
        }
    });
    check(&disk, [WRITES; THREADS as usize]);
}
