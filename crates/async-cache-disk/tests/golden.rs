//! Files of every format version stay readable for ever.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sample::{
    Entry, SAVED_AT, assert_holds, assert_holds_as, assert_holds_with_eager, file, open, options_of, save_to,
    secret, with_secret,
};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{Item, KeyKind, RealDisk, Scratch, Source, Times, Tombstones, Vfs};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A disk with a golden file: the modes of a checkout depend on its maker, and would decide whether
/// the file is trusted.
fn disk_with(name: &str) -> (Arc<dyn Vfs>, PathBuf) {
    let (disk, path) = (FakeDisk::new(), Path::new("/golden").join(name));
    disk.put(&path, &bytes_of(&golden(name)));
    (disk.as_vfs(), path)
}

/// The entries in the file of version 1. Never change them.
fn version_1() -> Vec<Entry> {
    let entry =
        |key: &[u8], value: &[u8], deadline| Entry { key: key.to_vec(), value: value.to_vec(), deadline };
    let mut entries = vec![
        entry(b"", b"the empty key", None),
        entry(b"empty value", b"", Some(SAVED_AT)),
        entry(b"long value", &[b'l'; 1000], Some(u64::MAX)),
        entry(&[b'k'; 200], b"long key", Some(0)),
        entry("ключ".as_bytes(), &[0, 255, 128, 10, 13], None),
    ];
    entries.extend((0..77u32).map(|i| {
        let deadline = i.is_multiple_of(2).then(|| SAVED_AT + u64::from(i * 7919 % 79) * 1_000_000_000);
        entry(format!("product:{i}").as_bytes(), format!("{{\"id\": {i}}}").as_bytes(), deadline)
    }));
    entries
}

/// Heads of 7 bytes, 8 for each deadline, 2 for two lengths that need a second byte, keys, values.
const EAGER_BYTES: u64 = 5 * 7 + 3 * 8 + 2 + (8 + 8 + 300 + 8) + (3 + 9 + 300 + 31);

/// The eager entries in the file of version 1 that has some, beside those of [`version_1`]. Never
/// change them.
fn version_1_eager() -> Vec<Entry> {
    let entry =
        |key: &[u8], value: &[u8], deadline| Entry { key: key.to_vec(), value: value.to_vec(), deadline };
    vec![
        entry(b"pickle 1", b"one", None),
        entry(b"", b"", Some(SAVED_AT + 1)),
        entry(b"pickle 1", b"one again", Some(u64::MAX)),
        entry(&[b'k'; 300], &[b'v'; 300], None),
        entry("ключ".as_bytes(), b"the bytes of a key in the index", Some(0)),
    ]
}

#[test]
fn the_file_of_format_version_1_is_readable() {
    let (vfs, path) = disk_with("v1.acf");
    assert_holds(&vfs, &path, &version_1());
    let snapshot = open(&vfs, &path);
    assert_eq!((snapshot.saved_at(), snapshot.version(), snapshot.producer()), (SAVED_AT, "v1", "golden"));
    assert_eq!(snapshot.file_id(), [1; 16]);
}

/// How the golden file was made: the same calls still write the same bytes, here into a separate
/// folder. If the writer must write different bytes for a good reason, delete this test and keep
/// the golden file.
#[test]
fn the_file_of_format_version_1_was_written_like_this() {
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v1.acf");
    let options = options_of(1).buckets(2); // 84 places for 82 entries: one of them overflows
    let mut writer = file(&vfs, &path).producer("golden").write(options).unwrap();
    let forgotten = writer.push(b"forgotten", b"nobody finds this", Some(SAVED_AT)).unwrap();
    for entry in version_1() {
        writer.push(&entry.key, &entry.value, entry.deadline).unwrap();
    }
    writer.forget(forgotten);
    writer.finish().unwrap();
    assert!(bytes_of(&path) == bytes_of(&golden("v1.acf")), "the writer writes other bytes than it did");
}

#[test]
fn the_file_of_format_version_1_with_eager_records_is_readable() {
    let (vfs, path) = disk_with("v1-eager.acf");
    assert_holds_with_eager(&vfs, &path, &version_1(), &version_1_eager());
    let snapshot = open(&vfs, &path);
    assert_eq!((snapshot.saved_at(), snapshot.version(), snapshot.producer()), (SAVED_AT, "v1", "golden"));
    assert_eq!((snapshot.file_id(), snapshot.eager_bytes()), ([2; 16], EAGER_BYTES));
}

/// Like the test above.
#[test]
fn the_file_of_format_version_1_with_eager_records_was_written_like_this() {
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v1-eager.acf");
    let file = file(&vfs, &path).producer("golden");
    save_to(&file, &version_1(), &version_1_eager(), options_of(2)).unwrap();
    assert!(
        bytes_of(&path) == bytes_of(&golden("v1-eager.acf")),
        "the writer writes other bytes than it did"
    );
}

/// The entries in the compressed files of version 1. Never change them.
fn version_1_compressed() -> Vec<Entry> {
    let record = |i: u32| Entry {
        key: format!("page:{i}").into_bytes(),
        value: format!("<a href=\"/pages/{i}\">page number {i} of the golden file</a>{}", i * 7919)
            .into_bytes(),
        deadline: i.is_multiple_of(2).then(|| SAVED_AT + u64::from(i)),
    };
    let mut entries: Vec<Entry> = (0..400).map(record).collect();
    let long = b"a value that repeats itself until it compresses alone; ".repeat(40);
    entries.push(Entry { key: b"long".to_vec(), value: long, deadline: None });
    entries.push(Entry { key: b"short".to_vec(), value: b"plain".to_vec(), deadline: Some(u64::MAX) });
    entries
}

#[test]
fn the_file_of_format_version_1_with_a_secret_is_readable() {
    let (vfs, path) = disk_with("v1-mac.acf");
    assert_holds_as(&with_secret(&vfs, &path), &version_1(), &version_1_eager());
    let snapshot = with_secret(&vfs, &path).open().unwrap().unwrap();
    assert!(snapshot.has_mac() && snapshot.file_id() == [3; 16]);
}

/// Like the test above. The secret is `correct horse battery staple`.
#[test]
fn the_file_of_format_version_1_with_a_secret_was_written_like_this() {
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v1-mac.acf");
    let file = with_secret(&vfs, &path).producer("golden");
    save_to(&file, &version_1(), &version_1_eager(), options_of(3)).unwrap();
    assert!(bytes_of(&path) == bytes_of(&golden("v1-mac.acf")), "the writer writes other bytes than it did");
}

/// The written bytes are not asserted: another version of zstd may compress to other bytes. The
/// calls were `options_of(4)` (with a secret `options_of(5)`), `producer("golden")`,
/// `Compression::ZSTD`, then `save_to`.
#[test]
fn the_compressed_files_of_format_version_1_with_and_without_a_secret_are_readable() {
    for (name, secret, id) in [("v1-zstd.acf", None, 4), ("v1-zstd-mac.acf", Some(secret()), 5)] {
        let (vfs, path) = disk_with(name);
        let file = file(&vfs, &path).secret(secret);
        assert_holds_as(&file, &version_1_compressed(), &version_1_eager());
        let snapshot = file.open().unwrap().unwrap();
        assert!(
            snapshot.is_compressed() && snapshot.dictionary_bytes() > 0 && snapshot.file_id() == [id; 16]
        );
    }
}

/// Keys, values and times in the files of version 1 that contain times of writing. Never change
/// them.
fn version_1_merged() -> Vec<(Vec<u8>, Vec<u8>, Times)> {
    let times = |deadline, written_at| Times { deadline, written_at };
    let mut entries = vec![
        (b"of a program that does not merge".to_vec(), Vec::new(), times(None, None)),
        (b"written and due".to_vec(), b"v".to_vec(), times(Some(SAVED_AT + 5), Some(SAVED_AT - 5))),
        (b"since the clearing".to_vec(), vec![b'v'; 300], times(None, Some(SAVED_AT - 1))),
    ];
    entries.extend((0..50).map(|i| {
        let (key, value) = (format!("key {i}").into_bytes(), format!("value {i}").into_bytes());
        (key, value, times(None, Some(SAVED_AT - 900 + i)))
    }));
    entries
}

/// The deletes in these files. Never change them.
fn version_1_deleted() -> Tombstones {
    let mut tombstones = Tombstones::default();
    tombstones.record_clear(SAVED_AT - 1000);
    tombstones.record_unknown_delete(SAVED_AT - 2000);
    tombstones.record_delete(KeyKind::Canonical, b"gone", SAVED_AT - 10);
    tombstones.record_delete(KeyKind::Canonical, b"", SAVED_AT - 11);
    tombstones.record_delete(KeyKind::Eager, b"pickled and gone", SAVED_AT);
    tombstones
}

/// Name, file id, and the secret.
const MERGED: [(&str, u8, bool); 2] = [("v1-merged.acf", 6, false), ("v1-merged-mac.acf", 7, true)];

#[test]
fn the_files_of_format_version_1_with_times_of_writing_and_tombstones_are_readable() {
    for (name, id, has_secret) in MERGED {
        let (vfs, path) = disk_with(name);
        let file = file(&vfs, &path).secret(has_secret.then(secret));
        let snapshot = file.open().unwrap().unwrap();
        let mut scratch = Scratch::new();
        for (rank, (key, value, times)) in (0..).zip(version_1_merged()) {
            let found = snapshot.find(&key, &mut scratch).unwrap();
            let found_times = Times { deadline: found.deadline, written_at: found.written_at };
            assert_eq!((found.rank, found.value, found_times), (rank, &value[..], times));
        }
        let mut eager = snapshot.eager();
        let Some(Item::Entry(record)) = eager.next() else { panic!("an eager record") };
        assert_eq!((record.key, record.value), (&b"pickle"[..], &b"p"[..]));
        assert_eq!((record.deadline, record.written_at), (Some(SAVED_AT + 7), Some(SAVED_AT - 3)));
        assert_eq!(snapshot.tombstones(), version_1_deleted());
        assert_eq!((snapshot.written_until(), snapshot.file_id()), (SAVED_AT, [id; 16]));
        assert_eq!(snapshot.has_mac(), has_secret);
        let report = file.verify().unwrap();
        assert!(report.is_clean() && report.sound_entries == 53, "{report:?}");
    }
}

/// Like the tests above.
#[test]
fn the_files_of_format_version_1_with_times_of_writing_and_tombstones_were_written_like_this() {
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    for (name, id, has_secret) in MERGED {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let file = file(&vfs, &path).producer("golden").secret(has_secret.then(secret));
        let mut writer = file.write(options_of(id)).unwrap();
        for (key, value, times) in version_1_merged() {
            writer.push(&key, &value, times).unwrap();
        }
        let times = Times { deadline: Some(SAVED_AT + 7), written_at: Some(SAVED_AT - 3) };
        writer.push_eager(b"pickle", b"p", times).unwrap();
        writer.set_tombstones(version_1_deleted());
        writer.finish().unwrap();
        assert!(bytes_of(&path) == bytes_of(&golden(name)), "the writer writes other bytes than it did");
    }
}

fn bytes_of(path: &Path) -> Vec<u8> {
    let file = RealDisk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    let read = file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(read, bytes.len());
    bytes
}

/// Written by the Python package: keys and values of almost every kind in `docs/values.md`. The
/// Python tests check their meaning; here they are bytes.
#[test]
fn the_file_that_python_wrote_is_readable() {
    let (vfs, path) = disk_with("v1-python.acf");
    let snapshot = open(&vfs, &path);
    let mut scratch = Scratch::new();
    let found = snapshot.find(b"\xa4text", &mut scratch).unwrap();
    assert_eq!((found.value, found.rank), (&b"\xa7gr\xc3\xbc\xc3\x9fe"[..], 0));
    let report = file(&vfs, &path).any_version().verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.sound_entries, report.sound_eager), (20, 1));
}

/// Written by `bindings/python/tests/golden_values.py`, which lists the contents; some of them
/// here, as the bytes given by `docs/values.md`.
#[test]
fn the_files_that_python_wrote_with_a_secret_and_compressed_are_readable() {
    for (name, secret, is_compressed) in
        [("v1-python-mac.acf", Some(secret()), false), ("v1-python-zstd.acf", None, true)]
    {
        let (vfs, path) = disk_with(name);
        let file = file(&vfs, &path).secret(secret);
        let snapshot = file.open().unwrap().unwrap();
        assert_eq!((snapshot.has_mac(), snapshot.is_compressed()), (!is_compressed, is_compressed));
        assert_eq!(snapshot.dictionary_bytes() > 0, is_compressed);
        let mut scratch = Scratch::new();
        let values: [(&[u8], &[u8]); 6] = [
            (b"\xa4text", b"\xa7gr\xc3\xbc\xc3\x9fe"),
            (b"\x2a", b"\xcb\x3f\xe0\0\0\0\0\0\0"),
            (b"\xa8timezone", b"\xc7\x0c\x0a\x06\0\0\0\0\xd6\x93\xa4\0CET"),
            (b"\xa3big", b"\xc7\x09\x04\x40\0\0\0\0\0\0\0\0"),
            (b"\xd6\x07\x07\xe8\x02\x1d", b"\xacunder a date"),
            (b"\xc7\x03\x10\x92\x01\x03", b"\xb0under a fraction"),
        ];
        for (key, value) in values {
            let found = snapshot.find(key, &mut scratch).unwrap();
            assert_eq!(found.value, value);
            assert!(found.written_at.is_some_and(|time| time <= snapshot.written_until()));
        }
        let pickled = snapshot.find(b"\xb0pickled fraction", &mut scratch).unwrap().value;
        assert!(pickled.starts_with(b"\xc7") && pickled[2] == 15, "{pickled:x?}");
        let product = snapshot.find(b"\xabproduct:119", &mut scratch).unwrap().value;
        assert!(product.starts_with(b"\x84\xa2id\x77\xa4name\xb2product number 119"), "{product:x?}");
        assert!(snapshot.tombstones().deleted_at(KeyKind::Canonical, b"\xa7deleted") > 0);
        let report = file.verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.sound_entries, report.sound_eager), (154, 3));
    }
}
