//! The file of async-cache: one snapshot of a whole cache, saved atomically, opened in constant time, read lazily.
//!
//! Keys and values are opaque bytes here; what they mean, and what time it is, the fronts know. Everything is blocking
//! and knows no runtime. The format is written down in `docs/file-format.md`, section by section; this crate follows it.
//!
//! ```
//! use std::sync::Arc;
//! use async_cache_disk::{RealDisk, Scratch, Snapshot, Vfs, WriteOptions, Writer};
//!
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("pages.cache");
//! let disk: Arc<dyn Vfs> = Arc::new(RealDisk);
//!
//! // Coldest first: the order of pushing is the order of use.
//! let mut writer = Writer::create(&disk, &path, WriteOptions::new("v1", 1_700_000_000_000_000_000))?;
//! writer.push(b"old", b"1", None)?;
//! writer.push(b"new", b"2", Some(1_700_000_060_000_000_000))?;
//! writer.finish()?;
//!
//! let snapshot = Snapshot::open(&disk, &path, "v1")?.expect("it was just saved");
//! let mut scratch = Scratch::new();
//! let found = snapshot.find(b"new", &mut scratch).expect("it was pushed");
//! assert_eq!((found.value, found.rank), (&b"2"[..], 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//!
//! - Every length, count, offset and rank read from a file is checked before it is used.
//! - Every byte that is served was covered by a checksum that matched; and, if a [`Secret`] was given, by a tag that
//!   cannot be made without it.
//! - No file is read that another user owns or can write to.
//! - The old file is intact until the new one is complete and synced.
//! - Nothing in a file can panic, hang, or allocate more than the file's own size suggests.
//! - What could not be seen once is never seen again through the same [`Snapshot`] (see [`Snapshot::find`]).
//!
//! # Layout
//!
//! - `format`: bytes to numbers and back: header page, records, index buckets, deadline pages,
//!   checksums and tags
//! - `snapshot`: [`Snapshot`], an opened file; look-up, reading all, deadlines, eager records
//! - `writer`: [`Writer`], saving; `writer::temp`: the life of the temporary file, and the rename
//! - `clear`: removing a cache file; `names`: the names of the files beside a cache file
//! - `trust`: whether the file at a path may be read; `secret`: [`Secret`], which makes a file
//!   unforgeable
//! - `compress`: [`Compression`], the only use of zstd; `writer::pack` chooses a file's dictionary
//! - `merge`: [`Merge`], which joins a file saved by another process with the entries of this one;
//!   `lock`: [`SaveLock`], which makes savers take turns; `tombstones`: [`Tombstones`], which record
//!   deletes
//! - `verify`: walks a whole file and lists every fault
//! - `vfs`: [`Vfs`], every call of this crate to a file system; [`RealDisk`], and a fake for tests
//!   that can crash
//! - `error`: [`DiskError`], with its kind, path and offset; `fuzzing`: the decoders, for fuzzers

mod clear;
mod compress;
mod error;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod lock;
mod merge;
mod names;
mod secret;
mod snapshot;
mod tombstones;
mod trust;
mod verify;
mod vfs;
mod writer;

pub use clear::clear;
pub use compress::Compression;
pub use error::{DiskError, DiskErrorKind};
pub use format::record::Times;
pub use lock::SaveLock;
pub use merge::{Cold, Learned, Merge, Merged};
pub use names::temporary_beside;
pub use secret::{Secret, ShortSecret};
pub use snapshot::{
    Damage, Deadlines, Due, EagerRecord, EagerRecords, EagerStep, Found, Layout, Place, ReadOptions, Record,
    Records, Salvage, SalvageStep, Scratch, Snapshot, Step, Successor,
};
pub use tombstones::{KeyKind, Tombstones};
pub use verify::{Finding, FindingKind, Report, verify, verify_with};
#[cfg(any(test, feature = "fake"))]
pub use vfs::fake;
pub use vfs::{FileKind, Metadata, Ownership, RealDisk, Vfs, VfsFile};
pub use writer::{Pushed, Saved, WriteOptions, Writer};
