//! Evictions and damaged deletes in a fold: another program's older copies are dropped, and nothing
//! else is.

use std::time::Duration;

use super::{PATH, cache, found, key, open, put, store_files, write_base};
use crate::sample::SAVED_AT;
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::{DiskStore, Folded, StoreScratch, StoreWrite};
use async_cache_disk::{CacheFile, KeyKind, Known, Ours, Scratch, Times, WriteOptions};

const NO_WAIT: Duration = Duration::ZERO;
const NOW: u64 = SAVED_AT + 1_000_000_000;

/// Writes an entry and evicts it from memory.
fn put_and_evict(store: &DiskStore, key: &[u8]) {
    let write = StoreWrite { key, value: b"value", deadline: None, replaces: None };
    let place = store.put(&write, SAVED_AT).unwrap().place;
    assert!(store.delete_at(key, place, SAVED_AT, &mut StoreScratch::new()).unwrap());
}

fn fold(store: DiskStore) {
    let folded = store.fold(&[], NO_WAIT, NOW).unwrap();
    assert!(matches!(folded, Folded::Whole { saved: Some(_), .. }), "{folded:?}");
}

/// Another program's save, which merges.
fn save(file: &CacheFile, entries: &[(u8, &str, u64)]) {
    let joining = file.begin(Some(NO_WAIT)).unwrap().write(WriteOptions::new(NOW), Known::default(), None);
    let mut joining = joining.unwrap();
    for (i, _, written_at) in entries {
        joining.note(&key(*i), *written_at);
    }
    let ours = Ours { maxsize: None, eager: None, cold: None, allows: &|_| true };
    let mut output = joining.join(&ours).unwrap();
    for (i, value, written_at) in entries {
        let times = Times { deadline: None, written_at: Some(*written_at) };
        let _ = output.push(&key(*i), value.as_bytes(), times).unwrap();
    }
    output.finish().unwrap();
}

#[test]
fn more_evictions_than_a_file_keeps_raise_no_floor_and_displace_no_delete() {
    let disk = FakeDisk::new();
    disk.keep_no_log();
    let store = open(&disk, 8 << 20);
    let deleted = store.delete(&key(0), None, SAVED_AT).unwrap();
    for i in 0..70_000u32 {
        put_and_evict(&store, &i.to_le_bytes());
    }
    fold(store);
    let tombstones = cache(&disk).open().unwrap().expect(PATH).tombstones();
    assert_eq!(tombstones.floor(), 0);
    assert_eq!(tombstones.deleted_at(KeyKind::Canonical, &key(0)), deleted);
    assert!(tombstones.len() > 30_000 && tombstones.len() <= 65_537, "{}", tombstones.len());
}

#[test]
fn an_older_copy_of_an_evicted_entry_is_dropped_and_a_later_one_stays() {
    for is_saved_before in [true, false] {
        let disk = FakeDisk::new();
        let store = open(&disk, 1 << 20);
        for i in 0..3 {
            put_and_evict(&store, &key(i));
        }
        let entries = [(0, "older", SAVED_AT - 1), (1, "later", SAVED_AT + 1000), (5, "other", SAVED_AT - 1)];
        if is_saved_before {
            save(&cache(&disk), &entries);
        }
        fold(store);
        if !is_saved_before {
            save(&cache(&disk), &entries);
        }
        let (file, mut scratch) = (cache(&disk).open().unwrap().unwrap(), Scratch::new());
        let found = [0, 1, 2, 5].map(|i| file.find(&key(i), &mut scratch).map(|it| it.value.to_vec()));
        let expected = [None, Some(&b"later"[..]), None, Some(b"other")].map(|it| it.map(<[u8]>::to_vec));
        assert_eq!(found, expected, "saved before: {is_saved_before}");
    }
}

/// The file keeps a number of keys, not of evictions.
#[test]
fn a_key_that_is_evicted_again_and_again_is_one_overwritten_key() {
    let disk = FakeDisk::new();
    disk.keep_no_log();
    let store = open(&disk, 8 << 20);
    put_and_evict(&store, &key(0));
    for _ in 0..70_000u32 {
        put_and_evict(&store, &key(1));
    }
    save(
        &cache(&disk),
        &[(0, "older", SAVED_AT - 1), (1, "older", SAVED_AT - 1), (2, "other", SAVED_AT - 1)],
    );
    fold(store);
    let (file, mut scratch) = (cache(&disk).open().unwrap().unwrap(), Scratch::new());
    let found = [0, 1, 2].map(|i| file.find(&key(i), &mut scratch).map(|it| it.value.to_vec()));
    assert_eq!(found, [None, None, Some(b"other".to_vec())]);
    assert_eq!((file.tombstones().floor(), file.tombstones().len()), (0, 2));
}

#[test]
fn an_older_copy_of_a_key_whose_delete_is_damaged_is_dropped() {
    for is_saved_before in [true, false] {
        let disk = FakeDisk::new();
        write_base(&disk, 4);
        let store = open(&disk, 1 << 20);
        store.delete(&key(0), None, SAVED_AT).unwrap();
        put(&store, &key(1), b"one", SAVED_AT).unwrap();
        store.close(SAVED_AT).unwrap();
        let segment = store_files(&disk).into_iter().find(|path| path.ends_with("s000001")).unwrap();
        let mut bytes = disk.bytes(&segment).unwrap();
        let place = bytes.windows(5).position(|window| window == key(0)).unwrap();
        bytes[place] ^= 1;
        disk.overwrite(&segment, &bytes);

        let theirs = [(0, "older", SAVED_AT - 1), (5, "later", SAVED_AT + 1000)];
        if is_saved_before {
            save(&cache(&disk), &theirs);
        }
        let store = open(&disk, 1 << 20);
        assert_eq!(found(&store, &key(0)), None);
        if !is_saved_before {
            save(&cache(&disk), &theirs);
        }
        fold(store);
        let (file, mut scratch) = (cache(&disk).open().unwrap().unwrap(), Scratch::new());
        let found = [0, 1, 5].map(|i| file.find(&key(i), &mut scratch).map(|it| it.value.to_vec()));
        let expected = [None, Some(b"one".to_vec()), Some(b"later".to_vec())];
        assert_eq!(found, expected, "saved before the opening: {is_saved_before}");
    }
}
