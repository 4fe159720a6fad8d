//! One connection of async-cache to Redis or Valkey: bytes in, events out, without I/O.
//!
//! A front owns the socket. A [`Route`] says where to connect. The front gives received bytes to a
//! [`Link`], writes the bytes of the link to the server, and passes the events on. The core decides
//! which commands are sent (`async_cache_core::remote`).
//!
//! # Layout
//!
//! - `config`: the settings, and URLs; `secret`: the key of the tags; `credentials`: user and
//!   password in commands; `error`: the errors.
//! - `route`: where to connect: the server, or servers that know it; `inquiry`: the question to a
//!   Sentinel or to a node of a cluster.
//! - `layout`: names of entries, and keys on the server; `envelope`: the bytes under a key; `body`:
//!   the part of them that a front makes and reads.
//! - `link`: the connection: its beginning, commands, answers, and news of changes.
//! - `port`: the connection as an engine of the core; `predecessor`: the connection before it.
//! - `resp`: the wire protocol of Redis, read in pieces of any length, and written.
#![forbid(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)]

pub mod body;
pub mod config;
mod credentials;
pub mod envelope;
mod error;
mod inquiry;
pub mod layout;
pub mod link;
mod port;
mod predecessor;
pub mod resp;
mod route;
mod secret;

pub use config::{Address, Config, Place, Sentinels};
pub use error::{ConfigError, LinkError, LinkErrorKind};
pub use inquiry::{Inquiry, Located};
pub use layout::Layout;
pub use link::{Link, LinkEvent, Ready};
pub use predecessor::Predecessor;
pub use route::{Route, Step};
pub use secret::Secret;
