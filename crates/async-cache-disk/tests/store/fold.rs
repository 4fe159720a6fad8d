//! Folding a store into the single file that the user named.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    KEYS, Op, PATH, State, brief, cache, found, key, open, put, sized, small_segments, state, store_files,
    value, write_base,
};
use crate::sample::SAVED_AT;
use async_cache_disk::fake::{Call, FakeDisk, Fault};
use async_cache_disk::store::{DiskStore, EntryPlace, Folded, StoreWrite};
use async_cache_disk::{
    DiskErrorKind, Item, KeyKind, Known, Ours, Scratch, Snapshot, Source, Times, WriteOptions,
};

const BYTES: u32 = 4096 + 600;
const NO_WAIT: Duration = Duration::ZERO;
const NOW: u64 = SAVED_AT + 1_000_000;

fn write_at(store: &DiskStore, key: &[u8], value: &[u8], deadline: Option<u64>) -> EntryPlace {
    store.put(&StoreWrite { key, value, deadline, replaces: None }, SAVED_AT).unwrap().place
}

fn snapshot(disk: &FakeDisk) -> Snapshot {
    cache(disk).open().unwrap().expect("the store was folded")
}

/// The values of the file, the first is the coldest.
fn order(disk: &FakeDisk) -> Vec<String> {
    let mut records = snapshot(disk).records();
    let mut values = Vec::new();
    while let Some(item) = records.next() {
        let Item::Entry(entry) = item else { panic!("damage") };
        values.push(String::from_utf8(entry.value.to_vec()).unwrap());
    }
    values
}

fn in_file(disk: &FakeDisk) -> State {
    let (snapshot, mut scratch) = (snapshot(disk), Scratch::new());
    let find = |i: u8| Some((i, snapshot.find(&key(i), &mut scratch)?.value.to_vec()));
    (0..KEYS).filter_map(find).collect()
}

fn assert_alone(disk: &FakeDisk) {
    let lock = PathBuf::from(format!("{PATH}.lock"));
    assert_eq!(disk.files(), [Path::new(PATH).to_owned(), lock]);
    let gone = disk.as_vfs().metadata(Path::new("/var/cache/pages.cache.d")).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

/// A store of a running process after a program, with everything flushed.
fn stored(length: usize, base_keys: u8) -> (FakeDisk, DiskStore, State) {
    let disk = FakeDisk::new();
    let mut state = if base_keys > 0 { write_base(&disk, base_keys) } else { State::new() };
    let mut store = Some(open(&disk, BYTES));
    for (number, op) in small_segments().0[..length].iter().enumerate() {
        op.run(number, &disk, &mut store, BYTES).unwrap();
        op.apply(number, &mut state);
    }
    let store = store.unwrap();
    store.flush().unwrap();
    (disk, store, state)
}

#[test]
fn after_a_fold_there_is_one_file_with_every_entry_and_its_times() {
    let disk = FakeDisk::new();
    write_base(&disk, 4);
    let store = open(&disk, BYTES);
    let time = put(&store, &key(0), b"zero", SAVED_AT + 5).unwrap();
    store.delete(&key(1), None, SAVED_AT).unwrap();
    write_at(&store, b"soon", b"soon", Some(NOW + 1));
    write_at(&store, b"expired", b"expired", Some(NOW));
    let folded = store.fold(&[], NO_WAIT, NOW).unwrap();
    assert!(matches!(folded, Folded::Whole { saved: Some(_), .. }), "{folded:?}");
    assert_alone(&disk);
    assert_eq!(order(&disk), ["base 2", "base 3", "zero", "soon"]);
    let (snapshot, mut scratch) = (snapshot(&disk), Scratch::new());
    assert_eq!(snapshot.find(&key(0), &mut scratch).unwrap().written_at, Some(time));
    assert_eq!(snapshot.find(b"soon", &mut scratch).unwrap().deadline, Some(NOW + 1));
    assert_eq!(snapshot.find(&key(2), &mut scratch).unwrap().written_at, Some(SAVED_AT - 5));
    assert!(snapshot.tombstones().covers(KeyKind::Canonical, &key(1), SAVED_AT));
    let store = open(&disk, BYTES);
    assert_eq!(found(&store, &key(0)).as_deref(), Some(&b"zero"[..]));
    assert!(put(&store, &key(0), b"again", 0).unwrap() > time);
}

#[test]
fn the_order_of_eviction_is_places_and_then_memory() {
    let disk = FakeDisk::new();
    write_base(&disk, 4);
    let store = open(&disk, BYTES);
    let mut base = std::collections::BTreeMap::new();
    for i in 0..4 {
        let mut scratch = async_cache_disk::store::StoreScratch::new();
        if let async_cache_disk::store::StoreAnswer::Entry(entry) = store.find(&key(i), &mut scratch) {
            base.insert(i, entry.sighting.place);
        }
    }
    let places: Vec<EntryPlace> =
        ["a", "b", "c", "d", "e"].map(|key| write_at(&store, key.as_bytes(), key.as_bytes(), None)).into();
    let stale = places[1];
    let b = write_at(&store, b"b", b"b2", None);
    let expired = write_at(&store, b"x", b"x", Some(1));
    let in_memory = [places[3], base[&2], b, stale, places[0], expired, base[&0]];
    store.fold(&in_memory, NO_WAIT, NOW).unwrap();
    assert_eq!(order(&disk), ["base 1", "base 3", "c", "e", "d", "base 2", "b2", "a", "base 0"]);
}

#[test]
fn without_writes_the_file_stays_and_the_store_goes() {
    let disk = FakeDisk::new();
    write_base(&disk, 4);
    let before = disk.bytes(Path::new(PATH));
    let folded = open(&disk, BYTES).fold(&[], NO_WAIT, NOW).unwrap();
    assert!(matches!(folded, Folded::Whole { saved: None, .. }), "{folded:?}");
    assert_eq!(disk.files(), [Path::new(PATH)]);
    assert_eq!(disk.bytes(Path::new(PATH)), before);
    let store = open(&disk, BYTES);
    store.clear(SAVED_AT).unwrap();
    store.fold(&[], NO_WAIT, NOW).unwrap();
    assert_alone(&disk);
    assert_eq!(in_file(&disk), State::new());
}

#[test]
fn eager_entries_are_those_in_memory_or_without_a_front_those_behind_the_last_delete() {
    for has_front in [true, false] {
        let disk = FakeDisk::new();
        let store = open(&disk, BYTES);
        let eager = |key: &[u8]| {
            let write = StoreWrite { key, value: key, deadline: None, replaces: None };
            store.put_eager(&write, SAVED_AT).unwrap().place
        };
        let first = ["old 1", "old 2"].map(|key| eager(key.as_bytes()));
        store.delete_eager(b"old 1, but other bytes", SAVED_AT).unwrap();
        let second = ["new 1", "new 2"].map(|key| eager(key.as_bytes()));
        let memory = [second[1], first[1]];
        if has_front {
            store.fold(&memory, NO_WAIT, NOW).unwrap();
        } else {
            store.fold_always(NO_WAIT, NOW).unwrap();
        }
        let mut records = snapshot(&disk).eager();
        let mut keys = Vec::new();
        while let Some(Item::Entry(entry)) = records.next() {
            keys.push(String::from_utf8(entry.key.to_vec()).unwrap());
        }
        assert_eq!(keys, if has_front { ["new 2", "old 2"] } else { ["new 1", "new 2"] });
        assert!(snapshot(&disk).tombstones().covers(KeyKind::Eager, b"old 1, but other bytes", SAVED_AT));
    }
}

#[test]
fn a_store_with_more_than_64_mib_of_entries_is_closed_and_a_tool_folds_it_all_the_same() {
    let disk = FakeDisk::new();
    disk.keep_no_log();
    let store = cache(&disk).store(sized(16 << 20), SAVED_AT).unwrap();
    for i in 0..66u8 {
        write_at(&store, &[i], &value(i.into(), 1 << 20), None);
    }
    let folded = store.fold(&[], NO_WAIT, NOW).unwrap();
    assert!(matches!(folded, Folded::TooLarge), "{folded:?}");
    assert!(disk.bytes(Path::new(PATH)).is_none() && !store_files(&disk).is_empty());
    let store = cache(&disk).store(sized(16 << 20), SAVED_AT).unwrap();
    for i in 0..4u8 {
        store.delete(&[i], None, SAVED_AT).unwrap();
    }
    let folded = store.fold(&[], NO_WAIT, NOW).unwrap();
    assert!(matches!(folded, Folded::Whole { .. }), "garbage does not count: {folded:?}");
    let store = cache(&disk).store(sized(16 << 20), SAVED_AT).unwrap();
    for i in 0..4u8 {
        write_at(&store, &[i], &value(i.into(), 1 << 20), None);
    }
    store.fold_always(NO_WAIT, NOW).unwrap();
    assert_alone(&disk);
    assert_eq!(snapshot(&disk).len(), 66);
}

/// Another program has saved meanwhile, as a merging save does it.
#[test]
fn a_base_that_another_program_has_replaced_is_merged_by_times() {
    let disk = FakeDisk::new();
    write_base(&disk, 4);
    let store = open(&disk, BYTES);
    let time = put(&store, &key(0), b"store 0", SAVED_AT + 100).unwrap();
    put(&store, &key(1), b"store 1", SAVED_AT + 100).unwrap();
    store.delete(&key(2), None, SAVED_AT + 100).unwrap();
    store.delete(&key(5), None, SAVED_AT + 100).unwrap();

    let save = cache(&disk).begin(Some(NO_WAIT)).unwrap();
    let joining = save.write(WriteOptions::new(SAVED_AT), Known::default(), None).unwrap();
    let ours = Ours { maxsize: None, eager: None, cold: None, allows: &|_| true };
    let mut output = joining.join(&ours).unwrap();
    for (i, written_at) in [(1, time + 500), (4, time - 50), (5, time - 50)] {
        let times = Times { deadline: None, written_at: Some(written_at) };
        let _ = output.push(&key(i), format!("other {i}").as_bytes(), times).unwrap();
    }
    output.finish().unwrap();

    let folded = store.fold(&[], NO_WAIT, NOW).unwrap();
    let Folded::Whole { merged: Some(merged), .. } = folded else { panic!("{folded:?}") };
    assert!(merged.copied > 0);
    let expected = [(0, "store 0"), (1, "other 1"), (3, "base 3"), (4, "other 4")];
    let expected: State = expected.into_iter().map(|(i, value)| (i, value.as_bytes().to_vec())).collect();
    assert!(in_file(&disk) == expected, "{:?}", brief(&in_file(&disk)));
    assert!(state(&open(&disk, BYTES)) == expected);
}

#[test]
fn a_fold_that_cannot_lock_the_file_closes_the_store() {
    let (disk, store, expected) = stored(20, 4);
    let lock = cache(&disk).lock(NO_WAIT).unwrap();
    let folded = store.fold(&[], NO_WAIT, NOW).unwrap();
    let Folded::Closed(error) = folded else { panic!("{folded:?}") };
    assert_eq!(error.kind(), &DiskErrorKind::Locked);
    drop(lock);
    let store = open(&disk, BYTES);
    assert!(state(&store) == expected);
    store.fold(&[], NO_WAIT, NOW).unwrap();
    assert!(in_file(&disk) == expected);
}

#[test]
fn a_store_beside_that_of_another_version_leaves_it_alone() {
    let disk = FakeDisk::new();
    let other = cache(&disk).version("v2");
    let other_store = other.store(sized(BYTES), SAVED_AT).unwrap();
    put(&other_store, &key(1), b"other", SAVED_AT).unwrap();
    let store = open(&disk, BYTES);
    put(&store, &key(0), b"zero", SAVED_AT).unwrap();
    store.fold(&[], NO_WAIT, NOW).unwrap();
    assert_eq!(in_file(&disk), State::from([(0, b"zero".to_vec())]));
    assert_eq!(found(&other_store, &key(1)).as_deref(), Some(&b"other"[..]));
}

/// The calls of a fold, and their numbers.
fn calls_of_fold(length: usize, base_keys: u8) -> Vec<(usize, Call)> {
    let (disk, store, _) = stored(length, base_keys);
    let start = disk.calls().len();
    store.fold(&[], NO_WAIT, NOW).unwrap();
    disk.calls().into_iter().enumerate().skip(start).collect()
}

/// Each disk is folded once more, and opened again.
fn check(disk: &FakeDisk, expected: &State, context: &str) {
    let store = cache(disk).store(sized(BYTES), NOW).unwrap();
    assert!(state(&store) == *expected, "{context}: {:?}, not {:?}", brief(&state(&store)), brief(expected));
    let folded = store.fold(&[], NO_WAIT, NOW).unwrap();
    assert!(matches!(folded, Folded::Whole { .. }), "{context}: {folded:?}");
    let again = state(&open(disk, BYTES));
    assert!(again == *expected, "{context}, folded: {:?}", brief(&again));
}

fn crash_everywhere(length: usize, base_keys: u8) {
    for (number, call) in calls_of_fold(length, base_keys) {
        let is_read = matches!(call.name, "read_at" | "metadata" | "bytes" | "read_link" | "list" | "open");
        if is_read && number % 7 != 0 {
            continue; // The disk is as at the next call that writes.
        }
        for fault in [Fault::Crash, Fault::TornCrash] {
            if fault == Fault::TornCrash && call.name != "write_at" {
                continue;
            }
            let (disk, store, expected) = stored(length, base_keys);
            disk.inject(number, fault);
            let folded = store.fold(&[], NO_WAIT, NOW);
            for (name, survivor) in disk.survivors() {
                let context = format!("{fault:?} at {number} {call:?}, {name}, {folded:?}");
                check(&survivor, &expected, &context);
            }
        }
    }
}

#[test]
fn a_crash_at_any_call_of_a_fold_loses_nothing_and_brings_nothing_back() {
    crash_everywhere(20, 4);
    crash_everywhere(12, 0);
}

#[test]
fn a_crash_in_a_fold_of_a_store_with_a_clear_and_damage_of_no_kind_loses_nothing() {
    let length = small_segments().0.len() - 3;
    assert!(small_segments().0[..length].contains(&Op::Clear));
    crash_everywhere(length, 4);
}

#[test]
fn an_error_at_any_call_of_a_fold_loses_nothing_and_brings_nothing_back() {
    for fault in [Fault::Error(io::ErrorKind::Other), Fault::Full] {
        for (number, call) in calls_of_fold(20, 4) {
            let (disk, store, expected) = stored(20, 4);
            disk.inject(number, fault);
            let folded = store.fold(&[], NO_WAIT, NOW);
            let context = format!("{fault:?} at {number} {call:?}, {folded:?}");
            disk.repair();
            let died = disk.survivors().swap_remove(0).1;
            check(&died, &expected, &context);
            check(&disk, &expected, &context);
        }
    }
}

#[cfg(unix)]
#[test]
fn on_the_real_disk_the_folders_go_and_the_file_is_its_owners_alone() {
    use async_cache_disk::{RealDisk, Vfs};
    let folder = tempfile::tempdir().unwrap();
    let vfs: std::sync::Arc<dyn Vfs> = std::sync::Arc::new(RealDisk);
    let path = folder.path().join("pages.cache");
    let cache = crate::sample::file(&vfs, &path);
    for round in 0..3u8 {
        let store = cache.store(sized(BYTES), SAVED_AT).unwrap();
        assert!((0..round).all(|i| found(&store, &key(i)) == Some(value(i.into(), 2000))));
        put(&store, &key(round), &value(round.into(), 2000), SAVED_AT).unwrap();
        super::maintain(&store, SAVED_AT).unwrap();
        store.fold(&[], NO_WAIT, NOW).unwrap();
        let mut names = vfs.list(folder.path()).unwrap();
        names.sort();
        assert_eq!(names, ["pages.cache", "pages.cache.lock"]);
        assert_eq!(vfs.metadata(&path).unwrap().ownership.unwrap().mode & 0o777, 0o600);
    }
    assert_eq!(cache.open().unwrap().unwrap().len(), 3);
}
