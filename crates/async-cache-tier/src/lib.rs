//! Where memory meets the file: the decisions that every front of async-cache shares.
//!
//! A front has memory (the shards of `async-cache-core`), a file (`async-cache-disk`), and keys and values
//! of its own. This crate decides what happens between them: what opening a file does to the entries in
//! memory, when an entry is read from the file, what a save writes and in which order, and what is
//! remembered of deletes so that the saves of several processes can merge.
//!
//! **Invariant:** this crate knows no runtime and no interpreter. Everything that waits, locks, encodes or
//! runs a user's code is a method of [`Memory`] or [`Host`], which each front implements. No lock of this crate is held
//! while such a method runs, except the turn (see [`Tier::turn`]). A hit in memory calls nothing here.
//!
//! # Layout
//!
//! - `host`: [`Memory`] and [`Host`], which a front implements; [`Asked`], a key that a caller asks for
//! - `tier`: [`Tier`], the data of one cache beside its shards; [`Tiered`], a shard and its snapshot;
//!   `counts`: the counts that belong to no shard
//! - `opened`: [`Opened`], a snapshot in use; `read`: reading single entries of it
//! - [`cold`]: operations on one key that may be in the snapshot
//! - [`open`]: opening a file under a cache; `union`: two snapshots in one
//! - [`save`]: saving; `hot`: the entries in memory, listed for a save; `encoded`: records before they are
//!   written; [`eager`]: records with keys that only a front can compare
//! - [`writes`]: deletes and lost writes, which a save records in the file
//! - [`clock`]: the system's clocks

#![allow(clippy::cast_possible_truncation)] // counts of entries fit into `usize`: they are in memory

pub mod clock;
pub mod cold;
mod counts;
pub mod eager;
mod encoded;
mod host;
mod hot;
pub mod open;
mod opened;
mod read;
pub mod save;
mod tier;
mod union;
pub mod writes;

pub use encoded::{Encoded, TooLarge};
pub use host::{Asked, FileKey, Host, Memory, Refusal, Slice, Taken, Under};
pub use hot::HotEntries;
pub use open::Opening;
pub use opened::Opened;
pub use save::Saved;
pub use tier::{Tier, Tiered, Turn, UnderShard};
