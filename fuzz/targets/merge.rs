//! A save that merges two arbitrary files: *theirs*, the file at the path, and *ours*, the file
//! that this process opened before, of which all entries are cold. The process has also written and
//! deleted keys since.
//!
//! The bytes are the number of writes and deletes, three bytes for each, the length of theirs in
//! two bytes, theirs, and ours. If both files are sound, the result follows the rules; otherwise,
//! it holds only data that is in one of the files.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{CacheFile, ColdEntries, Item, KeyKind, Known, Ours, Pushed, Scratch, Snapshot, Source, Times, Tombstones, WriteOptions, fuzzing};

/// The time of the save; a small number, so that times before and after the save are found easily.
const NOW: u64 = 1 << 20;
const VALUE: &[u8] = b"from memory";

type Entries = BTreeMap<Vec<u8>, (Vec<u8>, Times)>;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = run(bytes);
});

fn run(bytes: &[u8]) -> Option<()> {
    let (count, rest) = bytes.split_first()?;
    let (script, rest) = rest.split_at_checked(usize::from(count % 8) * 3)?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (theirs, ours) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;

    let (disk, path, our_path) = (FakeDisk::new(), Path::new("/shared.cache"), Path::new("/ours.cache"));
    disk.keep_no_log();
    let [file, our_file] = [path, our_path].map(|path| CacheFile::new(disk.as_vfs(), path));
    for (path, bytes) in [(path, theirs), (our_path, ours)] {
        let mut bytes = bytes.to_vec();
        fuzzing::reseal(&mut bytes, None);
        disk.put(path, &bytes);
    }
    let mut sides_are_sound = true;
    let mut open = |file: &CacheFile| {
        sides_are_sound &= file.verify().is_ok_and(|report| report.is_clean());
        file.open().ok()?
    };
    let (theirs, opened) = (open(&file)?, open(&our_file)?);
    let their_entries = entries(&theirs);
    let mut our_entries = entries(&opened);
    let their_tombstones = theirs.tombstones();

    let (mut memory, mut tombstones) = (Entries::new(), opened.tombstones());
    let mut cold: BTreeSet<u32> = (0..opened.len()).collect();
    let mut scratch = Scratch::new();
    let keys: Vec<Vec<u8>> = their_entries.keys().chain(our_entries.keys()).cloned().collect();
    for step in script.chunks_exact(3) {
        let key = keys.get(usize::from(step[0])).cloned().unwrap_or_else(|| vec![step[0]]);
        let time = NOW - 255 + u64::from(step[1]);
        if let Some(found) = opened.find(&key, &mut scratch) {
            cold.remove(&found.rank);
        }
        memory.remove(&key);
        our_entries.remove(&key);
        if step[2] & 1 == 0 {
            let times = Times { deadline: None, written_at: Some(time) };
            memory.insert(key.clone(), (VALUE.to_vec(), times));
            our_entries.insert(key, (VALUE.to_vec(), times));
        } else {
            tombstones.record_delete(KeyKind::Canonical, &key, time);
        }
    }

    let save = file.begin(Some(Duration::ZERO)).expect("it was just read");
    let known = Known { tombstones: tombstones.clone(), ..Known::default() };
    let mut joining = save.write(WriteOptions::new(NOW), known, None).expect("the disk is sound");
    for (key, (_, times)) in &memory {
        joining.note(key, times.written_at.unwrap_or(0));
    }
    let is_cold = |rank| cold.contains(&rank);
    let cold = Some(ColdEntries { snapshot: &opened, contains: &is_cold });
    let ours = Ours { maxsize: None, eager: None, cold, allows: &|_| true };
    let mut output = joining.join(&ours).expect("it was in a file before");
    let mut records = opened.records();
    while let Some(item) = records.next_wanted(is_cold) {
        if let Item::Entry(record) = item {
            let _ = output.carry(&record).expect("it was in a file before");
        }
    }
    for (key, (value, times)) in &memory {
        let pushed = output.push(key, value, *times).expect("the disk is sound");
        assert!(!matches!(pushed, Pushed::TooLarge(_)), "it is small");
    }
    // The index accepts at most a few hundred equal keys.
    output.finish().ok()?;

    let report = file.verify().expect("it was just saved");
    let joined = file.open().expect("it was just saved")?;
    let joined = entries(&joined);
    for (key, entry) in &joined {
        assert!([their_entries.get(key), our_entries.get(key)].contains(&Some(entry)), "nobody wrote this");
    }
    if sides_are_sound {
        assert!(report.is_clean(), "{report:?}");
        let both = [(&their_entries, &their_tombstones), (&our_entries, &tombstones)];
        assert_eq!(joined, expected(both));
    }
    Some(())
}

fn entries(snapshot: &Snapshot) -> Entries {
    let mut entries = Entries::new();
    let mut records = snapshot.records();
    while let Some(item) = records.next() {
        if let Item::Entry(record) = item {
            let times = Times { deadline: record.deadline, written_at: record.written_at };
            entries.insert(record.key.to_vec(), (record.value.to_vec(), times));
        }
    }
    entries
}

/// The result by the rules of section 10 of the file format: of theirs and ours, in this order.
fn expected([(theirs, their_deletes), (ours, our_deletes)]: [(&Entries, &Tombstones); 2]) -> Entries {
    let mut deletes = their_deletes.clone();
    deletes.join(our_deletes);
    let keys: BTreeSet<&Vec<u8>> = theirs.keys().chain(ours.keys()).collect();
    let mut joined = Entries::new();
    for key in keys {
        let written_at = |(_, times): &&(Vec<u8>, Times)| times.written_at.unwrap_or(0);
        let is_left = |entry: &&(Vec<u8>, Times)| !deletes.covers(KeyKind::Canonical, key, written_at(entry));
        // Expired entries of theirs are not copied, but still supersede. Expired entries of ours
        // are left to the caller.
        let is_live = |entry: &&(Vec<u8>, Times)| entry.1.deadline.is_none_or(|deadline| deadline > NOW);
        let (their, our) = (theirs.get(key), ours.get(key));
        let kept = match (their.filter(is_left), our.filter(is_left)) {
            (Some(their), Some(our)) if written_at(&their) > written_at(&our) => Some(their).filter(is_live),
            (_, Some(our)) => {
                let is_known = their.is_some() || !their_deletes.may_cover(written_at(&our));
                is_known.then_some(our)
            }
            (Some(their), None) => {
                let is_known = our.is_some() || !our_deletes.may_cover(written_at(&their));
                is_known.then_some(their).filter(is_live)
            }
            (None, None) => None,
        };
        if let Some(entry) = kept {
            joined.insert(key.clone(), entry.clone());
        }
    }
    joined
}
