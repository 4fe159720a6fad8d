//! The commands, one file each.

pub(crate) mod compact;
pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod ls;
pub(crate) mod repair;
mod store;
pub(crate) mod verify;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use async_cache_disk::{CacheFile, Compression, Snapshot, WriteOptions, Writer};
use serde_json::Value;

use crate::environment::Environment;
use crate::failure::Failure;
use crate::human;
use crate::open::{Access, disk};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandOutcome {
    /// Success.
    Fine,
    /// Damage, a difference, or no such key.
    Found,
}

impl CommandOutcome {
    /// [`Found`](CommandOutcome::Found) if there is a finding.
    pub(crate) fn found(something: bool) -> Self {
        if something { Self::Found } else { Self::Fine }
    }
}

/// Writes one document of JSON on one line.
pub(crate) fn line(out: &mut dyn Write, value: &Value) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// Writes a name and a text about it on a line.
pub(crate) fn fact(out: &mut dyn Write, name: &str, what: &str) -> Result<(), Failure> {
    let dim = human::DIM;
    Ok(writeln!(out, "  {dim}{name:>10}{dim:#}  {what}")?)
}

/// Begins a new file. The path must be unused.
pub(crate) fn create(file: &CacheFile, options: WriteOptions) -> Result<Writer, Failure> {
    if file.vfs().metadata(file.path()).is_ok() {
        let path = file.path().display();
        return Err(Failure::Other(format!("{path}: there is something already; give a new name")));
    }
    // Another file under a store would change what the store holds.
    if let Some(store) = file.stores()?.first() {
        let (path, folder) = (file.path().display(), store.folder.display());
        return Err(Failure::Other(format!(
            "{path}: there is a store of this name already, {folder}; give a new name"
        )));
    }
    Ok(file.write(options)?)
}

/// A file written by this program, with data of a version.
pub(crate) fn new_file(path: &Path, version: &str) -> CacheFile {
    CacheFile::new(disk(), path).version(version).producer(PRODUCER)
}

/// Begins a new file with the contents of another.
pub(crate) fn create_like(
    path: &Path,
    snapshot: &Snapshot,
    access: &Access,
    environment: &Environment<'_>,
) -> Result<Writer, Failure> {
    create(&file_like(path, snapshot, access, environment)?, options_like(snapshot))
}

/// A file with the version, the secret and the compression of a snapshot.
pub(crate) fn file_like(
    path: &Path,
    snapshot: &Snapshot,
    access: &Access,
    environment: &Environment<'_>,
) -> Result<CacheFile, Failure> {
    let compression = if snapshot.is_compressed() { Compression::ZSTD } else { Compression::OFF };
    let file = new_file(path, snapshot.version()).compression(compression);
    Ok(file.secret(access.secret(environment)?))
}

/// For a copy of a snapshot: its time of saving stays, so that no entry lives longer.
pub(crate) fn options_like(snapshot: &Snapshot) -> WriteOptions {
    WriteOptions::new(snapshot.saved_at()).dictionary_of(snapshot)
}

/// How long a command waits for a save of a service.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const PRODUCER: &str = concat!("async-cache-cli ", env!("CARGO_PKG_VERSION"));
