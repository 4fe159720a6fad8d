#![allow(clippy::arithmetic_side_effects)] // of tests

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::*;
use crate::format::store::digest::DIGEST_SPACING;
use crate::format::store::testing::{FILE_ID, seals};
use crate::store::segment::tests::{MemoryFile, hash_of, new_record, segment_on};
use crate::store::segment::{SegmentEnd, TEST_SPACING};

mod adversarial;

const NOW: u64 = 1_000_000;
/// Several digests in a short segment.
const SPACING: u32 = 700;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplayMode {
    SameBoot,
    OtherBoot,
    Sealed,
}

const MODES: [ReplayMode; 3] = [ReplayMode::SameBoot, ReplayMode::OtherBoot, ReplayMode::Sealed];

#[derive(Debug, Clone, PartialEq, Eq)]
struct LoggedRecord {
    at: u32,
    end: u32,
    kind: RecordKind,
    key: Vec<u8>,
    value: Vec<u8>,
    time: u64,
}

struct SegmentLog {
    seal: Seal,
    bytes: Vec<u8>,
    records: Vec<LoggedRecord>,
    /// Before the digest of the seal.
    open_end: u32,
    open: SegmentRow,
    sealed: SegmentRow,
}

/// A segment with a record of many kinds at each step; `sync_at`: the segment is synced after this
/// record.
fn log(seal: Seal, count: u32, large: Option<u32>, sync_at: Option<u32>) -> SegmentLog {
    TEST_SPACING.set(SPACING);
    let file = MemoryFile::holding(vec![0xEE; FIRST_RECORD as usize]);
    let segment = segment_on(Box::new(file.clone()), seal);
    let mut end = SegmentEnd::new(Arc::clone(&segment), 1 << 24);
    let open = end.row();
    let mut records = Vec::new();
    for number in 0..count {
        let kind = match number % 11 {
            3 => RecordKind::Delete,
            5 => RecordKind::EagerEntry,
            6 => RecordKind::EagerDelete,
            7 if number % 2 == 0 => RecordKind::Clear,
            8 => RecordKind::EntryWithAttributes,
            9 => RecordKind::Unknown(12),
            10 => RecordKind::Use,
            _ => RecordKind::Entry,
        };
        let key = if kind.has_key() { format!("key {}", number % 17).into_bytes() } else { Vec::new() };
        let size = if large == Some(number) { 1200 } else { usize::try_from(number % 7 * 3).unwrap() };
        let mut value: Vec<u8> = (0..size).map(|index| u8::try_from(index % 251).unwrap()).collect();
        if kind == RecordKind::Use {
            value = vec![3; 16];
        } else if !kind.is_entry() {
            value.clear();
        }
        // Some are copies, with the times of their originals.
        let time = if number % 13 == 4 { 10 + u64::from(number) } else { 1000 + u64::from(number) };
        let hash = kind.has_key().then(|| hash_of(&key));
        let at = end.append(&new_record(kind, &key, &value, time), hash).unwrap().offset;
        records.push(LoggedRecord { at, end: segment.end(), kind, key, value, time });
        if sync_at == Some(number) {
            end.synced(SegmentEnd::sync(&segment).unwrap());
        }
    }
    let open_end = segment.end();
    let sealed = end.seal(2000).unwrap();
    SegmentLog { seal, bytes: file.content(), records, open_end, open, sealed }
}

#[derive(Default)]
struct ReplaySeen {
    shown: HashMap<u32, LoggedRecord>,
    order: Vec<u32>,
    damaged: Vec<(u32, RecordKind, Hash40)>,
}

impl ReplayVisitor for ReplaySeen {
    fn record(&mut self, place: StorePlace, record: &SegmentRecord, bytes: &[u8]) {
        let written = LoggedRecord {
            at: place.offset,
            end: place.offset + u32::try_from(record.total()).unwrap(),
            kind: record.kind,
            key: bytes[record.key.clone()].to_vec(),
            value: bytes[record.value.clone()].to_vec(),
            time: record.times.written_at,
        };
        assert!(self.shown.insert(place.offset, written).is_none(), "shown twice");
        self.order.push(place.offset);
    }

    fn damaged(&mut self, place: StorePlace, kind: RecordKind, hash: Hash40) {
        self.damaged.push((place.offset, kind, hash));
        self.order.push(place.offset);
    }
}

fn run(bytes: Vec<u8>, seal: Seal, row: &SegmentRow, mode: ReplayMode) -> (Replayed, ReplaySeen) {
    let length = bytes.len() as u64;
    let segment = segment_on(Box::new(MemoryFile::holding(bytes)), seal);
    segment.set_end(row.end);
    let mut seen = ReplaySeen::default();
    let of = ReplayOf { row, is_same_boot: mode != ReplayMode::OtherBoot, now: NOW };
    let replayed = replay(&segment, length, of, &mut seen);
    assert!(seen.order.is_sorted(), "not in order");
    (replayed, seen)
}

impl SegmentLog {
    fn row(&self, mode: ReplayMode) -> &SegmentRow {
        if mode == ReplayMode::Sealed { &self.sealed } else { &self.open }
    }

    /// The bytes of the segment in this mode: an open one has no digest at its end.
    fn content(&self, mode: ReplayMode) -> Vec<u8> {
        let end = if mode == ReplayMode::Sealed { self.bytes.len() } else { self.open_end as usize };
        self.bytes[..end].to_vec()
    }

    /// Whether no byte of this range is in a record that is not a digest.
    fn is_digest(&self, range: &Range<u32>) -> bool {
        self.records.iter().all(|record| record.end <= range.start || range.end <= record.at)
    }

    /// Nothing may be shown that was not written, and everything before the damage must be.
    fn check_shown(&self, seen: &ReplaySeen, damage: &Range<u32>) {
        for record in &self.records {
            match seen.shown.get(&record.at) {
                Some(shown) => assert_eq!(shown, record),
                None => assert!(record.end > damage.start, "not shown: {record:?}, {damage:?}"),
            }
        }
        let is_written = |at: &u32| self.records.iter().any(|record| record.at == *at);
        assert!(seen.order.iter().all(is_written), "shown or damaged at a wrong place");
    }

    /// Whatever is not shown must be hidden.
    fn check_hidden(&self, replayed: &Replayed, seen: &ReplaySeen, until: u32) {
        for record in self.records.iter().filter(|record| record.at < until) {
            let hash = Hash40::of(hash_of(&record.key));
            let is_hidden = record.kind == RecordKind::Use
                || replayed.floor >= record.time
                || seen.damaged.contains(&(record.at, record.kind, hash));
            assert!(is_hidden || seen.shown.contains_key(&record.at), "{record:?} {replayed:?}");
        }
    }

    /// After a power loss: what is shown or reported is the front.
    fn check_prefix(&self, seen: &ReplaySeen) {
        let known = seen.order.len();
        assert!(self.records.iter().take(known).map(|record| record.at).eq(seen.order.iter().copied()));
    }

    fn check(&self, bytes: Vec<u8>, mode: ReplayMode, damage: &Range<u32>, durable: u32) {
        let (replayed, seen) = run(bytes, self.seal, self.row(mode), mode);
        self.check_shown(&seen, damage);
        if self.is_digest(damage) {
            assert_eq!(seen.shown.len(), self.records.len(), "a digest costs nothing: {damage:?} {mode:?}");
            assert_eq!((replayed.floor, seen.damaged.len()), (0, 0), "{damage:?} {mode:?}");
            return;
        }
        if mode == ReplayMode::OtherBoot {
            if replayed.floor == 0 {
                self.check_prefix(&seen);
            }
            self.check_hidden(&replayed, &seen, durable);
        } else {
            self.check_hidden(&replayed, &seen, u32::MAX);
            assert!(replayed.damaged > 0);
        }
    }
}

#[test]
fn a_sound_segment_is_shown_as_it_was_written() {
    for seal in seals() {
        let log = log(seal, 80, Some(30), Some(40));
        for mode in MODES {
            let (replayed, seen) = run(log.content(mode), seal, log.row(mode), mode);
            assert_eq!((seen.shown.len(), seen.damaged.len(), replayed.floor), (80, 0, 0));
            log.check_shown(&seen, &(u32::MAX..u32::MAX));
            let entries = log.records.iter().filter(|record| record.kind.is_entry()).count();
            let summary = &replayed.summary;
            assert_eq!(
                (summary.entries as usize, summary.latest, summary.last_deadline),
                (entries, 1079, u64::MAX)
            );
            assert_eq!((summary.earliest, replayed.damaged), (14, 0));
            assert_eq!(replayed.end as usize, log.content(mode).len());
        }
    }
}

#[test]
fn a_changed_byte_never_shows_anything_wrong_nor_an_older_value() {
    for (seal, patterns) in seals().into_iter().zip([&[1, 0x10, 0x80, 0xFF][..], &[4]]) {
        for sync_at in [None, Some(45)] {
            let log = log(seal, 66, Some(20), sync_at);
            let durable = sync_at.map_or(FIRST_RECORD, |number| log.records[number as usize].end);
            for mode in MODES {
                let bytes = log.content(mode);
                for at in FIRST_RECORD as usize..bytes.len() {
                    for pattern in patterns {
                        let mut changed = bytes.clone();
                        changed[at] ^= pattern;
                        let at = u32::try_from(at).unwrap();
                        log.check(changed, mode, &(at..at + 1), durable);
                    }
                }
            }
        }
    }
}

#[test]
fn ranges_of_changed_bytes_never_show_an_older_value() {
    let log = log(seals()[0], 66, None, Some(45));
    for mode in MODES {
        let bytes = log.content(mode);
        for length in [2, 30, 200, 512, 1000] {
            for start in (FIRST_RECORD as usize..bytes.len() - length).step_by(7) {
                for filler in [0, 0x5A] {
                    let mut changed = bytes.clone();
                    changed[start..start + length].fill(filler);
                    let range = u32::try_from(start).unwrap()..u32::try_from(start + length).unwrap();
                    let (replayed, seen) = run(changed, log.seal, log.row(mode), mode);
                    log.check_shown(&seen, &range);
                    if mode == ReplayMode::OtherBoot {
                        // Digests behind the damage may be hit, too: then nobody knows of the sync.
                        assert!(replayed.floor > 0 || seen.order.is_sorted());
                    } else {
                        log.check_hidden(&replayed, &seen, u32::MAX);
                    }
                }
            }
        }
    }
}

#[test]
fn a_segment_that_is_cut_off_ends_there_or_says_that_something_is_lost() {
    for (sync_at, row_end) in [(None, false), (Some(45), false), (Some(45), true)] {
        let mut log = log(seals()[0], 66, Some(20), sync_at);
        if row_end {
            log.open.end = log.records[45].end;
        }
        for mode in MODES {
            let bytes = log.content(mode);
            for length in FIRST_RECORD as usize..bytes.len() {
                let (replayed, seen) = run(bytes[..length].to_vec(), log.seal, log.row(mode), mode);
                let length = u32::try_from(length).unwrap();
                log.check_shown(&seen, &(length..u32::MAX));
                let next = log.records.iter().find(|record| record.end > length);
                let is_end = next.is_none_or(|next| next.at >= length) || length.is_multiple_of(4096);
                let is_digest = log.is_digest(&(length.saturating_sub(1)..length + 1));
                if mode == ReplayMode::Sealed || length < log.row(mode).end {
                    log.check_hidden(&replayed, &seen, u32::MAX);
                } else if mode == ReplayMode::OtherBoot {
                    assert_eq!(replayed.floor, 0);
                } else if !is_digest {
                    assert_eq!(replayed.floor >= NOW, !is_end, "{length}");
                }
                assert!(replayed.end <= length.max(FIRST_RECORD));
            }
        }
    }
}

#[test]
fn after_a_power_loss_any_later_digest_says_what_was_durable() {
    let log = log(seals()[0], 66, None, Some(45));
    // The first digest knows of no sync.
    let mut bytes = log.content(ReplayMode::OtherBoot);
    bytes[log.records[2].at as usize + 8] ^= 1;
    let (replayed, seen) = run(bytes.clone(), log.seal, &log.open, ReplayMode::OtherBoot);
    assert_eq!((seen.shown.len(), seen.damaged.len(), replayed.floor), (65, 1, 0));
    // What is invalid behind the durable part is the end, though a digest lists it.
    let lost = log.records.iter().position(|record| record.at > log.records[45].end).unwrap();
    bytes[log.records[lost].at as usize + 8] ^= 1;
    let (replayed, seen) = run(bytes, log.seal, &log.open, ReplayMode::OtherBoot);
    assert_eq!((seen.shown.len(), seen.damaged.len()), (lost - 1, 1));
    assert_eq!(replayed.end, log.records[lost].at);
}
