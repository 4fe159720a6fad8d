//! Whether a load may begin inside of its first caller's `await`, on the stack of that caller.
//!
//! Where tasks can start eagerly (Python 3.12), a load that does not suspend costs no turn of the
//! event loop. But a loader that asks for another key, whose loader asks for another one, and so
//! on, has all of these loads on one stack. Rules:
//!
//! 1. At most [`MOST`] loads lie on each other on one thread's stack; the next one is a task that
//!    the event loop begins, at the bottom of the stack, and on it others may lie again. So loads
//!    nest as deep as memory allows, whatever the interpreter's limit of recursion is, and every
//!    sixteenth of them costs a turn of the event loop.
//! 2. A load does not begin on a stack of which less than [`RESERVE`] is left: a loader must have
//!    room to work.

use std::cell::Cell;

use crate::raw::stack;

/// How many loads lie on each other.
const MOST: u32 = 16;

/// Bytes of stack that a loader finds at least, if the thread has them at all.
const RESERVE: usize = 128 << 10;

thread_local! {
    /// How many loads are beginning on this thread's stack.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// A load that begins on the stack, until it suspends or ends.
pub(crate) struct Beginning(());

impl Beginning {
    /// `None` if the load has to be begun by the event loop.
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
