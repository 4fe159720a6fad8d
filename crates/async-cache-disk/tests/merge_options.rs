//! Saves that merge, together with a secret, with owners, and with compression.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::sample::{SAVED_AT, another_secret, file, nothing, options, secret, with_secret};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{
    CacheFile, Compression, DiskErrorKind, KeyKind, Known, Merged, Pushed, RealDisk, SavedFile, Scratch,
    Times, Tombstones, Vfs, WriteOptions,
};

const COUNT: u64 = 200;

fn path() -> &'static Path {
    Path::new("/cache/pages.cache")
}

fn value_of(key: u64) -> String {
    format!("<a href=\"/pages/{key}\">page number {key} of all pages</a>").repeat(5)
}

/// A process saves entries with these numbers; all of its entries are in memory.
fn save(
    file: &CacheFile,
    keys: std::ops::Range<u64>,
    tombstones: Tombstones,
    options: WriteOptions,
) -> (SavedFile, Merged) {
    let known = Known { tombstones, ..Known::default() };
    let save = file.begin(Some(Duration::ZERO)).unwrap();
    let mut joining = save.write(options, known, None).unwrap();
    if joining.is_needed() {
        keys.clone().for_each(|key| joining.note(&key.to_le_bytes(), SAVED_AT + key));
    }
    let mut output = joining.join(&nothing()).unwrap();
    for key in keys {
        let times = Times { deadline: None, written_at: Some(SAVED_AT + key) };
        let pushed = output.push(&key.to_le_bytes(), value_of(key).as_bytes(), times).unwrap();
        assert!(!matches!(pushed, Pushed::TooLarge(_)));
    }
    let finished = output.finish().unwrap();
    (finished.saved, finished.merged.unwrap())
}

fn assert_holds(file: &CacheFile, keys: std::ops::Range<u64>) {
    let snapshot = file.open().unwrap().unwrap();
    let report = file.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(u64::from(snapshot.len()), keys.end - keys.start);
    let mut scratch = Scratch::new();
    for key in keys {
        let found = snapshot.find(&key.to_le_bytes(), &mut scratch).unwrap();
        assert_eq!((found.value, found.written_at), (value_of(key).as_bytes(), Some(SAVED_AT + key)));
    }
}

#[test]
fn what_another_process_saved_is_joined_however_the_two_compress_and_with_a_secret_too() {
    for secret in [None, Some(secret())] {
        for (theirs, ours) in [
            (Compression::OFF, Compression::ZSTD),
            (Compression::ZSTD, Compression::OFF),
            (Compression::ZSTD, Compression::ZSTD),
        ] {
            let vfs = FakeDisk::new().as_vfs();
            let file = file(&vfs, path()).secret(secret);
            save(&file.clone().compression(theirs), 0..COUNT, Tombstones::default(), options());
            let half = COUNT / 2..COUNT + COUNT / 2;
            let (_, merged) = save(&file.clone().compression(ours), half, Tombstones::default(), options());
            assert_eq!(merged.copied, COUNT / 2);
            assert_holds(&file, 0..COUNT + COUNT / 2);
            let snapshot = file.open().unwrap().unwrap();
            assert_eq!(snapshot.is_compressed(), ours == Compression::ZSTD);
        }
    }
}

#[test]
fn a_file_of_no_secret_or_another_one_is_set_aside_and_not_joined() {
    for theirs in [None, Some(another_secret())] {
        let vfs = FakeDisk::new().as_vfs();
        let mut deleted = Tombstones::default();
        deleted.record_clear(SAVED_AT + 1000);
        save(&file(&vfs, path()).secret(theirs), 1000..1010, deleted, options());
        let file = with_secret(&vfs, path());
        let (saved, merged) = save(&file, 0..5, Tombstones::default(), options());
        assert_eq!(merged.copied, 0);
        assert!(saved.set_aside.is_some());
        assert_holds(&file, 0..5);
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_write_to_is_set_aside_and_not_joined() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, vfs) = (tempfile::tempdir().unwrap(), Arc::new(RealDisk) as Arc<dyn Vfs>);
    let path = folder.path().join("pages.cache");
    let write = || {
        let save = file(&vfs, &path).begin(Some(Duration::ZERO)).unwrap();
        let joining = save.write(options(), Known::default(), None).unwrap();
        let is_joined = joining.is_needed();
        let mut output = joining.join(&nothing()).unwrap();
        if !is_joined {
            let pushed = output.push(b"key", b"value", Times::default()).unwrap();
            assert!(matches!(pushed, Pushed::Written));
        }
        (is_joined, output.finish().unwrap().saved)
    };
    write();
    let (is_joined, saved) = write();
    assert!(is_joined && saved.set_aside.is_none() && saved.entries == 1);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let (is_joined, saved) = write();
    assert!(!is_joined && saved.set_aside.is_some());
}

#[cfg(unix)]
#[test]
fn two_names_of_one_file_have_one_lock_and_a_link_in_the_locks_place_is_refused() {
    let (folder, vfs) = (tempfile::tempdir().unwrap(), Arc::new(RealDisk) as Arc<dyn Vfs>);
    let (path, link) = (folder.path().join("pages.cache"), folder.path().join("link"));
    std::os::unix::fs::symlink("pages.cache", &link).unwrap();
    let held = file(&vfs, &path).lock(Duration::ZERO).unwrap();
    let error = file(&vfs, &link).lock(Duration::ZERO).unwrap_err();
    assert_eq!(*error.kind(), DiskErrorKind::Locked);
    drop(held);
    let other = folder.path().join("other.cache");
    std::os::unix::fs::symlink("pages.cache.lock", folder.path().join("other.cache.lock")).unwrap();
    let error = file(&vfs, &other).lock(Duration::ZERO).unwrap_err();
    assert_eq!(*error.kind(), DiskErrorKind::Trust);
}

#[test]
fn tombstones_under_a_secret_cannot_be_forged_but_only_made_unknown() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    let mut deleted = Tombstones::default();
    deleted.record_delete(KeyKind::Canonical, b"gone", SAVED_AT - 1);
    deleted.record_delete(KeyKind::Eager, b"pickled", SAVED_AT - 2);
    deleted.record_clear(SAVED_AT - 3);
    let file = with_secret(&vfs, path());
    save(&file, 0..3, deleted.clone(), options().identity([9; 16], [8; 16]));
    let bytes = disk.bytes(path()).unwrap();
    let tombstones = |bytes: &[u8]| {
        let disk = FakeDisk::new();
        disk.put(path(), bytes);
        with_secret(&disk.as_vfs(), path()).open().unwrap().unwrap().tombstones()
    };
    assert_eq!(tombstones(&bytes), deleted);
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let mut rows = (0..bytes[12] as usize).map(|row| 768 + 24 * row);
    let row = rows.find(|row| bytes[*row] == 7).unwrap();
    let start = usize::try_from(number(row + 8)).unwrap();
    assert_eq!(start + usize::try_from(number(row + 16)).unwrap(), bytes.len());
    for at in start + 4..bytes.len() {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        let whole = [&[9; 16][..], &(start as u64).to_le_bytes(), &forged[start + 4..]].concat();
        forged[start..start + 4].copy_from_slice(&crc32c::crc32c(&whole).to_le_bytes());
        let mut unknown = Tombstones::default();
        unknown.record_unknown_delete(SAVED_AT);
        assert_eq!(tombstones(&forged), unknown, "byte {at}");
    }
}
