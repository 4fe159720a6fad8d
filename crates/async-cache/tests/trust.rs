//! A backup that others may have written gives an empty cache and a warning with the reason; and
//! the effects of a secret and compression on a cache's lives.

use std::path::Path;

use async_cache::{AsyncCache, BackupError, Compression, DiskBackend, DiskErrorKind, Secret};
use async_cache_disk::Ownership;
use async_cache_disk::fake::FakeDisk;

const PATH: &str = "/var/cache/app.cache";
const COUNT: u64 = 3000;

type Cache = AsyncCache<u64, String>;

fn backend(disk: &FakeDisk) -> DiskBackend {
    DiskBackend::new(PATH).vfs(disk.as_vfs())
}

fn open(backend: DiskBackend) -> Cache {
    AsyncCache::builder().backup(backend).build().unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(text).unwrap()
}

fn value(key: u64) -> String {
    format!("the value of the entry whose key is the number {key}")
}

fn fill(cache: &Cache) {
    (0..COUNT).for_each(|key| cache.set(key, value(key)));
}

/// The kind of error in the warning at opening.
fn warning(cache: &Cache) -> Option<DiskErrorKind> {
    match &cache.opening().warning {
        Some(BackupError::Disk(error)) => Some(error.kind().clone()),
        Some(error) => panic!("{error}"),
        None => None,
    }
}

fn assert_full(cache: &Cache) {
    assert_eq!((warning(cache), cache.len() as u64), (None, COUNT));
    assert!((0..COUNT).all(|key| cache.get(&key) == Some(value(key))));
}

#[test]
fn a_file_of_another_user_is_an_empty_cache_and_kept_even_if_it_is_given_back_before_the_save() {
    let disk = FakeDisk::new();
    let cache = open(backend(&disk));
    fill(&cache);
    cache.save_to_backup().unwrap();
    let ownership = |owner| Ownership { owner, mode: 0o600, links: 1 };
    disk.set_ownership(Path::new(PATH), ownership(666));
    let cache = open(backend(&disk));
    assert_eq!((warning(&cache), cache.len()), (Some(DiskErrorKind::Trust), 0));
    // The user follows the advice of the warning. The file's entries are not in this cache, so they
    // must not be lost.
    disk.set_ownership(Path::new(PATH), ownership(disk.as_vfs().user().unwrap()));
    cache.set(1, "new".to_owned());
    let saved = cache.save_to_backup().unwrap();
    assert_eq!((saved.entries, saved.set_aside), (COUNT, None), "it is joined");
    let again = open(backend(&disk));
    assert_eq!((again.get(&1).as_deref(), again.get(&2)), (Some("new"), Some(value(2))));
}

#[test]
fn a_volume_that_makes_its_files_writable_to_a_group_keeps_a_cache_with_a_secret_warm_and_fills_up_with_none()
{
    let disk = FakeDisk::new();
    let with_secret = || backend(&disk).secret(secret("our secret, long enough"));
    let group = Ownership { owner: disk.as_vfs().user().unwrap(), mode: 0o660, links: 1 };
    for backend in [&with_secret as &dyn Fn() -> DiskBackend, &|| backend(&disk)] {
        let mut warm = 0;
        for _life in 0..6 {
            let cache = open(backend());
            warm += usize::from(cache.len() as u64 == COUNT);
            fill(&cache);
            cache.save_to_backup().unwrap();
            disk.set_ownership(Path::new(PATH), group);
        }
        let has_secret = warm == 5;
        assert!(has_secret || warm == 0);
        // The file and its lock; and without a secret one copy of the refused file.
        assert_eq!(disk.files().len(), if has_secret { 2 } else { 3 }, "{:?}", disk.files());
        let _ = async_cache_disk::CacheFile::new(disk.as_vfs(), PATH).clear(None);
    }
}

#[test]
fn a_cache_with_a_secret_lives_on_with_it_and_starts_empty_with_another_or_none() {
    let disk = FakeDisk::new();
    let ours = || backend(&disk).secret(secret("our secret, long enough"));
    let cache = open(ours());
    fill(&cache);
    cache.save_to_backup().unwrap();
    let cache = open(ours());
    cache.set(5, value(5));
    cache.save_to_backup().unwrap(); // all other entries are copied
    assert_full(&open(ours()));
    for other in [backend(&disk), backend(&disk).secret(secret("their secret, long enough"))] {
        let cache = open(other);
        assert_eq!((warning(&cache), cache.len()), (Some(DiskErrorKind::Trust), 0));
    }
    let theirs = open(backend(&disk));
    theirs.set(1, "planted".to_owned());
    assert!(theirs.save_to_backup().unwrap().set_aside.is_some());
    let cache = open(ours());
    assert_eq!((warning(&cache), cache.get(&1)), (Some(DiskErrorKind::Trust), None));
}

#[test]
fn a_secret_is_never_shown() {
    let backend = DiskBackend::new(PATH).secret(secret("our secret, long enough"));
    assert!(!format!("{backend:?} {:?}", secret("our secret, long enough")).contains("our secret"));
}

#[test]
fn a_compressed_cache_is_smaller_and_lives_on_however_it_is_compressed_next() {
    let disk = FakeDisk::new();
    let plain = open(backend(&disk));
    fill(&plain);
    let plain = plain.save_to_backup().unwrap().bytes;
    for compression in [
        Compression::ZSTD,
        Compression::ZSTD,
        Compression::zstd(1).unwrap(),
        Compression::OFF,
        Compression::zstd(19).unwrap(),
    ] {
        let cache = open(backend(&disk).compression(compression));
        cache.set(5, value(5));
        let bytes = cache.save_to_backup().unwrap().bytes;
        assert_eq!(
            bytes < plain * 9 / 10,
            compression != Compression::OFF,
            "{compression:?}: {bytes} of {plain}"
        );
        assert_full(&open(backend(&disk)));
    }
}
