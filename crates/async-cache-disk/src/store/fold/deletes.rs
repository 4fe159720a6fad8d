//! The deletes of a store as the tombstones of a file.
//!
//! Rule: an evicted key is an overwritten key (rule 3 of `tombstones`). Copies of other programs
//! that are not later are dropped. Evictions raise no floor and displace no delete. A damaged
//! record may be a delete of a key that cannot be told, or replace an older value: it raises the
//! floor.

use std::collections::{HashMap, VecDeque};

use super::super::replay::ReplayVisitor;
use super::super::view::StoreView;
use super::super::{StoreAnswer, StoreScratch};
use crate::format::store::record::{RecordKind, SegmentRecord};
use crate::format::store::{Hash40, StorePlace};
use crate::tombstones::{KeyKind, Tombstones, most_deletes};

/// The deletes and evictions of which nothing later is known, and the latest clear. Deletes beyond
/// the number that a file keeps, and deletes of unknown keys, raise the floor; evictions beyond
/// that number are forgotten. `floor`: of the store.
pub(super) fn tombstones_of(view: &StoreView, cleared_at: u64, floor: u64) -> Tombstones {
    let mut tombstones = Tombstones::default();
    tombstones.record_clear(cleared_at);
    let mut deletes = Deletes::default();
    view.replay_all(&mut deletes);
    let damaged = view.segments().filter(|segment| segment.number <= deletes.damaged_until);
    let damaged = damaged.map(|segment| segment.latest).max().unwrap_or(0);
    let floor = [floor, view.floor(), view.dropped_until(), deletes.forgotten, damaged].into_iter().max();
    tombstones.record_unknown_delete(floor.unwrap_or(0));
    let mut scratch = StoreScratch::new();
    for (kind, key, time) in deletes.latest {
        let is_written =
            kind == KeyKind::Canonical && matches!(view.find(&key, &mut scratch), StoreAnswer::Entry(_));
        if !is_written {
            tombstones.record_delete(kind, &key, time);
        }
    }
    // Behind the deletes: a key that was deleted since is no overwritten key.
    let Evicted { times, order } = deletes.evicted;
    for (key, time) in order {
        if times.get(&key) == Some(&time) && !matches!(view.find(&key, &mut scratch), StoreAnswer::Entry(_)) {
            tombstones.record_overwrite(KeyKind::Canonical, &key, time);
        }
    }
    tombstones
}

/// A file keeps as many overwritten keys.
const MOST_EVICTED: usize = 1 << 16;

#[derive(Default)]
struct Deletes {
    latest: VecDeque<(KeyKind, Box<[u8]>, u64)>,
    /// The latest time of a delete that is not in the list.
    forgotten: u64,
    evicted: Evicted,
    /// The last segment with a damaged record: the record of some key, later than other programs'
    /// copies of the key may be.
    damaged_until: u32,
}

/// The latest evictions of at most [`MOST_EVICTED`] keys.
#[derive(Default)]
struct Evicted {
    /// The latest time of each key.
    times: HashMap<Box<[u8]>, u64>,
    /// In the order of the times; a key that was evicted again is in the list once more.
    order: VecDeque<(Box<[u8]>, u64)>,
}

impl Evicted {
    fn add(&mut self, key: &[u8], time: u64) {
        self.times.insert(key.into(), time);
        self.order.push_back((key.into(), time));
        let is_latest =
            |times: &HashMap<Box<[u8]>, u64>, (key, time): &(Box<[u8]>, u64)| times.get(key) == Some(time);
        while self.times.len() > MOST_EVICTED {
            let Some(first) = self.order.pop_front() else { break };
            if is_latest(&self.times, &first) {
                self.times.remove(&first.0);
            }
        }
        if self.order.len() > 2 * MOST_EVICTED {
            self.order.retain(|entry| is_latest(&self.times, entry));
        }
    }
}

impl ReplayVisitor for Deletes {
    fn record(&mut self, _place: StorePlace, record: &SegmentRecord, bytes: &[u8]) {
        let key = bytes.get(record.key.clone()).unwrap_or_default();
        let kind = match record.kind {
            RecordKind::Eviction => {
                self.evicted.add(key, record.times.written_at);
                return;
            }
            RecordKind::EagerDelete => KeyKind::Eager,
            kind if kind.has_slot() && !kind.is_entry() => KeyKind::Canonical,
            _ => return,
        };
        self.latest.push_back((kind, key.into(), record.times.written_at));
        if self.latest.len() > most_deletes()
            && let Some((_, _, time)) = self.latest.pop_front()
        {
            self.forgotten = self.forgotten.max(time);
        }
    }

    fn damaged(&mut self, place: StorePlace, _kind: RecordKind, _hash: Hash40) {
        self.damaged_until = self.damaged_until.max(place.segment);
    }
}
