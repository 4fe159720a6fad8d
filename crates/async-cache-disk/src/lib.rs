//! The file of async-cache: one snapshot of a whole cache, saved atomically, opened in constant
//! time, read lazily.
//!
//! Keys and values are opaque bytes here; the fronts know their meaning, and the time.
//! Everything is blocking and knows no runtime. The format is written down in
//! `docs/file-format.md`, section by section; this crate follows it.
//!
//! ```
//! use std::sync::Arc;
//! use async_cache_disk::{CacheFile, RealDisk, Scratch, WriteOptions};
//!
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("pages.cache");
//! let file = CacheFile::new(Arc::new(RealDisk), path).version("v1");
//!
//! // Coldest first: the order of pushing is the order of use.
//! let mut writer = file.write(WriteOptions::new(1_700_000_000_000_000_000))?;
//! writer.push(b"old", b"1", None)?;
//! writer.push(b"new", b"2", Some(1_700_000_060_000_000_000))?;
//! writer.finish()?;
//!
//! let snapshot = file.open()?.expect("it was just saved");
//! let mut scratch = Scratch::new();
//! let found = snapshot.find(b"new", &mut scratch).expect("it was pushed");
//! assert_eq!((found.value, found.rank), (&b"2"[..], 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//!
//! - Every length, count, offset and rank read from a file is checked before it is used.
//! - Every byte that is served was covered by a checksum that matched; and, if a [`Secret`] was
//!   given, by a tag that cannot be made without it.
//! - No file is read if another user owns it or can write to it.
//! - The old file is intact until the new one is complete and synced.
//! - Nothing in a file can panic, hang, or allocate more than the file's own size suggests.
//! - Data that could not be seen once is never seen again through the same [`Snapshot`] (see
//!   [`Snapshot::find`]).
//!
//! # Layout
//!
//! - `format`: bytes to numbers and back: header page, records, index buckets, deadline pages,
//!   checksums and tags; `format::store`: the files of a store
//! - `cache_file`: [`CacheFile`], a file with its settings, and every operation on it; `settings`:
//!   how it is read and written; `locked`: [`LockedFile`], a file whose saves are locked
//! - `snapshot`: [`Snapshot`], an opened file; look-up, reading all, deadlines, eager records
//! - `writer`: [`Writer`], saving; `writer::temp`: the life of the temporary file, and the rename
//! - `clear`: removing a cache file; `names`: the names of the files beside a cache file; `folder`:
//!   creating folders
//! - `trust`: the place where a path leads, and whether the file there may be read; `secret`:
//!   [`Secret`], which makes a file unforgeable; `random`: random bytes
//! - `compress`: [`Compression`], the only use of zstd; `writer::pack` chooses a file's dictionary
//! - `save`: a save of a whole cache in states, from [`Save`] to [`FinishedSave`]; `merge`: which
//!   entries of two files and two processes win; `merge::theirs`: copying the entries of the other
//!   file; `lock`: the lock of saves; `tombstones`: [`Tombstones`], which record deletes
//! - [`values`]: the numbers of the extension types in keys and values
//! - [`store`]: every write of a cache, kept in segments beside the file;
//!   `store::view`: a store as another process may read it, without its lock
//! - `verify`: walks a whole file and lists every fault
//! - `vfs`: [`Vfs`], every call of this crate to a file system; [`RealDisk`], and a fake for tests
//!   that can crash
//! - `process`: [`ProcessMark`], which tells a process from its forked children
//! - `error`: [`DiskError`], with its kind, path and offset; `fuzzing`: the decoders, for fuzzers

// Data of a file must not make this crate panic. Modules that handle no such data say so and allow
// it.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

mod cache_file;
mod clear;
mod compress;
mod error;
mod folder;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod lock;
mod locked;
mod merge;
mod names;
mod process;
mod random;
mod save;
mod secret;
mod settings;
mod snapshot;
pub mod store;
mod tombstones;
mod trust;
pub mod values;
mod verify;
mod vfs;
mod writer;

pub use cache_file::CacheFile;
pub use compress::Compression;
pub use error::{DiskError, DiskErrorKind};
pub use format::record::Times;
pub use locked::LockedFile;
pub use merge::{ColdEntries, Known, Learned, Merged, Ours};
pub use names::temporary_beside;
pub use process::ProcessMark;
pub use save::{Filling, FinishedSave, Joining, Output, Pushed, Save};
pub use secret::{Secret, ShortSecret};
pub use snapshot::{
    Damage, Deadlines, Due, EagerRecords, FoundEntry, Item, Layout, Loss, Record, RecordPlace, Records,
    Salvage, Scratch, Snapshot, Source,
};
pub use tombstones::{KeyKind, Tombstones};
pub use verify::{Finding, FindingKind, Report};
#[cfg(any(test, feature = "fake"))]
pub use vfs::fake;
pub use vfs::{FileIdentity, FileKind, LockHolder, Metadata, Ownership, RealDisk, Vfs, VfsFile};
pub use writer::{RecordNumber, SavedFile, WriteOptions, Writer};
