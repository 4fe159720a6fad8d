//! Files that another user may have written: refused, never destroyed, with a message that gives
//! the reason and the remedy.

use std::path::Path;
use std::sync::Arc;

use crate::sample::{assert_holds, entries, file, open, options, options_of, save};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{DiskErrorKind, Ownership, Vfs};

const ROOT: u32 = 0;
const SOMEBODY: u32 = 666;
const OWN: Ownership = Ownership { owner: 1000, mode: 0o600, links: 1 };

fn path() -> &'static Path {
    Path::new("/shared/pages.cache")
}

fn aside() -> &'static Path {
    Path::new("/shared/pages.cache.aside")
}

fn folder(disk: &FakeDisk, owner: u32, mode: u32) {
    disk.set_ownership(path().parent().unwrap(), Ownership { owner, mode, links: 2 });
}

/// A disk with a file of 20 entries with the given owner.
fn disk_with_file(ownership: Ownership) -> (FakeDisk, Arc<dyn Vfs>) {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    assert_eq!(vfs.user(), Some(OWN.owner));
    save(&vfs, path(), &entries(20, 1), options_of(1)).unwrap();
    disk.set_ownership(path(), ownership);
    (disk, vfs)
}

fn assert_refused(vfs: &Arc<dyn Vfs>, words: &[&str]) {
    for error in
        [file(vfs, path()).open().unwrap_err(), file(vfs, path()).any_version().verify().unwrap_err()]
    {
        assert_eq!(error.kind(), &DiskErrorKind::Trust, "{error}");
        let message = error.to_string();
        assert!(message.starts_with("/shared/pages.cache: "), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
}

/// The next save sets the refused file aside, where it is not read any more, and succeeds.
fn assert_set_aside(disk: &FakeDisk, vfs: &Arc<dyn Vfs>) {
    let refused = disk.bytes(path());
    let saved = save(vfs, path(), &entries(5, 2), options()).unwrap();
    assert_eq!(saved.set_aside.as_deref(), Some(aside()));
    assert_eq!(disk.bytes(aside()), refused);
    assert_holds(vfs, path(), &entries(5, 2));
}

#[test]
fn a_file_of_another_user_is_refused() {
    let (disk, vfs) = disk_with_file(Ownership { owner: SOMEBODY, ..OWN });
    assert_refused(&vfs, &["user 666 owns it", "runs as user 1000", "chown 1000"]);
    assert_eq!(file(&vfs, path()).clear(None).unwrap_err().kind(), &DiskErrorKind::Trust);
    assert_set_aside(&disk, &vfs);
}

#[test]
fn a_file_that_others_can_write_to_is_refused() {
    for mode in [0o620, 0o602, 0o666, 0o664, 0o777] {
        let (disk, vfs) = disk_with_file(Ownership { mode, ..OWN });
        assert_refused(&vfs, &["others can write to it", &format!("{mode:04o}"), "chmod 600"]);
        let is_for_everybody = mode & 0o002 != 0;
        if is_for_everybody {
            assert_eq!(file(&vfs, path()).clear(None).unwrap_err().kind(), &DiskErrorKind::Trust);
        }
        assert_set_aside(&disk, &vfs);
        if !is_for_everybody {
            disk.set_ownership(path(), Ownership { mode, ..OWN });
            assert!(file(&vfs, path()).clear(None).unwrap(), "nothing that is in it is used");
        }
    }
}

#[test]
fn a_file_of_ones_own_or_of_root_that_others_can_read_is_opened() {
    for ownership in [
        OWN,
        Ownership { mode: 0o644, ..OWN },
        Ownership { mode: 0o400, ..OWN },
        Ownership { owner: ROOT, mode: 0o644, links: 1 },
        Ownership { links: 3, ..OWN },
    ] {
        let (disk, vfs) = disk_with_file(ownership);
        assert_eq!(open(&vfs, path()).len(), 20);
        // The same in a world-writable folder.
        if ownership.links == 1 {
            folder(&disk, ROOT, 0o1777);
            assert_eq!(open(&vfs, path()).len(), 20);
        }
    }
}

#[test]
fn a_file_with_several_names_is_refused_where_others_can_give_it_names() {
    for (owner, mode) in [(ROOT, 0o1777), (OWN.owner, 0o777), (SOMEBODY, 0o755)] {
        let (disk, vfs) = disk_with_file(Ownership { links: 2, ..OWN });
        folder(&disk, owner, mode);
        assert_refused(&vfs, &["it has 2 names"]);
        assert_set_aside(&disk, &vfs);
    }
}

#[test]
fn a_symlink_in_a_folder_of_others_is_not_followed_to_read_nor_to_save() {
    for (owner, mode, words) in [(ROOT, 0o1777, "everybody can write to"), (SOMEBODY, 0o755, "user 666 owns")]
    {
        let disk = FakeDisk::new();
        let vfs = disk.as_vfs();
        let elsewhere = Path::new("/home/precious.cache");
        save(&vfs, elsewhere, &entries(20, 1), options_of(1)).unwrap();
        let precious = disk.bytes(elsewhere);
        disk.put_link(path(), elsewhere);
        folder(&disk, owner, mode);
        assert_refused(&vfs, &["a symlink in the folder /shared", words, "not followed"]);
        assert_eq!(file(&vfs, path()).clear(None).unwrap_err().kind(), &DiskErrorKind::Trust);
        let saved = save(&vfs, path(), &entries(5, 2), options()).unwrap();
        assert_eq!(saved.set_aside.as_deref(), Some(aside()));
        assert_eq!(vfs.read_link(aside()).unwrap().as_deref(), Some(elsewhere));
        assert_eq!(disk.bytes(elsewhere), precious);
        assert_holds(&vfs, path(), &entries(5, 2));
    }
}

#[test]
fn a_symlink_in_a_folder_of_ones_own_is_followed_and_stays() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    let (middle, end) = (Path::new("/shared/middle"), Path::new("/data/pages.cache"));
    disk.put_link(path(), Path::new("middle"));
    disk.put_link(middle, end);
    disk.put_dir(Path::new("/data"));
    assert!(file(&vfs, path()).open().unwrap().is_none(), "it leads to nothing so far");
    for generation in [1, 2] {
        save(&vfs, path(), &entries(20, generation), options()).unwrap();
        assert_holds(&vfs, path(), &entries(20, generation));
        assert_holds(&vfs, end, &entries(20, generation));
    }
    assert_eq!(disk.files(), [end]);
    assert_eq!(vfs.read_link(path()).unwrap().as_deref(), Some(Path::new("middle")));
    assert!(file(&vfs, path()).clear(None).unwrap());
    assert!(disk.files().is_empty());
    assert!(vfs.read_link(path()).unwrap().is_some());

    // A link on the way stands where every user could have put it.
    disk.put_link(middle, Path::new("/tmp/planted"));
    disk.put_link(Path::new("/tmp/planted"), end);
    disk.set_ownership(Path::new("/tmp"), Ownership { owner: ROOT, mode: 0o1777, links: 2 });
    save(&vfs, end, &entries(20, 1), options()).unwrap();
    assert_refused(&vfs, &["a symlink in the folder /tmp"]);
}

#[test]
fn symlinks_in_a_circle_are_refused() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    disk.put_link(path(), Path::new("other"));
    disk.put_link(Path::new("/shared/other"), path());
    assert_refused(&vfs, &["without end"]);
}

#[test]
fn a_refused_file_that_cannot_be_set_aside_is_a_clear_error_and_stays() {
    let (disk, vfs) = disk_with_file(Ownership { owner: SOMEBODY, ..OWN });
    let refused = disk.bytes(path());
    disk.fail_every("rename", std::io::ErrorKind::PermissionDenied); // a sticky folder
    let error = save(&vfs, path(), &entries(5, 2), options()).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Trust);
    for words in ["nothing was saved", "could not be set aside", "user 666 owns it", "remove it"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(disk.files(), [path()]);
    assert_eq!(disk.bytes(path()), refused);
}

/// The same on a real file system.
#[cfg(unix)]
#[test]
#[allow(clippy::disallowed_methods)] // changes modes
fn the_real_disk_tells_whose_a_file_is() {
    use async_cache_disk::RealDisk;
    use std::os::unix::fs::{PermissionsExt, symlink};

    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("pages.cache");
    save(&vfs, &at, &entries(20, 1), options()).unwrap();
    let ownership = vfs.metadata(&at).unwrap().ownership.unwrap();
    assert_eq!((Some(ownership.owner), ownership.mode, ownership.links), (vfs.user(), 0o600, 1));
    assert_eq!(vfs.open(&at).unwrap().metadata().unwrap().ownership, Some(ownership));
    std::fs::set_permissions(&at, PermissionsExt::from_mode(0o666)).unwrap();
    assert_eq!(file(&vfs, &at).open().unwrap_err().kind(), &DiskErrorKind::Trust);
    std::fs::set_permissions(&at, PermissionsExt::from_mode(0o644)).unwrap();

    let link = folder.path().join("link");
    symlink("pages.cache", &link).unwrap();
    assert!(vfs.open_no_follow(&link).unwrap().is_none());
    assert!(vfs.open_no_follow(&at).unwrap().is_some());
    assert_eq!(vfs.read_link(&link).unwrap().as_deref(), Some(Path::new("pages.cache")));
    assert_holds(&vfs, &link, &entries(20, 1));
    save(&vfs, &link, &entries(20, 2), options()).unwrap();
    assert_holds(&vfs, &at, &entries(20, 2));
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(file(&vfs, &link).open().unwrap_err().kind(), &DiskErrorKind::Trust);
    assert_holds(&vfs, &at, &entries(20, 2));
}
