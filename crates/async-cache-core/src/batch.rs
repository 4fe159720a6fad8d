//! Batches: which keys go to a batch loader together, and when they leave.
//!
//! Owns the gathering items. Knows neither keys nor loaders nor timers, and reads no clock. An item
//! is a front's name of a flight. Its group is a loader and, on asyncio, its event loop: items of
//! different groups never mix. A batch is in one of two states:
//!
//! | state | takes in items | gives up items |
//! |---|---|---|
//! | gathering | yes; at most one batch of a group gathers | yes: [`Planner::drop_item`] |
//! | left | no | no; its id and the ids of its items are stale, and every operation on them does nothing |
//!
//! Rules:
//! 1. The first item of a group begins a batch, which is due one window later. The front arms a
//!    timer for the batch, on the event loop of the group, and calls [`Planner::take`] when the
//!    timer fires. The timer may fire a little early.
//! 2. A full batch leaves at once, with the item that filled it, and the next item of its group
//!    begins another. So seven keys in batches of three leave as three, three, and, after the
//!    window, one. The timer of a batch that left full finds nothing, because ids are never used
//!    twice.
//! 3. A window of zero gathers items until a timer of zero fires: the event loop runs the timer
//!    after all code that can run in this turn has asked. A front that wants no gathering sets a
//!    size of one.
//! 4. Items leave in the order in which they came in.
//! 5. A dropped item takes no room. A batch whose last item is dropped is gone: its timer finds
//!    nothing, and the next item of its group begins another batch, with a new window.
//! 6. A changed window or size applies to batches that begin afterwards.
//! 7. A batch that has left is forgotten: a slow batch delays no other batch.
//!
//! A key has at most one open flight, and only the leader of a flight adds it, so a key comes once.
//! There is one exception: the key's flight is fenced while its batch gathers, and the key is
//! requested again. Then two flights of the key may leave together, and the front must request the
//! key once from the loader and answer both. Neither flight may be dropped for the other: the
//! callers of the fenced flight wait for it, and it still stores nothing, because a load that was
//! requested before a `set` must not undo the `set`.
//!
//! Events in the life of a flight of a batch:
//!
//! | event | before the batch has left | afterwards |
//! |---|---|---|
//! | a caller leaves, the first or another, and others stay | nothing | nothing |
//! | the last caller of a key leaves | [`Planner::drop_item`] returns the item, and the front ends the flight | it returns nothing; the load continues, and the result is stored |
//! | the loader fails, panics or is cancelled from within | | the front ends all flights of the batch with the error |
//! | the loader asks for a key of its batch | | the front refuses the wait, as for a single load |
//! | the key is fenced | it is loaded all the same, for the waiting callers | the result is not stored |
//! | the event loop of the group closes | [`Planner::take`] or [`Planner::take_groups`], and the front abandons the flights | the front abandons them |

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::time::Time;

/// The id of a batch. Ids are never used twice within a planner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(u64);

/// The id of an item, from its addition until its batch leaves. Never used twice within a planner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ItemId {
    batch: BatchId,
    number: u64,
}

impl ItemId {
    /// The batch of the item.
    pub const fn batch(self) -> BatchId {
        self.batch
    }
}

/// A batch that has left: call the loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<G, I> {
    /// The id of the batch.
    pub id: BatchId,
    /// The group of its items.
    pub group: G,
    /// The items in the order of their addition, at least one.
    pub items: Vec<I>,
}

/// The outcome of adding an item.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a batch that begins needs a timer, and one that leaves has to be loaded"]
pub enum Added<G, I> {
    /// The item is the first of its batch: arm a timer that calls [`Planner::take`] at `due`.
    Begins {
        /// The id of the item.
        id: ItemId,
        /// When the batch leaves, unless it is full before.
        due: Time,
    },
    /// The item waits with others.
    Waits {
        /// The id of the item.
        id: ItemId,
    },
    /// The item fills its batch, which leaves.
    Leaves(Batch<G, I>),
}

/// The gathering batches.
#[derive(Debug)]
pub struct Planner<G, I> {
    window: Duration,
    max_size: NonZeroUsize,
    /// By id, and so in the order in which they began.
    gathering: BTreeMap<BatchId, Gathering<G, I>>,
    /// The gathering batch of each group. Never iterated, because its order differs from run to
    /// run.
    by_group: HashMap<G, BatchId>,
    /// Counts up with every item. A batch has the number of its first item.
    serial: u64,
}

#[derive(Debug)]
struct Gathering<G, I> {
    group: G,
    due: Time,
    /// The planner's size when the batch began.
    max_size: NonZeroUsize,
    /// By the number of the item. Never empty.
    items: BTreeMap<u64, I>,
}

impl<G: Copy + Eq + Hash, I> Planner<G, I> {
    /// A planner whose batches leave after `window`, or when they have `max_size` items.
    pub fn new(window: Duration, max_size: NonZeroUsize) -> Self {
        let (gathering, by_group) = (BTreeMap::new(), HashMap::new());
        Self { window, max_size, gathering, by_group, serial: 0 }
    }

    /// Sets the window of batches that begin from now on.
    pub fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// Sets the size of batches that begin from now on.
    pub fn set_max_size(&mut self, max_size: NonZeroUsize) {
        self.max_size = max_size;
    }

    /// How many items wait, in all batches.
    pub fn len(&self) -> usize {
        self.gathering.values().map(|batch| batch.items.len()).sum()
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.gathering.is_empty()
    }

    /// Adds an item to the batch of its group, or begins a batch.
    pub fn add(&mut self, group: G, item: I, now: Time) -> Added<G, I> {
        self.serial += 1;
        let number = self.serial;
        if let Some(&id) = self.by_group.get(&group) {
            let batch = self.gathering.get_mut(&id).expect("the batch of a group gathers");
            batch.items.insert(number, item);
            return if batch.items.len() < batch.max_size.get() {
                Added::Waits { id: ItemId { batch: id, number } }
            } else {
                Added::Leaves(self.take(id).expect("looked at above"))
            };
        }
        let id = BatchId(number);
        if self.max_size.get() == 1 {
            return Added::Leaves(Batch { id, group, items: vec![item] });
        }
        let due = now.later(self.window);
        let items = BTreeMap::from([(number, item)]);
        self.gathering.insert(id, Gathering { group, due, max_size: self.max_size, items });
        self.by_group.insert(group, id);
        Added::Begins { id: ItemId { batch: id, number }, due }
    }

    /// Makes a batch leave: its timer has fired, or never will. `None` if the batch has left
    /// already, or is gone.
    pub fn take(&mut self, batch: BatchId) -> Option<Batch<G, I>> {
        let Gathering { group, items, .. } = self.gathering.remove(&batch)?;
        self.by_group.remove(&group);
        Some(Batch { id: batch, group, items: items.into_values().collect() })
    }

    /// When the next batch is due, for a front with a single timer for all of them.
    pub fn next_due(&self) -> Option<Time> {
        self.gathering.values().map(|batch| batch.due).min()
    }

    /// Makes every due batch leave, in the order in which they began; for a front with a single
    /// timer.
    pub fn take_due(&mut self, now: Time) -> Vec<Batch<G, I>> {
        self.take_all(|batch| batch.due <= now)
    }

    /// Removes the gathering items of these groups, whose event loop is closed: their loaders will
    /// never be called.
    pub fn take_groups(&mut self, mut is_closed: impl FnMut(&G) -> bool) -> Vec<Batch<G, I>> {
        self.take_all(|batch| is_closed(&batch.group))
    }

    /// Drops an item without waiting callers, and returns it. `None` if its batch has left: then
    /// the load continues, and its result is stored.
    pub fn drop_item(&mut self, id: ItemId) -> Option<I> {
        let batch = self.gathering.get_mut(&id.batch)?;
        let item = batch.items.remove(&id.number)?;
        if batch.items.is_empty() {
            self.take(id.batch);
        }
        Some(item)
    }

    /// Checks the invariants; for tests.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn validate(&self) {
        assert_eq!(self.by_group.len(), self.gathering.len(), "every batch that gathers is its group's");
        for (id, batch) in &self.gathering {
            assert_eq!(self.by_group.get(&batch.group), Some(id), "a group has one batch that gathers");
            assert!(!batch.items.is_empty(), "an empty batch is gone");
            assert!(batch.items.len() < batch.max_size.get(), "a full batch has left");
            let numbers_are_used_up =
                batch.items.keys().all(|&number| id.0 <= number && number <= self.serial);
            assert!(numbers_are_used_up, "no number is given out again");
        }
    }

    fn take_all(&mut self, mut wanted: impl FnMut(&Gathering<G, I>) -> bool) -> Vec<Batch<G, I>> {
        let wanted: Vec<BatchId> =
            self.gathering.iter().filter(|(_, batch)| wanted(batch)).map(|(&id, _)| id).collect();
        wanted.into_iter().filter_map(|id| self.take(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(5);

    fn planner(max_size: usize) -> Planner<char, u32> {
        Planner::new(WINDOW, size(max_size))
    }

    fn size(max_size: usize) -> NonZeroUsize {
        NonZeroUsize::new(max_size).unwrap()
    }

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn begins(added: &Added<char, u32>) -> (ItemId, Time) {
        let &Added::Begins { id, due } = added else { panic!("{added:?} begins no batch") };
        (id, due)
    }

    fn waits(added: &Added<char, u32>) -> ItemId {
        let &Added::Waits { id } = added else { panic!("{added:?} does not wait with others") };
        id
    }

    fn leaves(added: Added<char, u32>) -> Vec<u32> {
        let Added::Leaves(batch) = added else { panic!("{added:?} does not leave") };
        batch.items
    }

    #[test]
    fn seven_keys_leave_as_three_and_three_and_after_the_window_one() {
        let mut planner = planner(3);
        let (first, due) = begins(&planner.add('a', 1, at(10)));
        assert_eq!(due, at(15));
        assert_eq!(waits(&planner.add('a', 2, at(11))).batch(), first.batch());
        assert_eq!(leaves(planner.add('a', 3, at(12))), [1, 2, 3]);
        let (second, due) = begins(&planner.add('a', 4, at(13)));
        assert_eq!(due, at(18), "the window is the second batch's own");
        waits(&planner.add('a', 5, at(13)));
        assert_eq!(leaves(planner.add('a', 6, at(13))), [4, 5, 6]);
        let (third, _) = begins(&planner.add('a', 7, at(14)));
        assert_eq!((planner.take(first.batch()), planner.take(second.batch())), (None, None));
        let last = Batch { id: third.batch(), group: 'a', items: vec![7] };
        assert_eq!(planner.take(third.batch()), Some(last));
        assert!(planner.is_empty());
        planner.validate();
    }

    #[test]
    fn groups_do_not_mix() {
        let mut planner = planner(2);
        begins(&planner.add('a', 1, at(0)));
        begins(&planner.add('b', 2, at(0)));
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
        let mut planner = Planner::new(Duration::ZERO, size(100));
        let (id, due) = begins(&planner.add('a', 1, at(3)));
        assert_eq!(due, at(3));
        waits(&planner.add('a', 2, at(3)));
        assert_eq!(planner.take(id.batch()).unwrap().items, [1, 2]);
    }

    #[test]
    fn a_window_past_the_end_of_the_clock_ends_there() {
        let mut planner = Planner::new(Duration::MAX, size(2));
        assert_eq!(begins(&planner.add('a', 1, at(3))).1, Time::from_nanos(u64::MAX));
        assert_eq!(leaves(planner.add('a', 2, at(4))), [1, 2]);
    }

    #[test]
    fn a_dropped_key_leaves_no_gap_and_takes_no_room() {
        let mut planner = planner(3);
        let (one, _) = begins(&planner.add('a', 1, at(0)));
        waits(&planner.add('a', 2, at(0)));
        assert_eq!((planner.drop_item(one), planner.drop_item(one)), (Some(1), None));
        assert_eq!(waits(&planner.add('a', 3, at(0))).batch(), one.batch());
        assert_eq!(planner.len(), 2);
        assert_eq!(leaves(planner.add('a', 4, at(0))), [2, 3, 4]);
    }

    #[test]
    fn a_batch_whose_last_key_was_dropped_is_gone_and_the_next_has_a_window_of_its_own() {
        let mut planner = planner(3);
        let (one, _) = begins(&planner.add('a', 1, at(0)));
        assert_eq!(planner.drop_item(one), Some(1));
        assert!(planner.is_empty());
        let (two, due) = begins(&planner.add('a', 2, at(4)));
        assert_eq!(due, at(9));
        assert_eq!(planner.take(one.batch()), None, "the first batch's timer finds nothing");
        assert_eq!(planner.take(two.batch()).unwrap().items, [2]);
    }

    #[test]
    fn a_key_whose_batch_has_left_is_not_dropped() {
        let mut planner = planner(2);
        let (one, _) = begins(&planner.add('a', 1, at(0)));
        assert_eq!(leaves(planner.add('a', 2, at(0))), [1, 2]);
        begins(&planner.add('a', 3, at(0)));
        assert_eq!((planner.drop_item(one), planner.len()), (None, 1));
    }

    #[test]
    fn another_window_and_size_hold_for_batches_that_begin_afterwards() {
        let mut planner = planner(3);
        begins(&planner.add('a', 1, at(0)));
        planner.set_max_size(size(2));
        planner.set_window(Duration::from_millis(50));
        waits(&planner.add('a', 2, at(1)));
        assert_eq!(planner.next_due(), Some(at(5)));
        assert_eq!(leaves(planner.add('a', 3, at(2))), [1, 2, 3]);
        assert_eq!(begins(&planner.add('a', 4, at(2))).1, at(52));
        assert_eq!(leaves(planner.add('a', 5, at(2))), [4, 5]);
    }

    #[test]
    fn one_timer_can_serve_all_batches() {
        let mut planner = planner(3);
        assert_eq!(planner.next_due(), None);
        begins(&planner.add('b', 1, at(0)));
        begins(&planner.add('a', 2, at(0)));
        begins(&planner.add('c', 3, at(1)));
        assert_eq!(planner.next_due(), Some(at(5)));
        assert!(planner.take_due(at(4)).is_empty());
        let due: Vec<_> = planner.take_due(at(5)).into_iter().map(|batch| batch.group).collect();
        assert_eq!(due, ['b', 'a'], "in the order in which they began");
        assert_eq!(planner.next_due(), Some(at(6)));
    }

    #[test]
    fn what_gathers_on_a_closed_event_loop_is_taken_out() {
        let mut planner = planner(3);
        let (one, _) = begins(&planner.add('a', 1, at(0)));
        waits(&planner.add('a', 2, at(0)));
        begins(&planner.add('b', 3, at(0)));
        let abandoned = planner.take_groups(|&group| group == 'a');
        assert_eq!(abandoned, [Batch { id: one.batch(), group: 'a', items: vec![1, 2] }]);
        assert_eq!((planner.take(one.batch()), planner.len()), (None, 1));
        planner.validate();
    }
}
