//! Information for tools beyond the entries that a cache may serve: positions of records, intact
//! parts of a damaged file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::sample::{Entry, entries, file, open, options_of, save};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{Item, Loss, Scratch, Snapshot, Source, Vfs};

const COUNT: u32 = 200;

fn path() -> &'static Path {
    Path::new("/pages.cache")
}

fn saved(entries: &[Entry]) -> (FakeDisk, Arc<dyn Vfs>) {
    let disk = FakeDisk::new();
    disk.keep_no_log();
    let vfs = disk.as_vfs();
    save(&vfs, path(), entries, options_of(3)).unwrap();
    (disk, vfs)
}

/// All salvaged entries, and the number of bytes that were not salvaged.
fn salvaged(snapshot: &Snapshot) -> (Vec<Entry>, u64) {
    let (mut all, mut lost) = (Vec::new(), 0);
    let mut salvage = snapshot.salvage();
    while let Some(item) = salvage.next() {
        match item {
            Item::Entry(it) => {
                all.push(Entry { key: it.key.to_vec(), value: it.value.to_vec(), deadline: it.deadline });
            }
            Item::Lost(Loss::Bytes { bytes, .. }) => lost += bytes,
            Item::Lost(lost) => panic!("{lost:?}"),
        }
    }
    (all, lost)
}

#[test]
fn places_tell_sizes_without_reading_records() {
    let entries = entries(COUNT, 1);
    let (_disk, vfs) = saved(&entries);
    let snapshot = open(&vfs, path());
    let places = snapshot.places();
    assert_eq!(places.len(), entries.len());
    assert_eq!(places.iter().map(|place| place.bytes).sum::<u64>(), snapshot.layout().record_bytes);
    let mut scratch = Scratch::new();
    for (place, (entry, rank)) in places.iter().zip(entries.iter().zip(0..)) {
        let record = snapshot.read_place(place, &mut scratch).unwrap();
        assert_eq!((place.rank, record.rank), (rank, Some(rank)));
        assert_eq!(
            (record.key, record.value, record.deadline),
            (&entry.key[..], &entry.value[..], entry.deadline)
        );
    }
}

#[test]
fn a_sound_file_is_salvaged_whole_and_one_byte_costs_at_most_its_record() {
    let entries = entries(COUNT, 1);
    let (disk, vfs) = saved(&entries);
    assert_eq!(salvaged(&open(&vfs, path())), (entries.clone(), 0));
    let whole = disk.bytes(path()).unwrap();
    for offset in (4096..whole.len()).step_by(13) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 4;
        disk.put(path(), &bytes);
        let snapshot = open(&vfs, path());
        let (found, lost) = salvaged(&snapshot);
        assert!(
            found.len() + 1 >= entries.len(),
            "byte {offset} cost {} entries",
            entries.len() - found.len()
        );
        assert_eq!(lost > 0, found.len() < entries.len());
        assert!(found.iter().all(|entry| entries.contains(entry)), "byte {offset} made a wrong entry");
    }
}

/// A record whose bucket is damaged may have been taken back, which cannot be determined then.
#[test]
fn nothing_that_was_taken_back_is_salvaged() {
    let disk = FakeDisk::new();
    disk.keep_no_log();
    let vfs = disk.as_vfs();
    let mut writer = file(&vfs, path()).write(options_of(4)).unwrap();
    let sample = entries(COUNT, 1);
    let mut live = BTreeMap::new();
    for (entry, number) in sample.iter().zip(0u32..) {
        let pushed = writer.push(&entry.key, &entry.value, entry.deadline).unwrap();
        if number.is_multiple_of(5) {
            writer.forget(pushed);
        } else {
            live.insert(entry.key.clone(), entry.value.clone());
        }
    }
    writer.finish().unwrap();
    let whole = disk.bytes(path()).unwrap();
    assert_eq!(salvaged(&open(&vfs, path())).0.len(), live.len());
    for offset in (4096..whole.len()).step_by(29) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 4;
        disk.put(path(), &bytes);
        for entry in salvaged(&open(&vfs, path())).0 {
            assert_eq!(live.get(&entry.key), Some(&entry.value), "byte {offset}");
        }
    }
}
