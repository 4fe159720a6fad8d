//! A snapshot that has moved: entries copied from it into a newer file are read there, under their
//! old ranks.
//!
//! A cache knows its cold entries by their ranks in the file that it opened. A save copies them
//! into a new file and replaces the old file, which takes its room on the disk for as long as it is
//! open. So the cache continues with the new file
//! ([`Writer::finish_and_open`](crate::Writer::finish_and_open)), and closes the old file. Rules:
//! 1. ranks stay those of the file that was opened first, however often the entries move;
//! 2. entries of the newer file from other sources are not in the snapshot: no look-up
//!    finds them, and no walk meets them. An uncopied entry has no record any more;
//! 3. copying keeps the order, so both ranks ascend together. Memory: 12 bytes for each gap between
//!    copied entries;
//! 4. a key hidden by a dead bucket stays hidden: a delete that could not see the key took no rank,
//!    and the new file has a readable bucket for it. Keys hidden before the copying began are not
//!    copied. If a bucket became dead since, there is no successor, and the next save copies anew.
//!    A look-up that began before the move may find a dead bucket after it: then every key that the
//!    bucket may have held is hidden.

use std::sync::Arc;

use super::damage::DamageLog;
use crate::format::address::KeyHasher;

/// Consecutive entries in both files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// The rank of the first entry in the present file.
    here: u32,
    /// Its rank in the snapshot opened first.
    old: u32,
    len: u32,
}

/// The ranks of moved entries. Ascending.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ranks {
    runs: Vec<Run>,
    /// The number of ranks of the snapshot opened first.
    count: u32,
    /// The source of the copies.
    before: Option<Before>,
}

/// The remaining data of a closed file: the positions of its keys, and its dead buckets. Rule 4.
#[derive(Debug, Clone)]
struct Before {
    damage: Arc<DamageLog>,
    hasher: KeyHasher,
    buckets: u32,
    /// How many buckets were dead when the copying began.
    dead: u64,
}

impl Ranks {
    /// No entries yet, of a snapshot that entries will be copied from.
    pub(super) fn none_of(damage: Arc<DamageLog>, hasher: KeyHasher, buckets: u32, count: u32) -> Self {
        let dead = damage.dead_count();
        let before = Some(Before { damage, hasher, buckets, dead });
        Self { runs: Vec::new(), count, before }
    }

    /// Whether a bucket of the file before has become dead since the copying began.
    pub(crate) fn has_new_dead_buckets(&self) -> bool {
        self.before.as_ref().is_some_and(|before| before.damage.dead_count() > before.dead)
    }

    /// Rule 4: whether a look-up in the previous file may have missed this key since.
    pub(crate) fn may_have_missed(&self, key: &[u8]) -> bool {
        self.before.as_ref().is_some_and(|before| {
            before.damage.dead_count() > before.dead
                && before.damage.may_have_held(before.hasher.hash(key), before.buckets)
        })
    }

    /// Adds an entry behind all others. Out of order (rule 3), it is left out, and so a miss.
    pub(crate) fn push(&mut self, here: u32, old: u32) {
        if let Some(last) = self.runs.last_mut() {
            let (next_here, next_old) =
                (last.here.saturating_add(last.len), last.old.saturating_add(last.len));
            if here < next_here || old < next_old {
                return;
            }
            if (here, old) == (next_here, next_old) {
                last.len = last.len.saturating_add(1);
                return;
            }
        }
        self.runs.push(Run { here, old, len: 1 });
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The old rank of an entry; `None` if the entry has not moved.
    pub(crate) fn old(&self, here: u32) -> Option<u32> {
        let run = self.runs.partition_point(|run| run.here <= here).checked_sub(1);
        let run = self.runs.get(run?)?;
        let place = here.checked_sub(run.here).filter(|place| *place < run.len)?;
        Some(run.old.saturating_add(place))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_translated_as_a_map_would() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let (mut ranks, mut map) = (Ranks::default(), std::collections::BTreeMap::new());
            let (mut here, mut old) = (random.u32(0..3), random.u32(0..3));
            for _ in 0..40 {
                ranks.push(here, old);
                map.insert(here, old);
                let step = if random.bool() { (1, 1) } else { (random.u32(1..4), random.u32(1..4)) };
                (here, old) = (here + step.0, old + step.1);
            }
            assert!((0..200).all(|here| ranks.old(here) == map.get(&here).copied()));
        }
        let mut ranks = Ranks::default();
        (0..9).for_each(|rank| ranks.push(rank + 5, rank));
        ranks.push(3, 3); // out of order
        assert_eq!(ranks.runs, [Run { here: 5, old: 0, len: 9 }]);
    }
}
