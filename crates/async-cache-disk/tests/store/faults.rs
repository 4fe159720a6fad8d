//! A call that fails, or a disk that is full, at any call.
//!
//! The promise for a write that failed: neither its value nor an earlier one of the key is served
//! again, not even after a restart, unless the error says that the delete could be recorded
//! nowhere. Other keys may be misses from then on, and never have an older value. Every write that
//! succeeds after the fault has ended is on file.

use std::collections::BTreeMap;

use super::{
    KEYS, Op, State, brief, collections, key, large_records, put, small_segments, state, text, value,
    write_base,
};
use crate::sample::SAVED_AT;
use async_cache_disk::DiskErrorKind;
use async_cache_disk::fake::{FakeDisk, Fault};
use async_cache_disk::store::DiskStore;

fn assert_not_older(found: &State, allowed: &State, context: &str) {
    for (i, value) in found {
        assert!(Some(value) == allowed.get(i), "{context}: key {i}: {:?}", text(value));
    }
}

/// Runs the whole program; returns the values that may be found.
fn run(program: &[Op], disk: &FakeDisk, bytes: u32, mut allowed: State, context: &str) -> State {
    let mut store = super::cache(disk).store(super::sized(bytes), SAVED_AT).ok();
    for (number, op) in program.iter().enumerate() {
        if store.is_none() {
            store = super::cache(disk).store(super::sized(bytes), SAVED_AT).ok();
            if store.is_none() {
                continue; // The disk is full: nobody wrote anything.
            }
        }
        match (op.run(number, disk, &mut store, bytes), op) {
            (Ok(()), op) => op.apply(number, &mut allowed),
            (Err(error), op) => {
                assert!(!error.to_string().contains("nowhere"), "{context}, {op:?}: {error}");
                match op {
                    Op::Put(i, _) | Op::Delete(i) => drop(allowed.remove(i)),
                    Op::Clear => allowed.clear(),
                    _ => {}
                }
            }
        }
        if let Some(store) = &store {
            assert_not_older(&state(store), &allowed, &format!("{context}, {number} {op:?}"));
        }
    }
    allowed
}

fn reopen(disk: &FakeDisk, bytes: u32) -> DiskStore {
    super::cache(disk).store(super::sized(bytes), SAVED_AT + 1).unwrap()
}

fn fail_everywhere((program, bytes): (Vec<Op>, u32), fault: Fault, base_keys: u8) {
    let prepared = || {
        let disk = FakeDisk::new();
        let base = if base_keys > 0 { write_base(&disk, base_keys) } else { State::new() };
        (disk, base)
    };
    let (rehearsal, base) = prepared();
    run(&program, &rehearsal, bytes, base, "no fault");
    let mut kept = 0;
    let calls = rehearsal.calls();
    for (number, call) in calls.iter().enumerate() {
        let context = format!("{fault:?} at call {number} {call:?}");
        let (disk, base) = prepared();
        disk.inject(number, fault);
        let allowed = run(&program, &disk, bytes, base, &context);
        let died = disk.survivors().swap_remove(0).1;
        let found = state(&reopen(&died, bytes));
        assert_not_older(&found, &allowed, &format!("{context}, reopened"));
        kept += usize::from(found == allowed);

        disk.repair();
        let store = reopen(&disk, bytes);
        assert_not_older(&state(&store), &allowed, &format!("{context}, repaired"));
        let again: State = (0..KEYS).map(|i| (i, value(9000 + usize::from(i), 100))).collect();
        for (i, value) in &again {
            put(&store, &key(*i), value, SAVED_AT).unwrap();
        }
        store.flush().unwrap();
        for (name, survivor) in disk.survivors() {
            let found = state(&reopen(&survivor, bytes));
            assert!(found == again, "{context}, {name}: {:?}", brief(&found));
        }
    }
    let may_lose = bytes % 2 == 1;
    assert!(may_lose || kept * 2 > calls.len(), "most faults cost nothing: {kept} of {}", calls.len());
}

const EIO: Fault = Fault::Error(std::io::ErrorKind::Other);

#[test]
fn an_error_at_any_call_brings_no_older_value_back() {
    fail_everywhere(small_segments(), EIO, 4);
}

#[test]
fn an_error_among_large_records_brings_no_older_value_back() {
    fail_everywhere(large_records(), EIO, 4);
}

#[test]
fn an_error_during_collections_brings_no_older_value_back() {
    fail_everywhere(collections(4096 + 600), EIO, 4);
}

#[test]
fn an_error_during_collections_that_keep_a_limit_brings_no_older_value_back() {
    fail_everywhere(collections(4096 + 601), EIO, 4);
}

#[test]
fn a_full_disk_during_collections_brings_no_older_value_back() {
    let (program, bytes) = collections(4096 + 600);
    full_everywhere(&program, bytes);
    full_everywhere(&program, bytes + 1);
}

#[test]
fn a_full_disk_at_any_call_brings_no_older_value_back() {
    // A full disk stays full, so that most of the program is lost.
    let (program, bytes) = small_segments();
    full_everywhere(&program, bytes);
}

#[test]
fn a_full_disk_among_large_records_brings_no_older_value_back() {
    let (program, bytes) = large_records();
    full_everywhere(&program, bytes);
}

fn full_everywhere(program: &[Op], bytes: u32) {
    let prepared = || {
        let disk = FakeDisk::new();
        let base = write_base(&disk, 4);
        (disk, base)
    };
    let (rehearsal, base) = prepared();
    run(program, &rehearsal, bytes, base, "no fault");
    for (number, call) in rehearsal.calls().iter().enumerate().filter(|(_, call)| call.name != "read_at") {
        let context = format!("full at call {number} {call:?}");
        let (disk, base) = prepared();
        disk.inject(number, Fault::Full);
        let allowed = run(program, &disk, bytes, base, &context);
        disk.repair();
        let store = reopen(&disk, bytes);
        assert_not_older(&state(&store), &allowed, &format!("{context}, repaired"));
        put(&store, &key(0), b"again", SAVED_AT).unwrap();
        store.flush().unwrap();
        for (name, survivor) in disk.survivors() {
            let found = state(&reopen(&survivor, bytes));
            assert_eq!(found.get(&0).map(|value| &value[..]), Some(&b"again"[..]), "{context}, {name}");
        }
    }
}

#[test]
fn a_delete_that_can_be_recorded_nowhere_says_so_and_later_writes_fail_until_it_is() {
    let disk = FakeDisk::new();
    let base = write_base(&disk, 4);
    let store = super::open(&disk, 1 << 20);
    put(&store, &key(5), b"five", SAVED_AT).unwrap();
    for name in ["write_at", "remove", "create_new"] {
        disk.fail_every(name, std::io::ErrorKind::Other);
    }
    let error = store.delete(&key(0), None, SAVED_AT).unwrap_err();
    assert!(error.to_string().contains("recorded nowhere"), "{error}");
    assert_eq!(state(&store), BTreeMap::new(), "not even this process serves what was deleted");
    assert_eq!(put(&store, &key(1), b"one", SAVED_AT).unwrap_err().kind(), &DiskErrorKind::Io);
    assert_eq!(base.len(), 4);
    disk.repair();
    put(&store, &key(1), b"one", SAVED_AT).unwrap();
    drop(store);
    let one = State::from([(1, b"one".to_vec())]);
    assert_eq!(state(&reopen(&disk, 1 << 20)), one);
}

#[test]
fn a_sync_that_failed_is_reported_once_and_the_next_flush_is_sound() {
    let disk = FakeDisk::new();
    let store = super::open(&disk, 1 << 20);
    put(&store, &key(0), b"zero", SAVED_AT).unwrap();
    disk.fail_every("sync", std::io::ErrorKind::Other);
    store.flush().unwrap_err();
    disk.repair();
    put(&store, &key(1), b"one", SAVED_AT).unwrap();
    assert!(store.is_dirty());
    store.flush().unwrap_err(); // The broken segment was sealed without a sync.
    store.flush().unwrap();
    assert!(!store.is_dirty());
    for (name, survivor) in disk.survivors() {
        assert_eq!(state(&reopen(&survivor, 1 << 20)).get(&1), Some(&b"one".to_vec()), "{name}");
    }
}
