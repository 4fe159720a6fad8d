//! The one place that opens a file to look at, with the options that say how.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_cache_disk::{ReadOptions, RealDisk, Report, Secret, Snapshot, Vfs, verify_with};
use clap::Args;

use crate::failure::Failure;
use crate::host::Host;

/// Longer files hold no secret.
const MAX_SECRET_BYTES: u64 = 1 << 16;

/// The file to look at, and how to open it.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// The cache file
    #[arg(value_name = "FILE")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// How to open files.
#[derive(Debug, Clone, Args)]
pub(crate) struct Access {
    /// Take the secret of the cache file from this file (a line end at its end is no part of it), not from the
    /// environment variable `ASYNC_CACHE_SECRET`
    #[arg(long, value_name = "PATH")]
    secret_file: Option<PathBuf>,
    /// Look into a file, too, that another user owns or can write to
    #[arg(long)]
    pub(crate) any_owner: bool,
}

impl Source {
    /// Opens the file, whatever the version of the data in it.
    pub(crate) fn open(&self, host: &Host<'_>) -> Result<Snapshot, Failure> {
        self.access.open(&self.path, host)
    }
}

impl Access {
    /// Opens a file, whatever the version of the data in it. That there is none is an error.
    pub(crate) fn open(&self, path: &Path, host: &Host<'_>) -> Result<Snapshot, Failure> {
        match Snapshot::open_with(&disk(), path, &self.options(host)?)? {
            Some(snapshot) => Ok(snapshot),
            None if disk().metadata(path).is_ok() => {
                let path = path.display();
                Err(Failure::Other(format!("{path}: the file is empty: it holds no snapshot yet")))
            }
            None => Err(Failure::Other(format!("{}: there is no such file", path.display()))),
        }
    }

    /// Walks a file that [`open`](Self::open) could open.
    pub(crate) fn verify(&self, path: &Path, host: &Host<'_>) -> Result<Report, Failure> {
        Ok(verify_with(&disk(), path, &self.options(host)?)?)
    }

    /// The secret that files are read and written with, if there is one.
    pub(crate) fn secret(&self, host: &Host<'_>) -> Result<Option<Secret>, Failure> {
        let (bytes, place) = match (&self.secret_file, &host.secret) {
            (Some(path), _) => (read_secret(path)?, path.display().to_string()),
            (None, Some(secret)) => (secret.clone(), "ASYNC_CACHE_SECRET".to_owned()),
            (None, None) => return Ok(None),
        };
        match Secret::new(bytes) {
            Ok(secret) => Ok(Some(secret)),
            Err(error) => Err(Failure::Other(format!("{place}: {error}"))),
        }
    }

    fn options(&self, host: &Host<'_>) -> Result<ReadOptions, Failure> {
        let options = ReadOptions::new().secret(self.secret(host)?);
        Ok(if self.any_owner { options.of_any_owner() } else { options })
    }
}

/// The file system.
pub(crate) fn disk() -> Arc<dyn Vfs> {
    Arc::new(RealDisk)
}

fn read_secret(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |what: &str| Failure::Other(format!("{}: {what}", path.display()));
    let file = disk().open(path).map_err(|error| wrong(&format!("the secret cannot be read: {error}")))?;
    let bytes = file.metadata()?.bytes;
    if bytes > MAX_SECRET_BYTES {
        return Err(wrong("this is too long for a secret"));
    }
    let mut secret = vec![0; usize::try_from(bytes).unwrap_or(0)];
    let count = file.read_at(&mut secret, 0)?;
    secret.truncate(count);
    let text = secret.strip_suffix(b"\n").unwrap_or(&secret);
    Ok(text.strip_suffix(b"\r").unwrap_or(text).to_vec())
}
