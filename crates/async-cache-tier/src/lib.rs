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
//! - [`Memory`] and [`Host`]: what a front provides; [`Asked`]: a key that a caller asks for
//! - [`Tier`]: what is kept for one cache beside its shards; [`Tiered`]: a shard and the snapshot under it
//! - [`Opened`]: a snapshot in use, from which single entries are read
//! - [`cold`]: one key: asking the snapshot, serving from it, writing and deleting
//! - [`open`]: opening a file under a cache, whatever is in memory; `union`: what two snapshots have between
//!   them
//! - [`save`]: saving; `hot`: the entries in memory, listed for a save; `encoded`: records on their way to
//!   the file; [`eager`]: entries whose keys only a front can compare
//! - [`writes`]: deletes and lost writes, which a save tells other processes
//! - [`clock`]: the system's clocks

#![allow(clippy::cast_possible_truncation)] // counts of entries fit into `usize`: they are in memory

pub mod clock;
pub mod cold;
pub mod eager;
mod encoded;
mod host;
mod hot;
pub mod open;
mod opened;
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
