//! An in-memory async cache that is never cold.
//!
//! A single load per key however many callers ask, time to live, bounded size, statistics. Entries
//! survive deploy, crash and `kill -9`: the next process opens them in a fraction of a millisecond
//! and serves them at once, and a hit pays nothing for it.
//!
//! ```
//! use async_cache::{AsyncCache, DiskBackend};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("squares.cache");
//! async fn slow_square(n: u64) -> Result<u64, std::num::TryFromIntError> {
//!     tokio::time::sleep(std::time::Duration::from_millis(5)).await;
//!     Ok(n * n)
//! }
//!
//! {
//!     let cache: AsyncCache<u64, u64> = AsyncCache::builder().backup(DiskBackend::new(&path)).build()?;
//!     assert_eq!(cache.get_or_load(&7, || slow_square(7)).await?, 49);
//!     cache.save_to_backup()?;
//! } // the process ends here
//!
//! let cache: AsyncCache<u64, u64> = AsyncCache::builder().backup(DiskBackend::new(&path)).build()?;
//! assert_eq!(cache.get(&7), Some(49)); // no load
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! - `cache`: [`AsyncCache`]; `builder`: how a cache is made; `inner`: its shards; `tally`:
//!   counting hits
//! - `writing`: writes of keys; `load`: calls that may load; `landing`: the ends of loads with a
//!   value; `room`: the callers that wait for a load; `nesting`: loads that wait for loads
//! - `macros`: [`async_lru`](macro@async_lru), [`async_ttl`](macro@async_ttl) and
//!   [`invalidates`](macro@invalidates), for functions; `function`: the code behind their
//!   expansions; `lookup`: [`Lookup`], borrowed forms of a key
//! - [`agent`]: tools of AI agents, cached, scoped and kept from looping
//! - `batch`: [`BatchLoader`], many keys in a single call of a loader; `warm`: [`WarmUp`], keys
//!   loaded before the first caller asks
//! - `backup`: [`CacheBackend`] and [`DiskBackend`], where entries persist; `host`: the cache as
//!   `async-cache-tier` sees it; `save`: saving; `restore`: loading the backup; `autosave`: saving
//!   unasked; `keeper`: the upkeep of a journal
//! - `remote`: the tier beyond one host (feature `redis`; else `remote_off`, which is empty);
//!   `asking`: loads that ask it first; `orders`: its orders to memory
//! - `error`: [`LoadError`], [`BackupError`], [`BuildError`]
//! - `clock`: [`Clock`], the source of the time; `sync`: locks, flags and tasks, those of the model
//!   checker under `--cfg shuttle`
//!
//! The crate `async-cache-core` decides which entries are in the cache, which caller loads and
//! which callers wait. The crate `async-cache-disk` owns the file, and `async-cache-tier` decides
//! how memory meets the file.

#![allow(clippy::cast_possible_truncation)] // numbers of shards, cut from hashes

pub mod agent;
#[cfg(feature = "redis")]
mod asking;
mod autosave;
mod backup;
mod batch;
mod builder;
mod cache;
mod clock;
mod error;
mod function;
mod host;
mod inner;
mod keeper;
mod landing;
mod load;
mod lookup;
#[cfg(feature = "macros")]
mod macros;
mod nesting;
#[cfg(feature = "redis")]
mod orders;
#[cfg(feature = "redis")]
pub mod remote;
#[cfg(not(feature = "redis"))]
mod remote_off;
#[cfg(not(feature = "redis"))]
use remote_off as remote;
mod restore;
mod room;
mod save;
mod sync;
mod tally;
mod warm;
mod writing;

pub use async_cache_core::order::Eviction;
pub use async_cache_core::stats::Stats;
pub use async_cache_disk::{
    Compression, DiskError, DiskErrorKind, FileIdentity, FileKind, Metadata, Ownership, RealDisk, Secret,
    ShortSecret, Vfs, VfsFile,
};

pub use backup::{CacheBackend, DiskBackend, Journal, SavedEntry};
pub use batch::{BatchAnswer, BatchLoader, BatchLoaderBuilder, KeyAnswer};
pub use builder::Builder;
pub use cache::{AsyncCache, Metrics};
pub use clock::{Clock, ManualClock};
pub use error::{BackendError, BackupError, BuildError, LoadError};
pub use function::CachedFunction;
pub use lookup::Lookup;
#[cfg(feature = "macros")]
pub use macros::{agent_cache, agent_invalidates, async_lru, async_ttl, invalidates};
pub use restore::Opening;
pub use save::Saved;
pub use warm::{WarmUp, WarmedUp};

/// The items used by the expansions of the macros. Private: they change without notice.
#[doc(hidden)]
pub mod __private {
    pub use std::borrow::{Borrow, ToOwned};
    pub use std::boxed::Box;
    pub use std::convert::Infallible;
    pub use std::result::Result;
    pub use std::time::Duration;

    pub use crate::function::{
        Fallible, FirstArguments, Invalidating, IsNoResult, MissedCall, Name, Optional, PerType, Returned,
        can_be_a_key, can_be_a_value, lend, run,
    };
}

/// Runs the examples of the README as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Runs the examples of the page about caches beyond one host as tests.
#[cfg(all(doctest, feature = "redis"))]
#[doc = include_str!("../../../docs/remote.md")]
struct BeyondOneHost;
