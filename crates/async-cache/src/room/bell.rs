//! The bell of a room: wakes the tasks that wait for the room's answer.
//!
//! Owns the wakers. tokio's `Notify` does more, for some 500 instructions a waiter. Most loads have
//! one caller; the waker of the first caller stands in the bell itself.
//!
//! Rules:
//! 1. The answer is set before the bell rings. A waiter leaves its waker before it checks the
//!    answer. So either the waiter sees the answer, or the bell sees the waker.
//! 2. Wakers are woken and dropped with the lock released: both may run code of an executor.
//! 3. A waiter has one place for its waker, and empties the place when the waiter is dropped. So
//!    the number of places is the highest number of waiters at a time.

use std::task::Waker;

use crate::sync::Mutex;

/// Wakes all waiters, once.
pub(crate) struct Bell(Mutex<Wakers>);

#[derive(Default)]
struct Wakers {
    /// The waker in the first place.
    first: Option<Waker>,
    /// The wakers in the other places.
    others: Vec<Option<Waker>>,
    /// Empty places among the others.
    empty: Vec<usize>,
}

/// A place for a waker.
#[derive(Clone, Copy)]
enum WakerSlot {
    First,
    Other(usize),
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Wakers::default()))
    }

    /// A waiter without a waker yet.
    pub(crate) fn waiter(&self) -> Waiter<'_> {
        Waiter { bell: self, place: None }
    }

    /// Wakes all waiters. The answer has been set. Rule 1.
    pub(crate) fn ring(&self) {
        let Wakers { first, others, .. } = std::mem::take(&mut *self.0.lock());
        // Rule 2
        first.into_iter().chain(others.into_iter().flatten()).for_each(Waker::wake);
    }
}

impl Wakers {
    /// Gives a new waiter a place for its waker.
    fn seat(&mut self, waker: Waker) -> WakerSlot {
        if self.first.is_none() {
            self.first = Some(waker);
            return WakerSlot::First;
        }
        let place = self.empty.pop().unwrap_or(self.others.len());
        match self.others.get_mut(place) {
            Some(empty) => *empty = Some(waker),
            None => self.others.push(Some(waker)),
        }
        WakerSlot::Other(place)
    }

    /// The waker in a place; `None` if the place is gone because the bell has rung.
    fn at(&mut self, place: WakerSlot) -> Option<&mut Option<Waker>> {
        match place {
            WakerSlot::First => Some(&mut self.first),
            WakerSlot::Other(place) => self.others.get_mut(place),
        }
    }
}

/// A task that waits for the bell.
pub(crate) struct Waiter<'a> {
    bell: &'a Bell,
    place: Option<WakerSlot>,
}

impl Waiter<'_> {
    /// Leaves the waker of the task, to be woken when the bell rings. Check the answer after this
    /// call. Rule 1.
    pub(crate) fn leave(&mut self, waker: &Waker) {
        let mut wakers = self.bell.0.lock();
        let Some(place) = self.place else {
            self.place = Some(wakers.seat(waker.clone()));
            return;
        };
        let left = wakers.at(place);
        if left.as_ref().is_some_and(|left| left.as_ref().is_some_and(|left| left.will_wake(waker))) {
            return;
        }
        let before = left.and_then(|left| left.replace(waker.clone()));
        drop(wakers);
        drop(before); // Rule 2
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let mut wakers = self.bell.0.lock();
        let left = wakers.at(place).and_then(Option::take);
        if let (Some(_), WakerSlot::Other(place)) = (&left, place) {
            wakers.empty.push(place); // Rule 3
        }
        drop(wakers);
        drop(left); // Rule 2
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn waker() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn every_waiter_that_is_still_there_is_woken_once() {
        let bell = Bell::new();
        let wakers: Vec<_> = (0..5).map(|_| waker()).collect();
        let mut waiters: Vec<_> = wakers
            .iter()
            .map(|(_, waker)| {
                let mut waiter = bell.waiter();
                waiter.leave(waker);
                waiter
            })
            .collect();
        drop(waiters.remove(3));
        drop(waiters.remove(0));
        bell.ring();
        bell.ring();
        let woken: Vec<_> = wakers.iter().map(|(count, _)| count.0.load(Ordering::Relaxed)).collect();
        assert_eq!(woken, [0, 1, 1, 0, 1]);
    }

    #[test]
    fn the_waker_that_was_left_last_is_woken() {
        let (bell, (before, first), (after, second)) = (Bell::new(), waker(), waker());
        let mut waiter = bell.waiter();
        for waker in [&first, &first, &second] {
            waiter.leave(waker);
        }
        bell.ring();
        assert_eq!([before, after].map(|count| count.0.load(Ordering::Relaxed)), [0, 1]);
    }

    #[test]
    fn waiters_that_come_and_go_leave_no_places_behind() {
        let (bell, (_, waker)) = (Bell::new(), waker());
        let mut stays = [bell.waiter(), bell.waiter()];
        for waiter in &mut stays {
            waiter.leave(&waker);
        }
        for _ in 0..1000 {
            let mut passing = [bell.waiter(), bell.waiter()];
            for waiter in &mut passing {
                waiter.leave(&waker);
            }
        }
        assert_eq!(bell.0.lock().others.len(), 3);
    }

    #[test]
    fn a_waiter_that_is_dropped_after_the_bell_takes_no_other_waiter_with_it() {
        let (bell, (_, waker)) = (Bell::new(), waker());
        let mut waiters = [bell.waiter(), bell.waiter()];
        for waiter in &mut waiters {
            waiter.leave(&waker);
        }
        bell.ring();
        drop(waiters);
        assert!(bell.0.lock().empty.is_empty(), "the places are gone");
    }
}
