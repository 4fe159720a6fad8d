//! Whether a load may begin inside its first caller's `await`, on the caller's stack.
//!
//! If tasks can start eagerly (Python 3.12), a load that does not suspend costs no turn of the
//! event loop. But if a loader asks for another key, whose loader asks for another, and so on, all
//! of these loads are on one stack. Rules:
//!
//! 1. At most [`MOST`] loads begin on top of each other on one thread's stack; the next load is a
//!    task begun by the event loop, at the bottom of the stack, and further loads may begin on top
//!    of it. So loads nest as deep as memory allows, independently of the interpreter's recursion
//!    limit, and every sixteenth load costs a turn of the event loop.
//! 2. A load does not begin on a stack with less than [`RESERVE`] left: a loader must have room to
//!    work.

use std::cell::Cell;

use crate::raw::stack;

/// How many loads begin on top of each other.
const MOST: u32 = 16;

/// The stack available to a loader in bytes, at least, if the thread has so much at all.
const RESERVE: usize = 128 << 10;

thread_local! {
    /// The number of loads beginning on this thread's stack.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// A load that begins on the stack, until it suspends or ends.
pub(crate) struct Beginning(());

impl Beginning {
    /// `None` if the event loop must begin the load.
    pub(crate) fn on_the_stack() -> Option<Self> {
        let depth = DEPTH.get();
        // Rules 1 and 2.
        if depth >= MOST || stack::left().is_some_and(|left| left < RESERVE) {
            return None;
        }
        DEPTH.set(depth + 1);
        Some(Self(()))
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
    }
}
