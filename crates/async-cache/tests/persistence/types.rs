//! Keys and values of many types come back as they were, and equal bytes of unequal keys are kept
//! apart.

use std::fmt::Debug;
use std::hash::Hash;

use super::{backend, life, open, page, seconds};
use crate::stage::{one_thread, within_limit};
use async_cache::{AsyncCache, DiskBackend};
use async_cache_disk::fake::FakeDisk;
use serde::{Deserialize, Serialize};

/// Saves one entry, and reads it in the next life.
fn comes_back<K, V, Q>(backup: &DiskBackend, key: K, value: V, asked: &Q)
where
    K: std::borrow::Borrow<Q>
        + Hash
        + Eq
        + Clone
        + Send
        + Sync
        + Serialize
        + for<'d> Deserialize<'d>
        + 'static,
    V: Clone + PartialEq + Debug + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
    Q: Hash + Eq + ToOwned<Owned = K> + Debug + Sync + ?Sized,
{
    let first = AsyncCache::builder().backup(backup.clone()).build().unwrap();
    first.set(key, value.clone());
    assert_eq!(first.save_to_backup().unwrap().entries, 1);
    drop(first);

    let next: AsyncCache<K, V> = AsyncCache::builder().backup(backup.clone()).build().unwrap();
    assert!(next.contains(asked));
    let load = || async { panic!("it does not have to load") };
    let loaded: Result<V, async_cache::LoadError<()>> = one_thread().block_on(next.get_or_load(asked, load));
    assert_eq!(loaded.unwrap(), value);
    assert_eq!(next.get(asked), Some(value));
    assert_eq!((next.stats().cold_hits, next.stats().hits, next.stats().loads), (1, 2, 0));
}

#[test]
fn values_and_keys_of_many_types_come_back_without_a_load() {
    within_limit(|| {
        comes_back(&backend(&FakeDisk::new()), "key".to_owned(), page(), "key");
        comes_back(&backend(&FakeDisk::new()), u64::MAX, page(), &u64::MAX);
        comes_back(&backend(&FakeDisk::new()), (7_u8, "x".to_owned()), vec![page()], &(7_u8, "x".to_owned()));
        comes_back(&backend(&FakeDisk::new()), vec![1_u8, 200], String::new(), &[1_u8, 200][..]);
        comes_back(&backend(&FakeDisk::new()), (), Some(1_i128 << 100), &());
        comes_back(&backend(&FakeDisk::new()), "big".to_owned(), "x".repeat(3 << 20), "big");
    });
}

#[test]
fn on_a_real_disk_folders_are_made_and_the_file_comes_back() {
    within_limit(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/app.cache");
        comes_back(&DiskBackend::new(&path), "key".to_owned(), page(), "key");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let beside = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(beside, 2, "it and its lock; no temporary file is left");
    });
}

#[test]
fn a_first_life_finds_nothing_and_warns_of_nothing() {
    let disk = FakeDisk::new();
    let cache: AsyncCache<u64, u64> = open(&disk);
    let opening = cache.opening();
    assert!(opening.warning.is_none() && opening.age.is_none());
    assert_eq!((opening.entries, opening.bytes, cache.len()), (0, 0, 0));
    assert!(disk.files().is_empty(), "opening writes nothing");
}

#[test]
fn an_opening_tells_what_came_back() {
    let disk = FakeDisk::new();
    let (builder, _) = life(&disk, 100);
    let cache = builder.build().unwrap();
    (0..5_u64).for_each(|key| cache.set(key, key));
    let saved = cache.save_to_backup().unwrap();
    let cache: AsyncCache<u64, u64> = life(&disk, 130).0.build().unwrap();
    let opening = cache.opening();
    assert_eq!((opening.entries, opening.bytes, opening.age), (5, saved.bytes, Some(seconds(30))));
    assert!(opening.warning.is_none());
}

// Keys with the same serde representation

/// Two kinds of keys that are written as the same number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
enum Id {
    User(u32),
    Order(u32),
}

/// The bytes alone once decided which entry a key has, so a caller asking for the user got an
/// order.
#[test]
fn unequal_keys_that_are_written_alike_never_get_each_others_values() {
    let disk = FakeDisk::new();
    let first: AsyncCache<Id, String> = open(&disk);
    first.set(Id::Order(1), "order".to_owned());
    first.save_to_backup().unwrap();
    let next: AsyncCache<Id, String> = open(&disk);
    assert_eq!(
        (next.contains(&Id::Order(1)), next.get(&Id::Order(1))),
        (false, None),
        "it decodes as a user"
    );
    assert_eq!(next.get(&Id::User(1)).as_deref(), Some("order"), "which is what the file says");

    let disk = FakeDisk::new();
    let first: AsyncCache<Option<Option<u8>>, u8> = open(&disk);
    first.set(None, 1);
    first.save_to_backup().unwrap();
    let next: AsyncCache<Option<Option<u8>>, u8> = open(&disk);
    assert_eq!((next.contains(&Some(None)), next.get(&Some(None))), (false, None));
    next.set(Some(None), 2);
    assert_eq!((next.get(&None), next.get(&Some(None))), (Some(1), Some(2)));
}
