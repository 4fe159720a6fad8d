//! The lock of a path in faulty environments: nothing waits for ever, and a file system without
//! locks is no obstacle.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::sample::{assert_holds, entries, file, nothing, options, save};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{DiskErrorKind, Known, Vfs};

const NO_WAIT: Duration = Duration::ZERO;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn path() -> &'static Path {
    Path::new("/cache/pages.cache")
}

fn lock() -> &'static Path {
    Path::new("/cache/pages.cache.lock")
}

/// A symlink to nothing stood at the place of the lock. The lock was searched for at the target,
/// which does not exist, and created at the name of the link, which exists; so every save, `clear`
/// and the drop of a cache looped for ever, ignoring their time limits. In `/tmp` every user can
/// create a link like that.
#[test]
fn a_symlink_in_the_locks_place_is_an_error_at_once_wherever_it_leads() {
    for target in ["nowhere", "/nowhere/at/all", "pages.cache", "pages.cache.lock", "/cache", "/home/other"] {
        let disk = FakeDisk::new();
        let vfs = disk.as_vfs();
        save(&vfs, path(), &entries(10, 1), options()).unwrap();
        disk.put(Path::new("/home/other"), b"a file of somebody else");
        disk.put_link(lock(), Path::new(target));
        disk.repair();
        let errors = [
            file(&vfs, path()).lock(DAY).unwrap_err(),
            file(&vfs, path()).clear(Some(DAY)).unwrap_err(),
            file(&vfs, path()).begin(Some(DAY)).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), &DiskErrorKind::Trust, "{target}: {error}");
            assert!(error.to_string().contains("a symlink where the lock"), "{target}: {error}");
            assert_eq!(error.path(), lock());
        }
        assert!(disk.calls().len() < 40, "{:?}", disk.calls());
        assert_holds(&vfs, path(), &entries(10, 1));
        assert_eq!(vfs.read_link(lock()).unwrap().as_deref(), Some(Path::new(target)));
        assert_eq!(disk.files().iter().filter(|path| path.starts_with("/nowhere")).count(), 0);
    }
}

#[cfg(unix)]
#[test]
fn on_the_real_disk_a_symlink_to_nothing_in_the_locks_place_is_an_error_too() {
    use async_cache_disk::RealDisk;
    let (folder, vfs) = (tempfile::tempdir().unwrap(), Arc::new(RealDisk) as Arc<dyn Vfs>);
    let path = folder.path().join("pages.cache");
    std::os::unix::fs::symlink("nowhere", folder.path().join("pages.cache.lock")).unwrap();
    let error = file(&vfs, &path).lock(NO_WAIT).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Trust, "{error}");
}

/// `create_new` contradicts the other calls about the lock file, again and again: a program that
/// permanently creates and removes the file looks like that, and so may a broken file system.
#[test]
fn a_lock_file_that_comes_and_goes_is_an_error_after_some_attempts() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    disk.put_dir(Path::new("/cache"));
    disk.fail_every("create_new", io::ErrorKind::AlreadyExists);
    let error = file(&vfs, path()).lock(DAY).unwrap_err();
    assert!(error.to_string().contains("removed and created again all the time"), "{error}");
    assert!(disk.calls().len() < 100);
}

/// A folder on the way to the file is a symlink to nothing: it cannot be created, and only the link
/// shows the reason.
#[test]
fn a_folder_that_is_a_symlink_to_nothing_is_a_clear_error() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    disk.put_link(Path::new("/data"), Path::new("/mnt/not-mounted"));
    let below = Path::new("/data/pages.cache");
    for error in
        [file(&vfs, below).lock(NO_WAIT).unwrap_err(), file(&vfs, below).write(options()).unwrap_err()]
    {
        assert_eq!(error.kind(), &DiskErrorKind::NotAFile, "{error}");
        assert!(
            error.to_string().contains("a symlink to /mnt/not-mounted, where there is nothing"),
            "{error}"
        );
    }
}

/// The fake disk has no working directory, like a process whose working directory was removed.
/// Parents of `.` were searched until the stack was full.
#[test]
fn a_relative_path_without_a_working_directory_is_an_error() {
    let vfs = FakeDisk::new().as_vfs();
    let error = file(&vfs, Path::new("pages.cache")).lock(NO_WAIT).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Io, "{error}");
    let error = file(&vfs, Path::new("some/folder/pages.cache")).write(options()).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Io, "{error}");
}

/// NFS without a lock daemon returns ENOLCK, other file systems other errors. Only ENOSYS and
/// EOPNOTSUPP were known; with the others every save failed, even saves that need no lock.
#[cfg(unix)]
#[test]
fn where_there_are_no_locks_saves_work_and_say_so() {
    use rustix::io::Errno;
    for number in [Errno::NOLCK, Errno::INVAL, Errno::BADF, Errno::NOSYS, Errno::OPNOTSUPP] {
        let disk = FakeDisk::new();
        let vfs = disk.as_vfs();
        disk.fail_every_as("try_lock", number.raw_os_error());
        for generation in [1, 2] {
            let saved = save(&vfs, path(), &entries(10, generation), options()).unwrap();
            let why = saved.without_locks.expect("it says that there are no locks");
            assert_eq!(why, io::Error::from(number).to_string());

            let save = file(&vfs, path()).begin(Some(NO_WAIT)).unwrap();
            let joining = save.write(options(), Known::default(), None).unwrap();
            let finished = joining.join(&nothing()).unwrap().finish().unwrap();
            let copied = finished.merged.unwrap().copied;
            assert_eq!((copied, finished.saved.without_locks.is_some()), (10, true));
        }
        assert!(file(&vfs, path()).clear(Some(NO_WAIT)).unwrap());
        assert_eq!(disk.files(), [lock()]);
    }
}

#[test]
fn an_error_of_the_lock_that_says_something_else_is_an_error() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    disk.fail_every("try_lock", io::ErrorKind::PermissionDenied);
    assert_eq!(file(&vfs, path()).lock(NO_WAIT).unwrap_err().kind(), &DiskErrorKind::Io);
    assert_eq!(save(&vfs, path(), &entries(1, 1), options()).unwrap_err().kind(), &DiskErrorKind::Io);
    assert_eq!(disk.files(), [lock()], "the temporary file is gone");
    disk.repair();
    assert_eq!(save(&vfs, path(), &entries(1, 1), options()).unwrap().without_locks, None);
}

/// The lock on a temporary file distinguishes a running save from a crashed one. Without locks only
/// the file's age does.
#[test]
fn without_locks_what_crashed_saves_left_is_removed_when_it_is_a_day_old() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    let leftover = Path::new("/cache/.pages.cache.0123456789abcdef.tmp");
    disk.put(leftover, b"half a file");
    disk.fail_every("try_lock", io::ErrorKind::Unsupported);
    disk.advance(DAY / 2);
    save(&vfs, path(), &entries(5, 1), options()).unwrap();
    assert!(disk.bytes(leftover).is_some(), "a save may be writing it");
    disk.advance(DAY);
    save(&vfs, path(), &entries(5, 1), options()).unwrap();
    assert!(disk.bytes(leftover).is_none());
}

/// NFS locks a file only for a process that has it open for writing.
#[cfg(unix)]
#[test]
fn an_existing_lock_file_is_opened_for_writing_where_that_is_allowed() {
    use async_cache_disk::RealDisk;
    let (folder, vfs) = (tempfile::tempdir().unwrap(), Arc::new(RealDisk) as Arc<dyn Vfs>);
    let path = folder.path().join("lock");
    vfs.create_new(&path).unwrap();
    let file = vfs.open_to_lock(&path).unwrap().expect("it is no symlink");
    assert_eq!(file.write_at(b"x", 0).unwrap(), 1);
    std::os::unix::fs::symlink("lock", folder.path().join("link")).unwrap();
    assert!(vfs.open_to_lock(&folder.path().join("link")).unwrap().is_none());
    let missing = vfs.open_to_lock(&folder.path().join("none")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}
