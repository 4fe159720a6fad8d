#![allow(clippy::arithmetic_side_effects)] // of tests

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::*;
use crate::format::address::KeyHasher;
use crate::format::store::record::RecordTimes;
use crate::format::store::testing::{FILE_ID, seals};
use crate::vfs::fake::{FakeDisk, Fault};
use crate::vfs::{Metadata, Vfs};

pub(in crate::store) const HASHER_SEED: [u8; 16] = [7; 16];

pub(in crate::store) fn hash_of(key: &[u8]) -> KeyHash {
    KeyHasher::new(&HASHER_SEED).hash(key)
}

/// A file in memory that counts the bytes read. Clones are the same file.
#[derive(Debug, Default, Clone)]
pub(in crate::store) struct MemoryFile {
    bytes: Arc<Mutex<Vec<u8>>>,
    read: Arc<AtomicU64>,
    /// The length, if a hole follows the bytes.
    pub(in crate::store) length: u64,
}

impl MemoryFile {
    pub(in crate::store) fn holding(bytes: Vec<u8>) -> Self {
        Self { bytes: Arc::new(Mutex::new(bytes)), ..Self::default() }
    }

    pub(in crate::store) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(in crate::store) fn content(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

impl VfsFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes.lock().unwrap();
        let from = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        let hole = usize::try_from(self.length.saturating_sub(offset)).unwrap().min(buffer.len());
        buffer.get_mut(count..hole).unwrap_or_default().fill(0);
        let count = count.max(hole);
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn data_from(&self, offset: u64) -> io::Result<u64> {
        let is_hole = offset >= self.bytes.lock().unwrap().len() as u64;
        Ok(if is_hole { u64::MAX } else { offset })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut own = self.bytes.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let end = own.len().max(offset + bytes.len());
        own.resize(end, 0);
        own[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn metadata(&self) -> io::Result<Metadata> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn lock_within(&self, _limit: Duration) -> io::Result<bool> {
        Ok(true)
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

pub(in crate::store) fn segment_on(file: Box<dyn VfsFile>, seal: Seal) -> Arc<SegmentFile> {
    let form = RecordForm { has_tag: seal.has_mac(), may_compress: true };
    Arc::new(SegmentFile::new(file, 3, FILE_ID, seal, form, FIRST_RECORD))
}

pub(in crate::store) fn new_record<'b>(
    kind: RecordKind,
    key: &'b [u8],
    value: &'b [u8],
    written_at: u64,
) -> NewRecord<'b> {
    let times = RecordTimes { deadline: None, written_at };
    NewRecord { kind, times, is_compressed: false, attributes: &[], key, value }
}

fn put(end: &mut SegmentEnd, key: &[u8], value: &[u8], time: u64) -> Result<u32, NotAppended> {
    end.append(&new_record(RecordKind::Entry, key, value, time), Some(hash_of(key))).map(|place| place.offset)
}

/// Every record of a sound segment: offset, kind, key and value.
type Walked = Vec<(u32, RecordKind, Vec<u8>, Vec<u8>)>;

fn walk(segment: &SegmentFile) -> Walked {
    let (mut at, mut all, mut bytes) = (FIRST_RECORD, Vec::new(), Vec::new());
    while at < segment.end() {
        let record = segment.read(at, &mut bytes).unwrap();
        all.push((at, record.kind, bytes[record.key.clone()].to_vec(), bytes[record.value.clone()].to_vec()));
        at += u32::try_from(record.total()).unwrap();
    }
    all
}

#[test]
fn what_is_appended_is_read_at_its_place_and_nothing_is_read_elsewhere() {
    for seal in seals() {
        let segment = segment_on(Box::new(MemoryFile::default()), seal);
        let mut end = SegmentEnd::new(Arc::clone(&segment), 1 << 24);
        let large = vec![9; 100_000];
        let writes: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"", b""), (b"large", &large), (b"b", &[0; 2000])];
        let mut places = Vec::new();
        for ((key, value), time) in writes.iter().zip(1..) {
            places.push(put(&mut end, key, value, time).unwrap());
        }
        let mut bytes = Vec::new();
        for ((key, value), place) in writes.iter().zip(&places) {
            let record = segment.read(*place, &mut bytes).unwrap();
            assert_eq!((&bytes[record.key.clone()], &bytes[record.value.clone()]), (*key, *value));
            assert!(segment.read(place + 1, &mut bytes).is_none());
            let record_end = place + u32::try_from(record.total()).unwrap();
            assert!(segment.read_before(*place, record_end - 1, &mut bytes).is_none());
            assert!(segment.read_before(*place, record_end, &mut bytes).is_some());
        }
        assert!(segment.read(segment.end(), &mut bytes).is_none());
        assert!(segment.read(u32::MAX, &mut bytes).is_none());
        // Nothing behind the end counts.
        segment.set_end(segment.end() - 1);
        assert!(segment.read(places[3], &mut bytes).is_none());
    }
}

#[test]
fn digests_stand_before_each_record_that_would_begin_too_far_behind_the_previous_one() {
    for seal in seals() {
        let segment = segment_on(Box::new(MemoryFile::default()), seal);
        let mut end = SegmentEnd::new(Arc::clone(&segment), 1 << 24);
        let mut expected = Vec::new();
        for number in 0..3000_u32 {
            let value = vec![1; if number == 1500 { 40_000 } else { 30 }];
            expected.push((put(&mut end, &number.to_le_bytes(), &value, 5).unwrap(), number));
            if number == 1000 {
                end.synced(SegmentEnd::sync(&segment).unwrap());
            }
        }
        let row = end.seal(1).unwrap();
        let (mut base, mut rows, mut count, mut last) = (FIRST_RECORD, Vec::new(), 0, None);
        let all = walk(&segment);
        for (offset, kind, key, value) in &all {
            if *kind == RecordKind::Digest {
                let digest = SegmentDigest::decode(value, *offset).unwrap();
                assert_eq!((digest.base, &digest.rows), (base, &rows));
                let (_, record_end) = (0, offset + 15 + 9 + u32::try_from(value.len()).unwrap());
                assert!(*offset - base >= DIGEST_SPACING || *offset == all.last().unwrap().0);
                assert!(digest.synced == FIRST_RECORD || digest.synced == expected[1001].0 || count > 3);
                base = record_end + u32::try_from(seal.tag_bytes()).unwrap();
                (rows, count) = (Vec::new(), count + 1);
            } else {
                assert!(*offset - base < DIGEST_SPACING);
                rows.extend(DigestRow::new(Hash40::of(hash_of(key)), *kind, *offset - base));
            }
            last = Some(*kind);
        }
        // Rule 2: also the last.
        assert_eq!((last, rows.len()), (Some(RecordKind::Digest), 0));
        assert!(count > 4);
        let entries = all.iter().filter(|(_, kind, ..)| *kind == RecordKind::Entry);
        assert!(entries.map(|(offset, ..)| *offset).eq(expected.iter().map(|(offset, _)| *offset)));
        assert_eq!((row.entries, row.end, row.is_sealed), (3000, segment.end(), true));
        assert_eq!((row.earliest, row.latest, row.last_deadline), (5, 5, u64::MAX));
        // Sealed again, nothing is added.
        assert_eq!(end.seal(9).unwrap(), row);
    }
}

#[test]
fn a_digest_is_not_earlier_than_the_records_before_it() {
    let segment = segment_on(Box::new(MemoryFile::default()), seals()[0]);
    let mut end = SegmentEnd::new(Arc::clone(&segment), 1 << 24);
    put(&mut end, b"a", b"", 100).unwrap();
    // A copy has the time of the original.
    put(&mut end, b"b", b"", 5).unwrap();
    let at = segment.end();
    assert_eq!(end.seal(7).unwrap().latest, 100);
    assert_eq!(segment.read(at, &mut Vec::new()).unwrap().times.written_at, 100);
}

#[test]
fn a_segment_takes_no_record_at_its_limit_and_one_before() {
    let segment = segment_on(Box::new(MemoryFile::default()), seals()[0]);
    let mut end = SegmentEnd::new(Arc::clone(&segment), FIRST_RECORD + 100);
    put(&mut end, b"a", &[0; 70], 1).unwrap();
    assert!(segment.end() < FIRST_RECORD + 100);
    put(&mut end, b"b", &[0; 1000], 2).unwrap();
    let before = segment.end();
    assert!(matches!(put(&mut end, b"c", b"", 3), Err(NotAppended::NextSegment)));
    assert_eq!((segment.end(), end.is_broken()), (before, false));
    // A record that breaks a rule fits nowhere.
    let mut end = SegmentEnd::new(segment_on(Box::new(MemoryFile::default()), seals()[0]), 1 << 20);
    let wrong = new_record(RecordKind::Delete, b"a", b"a delete has no value", 1);
    assert!(matches!(end.append(&wrong, None), Err(NotAppended::TooLarge)));
}

fn on_disk(disk: &FakeDisk) -> (Arc<SegmentFile>, SegmentEnd) {
    let path = std::path::Path::new("/segment");
    let file = disk.create_new(path).unwrap();
    write_all_at(&*file, &[0; FIRST_RECORD as usize], 0).unwrap();
    let segment = segment_on(file, seals()[0]);
    (Arc::clone(&segment), SegmentEnd::new(segment, 1 << 24))
}

#[test]
fn after_a_failed_write_the_end_stays_and_the_segment_takes_no_more() {
    for fault in [Fault::Error(io::ErrorKind::Other), Fault::Full, Fault::TornCrash, Fault::Crash] {
        for due in [false, true] {
            let disk = FakeDisk::new();
            let (segment, mut end) = on_disk(&disk);
            let first = put(&mut end, b"a", &vec![1; if due { 40_000 } else { 10 }], 1).unwrap();
            let before = segment.end();
            disk.repair();
            disk.inject(0, fault);
            assert!(matches!(put(&mut end, b"b", b"later", 2), Err(NotAppended::Io(_))));
            assert_eq!((segment.end(), end.is_broken(), end.is_dirty()), (before, true, true));
            assert!(matches!(put(&mut end, b"c", b"", 3), Err(NotAppended::NextSegment)));
            assert_eq!((end.row().entries, end.row().latest, end.row().end), (1, 1, FIRST_RECORD));
            if matches!(fault, Fault::TornCrash | Fault::Crash) {
                assert!(end.seal(4).is_err() && end.seal(4).is_ok());
                continue;
            }
            disk.repair();
            assert!(segment.read(first, &mut Vec::new()).is_some());
            let sealed = end.seal(4).unwrap();
            assert_eq!((sealed.end, sealed.is_sealed, sealed.entries), (before, true, 1));
            // What was acknowledged before is durable now.
            assert!(!end.is_dirty());
            let synced = disk.calls().iter().filter(|call| call.name == "sync").count();
            assert_eq!((synced, segment.end()), (1, before));
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_more_is_durable() {
    let disk = FakeDisk::new();
    let (segment, mut end) = on_disk(&disk);
    put(&mut end, b"a", b"1", 1).unwrap();
    end.synced(SegmentEnd::sync(&segment).unwrap());
    let durable = segment.end();
    assert!(!end.is_dirty());
    put(&mut end, b"b", b"2", 2).unwrap();
    assert!(end.is_dirty());
    disk.repair();
    disk.inject(0, Fault::Error(io::ErrorKind::Other));
    assert!(SegmentEnd::sync(&segment).is_err());
    end.broke();
    end.synced(SegmentEnd::sync(&segment).unwrap());
    assert_eq!((end.row().end, end.is_broken(), end.is_dirty()), (durable, true, true));
    let sealed = end.seal(3).unwrap();
    assert_eq!((sealed.end, sealed.entries), (segment.end(), 2));
}

#[test]
fn a_seal_that_fails_breaks_the_segment_and_the_next_one_ends_it_at_its_end() {
    for failing in [0, 1] {
        let disk = FakeDisk::new();
        let (segment, mut end) = on_disk(&disk);
        put(&mut end, b"a", b"1", 1).unwrap();
        let before = segment.end();
        disk.repair();
        disk.inject(failing, Fault::Error(io::ErrorKind::Other));
        assert!(end.seal(2).is_err() && end.is_broken());
        let has_digest = failing == 1;
        let row = end.seal(2).unwrap();
        assert_eq!((row.end > before, row.end), (has_digest, segment.end()));
        assert!(matches!(put(&mut end, b"b", b"", 3), Err(NotAppended::NextSegment)));
    }
}
