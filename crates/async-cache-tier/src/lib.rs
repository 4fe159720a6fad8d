//! Where memory meets the file: the decisions that every front of async-cache shares.
//!
//! A front has memory (the shards of `async-cache-core`), a file (`async-cache-disk`), and its own
//! keys and values. This crate decides how they meet: the effect of opening a file on the entries
//! in memory, the time when an entry is read from the file, the content and the order of a save,
//! and the records of deletes for merging the saves of several processes.
//!
//! **Invariant:** this crate knows no runtime and no interpreter. Everything that waits, locks,
//! encodes or runs a user's code is a method of [`Memory`] or [`Host`], which each front
//! implements. No lock of this crate is held while such a method runs, except the turn (see
//! [`Tier::turn`]). A hit in memory calls nothing here.
//!
//! # Layout
//!
//! - `host`: [`Memory`] and [`Host`], implemented by a front; [`NamedKey`], the key of a call
//! - `tier`: [`Tier`], the state of a cache beside its shards; [`Tiered`], a shard and its
//!   snapshot; `counts`: the counts that belong to no shard
//! - `opened`: [`Opened`], a snapshot in use; `read`: reading single entries of a snapshot
//! - [`cold`]: operations on a key in the snapshot
//! - [`open`]: opening a file under a cache; `union`: two snapshots in one
//! - [`save`]: saving; `hot`: the entries in memory, listed for a save; `encoded`: records on their
//!   way to the file; [`eager`]: records whose keys only a front can compare
//! - [`journal`]: the store of a cache, in which every write is on file when its call returns;
//!   `journal_state`: [`journal::Journal`], the part that knows no front; `journal_start`: the
//!   start of the work in the background
//! - [`writes`]: deletes and lost writes, which a save records in the file
//! - [`suspects`]: entries that may be out of date, and changes by others, for a tier beyond one
//!   host; `suspect_records`: the same facts about records; [`names`]: the entries behind the names
//!   that such a tier knows
//! - [`remote`]: the tier beyond one host, with its connection and those who wait for it
//! - [`clock`]: the system's clocks

// counts of entries fit into `usize`: they are in memory
#![allow(clippy::cast_possible_truncation)]

pub mod clock;
pub mod cold;
mod counts;
pub mod eager;
mod encoded;
mod host;
mod hot;
pub mod journal;
mod journal_start;
mod journal_state;
pub mod names;
pub mod open;
mod opened;
mod read;
pub mod remote;
pub mod save;
mod suspect_records;
pub mod suspects;
mod tier;
mod union;
pub mod writes;

pub use encoded::{Encoded, TooLarge};
pub use host::{FileKey, Host, Memory, NamedKey, Refusal, Slice, Taken, Under};
pub use hot::HotEntries;
pub use open::OpeningOutcome;
pub use opened::Opened;
pub use save::SaveOutcome;
pub use tier::{Tier, Tiered, Turn, UnderShard};
