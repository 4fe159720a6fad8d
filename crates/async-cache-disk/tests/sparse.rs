//! Files that are impossibly large: a valid header counts billions of entries, and the counted area
//! is a hole.
//!
//! With a header of 4 KiB, `verify` and `inspect` allocated 34 GB, and so did a save that met the
//! file. Memory must follow the content of a file, not its length.
#![cfg(target_os = "linux")] // the holes are real, so a file system is needed
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // makes files with holes

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::sample::{self, SAVED_AT, entries, file, options, options_of, save, secret};
use crate::{alone, limited};
use async_cache_disk::{
    FindingKind, Item, KeyKind, Known, Loss, Pushed, RealDisk, Scratch, Snapshot, Source, Times, Tombstones,
    Vfs,
};

const MEBIBYTE: usize = 1 << 20;
const PAGE: u64 = 512;
const BILLIONS: u32 = 4_000_000_000;
const FILE_ID: [u8; 16] = [1; 16];

fn disk() -> Arc<dyn Vfs> {
    Arc::new(RealDisk)
}

/// A file written at a few places.
struct Holes {
    _folder: tempfile::TempDir,
    path: PathBuf,
    header: Vec<u8>,
    end: u64,
    rows: usize,
}

impl Holes {
    /// The header of a sound file, without any section.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages.cache");
        save(&disk(), &path, &[], options_of(FILE_ID[0])).unwrap();
        let header = std::fs::read(&path).unwrap()[..4096].to_vec();
        let mut holes = Self { _folder: folder, path, header, end: 4096, rows: 0 };
        holes.put(12, &0u32.to_le_bytes());
        holes
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Adds a section after the others and a gap; returns its position.
    fn section(&mut self, kind: u32, gap: u64, bytes: u64) -> u64 {
        let offset = (self.end + gap).next_multiple_of(4096);
        let row = 768 + 24 * self.rows;
        self.put(row, &kind.to_le_bytes());
        self.put(row + 8, &offset.to_le_bytes());
        self.put(row + 16, &bytes.to_le_bytes());
        self.rows += 1;
        self.put(12, &u32::try_from(self.rows).unwrap().to_le_bytes());
        self.end = offset + bytes;
        offset
    }

    /// Records, index and deadlines in the form for `count` entries; returns the position of the
    /// index.
    fn entries(&mut self, count: u32, record_bytes: u64) -> u64 {
        let pages = u64::from(count.div_ceil(42));
        self.section(1, 0, record_bytes);
        let index = self.section(2, 0, pages * PAGE);
        self.section(3, 0, pages * PAGE);
        for at in [72, 76, 80] {
            self.put(at, &count.to_le_bytes());
        }
        self.put(84, &u32::try_from(pages).unwrap().to_le_bytes());
        index
    }

    /// Writes the header, and the units with corrected checksums; all else is a hole.
    fn write(&mut self, units: &[(u64, Vec<u8>)]) -> &Path {
        let checksum = crc32c::crc32c(&self.header[..4092]);
        self.put(4092, &checksum.to_le_bytes());
        std::fs::remove_file(&self.path).unwrap();
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.create_new(true).write(true).open(&self.path).unwrap();
        file.set_len(self.end).unwrap();
        file.write_all_at(&self.header, 0).unwrap();
        for (offset, unit) in units {
            let bound = [&FILE_ID[..], &offset.to_le_bytes(), &unit[4..]].concat();
            let mut unit = unit.clone();
            unit[..4].copy_from_slice(&crc32c::crc32c(&bound).to_le_bytes());
            file.write_all_at(&unit, *offset).unwrap();
        }
        &self.path
    }
}

fn open(path: &Path) -> Snapshot {
    file(&disk(), path).open().unwrap().expect("there is a snapshot")
}

/// A page with one slot, for a rank and an offset.
fn bucket(rank: u32, offset: u64) -> Vec<u8> {
    let mut page = vec![0; 512];
    page[4] = 1;
    page[10..14].copy_from_slice(&rank.to_le_bytes());
    page[14..20].copy_from_slice(&offset.to_le_bytes()[..6]);
    page
}

#[test]
fn a_header_that_counts_billions_of_entries_in_a_hole_takes_neither_memory_nor_time() {
    let _alone = alone();
    let mut holes = Holes::new();
    let index = holes.entries(BILLIONS, u64::from(BILLIONS) * 7);
    let path = holes.write(&[(index + 7 * PAGE, bucket(BILLIONS - 1, 4096 + 70))]).to_owned();
    limited(4 * MEBIBYTE, || {
        let snapshot = open(&path);
        assert_eq!(snapshot.len(), BILLIONS);
        assert!(snapshot.find(b"key", &mut Scratch::new()).is_none());
        assert_eq!(snapshot.places().len(), 1);
        let mut salvage = snapshot.salvage();
        while let Some(item) = salvage.next() {
            assert!(matches!(item, Item::Lost(Loss::Bytes { .. })));
        }
        let mut deadlines = snapshot.deadlines();
        while !deadlines.is_finished() {
            assert_eq!(deadlines.next_due(u64::MAX), None);
        }
        let pages = u64::from(BILLIONS.div_ceil(42));
        let damage = snapshot.damage();
        assert_eq!((damage.buckets, damage.deadline_pages), (pages - 1, pages));

        let report = file(&disk(), &path).any_version().verify().unwrap();
        assert_eq!((report.entries, report.sound_entries), (BILLIONS, 0));
        assert!(report.finding_count > 2 * pages && report.findings.len() < 20, "{report:?}");
    });
}

/// Visiting four billion entries one by one took minutes, and they are in no bucket.
#[test]
fn reading_all_and_a_save_that_joins_such_a_file_take_neither_memory_nor_time() {
    let _alone = alone();
    let mut holes = Holes::new();
    let index = holes.entries(BILLIONS, u64::from(BILLIONS) * 7);
    let named = [bucket(7, 4096 + 49), bucket(9, 4096), bucket(BILLIONS - 2, 4096 + 70)];
    let units: Vec<_> =
        named.into_iter().zip((0..).step_by(9)).map(|(bucket, page)| (index + page * PAGE, bucket)).collect();
    let path = holes.write(&units).to_owned();
    limited(8 * MEBIBYTE, || {
        let mut records = open(&path).records();
        let (mut seen, mut lost) = (Vec::new(), 0);
        assert_eq!(records.skip_lost(), 0, "nothing is known yet");
        while let Some(item) = records.next() {
            let Item::Lost(Loss::Entry { rank }) = item else { panic!("{item:?}") };
            seen.push(rank);
            lost += 1 + u64::from(records.skip_lost());
        }
        assert_eq!((seen, lost), (vec![0, 7, 9, BILLIONS - 2], u64::from(BILLIONS)));

        let mut records = open(&path).records();
        assert!((0..10).all(|lost| records.next() == Some(Item::Lost(Loss::Entry { rank: lost }))));

        let save = file(&disk(), &path).begin(Some(Duration::ZERO)).unwrap();
        let joining = save.write(options(), Known::default(), None).unwrap();
        let mut output = joining.join(&sample::nothing()).unwrap();
        assert!(matches!(output.push(b"key", b"value", Times::default()), Ok(Pushed::Written)));
        assert_eq!(output.finish().unwrap().saved.entries, 1);
    });
    assert_eq!(open(&path).find(b"key", &mut Scratch::new()).unwrap().value, b"value");
}

/// The length of a record is trusted no more than the number of records.
#[test]
fn records_and_tombstones_that_reach_far_into_a_hole_take_no_memory() {
    let _alone = alone();
    let far = 100 * MEBIBYTE as u64;
    let mut holes = Holes::new();
    let index = holes.entries(1, far + 4096);
    let tombstones = holes.section(7, 0, far);
    let mut record = vec![0; 4 + 1];
    record.push(3); // bytes of key
    for shift in [0, 7, 14, 21] {
        let bits = u8::try_from(far >> shift & 0x7F).unwrap();
        record.push(if shift < 21 { bits | 0x80 } else { bits });
    }
    record.extend_from_slice(b"key");
    let mut tagged = bucket(0, 4096);
    tagged[4] = 42; // arbitrary; overwritten by the key's tag
    for slot in 0..42 {
        tagged[8 + 12 * slot..20 + 12 * slot].copy_from_slice(&bucket(0, 4096)[8..20]);
    }
    let path = holes.write(&[(4096, record), (index, tagged), (tombstones, vec![0; 64])]).to_owned();
    limited(8 * MEBIBYTE, || {
        let snapshot = open(&path);
        assert!(matches!(snapshot.records().next(), Some(Item::Lost(Loss::Entry { rank: 0 }))));
        let places = snapshot.places();
        assert_eq!(snapshot.read_place(&places[0], &mut Scratch::new()), None);
        let mut unknown = Tombstones::default();
        unknown.record_unknown_delete(SAVED_AT);
        assert_eq!(snapshot.tombstones(), unknown);
        let report = file(&disk(), &path).any_version().verify().unwrap();
        assert!(report.findings.iter().any(|finding| finding.kind == FindingKind::Tombstones));
    });
}

#[test]
fn a_gap_of_a_tebibyte_is_a_finding_and_is_not_read() {
    let _alone = alone();
    let mut holes = Holes::new();
    holes.entries(0, 0);
    holes.section(6, 1 << 40, 8);
    let path = holes.write(&[]).to_owned();
    let report = limited(4 * MEBIBYTE, || file(&disk(), &path).any_version().verify().unwrap());
    let kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::Gap]);
}

/// Large sound content is read, in either way, and a single changed byte of it is a miss.
#[test]
fn values_and_tombstones_of_many_mebibytes_come_back() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages.cache");
    let mut all = entries(3, 1);
    all[1].value = (0..20 * MEBIBYTE).map(|i| u8::try_from(i % 251).unwrap()).collect();
    for secret in [None, Some(secret())] {
        let mut deleted = Tombstones::default();
        deleted.record_delete(KeyKind::Canonical, &vec![b'k'; 17 * MEBIBYTE], SAVED_AT);
        let cache_file = file(&disk(), &path).secret(secret);
        let mut writer = cache_file.write(options()).unwrap();
        for entry in &all {
            writer.push(&entry.key, &entry.value, entry.deadline).unwrap();
        }
        writer.set_tombstones(deleted.clone());
        writer.finish().unwrap();
        sample::assert_holds_as(&cache_file, &all, &[]);
        let snapshot = cache_file.open().unwrap().unwrap();
        assert_eq!(snapshot.tombstones(), deleted);
        assert!(cache_file.verify().unwrap().is_clean());

        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"x", 10 * MEBIBYTE as u64).unwrap();
        let snapshot = cache_file.open().unwrap().unwrap();
        let mut scratch = Scratch::new();
        assert!(snapshot.find(&all[1].key, &mut scratch).is_none());
        assert_eq!(scratch.lost(), [1]);
        assert!(snapshot.find(&all[2].key, &mut scratch).is_some());
        assert_eq!(sample::read_all(&snapshot).iter().flatten().count(), 2);
    }
}
