//! One connection of async-cache to Redis or Valkey: bytes in, events out, without I/O.
//!
//! A front owns the socket. It gives received bytes to a [`Link`], writes the bytes of the link to
//! the server, and passes the events on. The core decides which commands are sent
//! (`async_cache_core::remote`).
//!
//! # Layout
//!
//! - `config`: the settings, and URLs; `secret`: the key of the tags; `error`: the errors.
//! - `layout`: names of entries, and keys on the server; `envelope`: the bytes under a key; `body`:
//!   the part of them that a front makes and reads.
//! - `link`: the connection: its beginning, commands, answers, and news of changes.
//! - `port`: the connection as an engine of the core.
//! - `resp`: the wire protocol of Redis, read in pieces of any length, and written.
#![forbid(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)]

pub mod body;
pub mod config;
pub mod envelope;
mod error;
pub mod layout;
pub mod link;
mod port;
pub mod resp;
mod secret;

pub use config::{Address, Config};
pub use error::{ConfigError, LinkError, LinkErrorKind};
pub use layout::Layout;
pub use link::{Link, LinkEvent, Ready};
pub use secret::Secret;
