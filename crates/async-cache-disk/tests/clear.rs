//! `clear` and the lock of a path: a running save must not restore entries that were cleared in the
//! meantime.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::sample::{assert_holds, entries, options, save};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{DiskErrorKind, RealDisk, SaveLock, Vfs, clear};

const NO_WAIT: Duration = Duration::ZERO;

fn path() -> &'static Path {
    Path::new("/cache/pages.cache")
}

#[test]
fn a_save_that_runs_keeps_a_clear_out_and_nothing_has_changed() {
    let vfs = FakeDisk::new().as_vfs();
    save(&vfs, path(), &entries(10, 1), options()).unwrap();
    let saving = SaveLock::take(&vfs, path(), NO_WAIT).unwrap();
    let error = clear(&vfs, path(), Some(NO_WAIT)).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Locked);
    assert!(error.to_string().contains("nothing was saved or removed; try again"), "{error}");
    assert_holds(&vfs, path(), &entries(10, 1));

    assert!(clear(&vfs, path(), None).unwrap(), "who does not merge takes no lock");
    assert_eq!(
        clear(&vfs, path(), Some(NO_WAIT)).unwrap_err().kind(),
        &DiskErrorKind::Locked,
        "a first save"
    );
    drop(saving);
    assert!(!clear(&vfs, path(), Some(NO_WAIT)).unwrap());
}

#[test]
fn a_clear_waits_for_a_save_that_runs_and_removes_what_it_put_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages.cache");
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let saving = SaveLock::take(&vfs, &path, NO_WAIT).unwrap();
    std::thread::scope(|scope| {
        let clearing = scope.spawn(|| clear(&vfs, &path, Some(Duration::from_secs(60))));
        save(&vfs, &path, &entries(10, 1), options()).unwrap();
        drop(saving);
        assert!(clearing.join().unwrap().unwrap());
    });
    assert_eq!(vfs.list(folder.path()).unwrap(), ["pages.cache.lock"]);
}

#[test]
fn where_nothing_was_saved_a_clear_makes_neither_a_lock_nor_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    assert!(!clear(&vfs, &folder.path().join("pages.cache"), Some(NO_WAIT)).unwrap());
    assert!(!clear(&vfs, &folder.path().join("no/folder/pages.cache"), Some(NO_WAIT)).unwrap());
    assert!(vfs.list(folder.path()).unwrap().is_empty());

    vfs.create_dir(&folder.path().join("folder")).unwrap();
    let error = clear(&vfs, &folder.path().join("folder"), Some(NO_WAIT)).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::NotAFile);
    assert_eq!(vfs.list(folder.path()).unwrap(), [Path::new("folder")]);
}
