//! Options at the ends of their ranges: none may panic, overflow, or take memory in proportion.

use std::collections::HashMap;
use std::time::Duration;

use async_cache::{AsyncCache, BackupError, BatchLoader, BuildError, DiskBackend, DiskErrorKind, Eviction};

#[tokio::test]
async fn the_greatest_sizes_and_times_are_sizes_and_times() {
    let folder = tempfile::tempdir().unwrap();
    for eviction in [Eviction::Lru, Eviction::Adaptive] {
        let path = folder.path().join(format!("{eviction:?}"));
        let open = || -> AsyncCache<u32, u32> {
            AsyncCache::builder()
                .maxsize(usize::MAX)
                .default_ttl(Duration::MAX)
                .eviction(eviction)
                .backup(DiskBackend::new(&path).lock_timeout(Duration::MAX))
                .autosave(Duration::MAX)
                .build()
                .unwrap()
        };
        let cache = open();
        cache.set(1, 1);
        cache.set_with_ttl(2, 2, Some(Duration::from_nanos(u64::MAX)));
        cache.set_with_ttl(3, 3, Some(Duration::from_nanos(u64::MAX - 1)));
        cache.save_to_backup().unwrap();
        let again = open();
        assert_eq!([1, 2, 3].map(|key| again.get(&key)), [Some(1), Some(2), Some(3)]);
    }
}

#[tokio::test]
async fn the_smallest_sizes_and_times_are_sizes_and_times() {
    let cache: AsyncCache<u32, u32> =
        AsyncCache::builder().maxsize(1).shards(0).default_ttl(Duration::ZERO).build().unwrap();
    cache.set(1, 1);
    assert_eq!((cache.get(&1), cache.len()), (None, 0));
    let all = |keys: Vec<u32>| async {
        Ok::<_, String>(keys.into_iter().map(|key| (key, key)).collect::<HashMap<_, _>>())
    };
    let batch = BatchLoader::builder(&cache).window(Duration::ZERO).max_size(0).build(all);
    assert_eq!(batch.get_many(&[1, 2]).await.unwrap(), [Some(1), Some(2)]);
    let report = cache.warm_up([1, 2], |key| async move { Ok::<_, String>(key) }).concurrency(0).await;
    assert_eq!(report.loaded, 2);
}

/// A batch with an endless window leaves when it is full.
#[tokio::test]
async fn a_batch_with_the_longest_window_leaves_when_it_is_full() {
    let cache: AsyncCache<u32, u32> = AsyncCache::builder().build().unwrap();
    let all = |keys: Vec<u32>| async {
        Ok::<_, String>(keys.into_iter().map(|key| (key, key)).collect::<HashMap<_, _>>())
    };
    let batch = BatchLoader::builder(&cache).window(Duration::MAX).max_size(2).build(all);
    let (one, two) = tokio::join!(batch.get(&1), batch.get(&2));
    assert_eq!((one.unwrap(), two.unwrap()), (Some(1), Some(2)));
    let unlimited = BatchLoader::builder(&cache).window(Duration::ZERO).max_size(usize::MAX).build(all);
    assert_eq!(unlimited.get_many(&[3, 4]).await.unwrap(), [Some(3), Some(4)]);
}

/// A cache like this was built with a warning, and none of its saves could ever succeed.
#[cfg(unix)]
#[test]
fn a_path_that_no_file_can_have_is_an_error_of_the_build() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["n".repeat(256), "n/".repeat(4096), "nul\0".to_owned()] {
        let backend = DiskBackend::new(folder.path().join(name));
        let built = AsyncCache::<u32, u32>::builder().backup(backend).build();
        let Err(BuildError::Backup(BackupError::Disk(error))) = built else { panic!("{built:?}") };
        assert_eq!(*error.kind(), DiskErrorKind::NotAFile, "{error}");
        assert!(error.to_string().ends_with("; give the cache the path of a file"), "{error}");
    }
}
