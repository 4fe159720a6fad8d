//! RESP, the wire protocol of Redis: versions 3 and 2.
//!
//! # Layout
//!
//! - `read`: bytes to messages, resumable at every byte; `write`: commands to bytes; `value`: the
//!   parts of a reply.
//!
//! Invariant: memory grows with the bytes that have arrived, never with an announced length.
//! Invariant: the time for a message is linear in its length, however it is split.

mod read;
mod value;
mod write;

pub use read::{Limits, Malformed, Reader};
pub use value::{Message, Value};
pub use write::Writer;
