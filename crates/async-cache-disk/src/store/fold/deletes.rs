//! The deletes of a store as the tombstones of a file.
//!
//! Rule: an evicted key is an overwritten key (rule 3 of `tombstones`). Copies of other programs
//! that are not later are dropped. Evictions raise no floor and displace no delete.

use std::collections::VecDeque;

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
    let mut deletes = Deletes { latest: VecDeque::new(), forgotten: 0, evicted: VecDeque::new() };
    view.replay_all(&mut deletes);
    let floor = [floor, view.floor(), view.dropped_until(), deletes.forgotten].into_iter().max();
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
    for (key, time) in deletes.evicted {
        if !matches!(view.find(&key, &mut scratch), StoreAnswer::Entry(_)) {
            tombstones.record_overwrite(KeyKind::Canonical, &key, time);
        }
    }
    tombstones
}

/// A file keeps as many overwritten keys.
const MOST_EVICTED: usize = 1 << 16;

struct Deletes {
    latest: VecDeque<(KeyKind, Box<[u8]>, u64)>,
    /// The latest time of a delete that is not in the list.
    forgotten: u64,
    evicted: VecDeque<(Box<[u8]>, u64)>,
}

impl ReplayVisitor for Deletes {
    fn record(&mut self, _place: StorePlace, record: &SegmentRecord, bytes: &[u8]) {
        let key = bytes.get(record.key.clone()).unwrap_or_default();
        let kind = match record.kind {
            RecordKind::Eviction => {
                self.evicted.push_back((key.into(), record.times.written_at));
                if self.evicted.len() > MOST_EVICTED {
                    self.evicted.pop_front();
                }
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

    fn damaged(&mut self, _place: StorePlace, _kind: RecordKind, _hash: Hash40) {}
}
