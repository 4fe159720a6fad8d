//! Values and keys that `MessagePack` cannot distinguish: `Some` of a value written as nil was read
//! as `None`.
//!
//! The story: an entry `Some(None)` ("asked, no result") was saved, and the next process returned
//! `None` ("never asked"), without a counter or a warning. Now an ambiguous entry is left out of
//! the file, and counted. The check itself, at every depth, is tested beside the codec; the tests
//! here cover its effects on a cache.

use std::fmt::Debug;
use std::hash::Hash;

use async_cache::{AsyncCache, CacheBackend, DiskBackend, SavedEntry};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

type Nested = Option<Option<u32>>;

fn open<K, V>(folder: &TempDir) -> AsyncCache<K, V>
where
    K: Hash + Eq + Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
    V: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    AsyncCache::builder().backup(DiskBackend::new(folder.path().join("c"))).build().unwrap()
}

/// The value returned by a cache after a save and a reopening, and the number of entries left out
/// by the save.
fn after_a_restart<V>(value: V) -> (Option<V>, u64)
where
    V: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let folder = tempfile::tempdir().unwrap();
    let cache = open::<u32, V>(&folder);
    cache.set(1, value);
    let left_out = cache.save_to_backup().unwrap().left_out;
    (open(&folder).get(&1), left_out)
}

#[test]
fn a_some_of_nothing_is_left_out_and_counted() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Nickname(Option<String>);
    assert_eq!(after_a_restart::<Nested>(Some(None)), (None, 1));
    assert_eq!(after_a_restart(Some(())), (None, 1));
    assert_eq!(after_a_restart(Some(Nickname(None))), (None, 1));
    assert_eq!(after_a_restart(Some(serde_json::Value::Null)), (None, 1));
    assert_eq!(after_a_restart(vec![("a".to_owned(), Some(()))]), (None, 1));
}

#[test]
fn what_can_be_told_apart_comes_back() {
    assert_eq!(after_a_restart::<Nested>(None), (Some(None), 0));
    assert_eq!(after_a_restart::<Nested>(Some(Some(7))), (Some(Some(Some(7))), 0));
    assert_eq!(after_a_restart(None::<()>), (Some(None), 0));
    assert_eq!(after_a_restart(()), (Some(()), 0));
    assert_eq!(after_a_restart(serde_json::Value::Null), (Some(serde_json::Value::Null), 0));
}

/// Nothing is written in memory, so nothing is ambiguous; and the save keeps the other entries.
#[test]
fn an_entry_that_is_left_out_stays_in_memory_and_harms_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open::<u32, Nested>(&folder);
    (1..=3).for_each(|key| cache.set(key, Some(Some(key))));
    cache.save_to_backup().unwrap();
    cache.set(2, Some(None));
    let saved = cache.save_to_backup().unwrap();
    assert_eq!((saved.entries, saved.left_out), (2, 1));
    assert_eq!(cache.get(&2), Some(Some(None)));
    let cache = open::<u32, Nested>(&folder);
    // The entry's former value is gone too: it was overwritten.
    assert_eq!([1, 2, 3].map(|key| cache.get(&key)), [Some(Some(Some(1))), None, Some(Some(Some(3)))]);
}

/// `None` and `Some(None)` had one record. Deleting the first deleted the second too, and one of
/// two entries was lost.
#[test]
fn keys_that_are_written_alike_touch_each_other_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open::<Nested, u32>(&folder);
    cache.set(None, 1);
    cache.set(Some(None), 2);
    cache.set(Some(Some(3)), 3);
    let saved = cache.save_to_backup().unwrap();
    assert_eq!((saved.entries, saved.left_out), (2, 1));

    let cache = open::<Nested, u32>(&folder);
    assert_eq!([None, Some(None), Some(Some(3))].map(|key| cache.get(&key)), [Some(1), None, Some(3)]);
    cache.delete(&Some(None));
    cache.set(Some(None), 2);
    cache.delete(&Some(None));
    cache.save_to_backup().unwrap();
    assert_eq!(open::<Nested, u32>(&folder).get(&None), Some(1));
}

#[test]
fn a_backend_without_a_cache_refuses_to_save_it_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let backend = DiskBackend::new(folder.path().join("c"));
    let entry = |key, value| SavedEntry { key, value, ttl: None };
    backend.save(&mut [entry(1, Some(Some(1)))].into_iter()).unwrap();
    let error = backend.save(&mut [entry(1, Some(None::<u32>))].into_iter()).unwrap_err();
    assert!(error.to_string().contains("would be read as `None`"), "{error}");
    let kept: Vec<SavedEntry<u32, Nested>> = backend.load().unwrap();
    assert_eq!(kept, [entry(1, Some(Some(1)))], "the file is the one before");
}
