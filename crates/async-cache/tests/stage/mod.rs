//! The common parts of this crate's tests: a time limit, runtimes, loads that end when the test
//! says.

mod limit;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

pub(crate) use limit::within_limit;

pub(crate) fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn several_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap()
}

/// Makes two tests of each `async fn`: on a single-threaded and on a multi-threaded runtime.
macro_rules! on_both_runtimes {
    ($($(#[$doc:meta])* async fn $name:ident() $body:block)+) => {$(
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn test() $body

            #[test]
            fn on_one_thread() {
                $crate::stage::within_limit(|| $crate::stage::one_thread().block_on(test()));
            }

            #[test]
            fn on_several_threads() {
                $crate::stage::within_limit(|| {
                    let runtime = $crate::stage::several_threads();
                    let test = runtime.spawn(test());
                    runtime.block_on(test).unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
                });
            }
        }
    )+};
}
pub(crate) use on_both_runtimes;

/// Makes a test of each `async fn`, on a multi-threaded runtime; for tests with statics, which two
/// tests would share.
macro_rules! on_several_threads {
    ($($(#[$doc:meta])* async fn $name:ident() $body:block)+) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            async fn test() $body

            $crate::stage::within_limit(|| {
                let runtime = $crate::stage::several_threads();
                let test = runtime.spawn(test());
                runtime.block_on(test).unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            });
        }
    )+};
}
pub(crate) use on_several_threads;

/// Polls a future once, without a waker.
pub(crate) fn poll_once<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Yields to other tasks until a condition holds.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

/// Loads that wait for the test's permission, and are counted from their first poll until they are
/// dropped.
#[derive(Debug)]
pub(crate) struct Loads {
    started: AtomicUsize,
    running: AtomicUsize,
    peak: AtomicUsize,
    leave: Semaphore,
}

impl Loads {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            leave: Semaphore::new(0),
        })
    }

    /// The number of loads started since the test began.
    pub(crate) fn started(&self) -> usize {
        self.started.load(SeqCst)
    }

    /// The number of running loads.
    pub(crate) fn running(&self) -> usize {
        self.running.load(SeqCst)
    }

    /// The greatest number of loads running at the same time.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(SeqCst)
    }

    /// Lets `count` loads end.
    pub(crate) fn let_end(&self, count: usize) {
        self.leave.add_permits(count);
    }

    /// A load that ends with `result` when the test permits.
    pub(crate) fn load<T: Send + 'static>(
        self: &Arc<Self>,
        result: T,
    ) -> impl FnOnce() -> Pin<Box<dyn Future<Output = T> + Send>> + Send + 'static {
        let loads = Arc::clone(self);
        move || {
            Box::pin(async move {
                let _running = Running::begin(&loads);
                loads.leave.acquire().await.unwrap().forget();
                result
            })
        }
    }
}

/// A running load, for the lifetime of the object.
#[derive(Debug)]
pub(crate) struct Running(Arc<Loads>);

impl Running {
    pub(crate) fn begin(loads: &Arc<Loads>) -> Self {
        loads.started.fetch_add(1, SeqCst);
        loads.peak.fetch_max(loads.running.fetch_add(1, SeqCst) + 1, SeqCst);
        Self(Arc::clone(loads))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

/// A number from the environment, for seeds and lengths of random tests.
pub(crate) fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}
