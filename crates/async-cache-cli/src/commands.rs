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
pub(crate) mod verify;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use async_cache_disk::{Compression, SaveLock, Snapshot, WriteOptions, Writer};
use serde_json::Value;

use crate::failure::Failure;
use crate::host::Host;
use crate::human;
use crate::open::{Access, disk};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Success.
    Fine,
    /// Damage, a difference, or no such key.
    Found,
}

impl Outcome {
    /// [`Found`](Outcome::Found) if there is a finding.
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
pub(crate) fn create(path: &Path, options: WriteOptions) -> Result<Writer, Failure> {
    if disk().metadata(path).is_ok() {
        let path = path.display();
        return Err(Failure::Other(format!("{path}: there is something already; give a new name")));
    }
    Ok(Writer::create(&disk(), path, options)?)
}

/// The header data of a new file.
pub(crate) fn options(version: &str, saved_at: u64) -> WriteOptions {
    WriteOptions::new(version, saved_at).producer(PRODUCER)
}

/// Begins a new file with the contents of another.
pub(crate) fn create_like(
    path: &Path,
    snapshot: &Snapshot,
    access: &Access,
    host: &Host<'_>,
) -> Result<Writer, Failure> {
    create(path, options_like(snapshot, access, host)?)
}

/// Keeps services from saving to a path until the lock is dropped. Taken before the file is
/// replaced.
pub(crate) fn lock(path: &Path) -> Result<SaveLock, Failure> {
    Ok(SaveLock::take(&disk(), path, LOCK_TIMEOUT)?)
}

/// Begins a file that takes the place of an opened file.
pub(crate) fn replace(snapshot: &Snapshot, access: &Access, host: &Host<'_>) -> Result<Writer, Failure> {
    Ok(Writer::create(&disk(), snapshot.path(), options_like(snapshot, access, host)?)?)
}

/// Keeps the other file's time of saving, so that lives do not lengthen, and its secret and
/// compression.
fn options_like(snapshot: &Snapshot, access: &Access, host: &Host<'_>) -> Result<WriteOptions, Failure> {
    let options = options(snapshot.version(), snapshot.saved_at()).secret(access.secret(host)?);
    let compression = if snapshot.is_compressed() { Compression::ZSTD } else { Compression::OFF };
    Ok(options.compression(compression).dictionary_of(snapshot))
}

const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const PRODUCER: &str = concat!("async-cache-cli ", env!("CARGO_PKG_VERSION"));
