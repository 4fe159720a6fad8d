//! Files that are set aside: no file that may be an only copy is destroyed, and cache files do not
//! pile up.
//!
//! A volume that makes its files group-writable at every start had the cache refused, and set
//! aside, at every start: `.aside`, `.aside-2`, `.aside-3`, each of full size, until the volume was
//! full.

use std::io;
use std::path::{Path, PathBuf};

use crate::sample::{
    assert_holds, assert_holds_as, entries, file, options, save, save_to, secret, with_secret,
};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{DiskErrorKind, Ownership};

const GROUP: Ownership = Ownership { owner: 1000, mode: 0o660, links: 1 };

fn path() -> &'static Path {
    Path::new("/cache/pages.cache")
}

fn aside(number: u32) -> PathBuf {
    let number = if number == 1 { String::new() } else { format!("-{number}") };
    PathBuf::from(format!("/cache/pages.cache.aside{number}"))
}

#[test]
fn of_a_cache_file_that_is_refused_again_and_again_one_copy_is_kept() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    for life in 1..=20 {
        let before = disk.bytes(path());
        let saved = save(&vfs, path(), &entries(20, life), options()).unwrap();
        assert_eq!(saved.set_aside, before.is_some().then(|| aside(1)));
        assert_eq!(disk.bytes(&aside(1)), before, "the latest one is kept");
        assert_holds(&vfs, path(), &entries(20, life));
        disk.set_ownership(path(), GROUP);
    }
    assert_eq!(disk.files(), [path(), &aside(1)]);
}

#[test]
fn files_that_are_no_cache_files_are_all_kept_and_beyond_some_the_save_fails() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    for number in 1..=16 {
        disk.put(path(), format!("notes {number}").as_bytes());
        let saved = save(&vfs, path(), &entries(3, number), options()).unwrap();
        assert_eq!(saved.set_aside, Some(aside(number)));
    }
    disk.put(path(), b"notes 17");
    let error = save(&vfs, path(), &entries(3, 17), options()).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Io);
    assert!(error.to_string().contains("16 files that were set aside before"), "{error}");
    assert_eq!(disk.bytes(path()).as_deref(), Some(&b"notes 17"[..]));
    for number in 1..=16 {
        assert_eq!(disk.bytes(&aside(number)), Some(format!("notes {number}").into_bytes()));
    }
    assert_eq!(disk.files().len(), 17, "no temporary file, no claimed name: {:?}", disk.files());
}

#[test]
fn a_cache_file_makes_room_among_what_was_set_aside_and_nothing_else_does() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    let foreign: [&[u8]; 3] = [b"", b"\x89ACF", b"notes"];
    for (bytes, number) in foreign.iter().zip(1..) {
        disk.put(&aside(number), bytes);
    }
    disk.put_link(&aside(4), path());
    disk.put_dir(&aside(5));
    save(&vfs, &aside(6), &entries(9, 1), options()).unwrap();
    disk.put(path(), b"more notes");
    let saved = save(&vfs, path(), &entries(3, 2), options()).unwrap();
    assert_eq!(saved.set_aside, Some(aside(6)));
    assert_eq!(disk.bytes(&aside(6)).as_deref(), Some(&b"more notes"[..]));
    for (bytes, number) in foreign.iter().zip(1..) {
        assert_eq!(disk.bytes(&aside(number)).as_deref(), Some(*bytes));
    }
    assert_eq!(vfs.read_link(&aside(4)).unwrap().as_deref(), Some(path()));
}

/// A container that mounts a single file gives EBUSY for every rename over the file, whose reason
/// is impossible to guess.
#[test]
fn a_file_that_is_a_mount_point_is_explained() {
    for before in [&b""[..], b"foreign"] {
        let disk = FakeDisk::new();
        let vfs = disk.as_vfs();
        disk.put(path(), before);
        disk.fail_every("rename", io::ErrorKind::ResourceBusy);
        let error = save(&vfs, path(), &entries(3, 1), options()).unwrap_err();
        assert!(error.to_string().contains("mount the folder that the file is in instead"), "{error}");
        assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(disk.files(), [path()]);
        assert_eq!(disk.bytes(path()).as_deref(), Some(before));
    }
    let disk = FakeDisk::new();
    save(&disk.as_vfs(), path(), &entries(3, 1), options()).unwrap();
    disk.fail_every("remove", io::ErrorKind::ResourceBusy);
    let error = file(&disk.as_vfs(), path()).clear(None).unwrap_err();
    assert!(error.to_string().contains("mount the folder that it is in instead"), "{error}");
}

#[test]
fn a_file_that_its_group_can_write_to_is_read_with_a_secret_and_replaced() {
    for mode in [0o660, 0o620, 0o664] {
        let disk = FakeDisk::new();
        let vfs = disk.as_vfs();
        save_to(&with_secret(&vfs, path()), &entries(20, 1), &[], options()).unwrap();
        disk.set_ownership(path(), Ownership { mode, ..GROUP });
        assert_holds_as(&with_secret(&vfs, path()), &entries(20, 1), &[]);
        let saved = save_to(&with_secret(&vfs, path()), &entries(20, 2), &[], options()).unwrap();
        assert_eq!(saved.set_aside, None);
        assert_holds_as(&with_secret(&vfs, path()), &entries(20, 2), &[]);
        assert_eq!(vfs.metadata(path()).unwrap().ownership.unwrap().mode, 0o600);
    }
}

/// The secret proves who wrote the data of a file, but not that the file is the newest one; and a
/// file without tags proves nothing.
#[test]
fn with_a_secret_other_users_files_those_of_everybody_and_those_without_tags_are_refused_still() {
    let everybody = Ownership { mode: 0o666, ..GROUP };
    let somebody = Ownership { owner: 666, mode: 0o600, links: 1 };
    for (written, ownership) in [(Some(secret()), everybody), (Some(secret()), somebody), (None, GROUP)] {
        let disk = FakeDisk::new();
        let vfs = disk.as_vfs();
        save_to(&file(&vfs, path()).secret(written), &entries(20, 1), &[], options()).unwrap();
        disk.set_ownership(path(), ownership);
        let error = with_secret(&vfs, path()).open().unwrap_err();
        assert_eq!(error.kind(), &DiskErrorKind::Trust, "{error}");
        let saved = save_to(&with_secret(&vfs, path()), &entries(3, 2), &[], options()).unwrap();
        assert_eq!(saved.set_aside, Some(aside(1)));
    }
}
