//! The memory cost of a file. A separate program, because the limit applies to all allocations of
//! the process; for the same reason one test at a time.

mod damage;
mod sample;
mod sparse;

use std::alloc::System;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cap::Cap;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Each test holds the lock from its first line to its last.
fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs with a limit of `bytes` above the current allocation; a larger allocation aborts the
/// process.
fn limited<T>(bytes: usize, run: impl FnOnce() -> T) -> T {
    struct Unlimited;
    impl Drop for Unlimited {
        fn drop(&mut self) {
            MEMORY.set_limit(usize::MAX).unwrap();
        }
    }
    let _after = Unlimited;
    MEMORY.set_limit(MEMORY.allocated() + bytes).unwrap();
    run()
}
