//! The commands on a store: what they do differently from a file.

pub(super) mod compact;
pub(super) mod inspect;
pub(super) mod repair;
pub(super) mod verify;

use std::path::Path;

use async_cache_disk::store::StoreView;
use async_cache_disk::{Compression, Snapshot, Times, Tombstones, WriteOptions, Writer};

use super::{create, new_file};
use crate::entries::Entry;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::open::Access;

/// Begins a new file with the contents of a store. No entry lives longer there: the file's time is
/// that of the latest write.
fn create_like(
    path: &Path,
    view: &StoreView,
    access: &Access,
    environment: &Environment<'_>,
) -> Result<Writer, Failure> {
    let base = view.base();
    let compression =
        if base.is_some_and(Snapshot::is_compressed) { Compression::ZSTD } else { Compression::OFF };
    let file = new_file(path, view.version()).compression(compression).secret(access.secret(environment)?);
    let saved_at = base.map_or(0, Snapshot::saved_at).max(view.written_until());
    let mut options = WriteOptions::new(saved_at);
    if let Some(base) = base {
        options = options.dictionary_of(base);
    }
    create(&file, options)
}

/// The deletes that a file with the contents of a store remembers.
fn tombstones(view: &StoreView) -> Tombstones {
    let mut tombstones = view.base().map(Snapshot::tombstones).unwrap_or_default();
    if view.cleared_at() > 0 {
        tombstones.record_clear(view.cleared_at());
    }
    tombstones
}

fn push(writer: &mut Writer, entry: &Entry<'_>) -> Result<(), Failure> {
    let times = Times { deadline: entry.deadline, written_at: entry.written_at };
    if entry.is_eager {
        writer.push_eager(entry.key, entry.value, times)?;
    } else {
        writer.push(entry.key, entry.value, times)?;
    }
    Ok(())
}
