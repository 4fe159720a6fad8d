//! Look-ups that do not wait for the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::hooked::{Hooked, Now};
use super::{KEYS, PATH, State, cache, key, open, small_segments, state, value, write_base};
use crate::sample::{SAVED_AT, file, options};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::{DiskStore, StoreAnswer, StoreScratch, StoreWrite};
use async_cache_disk::{RealDisk, Times, Vfs};

/// A read would wait.
#[derive(Debug, PartialEq, Eq)]
struct WouldWait;

fn found_now(store: &DiskStore, key: &[u8]) -> Result<Option<Vec<u8>>, WouldWait> {
    match store.find_now(key, &mut StoreScratch::new()).ok_or(WouldWait)? {
        StoreAnswer::Entry(entry) => Ok(Some(entry.value.to_vec())),
        StoreAnswer::Absent | StoreAnswer::Hidden => Ok(None),
    }
}

/// A disk with a store that has a base, runs and tails.
fn stored(is_base_replaced: bool) -> (FakeDisk, u32) {
    let disk = FakeDisk::new();
    write_base(&disk, 4);
    let (program, bytes) = small_segments();
    let mut store = Some(open(&disk, bytes));
    for (number, op) in program.iter().take(34).enumerate() {
        op.run(number, &disk, &mut store, bytes).unwrap();
    }
    if is_base_replaced {
        let mut writer = cache(&disk).write(options()).unwrap();
        for i in 0..KEYS {
            let written_at = Some(if i % 2 == 0 { 1 } else { SAVED_AT + 1_000_000 });
            writer.push(&key(i), &value(999, 700), Times { deadline: None, written_at }).unwrap();
        }
        writer.finish().unwrap();
    }
    (disk, bytes)
}

#[test]
fn whichever_read_would_wait_the_answer_is_that_of_a_look_up_or_none() {
    for (is_base_replaced, what) in
        [(false, Now::WouldWait), (true, Now::WouldWait), (true, Now::ReturnsZero), (true, Now::ReadsOneByte)]
    {
        let (disk, bytes) = stored(is_base_replaced);
        let expected: State = state(&open(&disk, bytes));
        let (mut hooked, reads, at) =
            (Hooked::new(&disk), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, stops_at) = (Arc::clone(&reads), Arc::clone(&at));
        hooked.read_now = Arc::new(move |_| {
            let is_hit = counted.fetch_add(1, Ordering::Relaxed) == stops_at.load(Ordering::Relaxed);
            if is_hit { what } else { Now::Reads }
        });
        let store = file(&hooked.as_vfs(), PATH).store(super::sized(bytes), SAVED_AT).unwrap();
        let mut all = 0;
        for i in 0..KEYS {
            let mut waited = 0;
            for number in 0..40 {
                at.store(number, Ordering::Relaxed);
                reads.store(0, Ordering::Relaxed);
                let found = found_now(&store, &key(i));
                let would_wait = reads.load(Ordering::Relaxed) > number && what == Now::WouldWait;
                assert_eq!(found.is_err(), would_wait, "key {i}, read {number}");
                waited += usize::from(would_wait);
                assert!(found.is_err() || found.unwrap().as_ref() == expected.get(&i), "key {i}, {number}");
            }
            assert!(what != Now::WouldWait || waited > 0, "key {i} is not read from disk");
            all += waited;
        }
        assert!(what != Now::WouldWait || all > usize::from(KEYS), "{all} reads of runs, segments and base");
        assert!(state(&store) == expected, "nothing counts as damaged");
    }
}

#[test]
fn a_large_value_is_left_to_a_thread_that_may_wait() {
    let disk = FakeDisk::new();
    let store = open(&disk, 8 << 20);
    for (i, bytes) in [(0, 1000), (1, 1_000_000), (2, 1_100_000)] {
        super::put(&store, &key(i), &value(0, bytes), SAVED_AT).unwrap();
    }
    let is_found_now = [0, 1, 2].map(|i| found_now(&store, &key(i)).is_ok());
    assert_eq!(is_found_now, [true, true, false]);
    assert_eq!(state(&store).len(), 3);
}

#[test]
fn on_the_real_disk_what_was_just_written_is_found_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let store = file(&vfs, folder.path().join("pages.cache")).store(super::sized(0), SAVED_AT).unwrap();
    for i in 0..30 {
        let key = key(i);
        let write = StoreWrite { key: &key, value: b"value", deadline: None, replaces: None };
        store.put(&write, SAVED_AT).unwrap();
    }
    super::maintain(&store, SAVED_AT).unwrap();
    // The system may have written pages back, but has no reason to drop them.
    let found = (0..30).filter(|i| found_now(&store, &key(*i)) == Ok(Some(b"value".to_vec()))).count();
    assert!(found > 20, "{found}");
    assert_eq!(found_now(&store, b"nothing"), Ok(None));
}
