use super::*;
use crate::format::store::header::RunCounts;
use crate::format::store::testing::secret;
use crate::secret::Secret;
use crate::vfs::fake::{FakeDisk, Fault};
use crate::vfs::{FileKind, Ownership, RealDisk};

const CACHE: &str = "/home/pages.cache";

fn folder_on(vfs: &Arc<dyn Vfs>, path: &Path, secret: Option<Secret>, version: &str) -> StoreFolder {
    let mut settings = Settings::with_secret(secret);
    settings.version = Some(version.to_owned());
    StoreFolder::beside(&Site::resolve(vfs, path).unwrap(), &settings).unwrap()
}

fn folder(disk: &FakeDisk) -> StoreFolder {
    disk.put_dir(Path::new("/home"));
    folder_on(&disk.as_vfs(), Path::new(CACHE), None, "v1")
}

fn ids(has_tag: bool) -> StoreIds {
    StoreIds { store_id: [1; 16], hash_seed: [2; 16], form: RecordForm { has_tag, may_compress: true } }
}

fn row(segment: &SegmentFile) -> SegmentRow {
    SegmentRow {
        number: segment.number,
        is_sealed: false,
        file_id: segment.file_id,
        end: FIRST_RECORD,
        entries: 0,
        earliest: 0,
        latest: 0,
        last_deadline: 0,
        dead_bytes: 0,
    }
}

fn body(segments: Vec<SegmentRow>) -> ManifestBody {
    ManifestBody { next_number: 100, sequence: 7, segments, ..ManifestBody::default() }
}

#[test]
fn files_have_the_names_of_the_format() {
    let disk = FakeDisk::new();
    let folder = folder(&disk);
    assert!(!folder.exists().unwrap());
    folder.create().unwrap();
    folder.create().unwrap();
    assert!(folder.exists().unwrap());
    let segment = folder.create_segment(&ids(false), 0xAB_CDEF, 5).unwrap();
    folder.create_run(3).unwrap();
    folder.replace_manifest(&ids(false), &body(Vec::new()), 6).unwrap();
    let files = disk.files().into_iter().map(|path| path.file_name().unwrap().to_owned());
    assert!(files.eq(["i000003", "manifest", "sabcdef"]));
    assert_eq!(folder.lock_path().file_name().unwrap(), "lock");
    let outer = folder.path.parent().unwrap();
    assert_eq!(outer, Path::new("/home/pages.cache.d"));
    assert_eq!(folder.path.file_name().unwrap().len(), 16);
    assert_eq!((segment.number, segment.end()), (0xAB_CDEF, FIRST_RECORD));
    // Each version tag and each secret has a store.
    let vfs = disk.as_vfs();
    let other = |secret, version| folder_on(&vfs, Path::new(CACHE), secret, version).path;
    let [a, b, c] = [other(None, "v2"), other(Some(secret()), "v1"), other(None, "v1")];
    assert!(a != b && a != c && b != c && c == folder.path);
    for (name, number) in [("abcdef", Some(0xAB_CDEF)), ("00000A", None), ("00001", None), ("0000001", None)]
    {
        assert_eq!(file_number(name), number);
    }
    assert_eq!((file_number("+00001"), file_number("é1234")), (None, None));
}

#[cfg(unix)]
#[test]
#[allow(clippy::disallowed_methods)] // What the crate does is looked at from outside.
fn only_the_owner_may_use_the_folder_and_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let temporary = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let folder = folder_on(&vfs, &temporary.path().join("new/pages.cache"), None, "v1");
    folder.create().unwrap();
    folder.create_segment(&ids(false), 1, 5).unwrap();
    folder.create_run(2).unwrap();
    folder.replace_manifest(&ids(false), &body(Vec::new()), 6).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&folder.path), mode(folder.path.parent().unwrap())), (0o700, 0o700));
    for name in ["s000001", "i000002", "manifest"] {
        assert_eq!(mode(&folder.path.join(name)), 0o600);
    }
    // A symlink in place of either folder, also to a folder of this user.
    for place in [folder.path.clone(), folder.path.parent().unwrap().to_owned()] {
        let moved = temporary.path().join("moved");
        std::fs::rename(&place, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &place).unwrap();
        assert_eq!(folder.create().unwrap_err().kind(), &DiskErrorKind::Trust);
        assert_eq!(folder.exists().unwrap_err().kind(), &DiskErrorKind::Trust);
        std::fs::remove_file(&place).unwrap();
        std::fs::rename(&moved, &place).unwrap();
    }
    // A folder that others can write to.
    std::fs::set_permissions(&folder.path, std::fs::Permissions::from_mode(0o770)).unwrap();
    assert_eq!(folder.exists().unwrap_err().kind(), &DiskErrorKind::Trust);
}

#[test]
fn the_folder_and_files_of_another_user_are_refused() {
    let disk = FakeDisk::new();
    let folder = folder(&disk);
    folder.create().unwrap();
    let segment = folder.create_segment(&ids(false), 1, 5).unwrap();
    let path = folder.path.join("s000001");
    assert!(folder.open_segment(&ids(false), &row(&segment)).unwrap().is_some());
    let theirs = Ownership { owner: 77, mode: 0o600, links: 1 };
    disk.set_ownership(&path, theirs);
    let refused = folder.open_segment(&ids(false), &row(&segment)).unwrap_err();
    assert_eq!(refused.kind(), &DiskErrorKind::Trust);
    disk.set_ownership(&folder.path, Ownership { mode: 0o700, ..theirs });
    assert_eq!(folder.create().unwrap_err().kind(), &DiskErrorKind::Trust);
    // A file where the folder is to be.
    let disk = FakeDisk::new();
    disk.put(Path::new("/home/pages.cache.d"), b"a file");
    assert_eq!(self::folder(&disk).create().unwrap_err().kind(), &DiskErrorKind::NotAFile);
}

#[test]
fn a_manifest_comes_back_and_is_refused_if_anything_in_it_changed() {
    for secret in [None, Some(secret())] {
        let disk = FakeDisk::new();
        disk.put_dir(Path::new("/home"));
        let vfs = disk.as_vfs();
        let folder = folder_on(&vfs, Path::new(CACHE), secret, "v1");
        folder.create().unwrap();
        assert!(folder.read_manifest().unwrap().is_none());
        let ids = ids(secret.is_some());
        let segment = folder.create_segment(&ids, 1, 5).unwrap();
        let body = body(vec![row(&segment)]);
        folder.replace_manifest(&ids, &body, 6).unwrap();
        let (read, found) = folder.read_manifest().unwrap().unwrap();
        assert_eq!(
            (read.store_id, read.hash_seed, read.form, &found),
            (ids.store_id, ids.hash_seed, ids.form, &body)
        );
        let path = folder.path.join("manifest");
        let sound = disk.bytes(&path).unwrap();
        for place in (0..sound.len()).step_by(5) {
            let mut bytes = sound.clone();
            bytes[place] ^= 0x11;
            disk.overwrite(&path, &bytes);
            let is_refused = folder.read_manifest().is_err();
            assert!(is_refused, "{place}");
            disk.overwrite(&path, &sound[..place.max(1)]);
            assert!(folder.read_manifest().is_err(), "cut at {place}");
        }
        disk.overwrite(&path, &sound);
        // Another store's manifest in this folder.
        let other = folder_on(&vfs, Path::new(CACHE), secret, "v2");
        let other = StoreFolder { path: folder.path.clone(), ..other };
        assert!(other.read_manifest().is_err());
        // A segment in place of a manifest.
        disk.overwrite(&path, &disk.bytes(&folder.path.join("s000001")).unwrap());
        assert!(folder.read_manifest().is_err());
        folder.remove_manifest().unwrap();
        folder.remove_manifest().unwrap();
        assert!(folder.read_manifest().unwrap().is_none());
    }
}

#[test]
fn a_manifest_that_cannot_be_read_now_is_not_called_damaged() {
    let disk = FakeDisk::new();
    let folder = folder(&disk);
    folder.create().unwrap();
    folder.replace_manifest(&ids(false), &body(Vec::new()), 6).unwrap();
    disk.repair();
    folder.read_manifest().unwrap();
    let calls = disk.calls();
    for (number, call) in calls.iter().enumerate().filter(|(_, call)| call.name != "read_link") {
        disk.repair();
        disk.inject(number, Fault::Error(io::ErrorKind::Other));
        assert_eq!(folder.read_manifest().unwrap_err().kind(), &DiskErrorKind::Io, "{call:?}");
    }
}

#[test]
fn after_any_crash_there_is_the_old_manifest_or_the_new_one() {
    let run = |fault: Option<(usize, Fault)>| {
        let disk = FakeDisk::new();
        let folder = folder(&disk);
        folder.create().unwrap();
        folder.replace_manifest(&ids(false), &body(Vec::new()), 6).unwrap();
        folder.settle().unwrap();
        disk.repair();
        if let Some((call, fault)) = fault {
            disk.inject(call, fault);
        }
        let next = ManifestBody { sequence: 8, ..body(Vec::new()) };
        let replaced = folder.replace_manifest(&ids(false), &next, 7);
        (disk, replaced.and_then(|()| folder.settle()).is_ok())
    };
    let calls = run(None).0.calls().len();
    for call in 0..=calls {
        for fault in [Fault::Crash, Fault::TornCrash, Fault::Error(io::ErrorKind::Other), Fault::Full] {
            let (disk, is_replaced) = run(Some((call, fault)));
            for (name, survivor) in disk.survivors() {
                let (_, body) = folder(&survivor).read_manifest().unwrap().unwrap();
                assert!(body.sequence == 8 || !is_replaced && body.sequence == 7, "{name}");
            }
            if matches!(fault, Fault::Error(_) | Fault::Full) {
                disk.repair();
                assert_eq!(disk.files().len(), 1, "a temporary file stays: {call} {fault:?}");
            }
        }
    }
}

#[test]
fn the_folder_is_durable_once_a_manifest_is_also_if_a_process_that_died_has_created_it() {
    let run = |call| {
        let disk = FakeDisk::new();
        let folder = folder(&disk);
        disk.repair();
        disk.inject(call, Fault::Crash);
        let is_created = folder.create().is_ok();
        (disk, is_created)
    };
    assert!(run(100).1);
    for call in 0..=run(100).0.calls().len() {
        let (disk, _) = run(call);
        let (_, left) = disk.survivors().swap_remove(0);
        let folder_left = folder(&left);
        folder_left.create().unwrap();
        folder_left.replace_manifest(&ids(false), &body(Vec::new()), 6).unwrap();
        assert!(folder_left.is_unsettled());
        folder_left.settle().unwrap();
        assert!(!folder_left.is_unsettled());
        for (name, survivor) in left.survivors() {
            assert!(folder(&survivor).read_manifest().unwrap().is_some(), "{call} {name}");
        }
    }
}

#[test]
fn unnamed_files_are_removed_and_foreign_files_are_left_alone() {
    let disk = FakeDisk::new();
    let folder = folder(&disk);
    folder.create().unwrap();
    let kept = folder.create_segment(&ids(false), 1, 5).unwrap();
    for number in [2, 3] {
        folder.create_segment(&ids(false), number, 5).unwrap();
        folder.create_run(number + 10).unwrap();
    }
    folder.create_run(1).unwrap(); // The number of a segment.
    let foreign =
        ["lock", "notes", "s00000A", "s0000001", "i12345", ".manifest.tmp", ".other.0123456789abcdef.tmp"];
    for name in foreign {
        disk.put(&folder.path.join(name), b"foreign");
    }
    disk.put(&folder.path.join(".manifest.0123456789abcdef.tmp"), b"half");
    let mut body = body(vec![row(&kept)]);
    body.runs.push(RunRow {
        number: 13,
        level: 0,
        file_id: [0; 16],
        first_segment: 1,
        last_segment: 1,
        earliest: 0,
        latest: 0,
    });
    folder.replace_manifest(&ids(false), &ManifestBody { runs: Vec::new(), ..body.clone() }, 5).unwrap();
    folder.remove_unnamed(&body);
    let mut left: Vec<_> =
        disk.files().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let mut expected = [&foreign[..], &["manifest", "s000001", "i00000d"]].concat();
    left.sort_unstable();
    expected.sort_unstable();
    assert_eq!(left, expected);
    folder.remove_segment(1);
    folder.remove_run(13);
    assert_eq!(disk.files().len(), foreign.len() + 1);
}

#[test]
fn a_file_that_a_crash_left_does_not_stand_in_the_way() {
    let disk = FakeDisk::new();
    let folder = folder(&disk);
    folder.create().unwrap();
    let old = folder.create_segment(&ids(false), 1, 5).unwrap();
    let new = folder.create_segment(&ids(false), 1, 6).unwrap();
    assert_ne!(old.file_id, new.file_id);
    assert!(folder.open_segment(&ids(false), &row(&new)).unwrap().is_some());
    assert!(folder.open_segment(&ids(false), &row(&old)).unwrap().is_none());
    // What this call did not create, it does not remove.
    disk.put_dir(&folder.path.join("s000002"));
    disk.repair();
    disk.inject(0, Fault::Error(io::ErrorKind::PermissionDenied));
    assert!(folder.create_segment(&ids(false), 1, 7).is_err());
    assert!(folder.open_segment(&ids(false), &row(&new)).unwrap().is_some());
    // A file whose header could not be written does not stay.
    disk.repair();
    disk.inject(1, Fault::Full);
    assert!(folder.create_segment(&ids(false), 3, 7).is_err());
    assert!(!disk.files().contains(&folder.path.join("s000003")));
    assert_eq!(disk.as_vfs().metadata(&folder.path).unwrap().kind, FileKind::Directory);
}

#[test]
fn a_file_counts_only_with_all_its_ids() {
    let disk = FakeDisk::new();
    let folder = folder(&disk);
    folder.create().unwrap();
    let own = ids(false);
    let segment = folder.create_segment(&own, 1, 5).unwrap();
    let good = row(&segment);
    let (_, boot_id, bytes) = folder.open_segment(&own, &good).unwrap().unwrap();
    assert_eq!((boot_id, bytes), (folder.vfs.boot_id(), 4096));
    let wrong_rows = [SegmentRow { file_id: [9; 16], ..good }, SegmentRow { number: 2, ..good }];
    disk.put(&folder.path.join("s000002"), &disk.bytes(&folder.path.join("s000001")).unwrap());
    assert!(wrong_rows.iter().all(|row| folder.open_segment(&own, row).unwrap().is_none()));
    let compressed = RecordForm { may_compress: false, ..own.form };
    for other in [
        StoreIds { store_id: [9; 16], ..own.clone() },
        StoreIds { hash_seed: [9; 16], ..own.clone() },
        StoreIds { form: compressed, ..own.clone() },
    ] {
        assert!(folder.open_segment(&other, &good).unwrap().is_none());
    }
    // A run: the header counts, and the length.
    let counts = RunCounts { slots: 1, buckets: 1, eager: 0 };
    let header = folder.header(&own, 7, 5, KindFields::Run(counts)).unwrap();
    let file = folder.create_run(7).unwrap();
    let run = RunRow {
        number: 7,
        level: 0,
        file_id: header.file_id,
        first_segment: 1,
        last_segment: 1,
        earliest: 0,
        latest: 0,
    };
    assert!(folder.open_run(&own, &run).unwrap().is_none());
    write_all_at(&*file, &header.encode(folder.seal(&header)), 0).unwrap();
    assert!(folder.open_run(&own, &run).unwrap().is_none());
    write_all_at(&*file, &[0; 512], 4096).unwrap();
    assert_eq!(folder.open_run(&own, &run).unwrap().unwrap().counts, counts);
    assert!(folder.open_run(&own, &RunRow { file_id: [0; 16], ..run }).unwrap().is_none());
    // A segment is no run, and a run no segment.
    disk.put(&folder.path.join("i000001"), &disk.bytes(&folder.path.join("s000001")).unwrap());
    assert!(folder.open_run(&own, &RunRow { number: 1, file_id: good.file_id, ..run }).unwrap().is_none());
}

#[test]
fn a_manifest_whose_sync_failed_is_renamed_again_unless_it_was_removed() {
    for is_removed in [false, true] {
        let disk = FakeDisk::new();
        let folder = folder(&disk);
        folder.create().unwrap();
        disk.lose_failed_syncs(&folder.path);
        disk.fail_folder_syncs(disk.folder_syncs()..disk.folder_syncs() + 2);
        folder.replace_manifest(&ids(false), &body(Vec::new()), 6).unwrap();
        folder.settle().unwrap_err();
        assert!(folder.is_unsettled());
        if is_removed {
            folder.remove_manifest().unwrap();
        }
        folder.settle().unwrap();
        for (name, survivor) in disk.survivors() {
            let there = self::folder(&survivor).read_manifest().unwrap();
            assert_eq!(there.is_none(), is_removed, "{name}");
        }
    }
}
