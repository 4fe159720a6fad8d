//! The slots of several runs as one sequence, in the order of an index.
//!
//! The homes of slots ascend with their hashes. A slot that is behind its home has passed all
//! buckets in between, and each of them says so. So the slots of a home are all known when a bucket
//! at the home or behind it has been read that none has passed, or the buckets of the home's chain
//! have been read; only slots that wrapped from the last buckets to the first come out of order,
//! and wait for the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use super::run::{IndexRun, RunSlots};
use crate::format::address::MAX_CHAIN;
use crate::format::store::bucket::RunSlot;
use crate::format::store::{Hash40, StorePlace};

/// The order of an index: by hash, and of one hash the latest first.
type InOrder = Reverse<(Hash40, Reverse<StorePlace>)>;

fn in_order(slot: RunSlot) -> InOrder {
    Reverse((slot.hash, Reverse(slot.place)))
}

/// The slots of one run, in order.
struct OrderedSlots<'r> {
    slots: RunSlots<'r>,
    buckets: u32,
    read: u32,
    /// All slots with homes below this one are known.
    complete: u32,
    known: BinaryHeap<InOrder>,
    /// Slots in the first buckets whose homes are the last ones.
    wrapped: Vec<RunSlot>,
}

impl<'r> OrderedSlots<'r> {
    fn new(run: &'r IndexRun) -> Self {
        let buckets = run.counts.buckets;
        let (known, wrapped) = (BinaryHeap::new(), Vec::new());
        Self { slots: run.slots(), buckets, read: 0, complete: 0, known, wrapped }
    }

    fn peek(&mut self) -> Option<InOrder> {
        loop {
            if let Some(first) = self.known.peek()
                && (self.read >= self.buckets || first.0.0.home(self.buckets) < self.complete)
            {
                return Some(*first);
            }
            let Some(bucket) = self.slots.next_bucket() else { return self.known.peek().copied() };
            let number = self.read;
            self.read = self.read.saturating_add(1);
            let chain = if self.slots.is_passed { MAX_CHAIN - 1 } else { 0 };
            self.complete = self.complete.max(self.read.saturating_sub(chain));
            for slot in bucket {
                if slot.hash.home(self.buckets) > number {
                    self.wrapped.push(slot);
                } else {
                    self.known.push(in_order(slot));
                }
            }
            if self.read >= self.buckets {
                self.known.extend(self.wrapped.drain(..).map(in_order));
            }
        }
    }
}

/// The slots of several runs, in order.
pub(super) struct MergedSlots<'r> {
    runs: Vec<OrderedSlots<'r>>,
    /// The first slot of each run that has more, and the index of the run.
    firsts: BinaryHeap<(InOrder, usize)>,
}

impl<'r> MergedSlots<'r> {
    pub(super) fn new(runs: &'r [Arc<IndexRun>]) -> Self {
        let mut runs: Vec<OrderedSlots<'r>> = runs.iter().map(|run| OrderedSlots::new(run)).collect();
        let firsts = runs.iter_mut().enumerate().filter_map(|(index, run)| Some((run.peek()?, index)));
        Self { firsts: firsts.collect(), runs }
    }

    /// How many buckets could not be read, so far.
    pub(super) fn invalid(&self) -> u32 {
        self.runs.iter().fold(0, |sum: u32, run| sum.saturating_add(run.slots.invalid))
    }
}

impl Iterator for MergedSlots<'_> {
    type Item = RunSlot;

    fn next(&mut self) -> Option<RunSlot> {
        let mut first = self.firsts.peek_mut()?;
        let (Reverse((hash, Reverse(place))), index) = *first;
        let run = self.runs.get_mut(index)?;
        run.known.pop();
        match run.peek() {
            Some(next) => *first = (next, index),
            None => drop(PeekMut::pop(first)),
        }
        Some(RunSlot { hash, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::store::bucket::EagerPlaces;
    use crate::format::store::testing::seals;
    use crate::store::run::tests::{built, numbers, slot, sorted};

    fn check(runs: &[Vec<RunSlot>]) {
        for seal in seals() {
            let built =
                runs.iter().map(|slots| Arc::new(built(slots, seal, &EagerPlaces::default()).unwrap().0));
            let built: Vec<Arc<IndexRun>> = built.collect();
            let mut merged = MergedSlots::new(&built);
            let all: Vec<RunSlot> = merged.by_ref().collect();
            assert!(all == sorted(runs.concat()), "{} runs", runs.len());
            assert_eq!((merged.invalid(), merged.next()), (0, None));
        }
    }

    #[test]
    fn merged_runs_are_all_their_slots_in_order() {
        for count in 0..=9 {
            for size in [0, 1, 29, 42, 43, 330, 2000] {
                let runs = (0..count).map(|run: u32| {
                    let hashes = numbers(u64::from(run)).take(size);
                    // Some hashes are in every run, and some runs are short.
                    let hashes = hashes.zip(0..).map(|(hash, n): (u64, u32)| {
                        slot(if n % 7 == 0 { u64::from(n) << 28 } else { hash }, run + 1, n)
                    });
                    hashes.skip(if run % 3 == 2 { size / 2 } else { 0 }).collect()
                });
                check(&runs.collect::<Vec<Vec<RunSlot>>>());
            }
        }
    }

    #[test]
    fn slots_that_wrapped_come_last() {
        for around in [0, 100, 300, 1000] {
            for count in [43_u32, 100, 150] {
                let run = |number: u32| {
                    let last = (0..count).map(move |n| slot((1 << 40) - 1 - u64::from(n % 50), number, n));
                    let first = (0..count).map(move |n| slot(u64::from(n % 50), number, n));
                    let others = numbers(number.into()).take(around).map(move |hash| slot(hash, number, 7));
                    last.chain(first).chain(others).collect::<Vec<RunSlot>>()
                };
                check(&[run(1), run(2), run(3)]);
            }
        }
    }

    #[test]
    fn invalid_buckets_are_counted_and_the_rest_comes_in_order() {
        let slots: Vec<RunSlot> = numbers(1).take(500).map(|hash| slot(hash, 1, 1)).collect();
        let (run, file) = built(&slots, seals()[0], &EagerPlaces::default()).unwrap();
        crate::vfs::VfsFile::write_at(&file, &[1; 100], 4096 + 3 * 512).unwrap();
        let runs = [Arc::new(run)];
        let mut merged = MergedSlots::new(&runs);
        let rest: Vec<RunSlot> = merged.by_ref().collect();
        assert!(rest.len() < 500 && rest == sorted(rest.clone()));
        assert_eq!(merged.invalid(), 1);
    }
}
