//! What a store does when nothing goes wrong.

use super::{
    KEYS, PATH, State, base_value, cache, collections, count, folder_of, found, key, maintain, open, put,
    sized, state, store_files, value, write_base,
};
use crate::sample::{SAVED_AT, another_secret, file, options, with_secret};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::{StoreAnswer, StoreScratch, StoreWrite};
use async_cache_disk::{Compression, DiskErrorKind, Times};

const MIB: u32 = 1 << 20;

fn of(pairs: &[(u8, &[u8])]) -> State {
    pairs.iter().map(|(i, value)| (*i, value.to_vec())).collect()
}

#[test]
fn what_is_put_is_found_with_its_times_and_later_writes_count() {
    let disk = FakeDisk::new();
    let store = open(&disk, MIB);
    let write = StoreWrite { key: &key(0), value: b"zero", deadline: Some(SAVED_AT + 9), replaces: None };
    let first = store.put(&write, SAVED_AT + 5).unwrap().time;
    assert_eq!(first, SAVED_AT + 5);
    let mut scratch = StoreScratch::new();
    let StoreAnswer::Entry(entry) = store.find(&key(0), &mut scratch) else { panic!() };
    assert_eq!(
        (entry.value, entry.deadline, entry.written_at),
        (&b"zero"[..], Some(SAVED_AT + 9), Some(SAVED_AT + 5))
    );
    let second = put(&store, &key(0), b"", 0).unwrap(); // The clock was set back.
    assert_eq!(second, first + 1);
    let StoreAnswer::Entry(entry) = store.find(&key(0), &mut scratch) else { panic!() };
    assert_eq!((entry.value, entry.deadline, entry.written_at), (&b""[..], None, Some(second)));
    assert_eq!(store.delete(&key(0), None, 0).unwrap(), second + 1);
    assert_eq!(store.find(&key(0), &mut scratch), StoreAnswer::Absent);
    put(&store, b"", b"the empty key", 0).unwrap();
    put(&store, &key(1), b"one", 0).unwrap();
    assert_eq!(found(&store, b"").as_deref(), Some(&b"the empty key"[..]));
    let cleared = store.clear(0).unwrap();
    assert_eq!((found(&store, b""), state(&store)), (None, State::new()));
    put(&store, &key(1), b"one again", 0).unwrap();
    store.close(0).unwrap();
    let store = open(&disk, MIB);
    assert_eq!((found(&store, b""), state(&store)), (None, of(&[(1, b"one again")])));
    assert!(put(&store, &key(2), b"two", 0).unwrap() > cleared + 1, "times ascend over openings");
}

#[test]
fn every_record_is_found_again_with_and_without_a_close_over_many_segments() {
    for (bytes, does_close) in [(0, true), (0, false), (5000, true), (5000, false), (MIB, true), (MIB, false)]
    {
        let disk = FakeDisk::new();
        let many = if bytes == 0 { 60 } else { 400u32 };
        for round in 0..4usize {
            let store = open(&disk, bytes);
            for i in 0..many {
                assert_eq!(found(&store, &i.to_be_bytes()).is_some(), round > 0 && i % 10 != 0);
                put(&store, &i.to_be_bytes(), &value(round, 50), SAVED_AT).unwrap();
                if i % 10 == 0 {
                    store.delete(&i.to_be_bytes(), None, SAVED_AT).unwrap();
                }
                if i % 90 == 0 {
                    maintain(&store, SAVED_AT).unwrap();
                }
            }
            for i in 0..many {
                let expected = (i % 10 != 0).then(|| value(round, 50));
                assert_eq!(found(&store, &i.to_be_bytes()), expected, "{bytes}, {does_close}, {round}, {i}");
            }
            if does_close {
                store.close(SAVED_AT).unwrap();
            }
        }
    }
}

#[test]
fn maintenance_indexes_and_merges_until_few_runs_are_left() {
    let disk = FakeDisk::new();
    let store = open(&disk, 0);
    for i in 0..200u32 {
        put(&store, &(i % 70).to_be_bytes(), &value(i as usize, 20), SAVED_AT).unwrap();
        store.maintain(SAVED_AT).unwrap();
    }
    maintain(&store, SAVED_AT).unwrap();
    assert!(!store.maintain(SAVED_AT).unwrap());
    assert!(count(&disk, "i") <= 14, "{:?}", store_files(&disk));
    let check = |store: &async_cache_disk::store::DiskStore| {
        for i in 130..200u32 {
            let expected = Some(value(i as usize, 20));
            assert_eq!(found(store, &(i % 70).to_be_bytes()), expected, "{i}");
        }
    };
    check(&store);
    store.close(SAVED_AT).unwrap();
    check(&open(&disk, 0));
}

#[test]
fn collections_remove_the_base_and_the_oldest_segments_and_keep_every_entry() {
    for bytes in [4096 + 600, 4096 + 601] {
        let disk = FakeDisk::new();
        let mut expected = write_base(&disk, 4);
        let (program, bytes) = collections(bytes);
        let mut store = Some(open(&disk, bytes));
        let mut most = 0;
        for (number, op) in program.into_iter().enumerate() {
            op.run(number, &disk, &mut store, bytes).unwrap();
            op.apply(number, &mut expected);
            let found = state(store.as_ref().unwrap());
            let is_part = found.iter().all(|(i, value)| expected.get(i) == Some(value));
            assert!(if bytes % 2 == 0 { found == expected } else { is_part }, "{number} {op:?}");
            most = most.max(store.as_ref().unwrap().bytes());
        }
        assert!(most < 100_000, "{most}");
        assert_eq!((disk.bytes(PATH.as_ref()), count(&disk, "s000001")), (None, 0));
    }
}

#[test]
fn entries_of_the_base_are_found_overwritten_deleted_and_cleared() {
    let disk = FakeDisk::new();
    let base = write_base(&disk, KEYS);
    let store = open(&disk, 5000);
    assert_eq!(state(&store), base);
    put(&store, &key(0), b"new", 0).unwrap();
    store.delete(&key(1), None, 0).unwrap();
    let mut expected = base;
    expected.insert(0, b"new".to_vec());
    expected.remove(&1);
    assert_eq!(state(&store), expected);
    drop(store);
    let store = open(&disk, 5000);
    assert_eq!(state(&store), expected);
    store.clear(0).unwrap();
    assert_eq!(state(&store), State::new());
    store.close(0).unwrap();
    assert_eq!(state(&open(&disk, 5000)), State::new());
}

#[test]
fn times_decide_if_another_program_has_replaced_the_base() {
    let disk = FakeDisk::new();
    write_base(&disk, 2);
    let store = open(&disk, MIB);
    let time = put(&store, &key(0), b"store 0", SAVED_AT + 100).unwrap();
    for i in 1..4 {
        put(&store, &key(i), format!("store {i}").as_bytes(), SAVED_AT + 100).unwrap();
    }
    store.delete(&key(3), None, SAVED_AT + 100).unwrap();
    store.close(SAVED_AT + 100).unwrap();
    let mut writer = cache(&disk).write(options()).unwrap();
    let written = [Some(time - 1), Some(time + 50), None, Some(time + 50), Some(time - 50)];
    for (i, written_at) in (0..).zip(written) {
        writer.push(&key(i), &base_value(i), Times { deadline: None, written_at }).unwrap();
    }
    writer.finish().unwrap();
    let expected = of(&[(0, b"store 0"), (1, b"base 1"), (2, b"store 2"), (3, b"base 3"), (4, b"base 4")]);
    let store = open(&disk, MIB);
    assert_eq!(state(&store), expected);
    store.close(SAVED_AT + 100).unwrap();
    let store = open(&disk, MIB);
    assert_eq!(state(&store), expected);
    assert!(store.clear(0).unwrap() > time + 50);
    assert_eq!(state(&store), State::new());
}

#[test]
fn a_store_is_open_once() {
    let disk = FakeDisk::new();
    let store = open(&disk, MIB);
    put(&store, &key(0), b"zero", SAVED_AT).unwrap();
    let error = cache(&disk).store(sized(MIB), SAVED_AT).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Locked);
    drop(store);
    assert_eq!(state(&open(&disk, MIB)), of(&[(0, b"zero")]));
}

#[test]
fn every_version_and_every_secret_has_a_store_of_its_own() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    let caches = [
        file(&vfs, PATH),
        file(&vfs, PATH).version("v2"),
        file(&vfs, PATH).any_version(),
        with_secret(&vfs, PATH),
        file(&vfs, PATH).secret(another_secret()),
    ];
    let stores: Vec<_> = caches.iter().map(|cache| cache.store(sized(5000), SAVED_AT).unwrap()).collect();
    for round in 0..30usize {
        for (number, store) in stores.iter().enumerate() {
            put(store, &key(0), &value(100 * number + round, 60), SAVED_AT).unwrap();
            assert_eq!(found(store, &key(1)), None);
        }
    }
    for store in stores {
        store.close(SAVED_AT).unwrap();
    }
    for (number, cache) in caches.iter().enumerate() {
        let store = cache.store(sized(5000), SAVED_AT).unwrap();
        assert_eq!(found(&store, &key(0)), Some(value(100 * number + 29, 60)));
    }
}

#[test]
fn files_of_another_secret_count_for_nothing() {
    let (disk, other) = (FakeDisk::new(), FakeDisk::new());
    let cache = with_secret(&disk.as_vfs(), PATH);
    let store = cache.store(sized(5000), SAVED_AT).unwrap();
    put(&store, &key(0), b"secret", SAVED_AT).unwrap();
    store.close(SAVED_AT).unwrap();
    let wrong = file(&other.as_vfs(), PATH).secret(another_secret());
    drop(wrong.store(sized(5000), SAVED_AT).unwrap());
    let target = folder_of(&other);
    for path in store_files(&disk) {
        other.put(&target.join(path.file_name().unwrap()), &disk.bytes(&path).unwrap());
    }
    let store = wrong.store(sized(5000), SAVED_AT).unwrap();
    assert_eq!(found(&store, &key(0)), None);
}

#[test]
fn large_values_and_compressed_caches_keep_their_values() {
    let disk = FakeDisk::new();
    let cache = cache(&disk).compression(Compression::ZSTD);
    let store = cache.store(sized(MIB), SAVED_AT).unwrap();
    let sizes = [0, 1, 1023, 1024, 4096, 40_000, 3 << 20, 9 << 20];
    for (i, bytes) in (0..).zip(sizes) {
        put(&store, &key(i), &value(i.into(), bytes), SAVED_AT).unwrap();
        put(&store, &vec![i; bytes], b"a large key", SAVED_AT).unwrap();
    }
    let check = |store: &async_cache_disk::store::DiskStore| {
        for (i, bytes) in (0..).zip(sizes) {
            assert_eq!(found(store, &key(i)), Some(value(i.into(), bytes)));
            assert_eq!(found(store, &vec![i; bytes]).as_deref(), Some(&b"a large key"[..]));
        }
    };
    check(&store);
    maintain(&store, SAVED_AT).unwrap();
    check(&store);
    drop(store);
    let store = cache.store(sized(MIB), SAVED_AT).unwrap();
    check(&store);
    store.close(SAVED_AT).unwrap();
    check(&cache.store(sized(MIB), SAVED_AT).unwrap());
}

#[test]
fn leftovers_of_an_opening_that_was_interrupted_do_not_stop_the_next() {
    let disk = FakeDisk::new();
    let store = open(&disk, MIB);
    put(&store, &key(0), b"zero", SAVED_AT).unwrap();
    drop(store);
    let folder = folder_of(&disk);
    for name in ["s000002", "s000003", "i000002", ".manifest.0123456789abcdef.tmp"] {
        disk.put(&folder.join(name), b"half");
    }
    disk.put(&folder.join("notes.txt"), b"a user's file");
    assert_eq!(state(&open(&disk, MIB)), of(&[(0, b"zero")]));
    assert_eq!(count(&disk, "i") + count(&disk, ".manifest"), 0);
    assert_eq!((count(&disk, "s"), count(&disk, "notes")), (1, 1));
}

/// An index took every record: with a few hundred of one key, nothing was indexed any more, and no
/// store could be closed.
#[test]
fn a_key_that_is_written_thousands_of_times_is_indexed() {
    let disk = FakeDisk::new();
    let store = open(&disk, 5000);
    for round in 0..3000usize {
        put(&store, &key(0), &value(round, 50), SAVED_AT).unwrap();
        if round % 100 == 0 {
            put(&store, &key(1), &value(round, 50), SAVED_AT).unwrap();
            store.delete(&key(2), None, SAVED_AT).unwrap();
        }
    }
    maintain(&store, SAVED_AT).unwrap();
    put(&store, &key(3), b"three", SAVED_AT).unwrap();
    let last = [value(2999, 50), value(2900, 50)];
    let expected = of(&[(0, &last[0]), (1, &last[1]), (3, b"three")]);
    assert_eq!(state(&store), expected);
    store.close(SAVED_AT).unwrap();
    assert_eq!(state(&open(&disk, 5000)), expected);
}
