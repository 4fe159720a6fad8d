//! Locks, flags, tasks and processors for the rest of the crate: the real ones, or under
//! `--cfg shuttle` those of the model checker.
//!
//! Owns the choice and nothing else. State outside this module (counters, the cold set, the opened
//! file) takes part in a model-checked run without yielding to other threads.

#[cfg(not(shuttle))]
mod real {
    pub(crate) use std::sync::OnceLock;
    pub(crate) use std::sync::atomic::AtomicBool;

    pub(crate) use parking_lot::{Mutex, RwLock};

    use async_cache_tier::{Tier, Turn};
    use std::future::Future;

    use super::NoRuntime;

    /// Starts a task on the runtime of the caller, if there is one.
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Result<(), NoRuntime> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| NoRuntime)?;
        drop(runtime.spawn(task));
        Ok(())
    }

    /// Runs work that blocks on a thread of the caller's runtime; without a runtime, on this
    /// thread. `None`: the runtime is being shut down, or the work panicked.
    pub(crate) async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.spawn_blocking(work).await.ok(),
            Err(_) => Some(work()),
        }
    }

    /// Waits for the turn to save or load.
    pub(crate) fn turn(tier: &Tier) -> Turn<'_> {
        tier.turn()
    }

    pub(crate) use tokio::runtime::Id as RuntimeId;

    /// Names the runtime of the caller; `None` if there is none.
    pub(crate) fn runtime_id() -> Option<RuntimeId> {
        tokio::runtime::Handle::try_current().ok().map(|runtime| runtime.id())
    }
}

#[cfg(shuttle)]
mod real {
    use std::future::Future;

    use std::sync::atomic::Ordering::SeqCst;

    use async_cache_tier::{Tier, Turn};
    pub(crate) use shuttle::sync::atomic::AtomicBool;
    use shuttle::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    use super::NoRuntime;

    /// A place where the checker may let others run, as any use of its own primitives is.
    #[derive(Debug, Default)]
    struct YieldPoint(AtomicBool);

    impl YieldPoint {
        fn take(&self) {
            self.0.load(SeqCst);
        }
    }

    /// [`std::sync::OnceLock`], before each use of which others may run.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T>(std::sync::OnceLock<T>, YieldPoint);

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self(std::sync::OnceLock::new(), YieldPoint::default())
        }

        pub(crate) fn get(&self) -> Option<&T> {
            self.1.take();
            self.0.get()
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            self.1.take();
            self.0.set(value)
        }
    }

    /// [`shuttle::sync::Mutex`] with the interface of `parking_lot`'s: no poisoning.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    /// [`shuttle::sync::RwLock`] with the interface of `parking_lot`'s: no poisoning.
    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    #[allow(clippy::unnecessary_wraps)] // the real function can fail
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Result<(), NoRuntime> {
        drop(shuttle::future::spawn(task));
        Ok(())
    }

    /// Runs the work: the checker has no threads for blocking work.
    pub(crate) async fn on_thread<T>(work: impl FnOnce() -> T) -> Option<T> {
        Some(work())
    }

    /// Waits for the turn to save or load. The checker does not see the lock of the tier, so the
    /// wait runs other threads.
    pub(crate) fn turn(tier: &Tier) -> Turn<'_> {
        loop {
            if let Some(turn) = tier.try_turn() {
                return turn;
            }
            shuttle::thread::yield_now();
        }
    }

    /// The checker has a single runtime.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) struct RuntimeId;

    #[allow(clippy::unnecessary_wraps)] // the real function can fail
    pub(crate) fn runtime_id() -> Option<RuntimeId> {
        Some(RuntimeId)
    }
}

pub(crate) use real::*;

/// The caller is outside of any runtime: nothing was spawned.
#[derive(Debug)]
pub(crate) struct NoRuntime;

/// The number of threads that can run at once. Read once, because the system takes some dozen
/// microseconds to answer.
pub(crate) fn parallelism() -> usize {
    static PARALLELISM: std::sync::LazyLock<usize> =
        std::sync::LazyLock::new(|| std::thread::available_parallelism().map_or(4, usize::from));
    *PARALLELISM
}
