//! Entries carried over by a save are read from the new file, under their old ranks, and the old
//! file is closed.
//!
//! A cache kept the opened file open as long as one of its entries was cold. The second save then
//! found three files on the disk: the opened file, without a name any more, the file of the first
//! save, and its own.

use std::collections::BTreeMap;
use std::path::Path;

use crate::sample::{self, Entry, eager_entries, entries, file, options, save_to, save_with_eager, secret};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{CacheFile, Compression, Item, Scratch, Snapshot, Source};

const COUNT: u32 = 500;

fn path() -> &'static Path {
    Path::new("/cache/pages.cache")
}

/// The content of the snapshot, by rank, read in every way.
fn contents(snapshot: &Snapshot, all: &[Entry]) -> BTreeMap<u32, Entry> {
    let mut read = BTreeMap::new();
    let mut records = snapshot.records();
    while let Some(item) = records.next() {
        let Item::Entry(it) = item else { panic!("{item:?}") };
        let entry = Entry { key: it.key.to_vec(), value: it.value.to_vec(), deadline: it.deadline };
        assert!(read.insert(it.rank.unwrap(), entry).is_none());
    }
    let mut scratch = Scratch::new();
    for entry in all {
        let found = snapshot.find(&entry.key, &mut scratch).map(|found| (found.rank, found.value.to_vec()));
        let rank = snapshot.locate(&entry.key, &mut scratch);
        assert_eq!(rank, found.as_ref().map(|(rank, _)| *rank));
        match found {
            Some((rank, value)) => assert_eq!(read[&rank], Entry { value, ..entry.clone() }),
            None => assert!(read.values().all(|read| read.key != entry.key)),
        }
    }
    let mut due = BTreeMap::new();
    let mut deadlines = snapshot.deadlines();
    while let Some(next) = deadlines.next_due(u64::MAX) {
        assert!(due.insert(next.rank, next.deadline).is_none());
    }
    assert!(deadlines.is_finished());
    let of_entries = read.iter().filter_map(|(rank, entry)| Some((*rank, entry.deadline?)));
    assert_eq!(due, of_entries.collect());
    read
}

/// Carries over the wanted entries of a snapshot, among entries of other processes and some that
/// are taken back.
fn next(file: &CacheFile, from: &Snapshot, wanted: impl Fn(u32) -> bool) -> Snapshot {
    let mut random = fastrand::Rng::with_seed(5);
    let mut writer = file.write(options().dictionary_of(from)).unwrap();
    writer.carry_from(Some(from));
    let mut taken_back = Vec::new();
    let mut other = 0;
    let mut records = from.records();
    while let Some(item) = records.next_wanted(&wanted) {
        let Item::Entry(record) = item else { panic!("{item:?}") };
        if random.u8(0..4) == 0 {
            other += 1;
            let key = format!("another {other}");
            let pushed = writer.push(key.as_bytes(), b"value", Some(sample::SAVED_AT + 1)).unwrap();
            if random.bool() {
                taken_back.push(pushed);
            }
        }
        writer.carry(&record).unwrap();
    }
    let mut eager = from.eager();
    while let Some(Item::Entry(record)) = eager.next() {
        writer.copy_eager(&record).unwrap();
    }
    for pushed in taken_back {
        writer.forget(pushed);
    }
    let (saved, successor) = writer.finish_and_open().unwrap();
    let successor = successor.expect("no bucket has died");
    assert_eq!(successor.file_id(), saved.file_id);
    successor
}

#[test]
fn entries_keep_their_ranks_however_often_they_move() {
    for compression in [Compression::OFF, Compression::ZSTD] {
        for secret in [None, Some(secret())] {
            let disk = FakeDisk::new();
            let (all, eager) = (entries(COUNT, 1), eager_entries(9, 1));
            let file = file(&disk.as_vfs(), path()).secret(secret).compression(compression);
            save_to(&file, &all, &eager, options()).unwrap();
            let mut snapshot = file.open().unwrap().unwrap();
            let mut expected = contents(&snapshot, &all);
            assert_eq!(expected.len(), COUNT as usize);
            for generation in 2..=6 {
                let is_wanted = |rank: u32| !rank.is_multiple_of(generation + 3);
                snapshot = next(&file, &snapshot, is_wanted);
                expected.retain(|rank, _| is_wanted(*rank));
                assert_eq!(contents(&snapshot, &all), expected);
                assert_eq!(snapshot.len(), COUNT, "ranks go as far as ever");
                assert_eq!(sample::read_eager(&snapshot).0, eager);
                assert_eq!(snapshot.find(b"another 1", &mut Scratch::new()), None, "it is another's");
                let standing = file.open().unwrap().unwrap();
                assert_eq!(
                    (standing.file_id(), standing.file_bytes()),
                    (snapshot.file_id(), snapshot.file_bytes())
                );
                assert_eq!(disk.files(), [path()]);
                assert_eq!(disk.bytes_in_use(), standing.file_bytes(), "the files before are closed");
            }
        }
    }
}

#[test]
fn a_save_that_fails_has_no_successor() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    save_with_eager(&vfs, path(), &entries(9, 1), &[], options()).unwrap();
    let snapshot = sample::open(&vfs, path());
    for call in ["sync", "rename", "sync_dir"] {
        let mut writer = file(&vfs, path()).write(options()).unwrap();
        writer.carry_from(Some(&snapshot));
        disk.fail_every(call, std::io::ErrorKind::Other);
        writer.finish_and_open().unwrap_err();
        disk.repair();
    }
}

/// A bucket that could not be read is dead for the life of a snapshot, so that a key which a
/// `delete` could not see does not come back. The new file has its own, readable bucket: the
/// deleted entry was served again after the save.
#[test]
fn what_could_not_be_seen_before_the_move_is_not_seen_behind_it() {
    let disk = FakeDisk::new();
    let (vfs, all) = (disk.as_vfs(), entries(COUNT, 1));
    save_with_eager(&vfs, path(), &all, &[], options()).unwrap();
    let first = sample::open(&vfs, path());
    let look_in_vain = |snapshot: &Snapshot, key: &[u8]| {
        disk.fail_every("read_at", std::io::ErrorKind::Other);
        assert_eq!(snapshot.locate(key, &mut Scratch::new()), None, "this would be the look of a delete");
        disk.repair();
    };
    let save = |snapshot: &Snapshot, meanwhile: &dyn Fn()| {
        let mut writer = file(&vfs, path()).write(options()).unwrap();
        writer.carry_from(Some(snapshot));
        let (mut records, mut carried) = (snapshot.records(), 0);
        while let Some(item) = records.next() {
            let Item::Entry(record) = item else { continue };
            writer.carry(&record).unwrap();
            carried += 1;
        }
        meanwhile();
        let (_, successor) = writer.finish_and_open().unwrap();
        (successor, carried)
    };
    let mut scratch = Scratch::new();

    // While the save runs, the old file is still read, and the next save leaves out hidden entries.
    let (successor, carried) = save(&first, &|| look_in_vain(&first, &all[7].key));
    assert!(successor.is_none() && carried == COUNT);
    let (successor, carried) = save(&first, &|| ());
    let second = successor.expect("no further bucket has died");
    // A bucket is about half of the file.
    assert!(carried < COUNT && carried > COUNT / 3);
    assert_eq!(second.find(&all[7].key, &mut scratch), None);
    let seen = all.iter().filter(|entry| second.locate(&entry.key, &mut scratch).is_some());
    assert_eq!(seen.count(), carried as usize, "nothing else is hidden");

    // By a look-up that began before the move, and ends after it.
    let (successor, _) = save(&second, &|| ());
    let third = successor.unwrap();
    let late = all.iter().find(|entry| third.locate(&entry.key, &mut scratch).is_some()).unwrap();
    look_in_vain(&second, &late.key);
    assert_eq!(third.find(&late.key, &mut scratch), None);
    assert_eq!(third.locate(&late.key, &mut scratch), None);
    let mut records = third.records();
    while let Some(item) = records.next() {
        assert!(!matches!(item, Item::Entry(record) if record.key == late.key));
    }
}
