//! The user's own code misbehaves: `Deserialize`, `Serialize`, `Clone`, `Eq`, `Hash` and `Drop`
//! that panic, and calls from a thread that ends. In every case the cache stays usable, and no
//! other entry is affected.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use async_cache::{AsyncCache, BackendError, CacheBackend, DiskBackend, SavedEntry};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tempfile::TempDir;

/// A number that cannot be written if it is 13, nor read if it is less than 100.
#[derive(Clone, Debug, PartialEq)]
struct Age(u32);

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert_ne!(self.0, 13, "unlucky");
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let age = u32::deserialize(deserializer)?;
        assert!(age >= 100, "an age counts from 100");
        Ok(Self(age))
    }
}

fn open(folder: &TempDir) -> AsyncCache<u32, Age> {
    AsyncCache::builder().backup(DiskBackend::new(folder.path().join("c"))).build().unwrap()
}

/// A `Deserialize` that panics on data of an earlier version of the program. The panic went through
/// `get` and `get_or_load`, for ever, since the record stayed and every save copied it.
#[tokio::test]
async fn a_record_whose_decoding_panics_is_a_miss_that_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(&folder);
    for (key, age) in [(1, 7), (2, 107), (3, 8), (4, 9)] {
        cache.set(key, Age(age));
    }
    cache.save_to_backup().unwrap();

    let cache = open(&folder);
    assert_eq!(cache.get(&1), None);
    assert_eq!(cache.get(&1), None);
    assert_eq!(cache.stats().undecodable, 1, "it is not tried again");
    assert_eq!(cache.get(&2), Some(Age(107)));
    let loaded = cache.get_or_load(&3, || async { Ok::<_, String>(Age(108)) }).await;
    assert_eq!((loaded.unwrap(), cache.stats().undecodable), (Age(108), 2));
    cache.save_to_backup().unwrap();

    // Reading everything at once is another way.
    let cache = open(&folder);
    cache.set(5, Age(105));
    cache.load_from_backup().unwrap();
    assert_eq!(
        [1, 2, 3, 4, 5].map(|key| cache.get(&key).map(|age| age.0)),
        [None, Some(107), Some(108), None, Some(105)]
    );
    let kept: Vec<SavedEntry<u32, Age>> = DiskBackend::new(folder.path().join("c")).load().unwrap();
    assert_eq!(kept.len(), 2, "the backend by itself skips it, too");
}

#[test]
fn an_entry_whose_encoding_panics_is_left_out_of_a_save_and_the_others_are_saved() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(&folder);
    for (key, age) in [(1, 101), (2, 13), (3, 103)] {
        cache.set(key, Age(age));
    }
    let saved = cache.save_to_backup().unwrap();
    assert_eq!((saved.entries, saved.left_out), (2, 1));
    assert_eq!(cache.get(&2), Some(Age(13)));
    let cache = open(&folder);
    assert_eq!([1, 2, 3].map(|key| cache.get(&key).map(|age| age.0)), [Some(101), None, Some(103)]);
}

/// A number that cannot be cloned if it is 13.
#[derive(Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Unlucky(u32);

impl Clone for Unlucky {
    fn clone(&self) -> Self {
        assert_ne!(self.0, 13, "unlucky");
        Self(self.0)
    }
}

/// A `Clone` that panicked while a save cloned the entries went through `save_to_backup`: nothing
/// was saved, by this save and by all later saves.
#[test]
fn an_entry_whose_clone_panics_is_left_out_of_a_save_and_the_others_are_saved() {
    let folder = tempfile::tempdir().unwrap();
    let open = || -> AsyncCache<Unlucky, Unlucky> {
        AsyncCache::builder().backup(DiskBackend::new(folder.path().join("c"))).build().unwrap()
    };
    let cache = open();
    for (key, value) in [(1, 101), (2, 13), (13, 103), (4, 104)] {
        cache.set(Unlucky(key), Unlucky(value));
    }
    for _ in 0..2 {
        let saved = cache.save_to_backup().unwrap();
        assert_eq!((saved.entries, saved.left_out, cache.len()), (2, 2, 4));
    }
    let cache = open();
    assert_eq!([1, 2, 4].map(|key| cache.get(&Unlucky(key))), [Some(Unlucky(101)), None, Some(Unlucky(104))]);
}

/// The write still counts: another process's entry for the key is older.
#[test]
fn an_entry_whose_clone_panics_hides_what_others_have_of_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let open = || -> AsyncCache<u32, Unlucky> {
        AsyncCache::builder().backup(DiskBackend::new(folder.path().join("c"))).build().unwrap()
    };
    let (cache, other) = (open(), open());
    cache.set(1, Unlucky(101));
    cache.save_to_backup().unwrap();
    other.set(1, Unlucky(13));
    other.set(2, Unlucky(102));
    let saved = other.save_to_backup().unwrap();
    assert_eq!((saved.entries, saved.left_out), (1, 1));
    cache.set(3, Unlucky(103));
    cache.save_to_backup().unwrap();
    let reopened = open();
    assert_eq!(
        [1, 2, 3].map(|key| reopened.get(&key)),
        [None, Some(Unlucky(102)), Some(Unlucky(103))],
        "the older value of key 1 is back"
    );
}

/// The number of entries that a save has passed to the backend.
struct Counts(Arc<AtomicUsize>);

impl CacheBackend<u32, Unlucky> for Counts {
    fn load(&self) -> Result<Vec<SavedEntry<u32, Unlucky>>, BackendError> {
        Ok(Vec::new())
    }

    fn save(&self, entries: &mut dyn Iterator<Item = SavedEntry<u32, Unlucky>>) -> Result<(), BackendError> {
        self.0.store(entries.count(), Ordering::SeqCst);
        Ok(())
    }

    fn clear(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

#[test]
fn a_backend_of_ones_own_does_not_see_an_entry_whose_clone_panics() {
    let count = Arc::default();
    let cache = AsyncCache::builder().backup(Counts(Arc::clone(&count))).build().unwrap();
    (11..=15).for_each(|value| cache.set(value, Unlucky(value)));
    let saved = cache.save_to_backup().unwrap();
    assert_eq!((saved.entries, saved.left_out, count.load(Ordering::SeqCst)), (4, 1, 4));
}

thread_local! {
    /// After how many calls the code of a [`Touchy`] panics; negative means never.
    static FUSE: Cell<i32> = const { Cell::new(-1) };
}

fn burn() {
    FUSE.set(FUSE.get() - 1);
    assert_ne!(FUSE.get(), -1, "burnt");
}

/// Panics in every method called by the cache, when the fuse has run out.
#[derive(Debug)]
struct Touchy(u32);

impl Clone for Touchy {
    fn clone(&self) -> Self {
        burn();
        Self(self.0)
    }
}

impl PartialEq for Touchy {
    fn eq(&self, other: &Self) -> bool {
        burn();
        self.0 == other.0
    }
}

impl Eq for Touchy {}

impl std::hash::Hash for Touchy {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        burn();
        self.0.hash(state);
    }
}

impl Drop for Touchy {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            burn();
        }
    }
}

/// Each operation is interrupted at each call of the user's code in turn. A panic goes to the
/// caller, to which the user's code belongs; the cache stays usable: nothing is locked, no entry is
/// incomplete, and the counters agree.
#[test]
fn a_panic_of_the_users_code_at_any_place_leaves_the_cache_usable() {
    type Cache = AsyncCache<Touchy, Touchy>;
    type Operation = fn(&Cache);
    let operations: [(&str, Operation); 8] = [
        ("get", |cache| drop(cache.get(&Touchy(1)))),
        ("get another", |cache| drop(cache.get(&Touchy(9)))),
        ("contains", |cache| assert!(cache.contains(&Touchy(1)))),
        ("set over", |cache| cache.set(Touchy(1), Touchy(11))),
        ("set new", |cache| cache.set(Touchy(4), Touchy(14))),
        ("delete", |cache| cache.delete(&Touchy(2))),
        ("clear", AsyncCache::clear),
        ("load", |cache| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(cache.get_or_load(&Touchy(5), || async { Ok::<_, String>(Touchy(15)) }));
        }),
    ];
    for (name, operation) in operations {
        let mut panics = 0;
        for fuse in 0.. {
            let cache: Cache = AsyncCache::builder().maxsize(3).shards(1).build().unwrap();
            (1..=3).for_each(|key| cache.set(Touchy(key), Touchy(key + 10)));
            FUSE.set(fuse);
            let outcome = catch_unwind(AssertUnwindSafe(|| operation(&cache)));
            let has_burnt = FUSE.get() < 0;
            FUSE.set(-1);
            assert!(has_burnt || outcome.is_ok(), "{name}: panicked by itself");
            panics += u32::from(outcome.is_err());
            assert!(cache.len() <= 3, "{name}, fuse {fuse}");
            for key in 1..=5 {
                let value = cache.get(&Touchy(key));
                assert!(value.is_none_or(|value| value.0 == key + 10), "{name}, fuse {fuse}");
            }
            (6..=9).for_each(|key| cache.set(Touchy(key), Touchy(key)));
            assert_eq!(cache.len(), 3, "{name}, fuse {fuse}");
            cache.clear();
            assert_eq!(cache.len(), 0, "{name}, fuse {fuse}");
            if !has_burnt {
                break;
            }
        }
        assert!(panics > 0, "{name} was never stopped");
    }
}

struct AtTheEnd(AsyncCache<String, u32>, Sender<Option<u32>>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        self.0.set("gathered".to_owned(), 1);
        self.0.delete("nothing");
        // Not if an earlier call panicked: then the channel is closed without a message.
        if self.0.contains("cold") {
            self.1.send(self.0.get("cold")).unwrap();
        }
    }
}

thread_local! {
    static KEPT: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
}

/// A user's own thread-local, dropped when its thread ends, writes its collected data. The buffers
/// for look-ups in an opened file are a thread-local too, and were already gone: the calls
/// panicked, and a panic at that point ends the process.
#[test]
fn a_thread_that_ends_may_use_a_cache_with_an_opened_file() {
    let folder = tempfile::tempdir().unwrap();
    let open = || -> AsyncCache<String, u32> {
        AsyncCache::builder().backup(DiskBackend::new(folder.path().join("c"))).build().unwrap()
    };
    let cache = open();
    cache.set("cold".to_owned(), 1);
    cache.save_to_backup().unwrap();
    let (cache, (tell, told)) = (open(), channel());
    let ends = std::thread::spawn(move || {
        // Registered first, so dropped last.
        KEPT.set(Some(AtTheEnd(cache.clone(), tell)));
        cache.get("nothing");
    });
    assert_eq!(told.recv(), Ok(Some(1)));
    ends.join().unwrap();
}
