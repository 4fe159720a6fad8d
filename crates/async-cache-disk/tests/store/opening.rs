//! Openings that find a file unreadable, untrusted or missing; and openings without writes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{
    PATH, State, cache, count, first_record, folder_of, key, open, put, sized, small_segments, state,
    store_files, write_base,
};
use crate::sample::SAVED_AT;
use async_cache_disk::fake::{Call, FakeDisk, Fault};
use async_cache_disk::{DiskErrorKind, Ownership};

const BYTES: u32 = 4096 + 600;

/// A store of a process that died, with a base, runs and tails, and its state.
fn stored(length: usize) -> (FakeDisk, State) {
    let disk = FakeDisk::new();
    let mut state = write_base(&disk, 4);
    let mut store = Some(open(&disk, BYTES));
    for (number, op) in small_segments().0[..length].iter().enumerate() {
        op.run(number, &disk, &mut store, BYTES).unwrap();
        op.apply(number, &mut state);
    }
    drop(store);
    disk.repair();
    (disk, state)
}

fn contents(disk: &FakeDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.files().into_iter().map(|path| (path.clone(), disk.bytes(&path).unwrap())).collect()
}

/// A process without free descriptors counted a segment as lost, and removed it.
#[test]
fn a_file_that_cannot_be_opened_now_fails_the_opening_and_nothing_is_lost() {
    let length = 34;
    let (rehearsal, expected) = stored(length);
    drop(open(&rehearsal, BYTES));
    let calls = rehearsal.calls();
    let mut failed = 0;
    for (number, call) in calls.iter().enumerate() {
        // The first read of a file reads its header.
        let is_first = calls[..number].iter().rposition(|before| before.path == call.path);
        let is_header = is_first.is_some_and(|before| calls[before].name == "metadata");
        let is_checked = match call.name {
            "open" | "metadata" | "read_link" | "list" => true,
            "read_at" => is_header,
            _ => false,
        };
        if !is_checked {
            continue;
        }
        let (disk, _) = stored(length);
        let before = contents(&disk);
        disk.inject(number, Fault::Error(io::ErrorKind::PermissionDenied));
        match cache(&disk).store(sized(BYTES), SAVED_AT) {
            Ok(store) => assert!(state(&store) == expected, "{number} {call:?}"),
            Err(error) => {
                failed += 1;
                let is_lock = call.path.ends_with("lock"); // Another user's lock: not trusted.
                assert!(is_lock || error.kind() == &DiskErrorKind::Io, "{number} {call:?}: {error}");
                assert!(contents(&disk) == before, "{number} {call:?}");
            }
        }
        disk.repair();
        assert!(state(&open(&disk, BYTES)) == expected, "{number} {call:?}, opened again");
    }
    assert!(failed > 20, "{failed} of {}", calls.len());
}

#[test]
fn a_file_that_others_can_write_to_fails_the_opening_until_its_mode_is_corrected() {
    let (rehearsal, expected) = stored(34);
    for path in store_files(&rehearsal) {
        let (disk, _) = stored(34);
        let before = contents(&disk);
        let ownership = Ownership { owner: 1000, mode: 0o622, links: 1 };
        disk.set_ownership(&path, ownership);
        let error = cache(&disk).store(sized(BYTES), SAVED_AT).unwrap_err();
        assert_eq!(error.kind(), &DiskErrorKind::Trust, "{error}");
        assert!(contents(&disk) == before, "{}", path.display());
        disk.set_ownership(&path, Ownership { mode: 0o600, ..ownership });
        assert!(state(&open(&disk, BYTES)) == expected);
    }
}

/// A record that cannot be read now may be a delete. It must not become the end of its segment.
#[test]
fn a_tail_that_cannot_be_read_now_fails_the_opening() {
    let died = || {
        let disk = FakeDisk::new();
        let store = open(&disk, BYTES);
        put(&store, &key(0), b"zero", SAVED_AT).unwrap();
        store.delete(&key(0), None, SAVED_AT).unwrap();
        put(&store, &key(1), b"one", SAVED_AT).unwrap();
        store.flush().unwrap();
        disk.survivors().pop().unwrap().1 // After a power loss.
    };
    let expected = State::from([(1, b"one".to_vec())]);
    let rehearsal = died();
    assert_eq!(state(&open(&rehearsal, BYTES)), expected);
    let mut refused = 0;
    for number in 0..rehearsal.calls().len() {
        for both in [false, true] {
            let disk = died();
            disk.inject(number, Fault::Error(io::ErrorKind::Other));
            if both {
                disk.inject(number + 1, Fault::Error(io::ErrorKind::Other));
            }
            match cache(&disk).store(sized(BYTES), SAVED_AT) {
                // The look-up itself may fail: a miss.
                Ok(store) => assert!([State::new(), expected.clone()].contains(&state(&store)), "{number}"),
                Err(_) => refused += 1,
            }
            disk.repair();
            assert_eq!(state(&open(&disk, BYTES)), expected, "{number}");
        }
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn a_base_that_cannot_be_read_now_fails_the_opening() {
    let (disk, expected) = stored(20);
    let (rehearsal, _) = stored(20);
    drop(open(&rehearsal, BYTES));
    let is_base = |call: &Call| call.name == "open" && call.path == Path::new(PATH);
    let number = rehearsal.calls().iter().position(is_base).unwrap();
    disk.inject(number, Fault::Error(io::ErrorKind::Other));
    assert_eq!(cache(&disk).store(sized(BYTES), SAVED_AT).unwrap_err().kind(), &DiskErrorKind::Io);
    disk.repair();
    assert!(state(&open(&disk, BYTES)) == expected);
}

#[test]
fn without_a_manifest_the_base_counts_only_if_there_are_no_records() {
    let manifest = |disk: &FakeDisk| folder_of(disk).join("manifest");
    let write_first = |fault: Option<usize>| {
        let disk = FakeDisk::new();
        let base = write_base(&disk, 4);
        let store = open(&disk, BYTES);
        if let Some(call) = fault {
            disk.inject(call, Fault::Crash);
        }
        let _ = put(&store, &key(0), b"zero", SAVED_AT);
        (disk, base)
    };
    let first_record = first_record(&write_first(None).0);
    for is_closed in [false, true] {
        let (crashed, base) = write_first(Some(first_record));
        let disk = crashed.survivors().swap_remove(0).1;
        disk.as_vfs().remove(&manifest(&disk)).unwrap();
        let store = open(&disk, BYTES);
        assert_eq!(state(&store), base, "nothing was written");
        store.delete(&key(0), None, SAVED_AT).unwrap();
        if is_closed {
            store.close(SAVED_AT).unwrap();
        } else {
            drop(store);
        }
        disk.as_vfs().remove(&manifest(&disk)).unwrap();
        let store = open(&disk, BYTES);
        assert_eq!(state(&store), State::new(), "the delete is in a segment that nobody names");
        put(&store, &key(1), b"one", SAVED_AT).unwrap();
        drop(store);
        assert_eq!(state(&open(&disk, BYTES)), State::from([(1, b"one".to_vec())]));
    }
}

#[test]
fn a_store_that_is_opened_and_closed_without_writes_keeps_its_files() {
    let (disk, expected) = stored(34);
    open(&disk, BYTES).close(SAVED_AT).unwrap();
    let files = store_files(&disk);
    for _ in 0..30 {
        let store = open(&disk, BYTES);
        assert!(state(&store) == expected);
        store.close(SAVED_AT).unwrap();
        assert_eq!(store_files(&disk), files);
    }
    for _ in 0..30 {
        drop(open(&disk, BYTES)); // The process died.
        assert_eq!(store_files(&disk), files);
    }
    open(&disk, BYTES).close(SAVED_AT).unwrap();
    assert_eq!(store_files(&disk), files);
    assert!(state(&open(&disk, BYTES)) == expected);
}

/// A start must not wait for a disk: nothing is created, written or synced but the lock file and
/// its folders, neither where there was no store nor in a store that was closed.
#[test]
fn an_opening_that_finds_nothing_to_change_writes_nothing() {
    let fresh = FakeDisk::new();
    let base = write_base(&fresh, 4);
    let (closed, expected) = stored(34);
    open(&closed, BYTES).close(SAVED_AT).unwrap();
    for (disk, expected) in [(fresh, base), (closed, expected)] {
        for _ in 0..2 {
            disk.repair();
            let store = open(&disk, BYTES);
            assert!(state(&store) == expected);
            store.close(SAVED_AT).unwrap();
            let changing = ["write_at", "sync", "sync_data", "sync_dir", "rename"];
            let calls = disk.calls();
            let changes: Vec<_> = calls.iter().filter(|call| changing.contains(&call.name)).collect();
            assert!(changes.is_empty(), "{changes:?}");
            let lists = calls.iter().filter(|call| call.name == "list").count();
            assert!(lists <= 1, "{lists} listings of the folder");
        }
    }
}

/// If power fails before the folder's name is durable, the base is left.
#[test]
fn the_first_write_survives_a_power_loss_once_it_is_flushed() {
    let disk = FakeDisk::new();
    let base = write_base(&disk, 4);
    let store = open(&disk, BYTES);
    put(&store, &key(0), b"zero", SAVED_AT).unwrap();
    let mut written = base.clone();
    written.insert(0, b"zero".to_vec());
    for (name, survivor) in disk.survivors() {
        let found = state(&open(&survivor, BYTES));
        assert!(found == base || found == written, "{name}: {found:?}");
    }
    assert!(store.is_dirty());
    store.flush().unwrap();
    assert!(!store.is_dirty());
    for (name, survivor) in disk.survivors() {
        assert!(state(&open(&survivor, BYTES)) == written, "{name}");
    }
}

#[test]
fn a_segment_whose_first_write_fails_is_removed() {
    let disk = FakeDisk::new();
    put(&open(&disk, BYTES), &key(0), b"zero", SAVED_AT).unwrap();
    let (first_record, disk) = (first_record(&disk), FakeDisk::new());
    let store = open(&disk, BYTES);
    disk.inject(first_record, Fault::Error(io::ErrorKind::Other));
    put(&store, &key(0), b"zero", SAVED_AT).unwrap();
    assert_eq!(count(&disk, "s"), 1, "{:?}", store_files(&disk));
    drop(store);
    assert_eq!(state(&open(&disk, BYTES)), State::from([(0, b"zero".to_vec())]));
}
