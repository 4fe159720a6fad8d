//! The error type of this crate: the error, its path, and the remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why an operation on a cache file failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskErrorKind {
    /// There is no file at the path.
    Missing,
    /// The path is a directory, a pipe, a device, or a path that no file can have: no snapshot can
    /// be there, and none can replace it.
    NotAFile,
    /// The file is not a cache file. The next save sets the file aside.
    Foreign,
    /// The header is damaged, so nothing in the file can be trusted. The next save sets the file
    /// aside.
    Damaged,
    /// A newer program wrote the file, or used an option unknown here. The next save sets the file
    /// aside.
    Newer,
    /// The file holds data of another shape, by the user's own version tag. The next save replaces
    /// the file.
    OtherVersion {
        /// The tag in the file.
        found: String,
        /// The requested tag.
        wanted: String,
    },
    /// The file cannot be trusted: another user owns it or can write to it, a symlink stands where
    /// everybody can put a symlink, or the file was not written with the given secret. The next
    /// save sets the file aside.
    Trust,
    /// The disk, or the user's share of the disk, is full.
    Full,
    /// Something is larger than the format can hold.
    Limit,
    /// Another process held the lock of the path until the limit of the wait.
    Locked,
    /// The writer failed earlier and has cleaned up after itself.
    Abandoned,
    /// The operating system reported an error; `io_error` returns it.
    Io,
}

/// An error of this crate. Clones are cheap: several callers may get the same error.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct DiskError(Arc<Context>);

#[derive(Debug, thiserror::Error)]
struct Context {
    kind: DiskErrorKind,
    path: PathBuf,
    offset: Option<u64>,
    what: String,
    source: Option<io::Error>,
}

impl DiskError {
    pub(crate) fn new(kind: DiskErrorKind, path: &Path, what: impl Into<String>) -> Self {
        let what = what.into();
        Self(Arc::new(Context { kind, path: path.to_owned(), offset: None, what, source: None }))
    }

    /// An operating system's error; `doing` completes "while ...".
    pub(crate) fn io(doing: &str, path: &Path, source: io::Error) -> Self {
        let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let kind = if full { DiskErrorKind::Full } else { DiskErrorKind::Io };
        let what = format!("{source} while {doing}");
        Self(Arc::new(Context { kind, path: path.to_owned(), offset: None, what, source: Some(source) }))
    }

    pub(crate) fn at(mut self, offset: u64) -> Self {
        // A new error is not shared yet.
        if let Some(context) = Arc::get_mut(&mut self.0) {
            context.offset = Some(offset);
        }
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> &DiskErrorKind {
        &self.0.kind
    }

    /// The file or folder of the error.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The position in the file, in bytes from its start, if known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// The operating system's error, if any.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.0.source.as_ref()
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)?;
        if let Some(offset) = self.offset {
            write!(f, " (at byte {offset})")?;
        }
        let advice = match &self.kind {
            DiskErrorKind::Missing => "nothing was saved there yet",
            DiskErrorKind::NotAFile => "give the cache the path of a file",
            DiskErrorKind::Foreign => {
                "the file is not read; the next save adds .aside to its name and writes a new file"
            }
            DiskErrorKind::Damaged => "the cache starts empty; the next save sets the file aside",
            DiskErrorKind::Newer => "upgrade this program, or let the next save set the file aside",
            DiskErrorKind::OtherVersion { .. } => "the cache starts empty; the next save replaces the file",
            DiskErrorKind::Full => "the file that was there before is unchanged; make room and save again",
            DiskErrorKind::Limit => "leave it out of the cache, or use several caches",
            DiskErrorKind::Locked => {
                "nothing was saved or removed; try again, or give each process a path of its own"
            }
            DiskErrorKind::Abandoned => "begin a new save",
            // The remedy depends on the reason, so the reason includes it.
            DiskErrorKind::Trust | DiskErrorKind::Io => return Ok(()),
        };
        write!(f, "; {advice}")
    }
}
