//! Batches: which keys are loaded together, and when they leave.
//!
//! Owns what gathers. Knows neither keys nor loaders nor timers, and asks no clock: an item is whatever a front
//! knows a flight by, and its group is whatever must not mix: a loader, and on asyncio its event loop. A batch
//! is in one of two states:
//!
//! | state | takes in items | gives up items |
//! |---|---|---|
//! | gathering | yes; at most one batch of a group gathers | yes: [`Planner::drop_item`] |
//! | left | no | no; its id is stale, and every operation on it does nothing |
//!
//! Rules:
//! 1. The first item of a group begins a batch, which is due one window later. The front arms a timer for
//!    that, on the event loop of the group, and says [`Planner::due`] when it fires. It may fire a little early.
//! 2. A batch that is full leaves at once, with the item that filled it, and the next item of its group begins
//!    another. So seven keys in batches of three leave as three, three, and after the window one. The timer of
//!    a batch that left full finds nothing, for ids are never used again.
//! 3. A window of zero gathers what is asked until a timer of zero fires: the event loop gets to it when
//!    everybody who can run in this turn has asked. Who wants no gathering sets a size of one.
//! 4. Items leave in the order in which they came in.
//! 5. An item that is dropped takes no room. A batch whose last item is dropped is gone: its timer finds
//!    nothing, and the next item of its group begins another batch, with a window of its own.
//! 6. Another window or size holds for batches that begin afterwards.
//! 7. What has left is forgotten: a slow batch delays no other one.
//!
//! A key has at most one open flight, and only who leads a flight adds it, so a key comes once. There is one
//! exception: its flight is fenced while its batch gathers, and the key is asked for again. Then two flights of
//! one key may leave together, and the front that makes keys of the items has to ask the loader for it once
//! and answer both. Neither may be dropped for the other: the callers of the fenced one wait for it, and it
//! stores nothing still, for a load that was asked for before a `set` does not undo it.
//!
//! What happens to a flight of a batch, and who acts:
//!
//! | what happens | before the batch has left | afterwards |
//! |---|---|---|
//! | a caller leaves, the first or another, and others stay | nothing | nothing |
//! | the last caller of a key leaves | [`Planner::drop_item`], and the front ends the flight | `drop_item` says so; the load goes on, the result is stored |
//! | the loader fails, panics or is cancelled from within | | the front ends all flights of the batch with the error |
//! | the loader asks for a key of its batch | | the front refuses the wait, as for a single load |
//! | the key is fenced | it is loaded all the same, for those who wait | the result is not stored |
//! | the event loop of the group closes | [`Planner::due`] or [`Planner::abandon`], and the front abandons the flights | the front abandons them |

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use crate::time::Time;

/// Names one batch, from its first item on. Ids are never used twice within one planner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(u64);

/// The items of one batch that leaves, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<G, I> {
    /// What they have in common.
    pub group: G,
    /// At least one.
    pub items: Vec<I>,
}

/// What becomes of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a batch that begins needs a timer, and one that leaves has to be loaded"]
pub enum Added<G, I> {
    /// It waits for its batch to leave.
    Waits {
        /// Its batch.
        batch: BatchId,
        /// When that leaves at the latest.
        due: Time,
        /// Whether the batch begins with it: then a timer has to be armed for `due`.
        starts: bool,
    },
    /// Its batch is full, and leaves with it.
    Leaves(Batch<G, I>),
}

/// Decides which items leave together.
#[derive(Debug)]
pub struct Planner<G, I> {
    window: Duration,
    max_size: usize,
    /// By id, and so in the order in which they began.
    batches: BTreeMap<BatchId, Gathering<G, I>>,
    /// The one batch of each group that gathers. Never walked, for its order differs from run to run.
    gathering: HashMap<G, BatchId>,
    /// Counts up with every batch.
    serial: u64,
}

/// A batch that gathers.
#[derive(Debug)]
struct Gathering<G, I> {
    group: G,
    due: Time,
    /// What the planner's was when the batch began.
    max_size: usize,
    /// Never empty. Near its ends an item is dropped without moving the others, for callers who are cancelled
    /// together leave in the order in which they came, or in reverse.
    items: VecDeque<I>,
}

impl<G: Copy + Eq + Hash, I: Copy + Eq> Planner<G, I> {
    /// A planner whose batches leave after `window`, or when they have `max_size` items.
    ///
    /// # Panics
    /// If `max_size` is 0: no batch has so few items.
    pub fn new(window: Duration, max_size: usize) -> Self {
        assert!(max_size > 0, "a batch has at least one item");
        Self { window, max_size, batches: BTreeMap::new(), gathering: HashMap::new(), serial: 0 }
    }

    /// The window of batches that begin from now on.
    pub fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// The size of batches that begin from now on.
    ///
    /// # Panics
    /// If it is 0.
    pub fn set_max_size(&mut self, max_size: usize) {
        assert!(max_size > 0, "a batch has at least one item");
        self.max_size = max_size;
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.batches.values().map(|batch| batch.items.len()).sum()
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Adds an item to the batch of its group, or begins one.
    pub fn add(&mut self, group: G, item: I, now: Time) -> Added<G, I> {
        let known = self.gathering.get(&group).copied();
        let id = known.unwrap_or_else(|| self.begin(group, now));
        let batch = self.batches.get_mut(&id).expect("the batch of a group gathers");
        batch.items.push_back(item);
        if batch.items.len() < batch.max_size {
            Added::Waits { batch: id, due: batch.due, starts: known.is_none() }
        } else {
            Added::Leaves(self.due(id).expect("looked at above"))
        }
    }

    /// The timer of a batch has fired, or never will: it leaves. `None` if it has left already, or is gone.
    pub fn due(&mut self, batch: BatchId) -> Option<Batch<G, I>> {
        let Gathering { group, items, .. } = self.batches.remove(&batch)?;
        self.gathering.remove(&group);
        Some(Batch { group, items: items.into() })
    }

    /// When the next batch is due, for a front with one timer for all of them.
    pub fn next_due(&self) -> Option<Time> {
        self.batches.values().map(|batch| batch.due).min()
    }

    /// Makes every batch leave that is due, in the order in which they began; for a front with one timer.
    pub fn all_due(&mut self, now: Time) -> Vec<Batch<G, I>> {
        self.take_out(|batch| batch.due <= now)
    }

    /// Takes out what gathers in these groups, whose event loop is closed: nobody will call their loaders.
    pub fn abandon(&mut self, mut is_closed: impl FnMut(&G) -> bool) -> Vec<Batch<G, I>> {
        self.take_out(|batch| is_closed(&batch.group))
    }

    /// Drops an item that nobody wants any more; `true` if its batch had not left. A batch that has no item
    /// left is gone, and its timer finds nothing.
    pub fn drop_item(&mut self, batch: BatchId, item: I) -> bool {
        let Some(gathering) = self.batches.get_mut(&batch) else { return false };
        let Some(at) = gathering.items.iter().position(|&known| known == item) else { return false };
        gathering.items.remove(at);
        if gathering.items.is_empty() {
            self.due(batch);
        }
        true
    }

    /// Checks the invariants; for tests.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn validate(&self) {
        assert_eq!(self.gathering.len(), self.batches.len(), "every gathering batch is its group's");
        for (id, batch) in &self.batches {
            assert_eq!(self.gathering.get(&batch.group), Some(id), "a batch is in its own group");
            assert!(!batch.items.is_empty(), "a batch has an item");
            assert!(batch.items.len() < batch.max_size, "a full batch has left");
            assert!(id.0 <= self.serial, "an id is used once");
        }
    }

    /// Begins a batch, which is empty until its first item is put in.
    fn begin(&mut self, group: G, now: Time) -> BatchId {
        self.serial += 1;
        let id = BatchId(self.serial);
        let (due, max_size) = (now.later(self.window), self.max_size);
        self.batches.insert(id, Gathering { group, due, max_size, items: VecDeque::new() });
        self.gathering.insert(group, id);
        id
    }

    fn take_out(&mut self, mut wanted: impl FnMut(&Gathering<G, I>) -> bool) -> Vec<Batch<G, I>> {
        let wanted: Vec<BatchId> =
            self.batches.iter().filter(|(_, batch)| wanted(batch)).map(|(&id, _)| id).collect();
        wanted.into_iter().filter_map(|id| self.due(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(5);

    fn planner(max_size: usize) -> Planner<char, u32> {
        Planner::new(WINDOW, max_size)
    }

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn begins(added: Added<char, u32>) -> (BatchId, Time) {
        let Added::Waits { batch, due, starts: true } = added else { panic!("{added:?} begins no batch") };
        (batch, due)
    }

    fn joins(added: Added<char, u32>) -> BatchId {
        let Added::Waits { batch, starts: false, .. } = added else { panic!("{added:?} joins no batch") };
        batch
    }

    fn leaves(added: Added<char, u32>) -> Vec<u32> {
        let Added::Leaves(batch) = added else { panic!("{added:?} does not leave") };
        batch.items
    }

    #[test]
    fn seven_keys_leave_as_three_and_three_and_after_the_window_one() {
        let mut planner = planner(3);
        let (first, due) = begins(planner.add('a', 1, at(10)));
        assert_eq!(due, at(15));
        assert_eq!(joins(planner.add('a', 2, at(11))), first);
        assert_eq!(leaves(planner.add('a', 3, at(12))), [1, 2, 3]);
        let (second, due) = begins(planner.add('a', 4, at(13)));
        assert_eq!(due, at(18), "the window is the second batch's own");
        assert_eq!(joins(planner.add('a', 5, at(13))), second);
        assert_eq!(leaves(planner.add('a', 6, at(13))), [4, 5, 6]);
        let (third, _) = begins(planner.add('a', 7, at(14)));
        assert_eq!((planner.due(first), planner.due(second)), (None, None));
        assert_eq!(planner.due(third), Some(Batch { group: 'a', items: vec![7] }));
        assert!(planner.is_empty());
        planner.validate();
    }

    #[test]
    fn groups_do_not_mix() {
        let mut planner = planner(2);
        begins(planner.add('a', 1, at(0)));
        begins(planner.add('b', 2, at(0)));
        assert_eq!(leaves(planner.add('b', 3, at(0))), [2, 3]);
        assert_eq!(leaves(planner.add('a', 4, at(0))), [1, 4]);
    }

    #[test]
    fn a_size_of_one_gathers_nothing() {
        let mut planner = planner(1);
        assert_eq!(leaves(planner.add('a', 1, at(0))), [1]);
        assert_eq!(leaves(planner.add('a', 2, at(0))), [2]);
        assert!(planner.is_empty());
    }

    #[test]
    fn a_window_of_zero_gathers_until_the_timer_fires() {
        let mut planner = Planner::new(Duration::ZERO, 100);
        let (batch, due) = begins(planner.add('a', 1, at(3)));
        assert_eq!(due, at(3));
        joins(planner.add('a', 2, at(3)));
        assert_eq!(planner.due(batch).unwrap().items, [1, 2]);
    }

    #[test]
    fn a_window_past_the_end_of_the_clock_ends_there() {
        let mut planner = Planner::new(Duration::MAX, 2);
        assert_eq!(begins(planner.add('a', 1, at(3))).1, Time::from_nanos(u64::MAX));
        assert_eq!(leaves(planner.add('a', 2, at(4))), [1, 2]);
    }

    #[test]
    fn a_dropped_key_leaves_no_gap_and_takes_no_room() {
        let mut planner = planner(3);
        let (batch, _) = begins(planner.add('a', 1, at(0)));
        joins(planner.add('a', 2, at(0)));
        assert!(planner.drop_item(batch, 1));
        assert!(!planner.drop_item(batch, 1), "it is dropped once");
        assert_eq!(joins(planner.add('a', 3, at(0))), batch);
        assert_eq!(planner.len(), 2);
        assert_eq!(leaves(planner.add('a', 4, at(0))), [2, 3, 4]);
    }

    #[test]
    fn a_batch_whose_last_key_was_dropped_is_gone_and_the_next_has_a_window_of_its_own() {
        let mut planner = planner(3);
        let (first, _) = begins(planner.add('a', 1, at(0)));
        assert!(planner.drop_item(first, 1));
        assert!(planner.is_empty());
        let (second, due) = begins(planner.add('a', 2, at(4)));
        assert_eq!(due, at(9));
        assert_eq!(planner.due(first), None, "its timer finds nothing");
        assert_eq!(planner.due(second).unwrap().items, [2]);
    }

    #[test]
    fn a_key_whose_batch_has_left_is_not_dropped() {
        let mut planner = planner(2);
        let (first, _) = begins(planner.add('a', 1, at(0)));
        assert_eq!(leaves(planner.add('a', 2, at(0))), [1, 2]);
        begins(planner.add('a', 1, at(0)));
        assert!(!planner.drop_item(first, 1));
        assert_eq!(planner.len(), 1);
    }

    #[test]
    fn another_window_and_size_hold_for_batches_that_begin_afterwards() {
        let mut planner = planner(3);
        begins(planner.add('a', 1, at(0)));
        planner.set_max_size(2);
        planner.set_window(Duration::from_millis(50));
        joins(planner.add('a', 2, at(1)));
        assert_eq!(planner.next_due(), Some(at(5)));
        assert_eq!(leaves(planner.add('a', 3, at(2))), [1, 2, 3]);
        assert_eq!(begins(planner.add('a', 4, at(2))).1, at(52));
        assert_eq!(leaves(planner.add('a', 5, at(2))), [4, 5]);
    }

    #[test]
    fn one_timer_can_serve_all_batches() {
        let mut planner = planner(3);
        assert_eq!(planner.next_due(), None);
        begins(planner.add('b', 1, at(0)));
        begins(planner.add('a', 2, at(0)));
        begins(planner.add('c', 3, at(1)));
        assert_eq!(planner.next_due(), Some(at(5)));
        assert!(planner.all_due(at(4)).is_empty());
        let due: Vec<_> = planner.all_due(at(5)).into_iter().map(|batch| batch.group).collect();
        assert_eq!(due, ['b', 'a'], "in the order in which they began");
        assert_eq!(planner.next_due(), Some(at(6)));
    }

    #[test]
    fn what_gathers_on_a_closed_event_loop_is_taken_out() {
        let mut planner = planner(3);
        let (first, _) = begins(planner.add('a', 1, at(0)));
        joins(planner.add('a', 2, at(0)));
        begins(planner.add('b', 3, at(0)));
        assert_eq!(planner.abandon(|&group| group == 'a'), [Batch { group: 'a', items: vec![1, 2] }]);
        assert_eq!((planner.due(first), planner.len()), (None, 1));
        planner.validate();
    }
}
