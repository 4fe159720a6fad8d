//! Futures that one task polls together.
//!
//! Rules:
//! 1. a future is polled when it is added and whenever it was woken itself, not when another one was: so many futures of
//!    which each is woken a few times cost as many polls, however many run beside them;
//! 2. each future has a waker of its own, which notes the future's place and wakes the task. A place that has another
//!    future by then is polled once too often, which a future has to bear;
//! 3. the task's waker is stored before the notes are taken: what is woken later wakes the task.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// Futures that run at the same time.
pub(crate) struct Together<'a, T> {
    places: Vec<Option<Running<'a, T>>>,
    /// Places without a future.
    free: Vec<usize>,
    woken: Arc<Mutex<Woken>>,
}

struct Running<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Woken {
    /// Futures that are to be polled.
    places: Vec<usize>,
    /// The task's.
    waker: Option<Waker>,
}

/// Wakes the task for one future.
struct Bell {
    place: usize,
    /// Whether the place is noted already.
    is_noted: AtomicBool,
    woken: Arc<Mutex<Woken>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_noted.swap(true, Ordering::AcqRel) {
            return;
        }
        let waker = {
            let mut woken = self.woken.lock();
            woken.places.push(self.place);
            woken.waker.take()
        };
        // Not under the lock: a waker may run anything.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<'a, T> Together<'a, T> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), woken: Arc::default() }
    }

    /// How many run.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Adds a future. It is polled by [`Together::some`], and not before.
    pub(crate) fn push(&mut self, future: impl Future<Output = T> + Send + 'a) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let bell = Arc::new(Bell { place, is_noted: AtomicBool::new(true), woken: Arc::clone(&self.woken) });
        self.woken.lock().places.push(place); // Rule 1.
        self.places[place] = Some(Running { future: Box::pin(future), bell });
    }

    /// Waits until one or more are ready, and returns what came of them. There has to be one that runs.
    pub(crate) async fn some(&mut self) -> Vec<T> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Vec<T>> {
        let places = {
            let mut woken = self.woken.lock();
            woken.waker = Some(cx.waker().clone()); // Rule 3.
            std::mem::take(&mut woken.places)
        };
        let mut ready = Vec::new();
        for place in places {
            let Some(running) = &mut self.places[place] else { continue };
            // Before the poll, for it may be woken meanwhile.
            running.bell.is_noted.store(false, Ordering::Release);
            let waker = Waker::from(Arc::clone(&running.bell));
            if let Poll::Ready(outcome) = running.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                ready.push(outcome);
                self.places[place] = None;
                self.free.push(place);
            }
        }
        if ready.is_empty() { Poll::Pending } else { Poll::Ready(ready) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A future that is ready when it is told to be, and counts its polls.
    #[derive(Default)]
    struct Gate {
        polls: AtomicUsize,
        state: Mutex<(bool, Option<Waker>)>,
    }

    impl Gate {
        fn open(&self) {
            let waker = {
                let mut state = self.state.lock();
                state.0 = true;
                state.1.take()
            };
            waker.unwrap().wake();
        }

        async fn pass(self: Arc<Self>) {
            poll_fn(|cx| {
                self.polls.fetch_add(1, Ordering::Relaxed);
                let mut state = self.state.lock();
                state.1 = Some(cx.waker().clone());
                if state.0 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All that ran were polled whenever any was woken: a warm-up with thousands of loads at a time polled them millions
    /// of times.
    #[test]
    fn a_future_is_polled_when_it_was_woken_and_not_for_others() {
        let gates: Vec<Arc<Gate>> = (0..1_000).map(|_| Arc::default()).collect();
        let mut together = Together::new();
        gates.iter().for_each(|gate| together.push(Arc::clone(gate).pass()));
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        let cx = Context::from_waker(&waker);
        assert!(together.poll(&cx).is_pending());
        for (opened, gate) in gates.iter().enumerate() {
            gate.open();
            assert_eq!(task.0.load(Ordering::Relaxed), opened + 1, "the task is woken");
            assert!(matches!(together.poll(&cx), Poll::Ready(done) if done.len() == 1));
            assert!(together.poll(&cx).is_pending());
        }
        assert_eq!(together.len(), 0);
        assert!(gates.iter().all(|gate| gate.polls.load(Ordering::Relaxed) == 2));
    }

    #[test]
    fn several_that_are_woken_before_a_poll_are_all_polled_and_wake_the_task_once() {
        let gates: Vec<Arc<Gate>> = (0..5).map(|_| Arc::default()).collect();
        let mut together = Together::new();
        gates.iter().for_each(|gate| together.push(Arc::clone(gate).pass()));
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        let cx = Context::from_waker(&waker);
        assert!(together.poll(&cx).is_pending());
        [4, 0, 2].iter().for_each(|&gate: &usize| gates[gate].open());
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        assert!(matches!(together.poll(&cx), Poll::Ready(done) if done.len() == 3));
        // A place is used again, and its former waker does no harm.
        let again = Arc::<Gate>::default();
        together.push(Arc::clone(&again).pass());
        assert!(together.poll(&cx).is_pending());
        [1, 3].iter().for_each(|&gate: &usize| gates[gate].open());
        again.open();
        assert!(matches!(together.poll(&cx), Poll::Ready(done) if done.len() == 3));
        assert_eq!(together.len(), 0);
    }
}
