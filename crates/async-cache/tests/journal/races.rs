//! Threads that read, write, delete and evict the same keys: no reader sees a value that is older
//! than a write that had returned before the read began.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use async_cache::{AsyncCache, DiskBackend, Journal};

const KEYS: u64 = 12;
/// Every seventh operation is a delete.
const DELETES: u64 = 7;
const WRITES: u64 = 4000;

fn index(key: u64) -> usize {
    usize::try_from(key).unwrap()
}

/// Each key has one writer, whose values ascend. A delete counts as a value, too.
fn race(disk_bytes: Option<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.cache");
    let journal = Journal::new().flush_every(std::time::Duration::from_millis(2));
    let journal = disk_bytes.map_or(journal.clone(), |bytes| journal.disk_bytes(bytes));
    let backend = || DiskBackend::new(&path).journal(journal.clone());
    let cache: AsyncCache<u64, u64> = AsyncCache::builder().maxsize(4).backup(backend()).build().unwrap();
    let returned: Arc<Vec<AtomicU64>> = Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect());
    thread::scope(|scope| {
        for writer in 0..2 {
            let (cache, returned) = (cache.clone(), Arc::clone(&returned));
            scope.spawn(move || {
                for value in 1..=WRITES {
                    let key = value % (KEYS / 2) * 2 + writer;
                    if value.is_multiple_of(DELETES) {
                        cache.delete(&key);
                    } else {
                        cache.set(key, value);
                    }
                    returned[index(key)].store(value, SeqCst);
                }
            });
        }
        for _ in 0..2 {
            let (cache, returned) = (cache.clone(), Arc::clone(&returned));
            scope.spawn(move || {
                for look in 0..WRITES {
                    let key = look * 5 % KEYS;
                    let before = returned[index(key)].load(SeqCst);
                    if let Some(value) = cache.get(&key) {
                        assert!(value >= before, "key {key}: {value} after {before} had returned");
                    }
                }
            });
        }
    });
    let last: Vec<Option<u64>> = (0..KEYS).map(|key| cache.get(&key)).collect();
    let expected = |key: u64| {
        let last = returned[index(key)].load(SeqCst);
        (!last.is_multiple_of(DELETES)).then_some(last)
    };
    if disk_bytes.is_some() {
        assert_eq!(last, (0..KEYS).map(expected).collect::<Vec<_>>());
    }
    drop(cache);
    let cache: AsyncCache<u64, u64> = AsyncCache::builder().maxsize(4).backup(backend()).build().unwrap();
    for key in 0..KEYS {
        let found = cache.get(&key);
        assert!(found.is_none() || found == expected(key), "key {key}: {found:?}");
    }
}

#[test]
fn readers_see_no_older_value_while_memory_evicts_to_the_disk() {
    race(Some(64 << 20));
}

#[test]
fn readers_see_no_older_value_while_evicted_entries_leave_the_disk() {
    race(None);
}
