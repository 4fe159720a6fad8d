//! The decisions of async-cache, without the waiting.
//!
//! What is in the cache, who loads, who waits, what is fenced off: all of it is decided here by plain
//! synchronous code that takes `now` as an argument. Two fronts, one on tokio and one on asyncio, do the
//! waiting; another crate owns the file.
//!
//! **Invariant:** no clock, no I/O, no lock, no `unsafe`. The same inputs give the same outputs, so a model
//! test can replay any run from its seed.
//!
//! # Layout
//!
//! - [`cache`]: one shard of a cache, where the parts below meet; a front calls little else
//! - [`store`]: the entries in memory; [`order`]: which of them makes room; `timer`: which have expired
//! - [`listing`]: the entries in their order, in pieces, while the cache goes on
//! - `written`: when entries were written, if a cache keeps times of writing; [`lost`]: writes that
//!   left memory before a save
//! - [`cold`]: the entries that are still only in the opened snapshot
//! - [`flight`]: running loads; [`batch`]: which keys are loaded together; [`waits`]: loads that wait for loads
//! - [`agent`]: sessions of agents, the resources of their tools, and loops in what they call
//! - [`stats`]: what is counted
//! - [`number`]: tables by counters and addresses
//! - [`time`]: instants and deadlines as numbers; `slab`: slots and the chains through them
//!
//! # Example
//!
//! One key, from miss to hit, as a front would do it:
//!
//! ```
//! use async_cache_core::cache::{Cache, Config, Loaded};
//! use async_cache_core::order::Eviction;
//! use async_cache_core::time::{Deadline, Time};
//! use std::time::Duration;
//!
//! let mut cache: Cache<&str, &str, ()> = Cache::new(Config::single(Some(100), Eviction::Lru));
//! let (hash, now) = (0x5EED, Time::from_nanos(0));
//!
//! // A miss: nobody loads the key yet, so this caller does.
//! assert!(cache.find(hash, |key| *key == "sky").is_none());
//! assert!(cache.find_flight(hash, |key| *key == "sky").is_none());
//! let flight = cache.lead(hash, "sky", ());
//!
//! // The load returns: its value is stored, for a minute.
//! let deadline = Deadline::after(now, Duration::from_secs(60));
//! let loaded = Loaded { value: "blue", deadline, origin: None, took: Duration::ZERO };
//! cache.land(flight, None, hash, loaded, now).expect("the flight was running");
//!
//! // A hit.
//! let slot = cache.find(hash, |key| *key == "sky").expect("just stored");
//! let entry = cache.hit(slot, |deadline| deadline.has_passed(now)).expect("not expired");
//! assert_eq!(*entry.value, "blue");
//! ```

#![allow(clippy::cast_possible_truncation)] // hashes are cut to their lower half on purpose, everywhere

pub mod agent;
pub mod batch;
pub mod cache;
pub mod cold;
pub mod flight;
pub mod listing;
pub mod lost;
pub mod number;
pub mod order;
mod slab;
pub mod stats;
pub mod store;
pub mod time;
mod timer;
pub mod waits;
mod written;
