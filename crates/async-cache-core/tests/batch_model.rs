//! The planner of batches against a naive model, operation by operation, including stale ids of
//! batches and items.
//!
//! The model is a list of all items ever added, in order, each with its current state. The items of
//! a batch, whether the batch is full and whether it is gone are computed from the list. After
//! every operation the test checks `validate()`, the number of waiting items, and when the next
//! batch is due. How to replay and soak: see `replay/mod.rs`.

use std::num::NonZeroUsize;
use std::time::Duration;

use async_cache_core::batch::{Added, Batch, BatchId, ItemId, Planner};
use async_cache_core::time::Time;

use crate::replay::every_seed;

const GROUPS: u32 = 3;

#[derive(Clone, Copy, Debug)]
enum Op {
    Add { group: u32 },
    Fire { nth: usize },
    FireAll,
    Drop { nth: usize },
    Close { group: u32 },
    Wait { nanos: u64 },
    Window { nanos: u64 },
    Size { max_size: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits,
    Left,
    Dropped,
}

/// An item of the model. Its number is its place in the list.
#[derive(Clone, Copy, Debug)]
struct Item {
    group: u32,
    /// `None` if the item left on arrival.
    id: Option<ItemId>,
    batch: BatchId,
    state: State,
}

/// A batch of the model, present or gone.
#[derive(Clone, Copy, Debug)]
struct Begun {
    id: BatchId,
    due: Time,
    max_size: usize,
}

struct Pair {
    planner: Planner<u32, usize>,
    window: Duration,
    max_size: usize,
    now: Time,
    items: Vec<Item>,
    batches: Vec<Begun>,
}

#[test]
fn the_planner_does_what_the_model_does() {
    every_seed(1_000, |run| {
        let window = Duration::from_nanos(run.dice.u64(..20));
        let max_size = run.dice.usize(1..6);
        let now = Time::from_nanos(run.dice.choice([0, 1_000, u64::MAX - 30]).unwrap());
        run.set_up(&(window, max_size, now));
        let planner = Planner::new(window, NonZeroUsize::new(max_size).unwrap());
        let mut pair = Pair { planner, window, max_size, now, items: Vec::new(), batches: Vec::new() };
        for _ in 0..200 {
            let op = pair.choose(&mut run.dice);
            run.note(op);
            pair.apply(op);
            pair.check();
        }
    });
}

impl Pair {
    fn choose(&self, dice: &mut fastrand::Rng) -> Op {
        // Mostly one of the latest, sometimes one that is long gone.
        let mut recent = |len: usize| {
            let latest = if dice.u32(..4) == 0 { len } else { 5 };
            len.saturating_sub(1 + dice.usize(..latest.max(1)))
        };
        let (item, batch) = (recent(self.items.len()), recent(self.batches.len()));
        match dice.u32(..40) {
            0..18 => Op::Add { group: dice.u32(..GROUPS) },
            18..22 => Op::Fire { nth: batch },
            22..25 => Op::FireAll,
            25..32 => Op::Drop { nth: item },
            32 => Op::Close { group: dice.u32(..GROUPS) },
            33..38 => Op::Wait { nanos: dice.u64(..15) },
            38 => Op::Window { nanos: dice.u64(..20) },
            _ => Op::Size { max_size: dice.usize(1..6) },
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Add { group } => self.add(group),
            Op::Fire { nth } => {
                let Some(&Begun { id, .. }) = self.batches.get(nth) else { return };
                let expected = self.leaves(id);
                assert_eq!(self.planner.take(id), expected);
            }
            Op::FireAll => {
                let now = self.now;
                let expected = self.leave_all(|batch, _| batch.due <= now);
                assert_eq!(self.planner.take_due(now), expected);
            }
            Op::Drop { nth } => self.drop_item(nth),
            Op::Close { group } => {
                let expected = self.leave_all(|_, known| known == group);
                assert_eq!(self.planner.take_groups(|&known| known == group), expected);
            }
            Op::Wait { nanos } => self.now = self.now.later(Duration::from_nanos(nanos)),
            Op::Window { nanos } => {
                self.window = Duration::from_nanos(nanos);
                self.planner.set_window(self.window);
            }
            Op::Size { max_size } => {
                self.max_size = max_size;
                self.planner.set_max_size(NonZeroUsize::new(max_size).unwrap());
            }
        }
    }

    fn add(&mut self, group: u32) {
        let number = self.items.len();
        let gathers = self.items.iter().find(|item| item.group == group && item.state == State::Waits);
        let gathers = gathers.map(|item| item.batch);
        let added = self.planner.add(group, number, self.now);
        let (batch, id) = match &added {
            &Added::Begins { id, .. } | &Added::Waits { id } => (id.batch(), Some(id)),
            Added::Leaves(batch) => (batch.id, None),
        };
        if let Some(gathers) = gathers {
            assert_eq!(batch, gathers, "it joins what gathers in its group");
        } else {
            assert!(self.batches.iter().all(|known| known.id != batch), "an id is used twice");
            let due = self.now.later(self.window);
            self.batches.push(Begun { id: batch, due, max_size: self.max_size });
        }
        if let Some(id) = id {
            assert!(self.items.iter().all(|item| item.id != Some(id)), "a id is given out twice");
        }
        self.items.push(Item { group, id, batch, state: State::Waits });

        let begun = self.begun(batch);
        let is_full = self.waiting(batch).len() == begun.max_size;
        match added {
            Added::Leaves(left) => {
                assert!(is_full, "a batch leaves that is not full");
                assert_eq!(Some(left), self.leaves(batch));
            }
            Added::Begins { due, .. } => assert_eq!((is_full, gathers, due), (false, None, begun.due)),
            Added::Waits { .. } => assert_eq!((is_full, gathers), (false, Some(batch))),
        }
    }

    fn drop_item(&mut self, nth: usize) {
        let Some(item) = self.items.get_mut(nth) else { return };
        let Some(id) = item.id else { return };
        let waits = item.state == State::Waits;
        assert_eq!(self.planner.drop_item(id), waits.then_some(nth));
        if waits {
            item.state = State::Dropped;
        }
    }

    // Answers of the model

    fn begun(&self, batch: BatchId) -> Begun {
        *self.batches.iter().find(|known| known.id == batch).expect("a batch that began")
    }

    /// The numbers of the items waiting in a batch, in the order of their arrival.
    fn waiting(&self, batch: BatchId) -> Vec<usize> {
        let all = self.items.iter().enumerate();
        let waiting = all.filter(|(_, item)| item.batch == batch && item.state == State::Waits);
        waiting.map(|(number, _)| number).collect()
    }

    /// Lets a batch leave; `None` if no item waits in it.
    fn leaves(&mut self, batch: BatchId) -> Option<Batch<u32, usize>> {
        let items = self.waiting(batch);
        let group = self.items[*items.first()?].group;
        for &number in &items {
            assert_eq!(self.items[number].group, group, "groups mix");
            self.items[number].state = State::Left;
        }
        Some(Batch { id: batch, group, items })
    }

    /// Lets every wanted batch leave, in the order in which they began.
    fn leave_all(&mut self, wanted: impl Fn(&Begun, u32) -> bool) -> Vec<Batch<u32, usize>> {
        let gathering = self.gathering();
        let wanted = gathering.into_iter().filter(|(batch, group)| wanted(batch, *group));
        wanted.filter_map(|(batch, _)| self.leaves(batch.id)).collect()
    }

    /// The batches with waiting items, and their groups.
    fn gathering(&self) -> Vec<(Begun, u32)> {
        let group = |batch: &Begun| self.waiting(batch.id).first().map(|&number| self.items[number].group);
        self.batches.iter().filter_map(|batch| Some((*batch, group(batch)?))).collect()
    }

    fn check(&self) {
        self.planner.validate();
        let waiting = self.items.iter().filter(|item| item.state == State::Waits).count();
        assert_eq!((self.planner.len(), self.planner.is_empty()), (waiting, waiting == 0));
        let gathering = self.gathering();
        assert_eq!(self.planner.next_due(), gathering.iter().map(|(batch, _)| batch.due).min());
        for group in 0..GROUPS {
            let of_group = gathering.iter().filter(|(_, known)| *known == group).count();
            assert!(of_group <= 1, "two batches of group {group} gather");
        }
    }
}
