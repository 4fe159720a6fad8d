//! The one place that opens a file for inspection, with the options for opening.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_cache_disk::{CacheFile, DiskErrorKind, RealDisk, Report, Secret, Snapshot, Vfs};
use clap::Args;

use crate::cache::{self, Cache, Choice};
use crate::environment::Environment;
use crate::failure::Failure;

/// A longer file is not accepted as a secret.
const MAX_SECRET_BYTES: u64 = 1 << 16;

/// The file to inspect, and how to open it.
#[derive(Debug, Args)]
pub(crate) struct InspectedFile {
    /// The cache file
    #[arg(value_name = "FILE")]
    pub(crate) path: PathBuf,
    /// The version tag of the data, if there is data of several versions
    #[arg(long, value_name = "TAG")]
    pub(crate) data_version: Option<String>,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// How to open files.
#[derive(Debug, Clone, Args)]
pub(crate) struct Access {
    /// Take the secret of the cache file from this file or pipe (a trailing line end is not part of
    /// the secret), not from the environment variable `ASYNC_CACHE_SECRET`
    #[arg(long, value_name = "PATH")]
    secret_file: Option<PathBuf>,
    /// Also open a file that another user owns or can write to
    #[arg(long)]
    pub(crate) any_owner: bool,
    /// The content of `secret_file`. Read once, because a pipe can be read only once.
    #[arg(skip)]
    read_secret: OnceLock<Vec<u8>>,
}

impl InspectedFile {
    /// Opens the cache: the file, and the store beside it.
    pub(crate) fn open(&self, environment: &Environment<'_>) -> Result<Cache, Failure> {
        self.access.open(&self.path, self.data_version.as_deref(), environment)
    }

    /// The same, even if the end of the file is missing.
    pub(crate) fn open_to_repair(&self, environment: &Environment<'_>) -> Result<Cache, Failure> {
        let file = self.access.file(&self.path, environment)?.even_if_cut();
        self.access.open_cache(&file, self.data_version.as_deref(), environment)
    }
}

impl Access {
    /// Opens a cache of a version, or of its only version. A cache that does not exist is an error.
    pub(crate) fn open(
        &self,
        path: &Path,
        version: Option<&str>,
        environment: &Environment<'_>,
    ) -> Result<Cache, Failure> {
        self.open_cache(&self.file(path, environment)?, version, environment)
    }

    fn open_cache(
        &self,
        file: &CacheFile,
        version: Option<&str>,
        environment: &Environment<'_>,
    ) -> Result<Cache, Failure> {
        let now = environment.now;
        let opened = match cache::choose(file, version, now) {
            Ok(Choice::File) => Self::open_file(&cache::of_version(file, version)).map(Cache::File),
            Ok(Choice::Store(view)) => Ok(Cache::Store(view)),
            Err(failure) => Err(failure),
        };
        opened.map_err(|failure| self.advised(failure, file, environment))
    }

    fn open_file(file: &CacheFile) -> Result<Snapshot, Failure> {
        let (vfs, path) = (file.vfs(), file.path().display());
        match file.open()? {
            Some(snapshot) => Ok(snapshot),
            None if vfs.metadata(file.path()).is_ok() => {
                Err(Failure::Other(format!("{path}: the file is empty: it holds no snapshot yet")))
            }
            None => Err(Failure::Other(match vfs.read_link(file.path()) {
                Ok(Some(link)) => {
                    format!("{path}: it is a symlink to {}, where there is no file", link.display())
                }
                _ => format!("{path}: there is no such file"),
            })),
        }
    }

    /// Checks a file without a store that [`open`](Self::open) could open.
    pub(crate) fn verify(
        &self,
        path: &Path,
        version: Option<&str>,
        environment: &Environment<'_>,
    ) -> Result<Report, Failure> {
        let file = cache::of_version(&self.file(path, environment)?, version);
        file.verify().map_err(|error| self.advised(error.into(), &file, environment))
    }

    /// The secret for reading and writing files, if any.
    pub(crate) fn secret(&self, environment: &Environment<'_>) -> Result<Option<Secret>, Failure> {
        let (bytes, place) = match (&self.secret_file, &environment.secret) {
            (Some(path), _) => (self.secret_of(path)?, path.display().to_string()),
            (None, Some(secret)) => (secret.clone(), "ASYNC_CACHE_SECRET".to_owned()),
            (None, None) => return Ok(None),
        };
        match Secret::new(bytes) {
            Ok(secret) => Ok(Some(secret)),
            Err(error) => Err(Failure::Other(format!("{place}: {error}"))),
        }
    }

    /// Adds to an error the option or command that opens the file, if there is one.
    fn advised(&self, failure: Failure, file: &CacheFile, environment: &Environment<'_>) -> Failure {
        let Failure::Disk(error) = failure else { return failure };
        let opens = |file: CacheFile| {
            let is_store = file.stores().is_ok_and(|stores| stores.iter().any(|store| store.version.is_ok()));
            is_store || matches!(file.open(), Ok(Some(_)))
        };
        let has_secret = matches!(self.secret(environment), Ok(Some(_)));
        let is_link = matches!(file.vfs().read_link(file.path()), Ok(Some(_)));
        let advice = match error.kind() {
            DiskErrorKind::Damaged
                if error.path() == file.path()
                    && matches!(file.clone().even_if_cut().open(), Ok(Some(_))) =>
            {
                "`async-cache repair` writes what is intact to a new file"
            }
            DiskErrorKind::Trust if opens(file.clone().of_any_owner()) => {
                "`--any-owner` looks into it all the same"
            }
            DiskErrorKind::Trust if has_secret && opens(file.clone().secret(None)) => {
                "leave out `--secret-file` and the environment variable ASYNC_CACHE_SECRET to open it without"
            }
            DiskErrorKind::Trust if !has_secret && !is_link => {
                "`--secret-file PATH` or the environment variable ASYNC_CACHE_SECRET gives a secret"
            }
            _ => return Failure::Disk(error),
        };
        Failure::Other(format!("{error}; {advice}"))
    }

    fn secret_of(&self, path: &Path) -> Result<Vec<u8>, Failure> {
        if let Some(secret) = self.read_secret.get() {
            return Ok(secret.clone());
        }
        let secret = read_secret(path)?;
        Ok(self.read_secret.get_or_init(|| secret).clone())
    }

    fn file(&self, path: &Path, environment: &Environment<'_>) -> Result<CacheFile, Failure> {
        let file = CacheFile::new(disk(), path).secret(self.secret(environment)?);
        Ok(if self.any_owner { file.of_any_owner() } else { file })
    }
}

/// The file system.
pub(crate) fn disk() -> Arc<dyn Vfs> {
    Arc::new(RealDisk)
}

/// Reads a file or a pipe, for example `<(vault read ...)`, which has no length and no positions to
/// read at.
#[allow(clippy::disallowed_methods, clippy::disallowed_types)] // no cache file; no pipes in the vfs
fn read_secret(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |what: &str| Failure::Other(format!("{}: {what}", path.display()));
    let unreadable = |error| wrong(&format!("the secret cannot be read: {error}"));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut secret = Vec::new();
    file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut secret).map_err(unreadable)?;
    if secret.len() as u64 > MAX_SECRET_BYTES {
        return Err(wrong("this is too long for a secret"));
    }
    let text = secret.strip_suffix(b"\n").unwrap_or(&secret);
    Ok(text.strip_suffix(b"\r").unwrap_or(text).to_vec())
}
