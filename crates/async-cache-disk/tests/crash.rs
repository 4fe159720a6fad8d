//! A save interrupted at any call, by a dead process or a power loss, leaves the old cache or the
//! new one, whole.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sample::{
    Entry, assert_holds_with_eager, eager_entries, entries, file, options_of, save_with_eager,
};
use async_cache_disk::fake::{FakeDisk, Fault};
use async_cache_disk::{DiskError, DiskErrorKind, SavedFile};

const PATH: &str = "/var/cache/pages.cache";
const FOREIGN: &[u8] = b"somebody's thesis, the only copy";

/// The state before the save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    NoFolder,
    NoFile,
    EmptyFile,
    Snapshot,
    Foreign,
    /// Foreign, after another foreign file was set aside.
    ForeignAgain,
}

const ALL_BEFORE: [Before; 6] = [
    Before::NoFolder,
    Before::NoFile,
    Before::EmptyFile,
    Before::Snapshot,
    Before::Foreign,
    Before::ForeignAgain,
];

fn old() -> Vec<Entry> {
    entries(40, 1)
}

fn new() -> Vec<Entry> {
    let mut entries = entries(50, 2);
    entries[20].value = vec![b'n'; (1 << 20) + 5]; // several writes
    entries
}

fn old_eager() -> Vec<Entry> {
    eager_entries(7, 1)
}

fn new_eager() -> Vec<Entry> {
    let mut entries = eager_entries(9, 2);
    entries[4].value = vec![b'e'; (1 << 20) + 5]; // too large for the buffer
    entries
}

fn save_new(disk: &FakeDisk) -> Result<SavedFile, DiskError> {
    save_with_eager(&disk.as_vfs(), Path::new(PATH), &new(), &new_eager(), options_of(2))
}

fn prepared(before: Before) -> FakeDisk {
    let (disk, path) = (FakeDisk::new(), Path::new(PATH));
    match before {
        Before::NoFolder => {}
        Before::NoFile => disk.put_dir(path.parent().unwrap()),
        Before::EmptyFile => disk.put(path, b""),
        Before::Snapshot => {
            save_with_eager(&disk.as_vfs(), path, &old(), &old_eager(), options_of(1)).unwrap();
        }
        Before::Foreign => disk.put(path, FOREIGN),
        Before::ForeignAgain => {
            disk.put(path, FOREIGN);
            disk.put(&aside(1), b"another");
        }
    }
    disk.repair();
    disk
}

fn aside(number: u32) -> PathBuf {
    PathBuf::from(if number == 1 { format!("{PATH}.aside") } else { format!("{PATH}.aside-{number}") })
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Old,
    New,
}

/// Reopens the cache and asserts that it is whole, whether old or new.
fn state(disk: &FakeDisk, before: Before) -> State {
    let (vfs, path) = (disk.as_vfs(), Path::new(PATH));
    if matches!(before, Before::Foreign | Before::ForeignAgain) {
        let places = (1..5).map(aside).chain([path.to_owned()]);
        assert!(
            places.into_iter().any(|path| disk.bytes(&path).as_deref() == Some(FOREIGN)),
            "the foreign file is gone"
        );
    }
    if before == Before::ForeignAgain {
        assert_eq!(disk.bytes(&aside(1)).as_deref(), Some(&b"another"[..]));
    }
    match file(&vfs, path).open() {
        Ok(Some(snapshot)) if snapshot.file_id() == [1; 16] => {
            assert_eq!(before, Before::Snapshot);
            assert_holds_with_eager(&vfs, path, &old(), &old_eager());
            State::Old
        }
        Ok(Some(_)) => {
            assert_holds_with_eager(&vfs, path, &new(), &new_eager());
            State::New
        }
        Ok(None) => {
            assert_ne!(before, Before::Snapshot, "the old snapshot is gone");
            State::Old
        }
        Err(error) => {
            assert_eq!(error.kind(), &DiskErrorKind::Foreign, "{error}");
            assert_eq!(disk.bytes(path).as_deref(), Some(FOREIGN));
            State::Old
        }
    }
}

/// The next save, half a minute later, succeeds and removes leftovers.
fn assert_recovers(disk: &FakeDisk, before: Before) {
    disk.advance(Duration::from_secs(30));
    save_new(disk).unwrap();
    assert_eq!(state(disk, before), State::New);
    let temporary = disk.files().into_iter().find(|path| path.extension().is_some_and(|it| it == "tmp"));
    assert_eq!(temporary, None, "a leftover was left");
}

#[test]
fn a_crash_at_any_call_leaves_the_old_or_the_new_cache_whole() {
    for before in ALL_BEFORE {
        let rehearsal = prepared(before);
        save_new(&rehearsal).unwrap();
        let calls = rehearsal.calls();
        let mut seen = (0, 0);
        for (number, fault) in (0..=calls.len()).flat_map(|n| [(n, Fault::Crash), (n, Fault::TornCrash)]) {
            let disk = prepared(before);
            disk.inject(number, fault);
            let saved = save_new(&disk);
            let durable = saved.is_ok();
            assert_eq!(durable, number == calls.len(), "an error was swallowed");
            for (name, survivor) in disk.survivors() {
                let context =
                    format!("{before:?}, {fault:?} at call {number} {:?}: {name}", calls.get(number));
                let checked = std::panic::catch_unwind(|| {
                    let state = state(&survivor, before);
                    assert!(!durable || state == State::New, "the save said it was durable");
                    assert_recovers(&survivor, before);
                    state
                });
                match checked.unwrap_or_else(|_| panic!("{context}")) {
                    State::Old => seen.0 += 1,
                    State::New => seen.1 += 1,
                }
            }
        }
        assert!(seen.0 > 0 && seen.1 > 0, "the test saw both outcomes of {before:?}");
    }
}

#[test]
fn a_fault_at_any_call_is_an_error_or_harmless_and_the_old_file_stays() {
    let faults = [
        (Fault::Error(std::io::ErrorKind::Other), DiskErrorKind::Io),
        (Fault::Error(std::io::ErrorKind::PermissionDenied), DiskErrorKind::Io),
        (Fault::Full, DiskErrorKind::Full),
    ];
    for (before, (fault, kind)) in
        ALL_BEFORE.into_iter().flat_map(|before| faults.clone().map(|fault| (before, fault)))
    {
        let rehearsal = prepared(before);
        save_new(&rehearsal).unwrap();
        let calls = rehearsal.calls();
        for (number, call) in calls.iter().enumerate() {
            let disk = prepared(before);
            disk.inject(number, fault);
            let saved = save_new(&disk);
            let is_last_sync = number + 1 == calls.len();
            let state = state(&disk, before);
            assert_eq!(
                state == State::New,
                saved.is_ok() || is_last_sync,
                "{before:?}, {fault:?} at {call:?}"
            );
            match saved {
                // A file set aside earlier that cannot be read is left alone.
                Ok(_) if call.path == aside(1) => assert_eq!(before, Before::ForeignAgain),
                Ok(_) => assert!(matches!(call.name, "list" | "write_at"), "{call:?} failed unnoticed"),
                Err(error) => assert_eq!(error.kind(), &kind, "{error}"),
            }
            let temporary =
                disk.files().into_iter().find(|path| path.extension().is_some_and(|it| it == "tmp"));
            assert_eq!(temporary, None, "{before:?}, {fault:?} at {call:?} left it behind");
            disk.repair();
            assert_recovers(&disk, before);
        }
    }
}

#[test]
fn a_disk_that_is_full_at_any_write_says_so_and_keeps_the_old_file() {
    let rehearsal = prepared(Before::Snapshot);
    save_new(&rehearsal).unwrap();
    let writes = rehearsal.calls().into_iter().enumerate().filter(|(_, call)| call.name == "write_at");
    let mut count = 0;
    for (number, _) in writes {
        let disk = prepared(Before::Snapshot);
        disk.inject(number, Fault::Full);
        let error = save_new(&disk).unwrap_err();
        assert_eq!(error.kind(), &DiskErrorKind::Full);
        assert!(error.to_string().contains(PATH) && error.to_string().contains("make room"), "{error}");
        assert_eq!(state(&disk, Before::Snapshot), State::Old);
        assert_eq!(disk.files(), [PathBuf::from(PATH)]);
        count += 1;
    }
    assert!(count >= 6, "records, more records, the index, eager records, the rest, the header: {count}");
}
