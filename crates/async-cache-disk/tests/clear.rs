//! `clear` and the lock of a path: a running save must not restore entries that were cleared in the
//! meantime.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::sample::{assert_holds, entries, file, options, save};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{DiskErrorKind, RealDisk, Vfs};

const NO_WAIT: Duration = Duration::ZERO;

fn path() -> &'static Path {
    Path::new("/cache/pages.cache")
}

#[test]
fn a_save_that_runs_keeps_a_clear_out_and_nothing_has_changed() {
    let vfs = FakeDisk::new().as_vfs();
    save(&vfs, path(), &entries(10, 1), options()).unwrap();
    let saving = file(&vfs, path()).lock(NO_WAIT).unwrap();
    let error = file(&vfs, path()).clear(Some(NO_WAIT)).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Locked);
    assert!(error.to_string().contains("nothing was saved or removed; try again"), "{error}");
    assert_holds(&vfs, path(), &entries(10, 1));

    assert!(file(&vfs, path()).clear(None).unwrap(), "who does not merge takes no lock");
    assert_eq!(
        file(&vfs, path()).clear(Some(NO_WAIT)).unwrap_err().kind(),
        &DiskErrorKind::Locked,
        "a first save"
    );
    drop(saving);
    assert!(!file(&vfs, path()).clear(Some(NO_WAIT)).unwrap());
}

#[test]
fn a_clear_waits_for_a_save_that_runs_and_removes_what_it_put_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages.cache");
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let saving = file(&vfs, &path).lock(NO_WAIT).unwrap();
    std::thread::scope(|scope| {
        let clearing = scope.spawn(|| file(&vfs, &path).clear(Some(Duration::from_secs(60))));
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
    assert!(!file(&vfs, folder.path().join("pages.cache")).clear(Some(NO_WAIT)).unwrap());
    assert!(!file(&vfs, folder.path().join("no/folder/pages.cache")).clear(Some(NO_WAIT)).unwrap());
    assert!(vfs.list(folder.path()).unwrap().is_empty());

    vfs.create_dir(&folder.path().join("folder")).unwrap();
    let error = file(&vfs, folder.path().join("folder")).clear(Some(NO_WAIT)).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::NotAFile);
    assert_eq!(vfs.list(folder.path()).unwrap(), [Path::new("folder")]);
}
