//! Saved entries come back: against a map, with random entries, on both disks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::sample::{
    self, Entry, assert_holds, assert_holds_with_eager, eager_entries, entries, file, open, options, random,
    read_all, save, save_with_eager,
};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{
    Deadlines, DiskErrorKind, EagerRecords, Item, RealDisk, Records, Scratch, Snapshot, Source, Vfs, Writer,
};

const PATH: &str = "/cache/pages.cache";

#[test]
fn what_was_saved_comes_back_in_the_same_order() {
    let vfs = FakeDisk::new().as_vfs();
    for count in [0, 1, 2, 29, 30, 31, 42, 1000, 20_000] {
        let entries = entries(count, 1);
        let saved = save(&vfs, Path::new(PATH), &entries, options()).unwrap();
        assert_eq!((saved.entries, saved.set_aside), (count, None));
        assert_holds(&vfs, Path::new(PATH), &entries);
        let snapshot = open(&vfs, Path::new(PATH));
        assert_eq!((snapshot.saved_at(), snapshot.file_bytes()), (sample::SAVED_AT, saved.bytes));
    }
}

#[test]
fn a_snapshot_behaves_as_a_map_with_random_entries() {
    let mut random = random();
    for round in 0..30 {
        let mut model = BTreeMap::new();
        for _ in 0..random.usize(0..400) {
            let key: Vec<u8> = (0..random.usize(0..6)).map(|_| random.u8(..)).collect();
            let long = if random.u8(..) == 0 { 3_000_000 } else { 600 };
            let value = vec![random.u8(..); random.usize(0..long)];
            let deadline = random.bool().then(|| random.u64(..));
            model.insert(key.clone(), Entry { key, value, deadline });
        }
        let mut entries: Vec<Entry> = model.values().cloned().collect();
        random.shuffle(&mut entries);
        let eager = entries.split_off(entries.len() - entries.len() / random.usize(1..9));
        let options = if round % 2 == 0 { options() } else { options().buckets(random.u32(1..40)) };
        let vfs = FakeDisk::new().as_vfs();
        let saved = save_with_eager(&vfs, Path::new(PATH), &entries, &eager, options).unwrap();
        assert_eq!((saved.entries as usize, saved.eager as usize), (entries.len(), eager.len()));
        assert_holds_with_eager(&vfs, Path::new(PATH), &entries, &eager);
    }
}

#[test]
fn eager_entries_are_read_as_a_whole_and_found_by_no_look_up() {
    let vfs = FakeDisk::new().as_vfs();
    for (count, eager_count) in [(0, 1), (50, 1), (0, 3000), (50, 3000)] {
        let (entries, eager) = (entries(count, 1), eager_entries(eager_count, 1));
        let saved = save_with_eager(&vfs, Path::new(PATH), &entries, &eager, options()).unwrap();
        assert_eq!((saved.entries, saved.eager), (count, eager_count));
        assert_holds_with_eager(&vfs, Path::new(PATH), &entries, &eager);
        let snapshot = open(&vfs, Path::new(PATH));
        assert_eq!((snapshot.len(), snapshot.file_bytes()), (count, saved.bytes));
        assert_eq!(snapshot.locate(&eager[0].key, &mut Scratch::new()), None);
    }
}

#[test]
fn eager_records_are_copied_as_they_are() {
    let vfs = FakeDisk::new().as_vfs();
    let (old, new) = (Path::new(PATH), Path::new("/cache/new.cache"));
    let mut eager = eager_entries(500, 1);
    eager[77].value = vec![7; 2_500_000];
    save_with_eager(&vfs, old, &entries(9, 1), &eager, options()).unwrap();

    let mut records = open(&vfs, old).eager();
    let mut writer = file(&vfs, new).write(options()).unwrap();
    let before = writer.bytes();
    while let Some(item) = records.next() {
        let Item::Entry(record) = item else { panic!("nothing is lost") };
        if record.deadline.is_some() {
            writer.copy_eager(&record).unwrap();
        }
    }
    assert!(before == 0 && writer.bytes() > 0);
    writer.finish().unwrap();
    eager.retain(|entry| entry.deadline.is_some());
    assert_holds_with_eager(&vfs, new, &[], &eager);
}

#[test]
fn the_real_disk_keeps_what_the_fake_one_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not/yet/there/pages.cache");
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    assert!(file(&vfs, &path).open().unwrap().is_none());
    for generation in 1..4 {
        let entries = entries(5000, generation);
        save(&vfs, &path, &entries, options()).unwrap();
        assert_holds(&vfs, &path, &entries);
    }
    assert_eq!(vfs.list(path.parent().unwrap()).unwrap(), ["pages.cache"]);
    #[cfg(unix)]
    #[allow(clippy::disallowed_methods)] // the mode is not in the vfs
    {
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(file(&vfs, &path).clear(None).unwrap());
    assert!(!file(&vfs, &path).clear(None).unwrap());
    assert!(vfs.list(path.parent().unwrap()).unwrap().is_empty());
}

#[test]
fn a_full_index_overflows_into_the_next_buckets_and_wraps() {
    let vfs = FakeDisk::new().as_vfs();
    for buckets in [1, 2, 3, 8, 9, 10] {
        let entries = entries(buckets * 42 - 20, 1);
        save(&vfs, Path::new(PATH), &entries, options().buckets(buckets)).unwrap();
        assert_holds(&vfs, Path::new(PATH), &entries);
    }
}

#[test]
fn forgotten_records_are_gone_and_ranks_stay_dense() {
    let vfs = FakeDisk::new().as_vfs();
    let entries = entries(500, 1);
    let mut writer = file(&vfs, Path::new(PATH)).write(options()).unwrap();
    let mut kept = Vec::new();
    for (entry, i) in entries.iter().zip(0..) {
        let pushed = writer.push(&entry.key, &entry.value, entry.deadline).unwrap();
        if i % 7 == 3 || i >= 490 {
            writer.forget(pushed);
            writer.forget(pushed);
        } else {
            kept.push(entry.clone());
        }
    }
    // One of the entries comes back with another value.
    let again = Entry { value: b"new".to_vec(), ..entries[3].clone() };
    writer.push(&again.key, &again.value, again.deadline).unwrap();
    kept.push(again);
    assert_eq!(writer.finish().unwrap().entries as usize, kept.len());
    assert_holds(&vfs, Path::new(PATH), &kept);
}

#[test]
fn cold_records_are_copied_and_unwanted_ones_are_passed() {
    let vfs = FakeDisk::new().as_vfs();
    let (old, new) = (Path::new(PATH), Path::new("/cache/new.cache"));
    let mut entries = entries(2000, 1);
    entries[77].value = vec![7; 2_500_000];
    entries[78].value = vec![8; 1_500_000];
    save(&vfs, old, &entries, options()).unwrap();

    let snapshot = open(&vfs, old);
    let mut records = snapshot.records();
    let mut writer = file(&vfs, new).write(options()).unwrap();
    let mut asked = Vec::new();
    while let Some(item) = records.next_wanted(|rank| {
        asked.push(rank);
        rank % 3 != 0
    }) {
        let Item::Entry(record) = item else { panic!("nothing is lost") };
        writer.copy(&record).unwrap();
    }
    writer.finish().unwrap();
    assert!(asked.into_iter().eq(0..2000));
    let kept: Vec<Entry> =
        entries.into_iter().zip(0..).filter(|(_, i)| i % 3 != 0).map(|(entry, _)| entry).collect();
    assert_holds(&vfs, new, &kept);
}

#[test]
fn deadlines_come_by_time_and_no_further_than_asked() {
    let vfs = FakeDisk::new().as_vfs();
    save(&vfs, Path::new(PATH), &entries(500, 1), options()).unwrap();
    let snapshot = open(&vfs, Path::new(PATH));
    let all = sample::deadlines(&snapshot);
    let mut deadlines = snapshot.deadlines();
    assert_eq!(deadlines.next_due(all[0].0 - 1), None);
    for (deadline, rank) in &all {
        let due = deadlines.next_due(*deadline).unwrap();
        assert_eq!((due.deadline, due.rank), (*deadline, *rank));
    }
    assert!(deadlines.is_finished());
}

#[test]
fn a_key_that_is_pushed_hundreds_of_times_is_an_error_not_an_endless_loop() {
    let disk = FakeDisk::new();
    let same = vec![entries(1, 1).remove(0); 400];
    let error = save(&disk.as_vfs(), Path::new(PATH), &same, options()).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Limit);
    assert!(disk.files().is_empty());
}

#[test]
fn a_find_of_a_small_entry_is_two_reads() {
    let disk = FakeDisk::new();
    let entries = entries(3000, 1);
    save(&disk.as_vfs(), Path::new(PATH), &entries, options().buckets(1000)).unwrap();
    disk.repair();
    let snapshot = open(&disk.as_vfs(), Path::new(PATH));
    let opening: Vec<&str> = disk.calls().iter().map(|call| call.name).collect();
    assert_eq!(opening, ["read_link", "metadata", "open", "metadata", "read_at"]);
    let mut scratch = Scratch::new();
    for entry in &entries {
        disk.repair();
        assert!(snapshot.find(&entry.key, &mut scratch).is_some());
        // Sometimes another key in the bucket has the same tag.
        assert!(disk.calls().len() <= 3 && disk.calls().iter().all(|call| call.name == "read_at"));
    }
}

#[test]
fn readers_and_writers_may_move_between_threads() {
    fn shared<T: Send + Sync>() {}
    fn moved<T: Send>() {}
    shared::<Snapshot>();
    moved::<(Writer, Records, EagerRecords, Deadlines, Scratch)>();
}

#[test]
fn an_open_snapshot_goes_on_after_the_file_was_replaced_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages.cache");
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let (old, new) = (entries(300, 1), entries(300, 2));
    save(&vfs, &path, &old, options()).unwrap();
    let snapshot = open(&vfs, &path);
    save(&vfs, &path, &new, options()).unwrap();
    assert_holds(&vfs, &path, &new);
    file(&vfs, &path).clear(None).unwrap();
    assert!(read_all(&snapshot).into_iter().map(Option::unwrap).eq(old));
}
