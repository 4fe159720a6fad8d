//! Files that are not a snapshot of ours: refused with a reason, and never destroyed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::sample::{
    assert_holds, eager_entries, entries, file, open, options, options_of, save, save_to, save_with_eager,
};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{DiskErrorKind, RealDisk, Vfs, WriteOptions};

fn path() -> &'static Path {
    Path::new("/cache/pages.cache")
}

fn resealed(disk: &FakeDisk, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = disk.bytes(path()).unwrap();
    change(&mut bytes);
    let checksum = crc32c::crc32c(&bytes[..4092]);
    bytes[4092..4096].copy_from_slice(&checksum.to_le_bytes());
    disk.overwrite(path(), &bytes);
    bytes
}

/// Opening gives the reason, saving sets the file aside and reports its new name, clearing leaves
/// the file or removes it.
fn assert_refused_and_set_aside(disk: &FakeDisk, kind: &DiskErrorKind, words: &str) {
    let vfs = disk.as_vfs();
    let bytes = disk.bytes(path()).unwrap();
    let error = file(&vfs, path()).open().unwrap_err();
    assert_eq!(error.kind(), kind);
    assert!(
        error.to_string().starts_with("/cache/pages.cache: ") && error.to_string().contains(words),
        "{error}"
    );
    assert_eq!(file(&vfs, path()).any_version().verify().unwrap_err().kind(), kind);

    let saved = save(&vfs, path(), &entries(10, 1), options()).unwrap();
    assert_eq!(saved.set_aside.as_deref(), Some(Path::new("/cache/pages.cache.aside")));
    assert_eq!(disk.bytes(Path::new("/cache/pages.cache.aside")), Some(bytes.clone()));
    assert_holds(&vfs, path(), &entries(10, 1));

    disk.put(path(), &bytes);
    let saved = save(&vfs, path(), &entries(10, 1), options()).unwrap();
    // Of cache files one copy is kept; another file may be the only copy of its data.
    let is_ours = kind != &DiskErrorKind::Foreign;
    let aside = if is_ours { "/cache/pages.cache.aside" } else { "/cache/pages.cache.aside-2" };
    assert_eq!(saved.set_aside.as_deref(), Some(Path::new(aside)));
    assert_eq!(save(&vfs, path(), &entries(10, 1), options()).unwrap().set_aside, None);

    disk.put(path(), &bytes);
    assert_eq!(file(&vfs, path()).clear(None).unwrap(), is_ours);
    assert_eq!(disk.bytes(path()).is_none(), is_ours);
}

fn disk_with_snapshot() -> FakeDisk {
    let disk = FakeDisk::new();
    save(&disk.as_vfs(), path(), &entries(50, 1), options_of(1)).unwrap();
    disk
}

#[test]
fn a_foreign_file_is_set_aside() {
    for bytes in [&b"x"[..], b"# notes\n", &[0x80; 10_000]] {
        let disk = FakeDisk::new();
        disk.put(path(), bytes);
        assert_refused_and_set_aside(&disk, &DiskErrorKind::Foreign, "not a cache file");
    }
}

#[test]
fn a_file_that_text_mode_went_over_is_foreign() {
    let disk = disk_with_snapshot();
    let text: Vec<u8> = disk.bytes(path()).unwrap().into_iter().filter(|byte| *byte != b'\r').collect();
    disk.put(path(), &text);
    assert_refused_and_set_aside(&disk, &DiskErrorKind::Foreign, "not a cache file");
}

#[test]
fn a_damaged_header_is_set_aside() {
    let disk = disk_with_snapshot();
    let mut bytes = disk.bytes(path()).unwrap();
    bytes[70] ^= 1;
    disk.put(path(), &bytes);
    assert_refused_and_set_aside(&disk, &DiskErrorKind::Damaged, "the header is damaged");
}

#[test]
fn a_newer_format_and_unknown_required_features_are_set_aside() {
    let disk = disk_with_snapshot();
    resealed(&disk, |bytes| bytes[8] = 2);
    assert_refused_and_set_aside(&disk, &DiskErrorKind::Newer, "format version 2");
    let disk = disk_with_snapshot();
    resealed(&disk, |bytes| bytes[17] = 1);
    assert_refused_and_set_aside(&disk, &DiskErrorKind::Newer, "0x100");
}

#[test]
fn eager_records_without_their_feature_and_the_feature_without_them_are_damage() {
    let disk = disk_with_snapshot();
    resealed(&disk, |bytes| bytes[16] = 4);
    assert_refused_and_set_aside(&disk, &DiskErrorKind::Damaged, "contradict each other");

    for change in [|bytes: &mut [u8]| bytes[16] = 0, |bytes: &mut [u8]| bytes[840] = 6] {
        let disk = FakeDisk::new();
        save_with_eager(&disk.as_vfs(), path(), &entries(50, 1), &eager_entries(3, 1), options_of(1))
            .unwrap();
        resealed(&disk, change);
        assert_refused_and_set_aside(&disk, &DiskErrorKind::Damaged, "contradict each other");
    }
}

#[test]
fn an_eager_section_that_holds_no_record_is_damage() {
    let disk = FakeDisk::new();
    save_with_eager(&disk.as_vfs(), path(), &entries(50, 1), &eager_entries(1, 1), options_of(1)).unwrap();
    resealed(&disk, |bytes| bytes[856..864].copy_from_slice(&6_u64.to_le_bytes()));
    assert_refused_and_set_aside(&disk, &DiskErrorKind::Damaged, "do not fit");
}

#[test]
fn unknown_optional_features_and_sections_are_ignored() {
    let disk = disk_with_snapshot();
    let mut bytes = disk.bytes(path()).unwrap();
    let extra = bytes.len() as u64;
    bytes.extend_from_slice(b"metadata");
    disk.put(path(), &bytes);
    resealed(&disk, |bytes| {
        bytes[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
        bytes[12] = 4;
        bytes[840] = 6;
        bytes[848..856].copy_from_slice(&extra.to_le_bytes());
        bytes[856] = 8;
    });
    assert_holds(&disk.as_vfs(), path(), &entries(50, 1));
}

#[test]
fn another_version_tag_is_refused_and_replaced() {
    let disk = disk_with_snapshot();
    let vfs = disk.as_vfs();
    let error = file(&vfs, path()).version("v2").open().unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::OtherVersion { found: "v1".into(), wanted: "v2".into() });
    let saved =
        save_to(&file(&vfs, path()).version("v2"), &entries(9, 2), &[], WriteOptions::new(1)).unwrap();
    assert_eq!(saved.set_aside, None);
    assert!(file(&vfs, path()).version("v2").open().unwrap().is_some());
    assert_eq!(disk.files(), [path()]);
}

#[test]
fn labels_are_kept_and_have_a_limit() {
    let vfs = FakeDisk::new().as_vfs();
    let (version, producer) = ("ü".repeat(127), "p".repeat(255));
    let file = file(&vfs, path()).version(version.clone()).producer(producer.clone());
    file.write(WriteOptions::new(5)).unwrap().finish().unwrap();
    let snapshot = file.open().unwrap().unwrap();
    assert_eq!((snapshot.version(), snapshot.producer()), (&version[..], &producer[..]));
    assert!(snapshot.is_empty());
    let error = file.version("v".repeat(256)).write(WriteOptions::new(5)).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Limit);
}

#[test]
fn paths_that_are_no_files_are_clear_errors() {
    let folder = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let at = folder.path().join("file");
    save(&vfs, &at, &entries(3, 1), options()).unwrap();
    for path in [folder.path(), Path::new("/dev/null"), &folder.path().join("..")] {
        assert_eq!(file(&vfs, path).open().unwrap_err().kind(), &DiskErrorKind::NotAFile);
        let error = file(&vfs, path).write(options()).unwrap_err();
        assert_eq!(error.kind(), &DiskErrorKind::NotAFile, "{error}");
    }
    let below = at.join("pages.cache");
    let error = file(&vfs, &below).write(options()).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::NotAFile, "{error}");
    assert!(file(&vfs, &below).open().is_err());
    assert_holds(&vfs, &at, &entries(3, 1));
    assert_eq!(
        file(&vfs, folder.path().join("none")).any_version().verify().unwrap_err().kind(),
        &DiskErrorKind::Missing
    );
}

#[test]
fn a_folder_that_may_not_be_read_is_a_clear_error() {
    let disk = disk_with_snapshot();
    let vfs = disk.as_vfs();
    for call in ["metadata", "create_new"] {
        disk.fail_every(call, std::io::ErrorKind::PermissionDenied);
        let error = save(&vfs, path(), &entries(3, 2), options()).unwrap_err();
        assert_eq!(error.kind(), &DiskErrorKind::Io);
        assert_eq!(error.io_error().unwrap().kind(), std::io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("permission denied while"), "{error}");
        disk.repair();
        assert_holds(&vfs, path(), &entries(50, 1));
    }
    disk.fail_every("open", std::io::ErrorKind::PermissionDenied);
    let error = file(&vfs, path()).open().unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Io);
    assert!(
        save(&vfs, path(), &entries(3, 2), options()).is_err(),
        "what cannot be looked at is not replaced"
    );
}

#[test]
fn a_writer_that_failed_is_of_no_more_use_and_one_that_is_dropped_leaves_nothing() {
    let disk = disk_with_snapshot();
    let vfs = disk.as_vfs();
    let mut writer = file(&vfs, path()).write(options()).unwrap();
    writer.push(b"key", b"value", None).unwrap();
    disk.fail_every("write_at", std::io::ErrorKind::Other);
    assert_eq!(writer.push(b"big", &vec![0; 3 << 20], None).unwrap_err().kind(), &DiskErrorKind::Io);
    disk.repair();
    assert_eq!(disk.files(), [path()]);
    assert_eq!(writer.push(b"key", b"value", None).unwrap_err().kind(), &DiskErrorKind::Abandoned);
    assert_eq!(writer.push_eager(b"key", b"value", None).unwrap_err().kind(), &DiskErrorKind::Abandoned);
    assert_eq!(writer.finish().unwrap_err().kind(), &DiskErrorKind::Abandoned);

    let mut writer = file(&vfs, path()).write(options()).unwrap();
    writer.push(b"key", b"value", None).unwrap();
    assert_eq!(disk.files().len(), 2);
    drop(writer);
    assert_eq!(disk.files(), [path()]);
    assert_eq!(open(&vfs, path()).len(), 50);
}

#[test]
fn leftovers_are_removed_and_live_temporary_files_are_not() {
    let disk = disk_with_snapshot();
    let vfs = disk.as_vfs();
    let live = file(&vfs, path()).write(options()).unwrap();
    let leftover = Path::new("/cache/.pages.cache.0123456789abcdef.tmp");
    let others = [
        "/cache/.other.cache.0123456789abcdef.tmp",
        "/cache/.pages.cache.123.tmp",
        "/cache/.pages.cache.tmp",
    ];
    disk.put(leftover, b"half a file");
    for path in others {
        disk.put(Path::new(path), b"not ours");
    }
    save(&vfs, path(), &entries(5, 1), options()).unwrap();
    assert!(disk.bytes(leftover).is_some(), "it is too young to be judged");
    disk.advance(Duration::from_secs(11));
    save(&vfs, path(), &entries(5, 1), options()).unwrap();
    assert!(disk.bytes(leftover).is_none());
    assert!(others.iter().all(|path| disk.bytes(Path::new(path)).is_some()));
    assert_eq!(live.finish().unwrap().entries, 0);
}
