//! Evictions of entries whose place memory has.

use super::{KEYS, base_value, cache, found, key, maintain, open, write_base};
use crate::sample::{SAVED_AT, options};
use async_cache_disk::Times;
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::{DiskStore, EntryPlace, StoreAnswer, StoreScratch, StoreWrite};

fn put(store: &DiskStore, key: &[u8], value: &[u8]) -> EntryPlace {
    store.put(&StoreWrite { key, value, deadline: None, replaces: None }, SAVED_AT).unwrap().place
}

fn evict(store: &DiskStore, key: &[u8], place: EntryPlace) -> bool {
    store.delete_at(key, place, SAVED_AT, &mut StoreScratch::new()).unwrap()
}

/// The place at which a look-up finds the entry.
fn place_of(store: &DiskStore, key: &[u8]) -> EntryPlace {
    match store.find(key, &mut StoreScratch::new()) {
        StoreAnswer::Entry(entry) => entry.sighting.place,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_entry_that_was_written_lately_is_evicted_with_one_write_and_no_read() {
    let disk = FakeDisk::new();
    let store = open(&disk, 1 << 20);
    let places: Vec<_> = (0..KEYS).map(|i| put(&store, &key(i), b"value")).collect();
    let before = disk.calls().len();
    for (i, place) in (0..KEYS).zip(places) {
        assert!(evict(&store, &key(i), place));
    }
    let calls: Vec<_> = disk.calls()[before..].iter().map(|call| call.name).collect();
    assert_eq!(calls, ["write_at"; KEYS as usize]);
    assert!((0..KEYS).all(|i| found(&store, &key(i)).is_none()));
    drop(store);
    let store = open(&disk, 1 << 20);
    assert!((0..KEYS).all(|i| found(&store, &key(i)).is_none()));
}

#[test]
fn an_eviction_deletes_nothing_later_and_writes_nothing_for_an_entry_that_is_gone() {
    let disk = FakeDisk::new();
    let store = open(&disk, 1 << 20);
    let [replaced, deleted, cleared, evicted] = [0, 1, 2, 3].map(|i| put(&store, &key(i), b"first"));
    assert!(evict(&store, &key(3), evicted));
    put(&store, &key(0), b"second");
    store.delete(&key(1), None, SAVED_AT).unwrap();
    assert!(!evict(&store, &key(0), replaced), "replaced");
    assert!(!evict(&store, &key(1), deleted), "deleted");
    assert!(!evict(&store, &key(3), evicted), "evicted before");
    assert!(!evict(&store, &key(0), cleared), "the place of another key");
    assert_eq!(found(&store, &key(0)).unwrap(), b"second");
    store.clear(SAVED_AT).unwrap();
    let later = put(&store, &key(4), b"value");
    let before = disk.calls().len();
    assert!(!evict(&store, &key(2), cleared), "cleared");
    assert!(disk.calls()[before..].iter().all(|call| call.name != "write_at"));
    assert!(evict(&store, &key(4), later), "written after the clear");
}

#[test]
fn entries_in_runs_and_in_the_base_are_evicted_as_well() {
    let disk = FakeDisk::new();
    write_base(&disk, 1);
    let store = open(&disk, 1 << 14);
    for i in 1..KEYS {
        put(&store, &key(i), &vec![i; 6000]);
    }
    maintain(&store, SAVED_AT).unwrap();
    assert!(store.stats().runs > 0);
    for i in 0..KEYS {
        let place = place_of(&store, &key(i));
        assert!(evict(&store, &key(i), place), "{i}");
        assert!(!evict(&store, &key(i), place), "{i}");
        assert_eq!(found(&store, &key(i)), None, "{i}");
    }
}

#[test]
fn a_later_entry_of_another_program_in_the_base_is_not_evicted() {
    let disk = FakeDisk::new();
    let store = open(&disk, 1 << 20);
    for i in 0..2 {
        put(&store, &key(i), b"value");
    }
    drop(store);
    let mut writer = cache(&disk).write(options()).unwrap();
    for (i, written_at) in [(0, SAVED_AT + 1_000_000), (1, 1)] {
        let times = Times { deadline: None, written_at: Some(written_at) };
        writer.push(&key(i), &base_value(i), times).unwrap();
    }
    writer.finish().unwrap();
    let store = open(&disk, 1 << 20);
    // Both are placed in the first segment, behind the header page and behind each other.
    let in_base = place_of(&store, &key(0));
    let in_segment = place_of(&store, &key(1));
    let first = EntryPlace::from_number((in_segment.to_number() >> 32 << 32) | 4096);
    assert!(!evict(&store, &key(0), first));
    assert_eq!(found(&store, &key(0)).unwrap(), base_value(0));
    assert!(evict(&store, &key(1), in_segment) && evict(&store, &key(0), in_base));
    assert!((0..2).all(|i| found(&store, &key(i)).is_none()));
}
