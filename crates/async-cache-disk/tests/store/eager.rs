//! Eager writes: what an opening reads of them.

use super::{cache, maintain, open, sized, store_files};
use crate::sample::{SAVED_AT, options};
use async_cache_disk::Times;
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::{DiskStore, EagerWrite, StoreWrite};

fn put(store: &DiskStore, key: &[u8], value: &[u8]) {
    let write = StoreWrite { key, value, deadline: None, replaces: None };
    store.put_eager(&write, SAVED_AT).unwrap();
}

/// `=` and the value for an entry.
fn eager(store: &DiskStore) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let writes = store.eager().unwrap().into_iter();
    writes
        .map(|write| match write {
            EagerWrite::Entry { key, value, .. } => (key, Some(value)),
            EagerWrite::Delete { key } => (key, None),
        })
        .collect()
}

fn entry(key: &[u8], value: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    (key.to_vec(), Some(value.to_vec()))
}

fn delete(key: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    (key.to_vec(), None)
}

fn base(disk: &FakeDisk) {
    let mut writer = cache(disk).write(options()).unwrap();
    for i in [b"base 1", b"base 2"] {
        writer.push_eager(i, b"old", Times { deadline: None, written_at: Some(SAVED_AT - 5) }).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn eager_writes_come_in_the_order_of_writing_wherever_they_are() {
    let disk = FakeDisk::new();
    base(&disk);
    let store = open(&disk, 4200);
    let mut expected = vec![entry(b"base 1", b"old"), entry(b"base 2", b"old")];
    assert_eq!(eager(&store), expected);
    drop(store);
    for round in 0..6u8 {
        let store = open(&disk, 4200);
        for i in 0..5 {
            let key = [round, i];
            put(&store, &key, &[i; 40]);
            store.put(&StoreWrite { key: &key, value: b"", deadline: None, replaces: None }, 0).unwrap();
            store.delete_eager(&[round, i / 2], SAVED_AT).unwrap();
            expected.extend([entry(&key, &[i; 40]), delete(&[round, i / 2])]);
            if (round + i) % 4 == 0 {
                maintain(&store, SAVED_AT).unwrap();
            }
            assert_eq!(eager(&store), expected);
        }
        if round % 2 == 0 {
            store.close(SAVED_AT).unwrap();
        }
    }
    let store = open(&disk, 4200);
    assert_eq!(eager(&store), expected);
    store.clear(SAVED_AT).unwrap();
    assert_eq!(eager(&store), []);
    put(&store, b"later", b"1");
    assert_eq!(eager(&store), [entry(b"later", b"1")]);
    drop(store);
    assert_eq!(eager(&open(&disk, 4200)), [entry(b"later", b"1")]);
}

#[test]
fn times_decide_between_the_store_and_a_base_that_another_program_has_written() {
    let disk = FakeDisk::new();
    let store = open(&disk, 1 << 20);
    let write = StoreWrite { key: b"store", value: b"1", deadline: None, replaces: None };
    store.put_eager(&write, SAVED_AT + 10).unwrap();
    drop(store);
    let mut writer = cache(&disk).write(options()).unwrap();
    for (key, written_at) in [(b"a", None), (b"b", Some(SAVED_AT + 9)), (b"c", Some(SAVED_AT + 11))] {
        writer.push_eager(key, b"base", Times { deadline: None, written_at }).unwrap();
    }
    writer.finish().unwrap();
    let expected = [entry(b"a", b"base"), entry(b"b", b"base"), entry(b"store", b"1"), entry(b"c", b"base")];
    assert_eq!(eager(&open(&disk, 1 << 20)), expected);
}

#[test]
fn a_damaged_eager_record_hides_every_earlier_eager_entry() {
    for is_indexed in [false, true] {
        let disk = FakeDisk::new();
        base(&disk);
        let store = cache(&disk).store(sized(1 << 20), SAVED_AT).unwrap();
        for key in [b"one", b"two", b"six"] {
            put(&store, key, b"value");
        }
        if is_indexed {
            store.close(SAVED_AT).unwrap();
        } else {
            store.flush().unwrap();
            drop(store);
        }
        let files = store_files(&disk);
        let segment = files.iter().find(|path| path.file_name().unwrap() == "s000001").unwrap();
        let mut bytes = disk.bytes(segment).unwrap();
        let at = bytes.windows(3).position(|window| window == b"two").unwrap();
        bytes[at] ^= 1;
        disk.put(segment, &bytes);
        let found = eager(&open(&disk, 1 << 20));
        let hidden = [b"base 1", b"base 2", &b"one"[..], b"two"];
        assert!(found.iter().all(|(key, _)| !hidden.contains(&&key[..])), "{is_indexed}: {found:?}");
        assert_eq!(found.len(), usize::from(is_indexed), "{found:?}");
    }
}

/// A damaged record dropped the later entry of such a base, and an earlier write took its place.
#[test]
fn an_entry_of_another_programs_base_that_damage_hides_does_not_uncover_an_earlier_write() {
    let disk = FakeDisk::new();
    let store = open(&disk, 1 << 20);
    put(&store, b"damaged", b"0");
    put(&store, b"key", b"earlier");
    store.close(SAVED_AT).unwrap();
    let mut writer = cache(&disk).write(options()).unwrap();
    let times = Times { deadline: None, written_at: Some(SAVED_AT + 50) };
    writer.push_eager(b"key", b"later", times).unwrap();
    writer.finish().unwrap();
    let sound = [entry(b"damaged", b"0"), entry(b"key", b"earlier"), entry(b"key", b"later")];
    assert_eq!(eager(&open(&disk, 1 << 20)), sound);
    let is_segment = |path: &std::path::PathBuf| path.ends_with("s000001");
    let segment = store_files(&disk).into_iter().find(is_segment).unwrap();
    let mut bytes = disk.bytes(&segment).unwrap();
    bytes[4096 + 20] ^= 1;
    disk.put(&segment, &bytes);
    assert_eq!(eager(&open(&disk, 1 << 20)), [entry(b"key", b"earlier"), delete(b"key")]);
}
