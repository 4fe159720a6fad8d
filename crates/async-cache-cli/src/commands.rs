//! One file each.

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

use async_cache_disk::{Snapshot, WriteOptions, Writer};
use serde_json::Value;

use crate::failure::Failure;
use crate::human;
use crate::open::disk;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well.
    Fine,
    /// There is damage, a difference, or no such key.
    Found,
}

impl Outcome {
    /// [`Found`](Outcome::Found) if there is something to find.
    pub(crate) fn found(something: bool) -> Self {
        if something { Self::Found } else { Self::Fine }
    }
}

/// Writes one document of JSON on one line.
pub(crate) fn line(out: &mut dyn Write, value: &Value) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// A name and what there is to say of it, on a line.
pub(crate) fn fact(out: &mut dyn Write, name: &str, what: &str) -> Result<(), Failure> {
    let dim = human::DIM;
    Ok(writeln!(out, "  {dim}{name:>10}{dim:#}  {what}")?)
}

/// Begins a new file for data of a version, as it was at a time. Nothing may stand there.
pub(crate) fn create(path: &Path, version: &str, saved_at: u64) -> Result<Writer, Failure> {
    if disk().metadata(path).is_ok() {
        let path = path.display();
        return Err(Failure::Other(format!("{path}: there is something already; give a new name")));
    }
    writer(path, version, saved_at)
}

/// Begins a file that takes the place of whatever cache file stands there.
pub(crate) fn writer(path: &Path, version: &str, saved_at: u64) -> Result<Writer, Failure> {
    let options = WriteOptions::new(version, saved_at);
    Ok(Writer::create(&disk(), path, options.producer(PRODUCER))?)
}

/// Begins a new file with the contents of another: so that lives do not lengthen, it keeps the other's time.
pub(crate) fn create_like(path: &Path, snapshot: &Snapshot) -> Result<Writer, Failure> {
    create(path, snapshot.version(), snapshot.saved_at())
}

const PRODUCER: &str = concat!("async-cache-cli ", env!("CARGO_PKG_VERSION"));
