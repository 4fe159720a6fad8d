//! What a file costs in memory. A program of its own, because the limit holds for all that its process
//! allocates; for that reason one test at a time.

mod damage;
mod sample;
mod sparse;

use std::alloc::System;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cap::Cap;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Each test holds it, from its first line to its last.
fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs with as many bytes more than are allocated now; an allocation beyond them aborts the process.
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
