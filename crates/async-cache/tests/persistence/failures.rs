//! Saves that fail, and values that cannot be encoded.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use super::{PATH, open, saved_numbers, warnings};
use async_cache::{AsyncCache, BackupError, BuildError, DiskBackend, DiskErrorKind};
use async_cache_disk::fake::{FakeDisk, Fault};
use serde::{Deserialize, Serialize, Serializer};

#[test]
fn a_path_that_is_a_directory_is_an_error_of_the_build() {
    let folder = tempfile::tempdir().unwrap();
    let built = AsyncCache::<u64, u64>::builder().backup(DiskBackend::new(folder.path())).build();
    let error = built.unwrap_err();
    let BuildError::Backup(BackupError::Disk(disk)) = &error else { panic!("{error:?}") };
    assert_eq!(*disk.kind(), DiskErrorKind::NotAFile);
    assert!(error.to_string().contains("directory"), "{error}");
}

#[test]
fn a_folder_that_is_a_file_is_a_clear_error_and_the_cache_serves() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let path = file.join("app.cache");
    let cache = AsyncCache::builder().backup(DiskBackend::new(&path)).build().unwrap();
    assert!(cache.opening().warning.is_some());
    cache.set(1_u64, 1_u64);
    let error = cache.save_to_backup().unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
    assert_eq!((cache.get(&1), cache.stats().saves), (Some(1), 0));
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

/// Its name, and how to make the disk fail.
type Failure = (&'static str, fn(&FakeDisk));

#[test]
fn a_save_that_fails_leaves_the_old_file_and_the_cache_as_they_were() {
    let failures: [Failure; 5] = [
        ("write", |disk| disk.inject(disk.calls().len() + 12, Fault::Full)),
        ("sync", |disk| disk.fail_every("sync", io::ErrorKind::Other)),
        ("create", |disk| disk.fail_every("create_new", io::ErrorKind::PermissionDenied)),
        ("rename", |disk| disk.fail_every("rename", io::ErrorKind::PermissionDenied)),
        ("writes", |disk| disk.fail_every("write_at", io::ErrorKind::StorageFull)),
    ];
    for (name, fail) in failures {
        let disk = saved_numbers(300);
        let old = disk.bytes(Path::new(PATH)).unwrap();
        let cache: AsyncCache<u64, u64> = open(&disk);
        cache.set(1, 11);
        fail(&disk);
        let error = cache.save_to_backup().expect_err(name);
        assert!(error.to_string().contains(PATH), "{name}: {error}");
        let full = matches!(&error, BackupError::Disk(error) if *error.kind() == DiskErrorKind::Full);
        assert_eq!(full, name.starts_with("write"), "{name}: {error}");
        assert_eq!(disk.bytes(Path::new(PATH)).unwrap(), old, "{name}");
        assert_eq!((cache.get(&1), cache.get(&2), cache.len()), (Some(11), Some(20), 300), "{name}");
        disk.repair();
        assert_eq!(open::<u64, u64>(&disk).get(&1), Some(10), "{name}");
        assert_eq!((disk.files().len(), cache.stats().saves), (2, 0), "{name}: no temporary file is left");
        assert_eq!(cache.save_to_backup().unwrap().entries, 300, "{name}");
        assert_eq!(open::<u64, u64>(&disk).get(&1), Some(11), "{name}");
    }
}

/// A value that serde can decode but not always encode.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Moody(u64);

impl Serialize for Moody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 13 {
            return Err(serde::ser::Error::custom("not this one"));
        }
        serializer.serialize_newtype_struct("Moody", &self.0)
    }
}

#[test]
fn a_value_that_cannot_be_encoded_is_left_out_and_counted_and_reported_once() {
    let disk = FakeDisk::new();
    let logged = warnings(|| {
        let cache: AsyncCache<u64, Moody> = open(&disk);
        for (key, value) in [(1, 13), (2, 2), (3, 13)] {
            cache.set(key, Moody(value));
        }
        let saved = cache.save_to_backup().unwrap();
        assert_eq!((saved.entries, saved.left_out, cache.len()), (1, 2, 3));
    });
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(logged[0].contains("not this one"), "{logged:?}");
    let cache: AsyncCache<u64, Moody> = open(&disk);
    assert_eq!((cache.get(&2), cache.get(&1), cache.len()), (Some(Moody(2)), None, 1));
}

#[test]
fn a_value_that_could_not_be_encoded_does_not_bring_back_the_one_it_replaced() {
    let disk = saved_numbers(3);
    let cache: AsyncCache<u64, Moody> = open(&disk);
    cache.set(1, Moody(13));
    cache.save_to_backup().unwrap();
    assert_eq!(open::<u64, Moody>(&disk).get(&1), None);
}
