//! The decisions of async-cache, without the waiting.
//!
//! Which entries are in the cache, which caller loads, which callers wait, which loads are fenced
//! off: all of it is decided here by plain synchronous code that takes the time as an argument. Two
//! fronts, one on tokio and one on asyncio, do the waiting; another crate owns the file.
//!
//! **Invariant:** no clock, no I/O, no lock, no `unsafe`. The same inputs give the same outputs, so
//! a model test can replay any run from its seed.
//!
//! # Layout
//!
//! - [`shard`]: one shard of a cache, where the parts below meet; a front calls little else
//! - [`address`]: where a key is found, and where it may be written; [`probe`]: the snapshot's
//!   answer for a key
//! - [`entry`]: entries as they are read and written; [`removed`]: keys and values that left, and
//!   why; `era`: which entries are suspect
//! - [`store`]: the entries in memory; [`order`]: which of them makes room; `timer`: which have
//!   expired
//! - [`listing`]: the entries in their order, in pieces, while the cache goes on
//! - [`ledger`]: when entries were written, and which writes the file must learn of
//! - [`cold`]: the entries that are still only in the opened snapshot
//! - [`flight`]: running loads; [`batch`]: which keys are loaded together; [`waits`]: loads that
//!   wait for loads
//! - [`agent`]: sessions of agents, the resources of their tools, and loops in their calls
//! - [`remote`]: the tier beyond one host: leases, fences, what is covered, and what to do without
//!   the tier
//! - [`stats`]: the counters
//! - [`number`]: tables by counters and addresses
//! - [`time`]: instants, deadlines and times of writing as numbers; `slab`: slots and the chains
//!   through them
//!
//! # Example
//!
//! One key, from miss to hit, as a front would do it:
//!
//! ```
//! use async_cache_core::entry::Fetched;
//! use async_cache_core::order::Eviction;
//! use async_cache_core::shard::{Config, Shard};
//! use async_cache_core::time::{Deadline, Now, Time};
//! use std::time::Duration;
//!
//! let mut shard: Shard<&str, &str, ()> = Shard::new(Config::single(Some(100), Eviction::Lru));
//! let (hash, now) = (0x5EED, Now::without_wall(Time::from_nanos(0)));
//!
//! // A miss. No snapshot is open, so none has the key, and no load of the key runs: this caller loads.
//! let probed = shard.epoch().answered(None);
//! let at = shard.address(hash, probed, |key| *key == "sky").expect("no snapshot was opened since");
//! assert!(at.slot().is_none() && at.flight().is_none());
//! let flight = shard.lead(at, "sky", (), now);
//!
//! // The load returns: its value is stored, for a minute.
//! let fetched = Fetched::loaded("blue", Deadline::after(now.time, Duration::from_secs(60)));
//! let at = shard.address_of_flight(flight, hash).expect("no snapshot was opened since");
//! shard.land(flight, at, fetched, Duration::ZERO, now).expect("the flight was running");
//!
//! // A hit.
//! let has_passed = |deadline: Deadline| deadline.has_passed(now.time);
//! let value = shard.hit(hash, |key| *key == "sky", has_passed, |value| *value);
//! assert_eq!(value, Some("blue"));
//! ```

// hashes are cut to their lower half on purpose, everywhere
#![allow(clippy::cast_possible_truncation)]

pub mod address;
pub mod agent;
pub mod batch;
pub mod cold;
pub mod entry;
mod era;
pub mod flight;
pub mod ledger;
pub mod listing;
pub mod number;
pub mod order;
pub mod probe;
pub mod remote;
pub mod removed;
pub mod shard;
mod slab;
pub mod stats;
pub mod store;
pub mod time;
mod timer;
pub mod waits;
