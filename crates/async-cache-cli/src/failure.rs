//! The errors of commands.

use std::fmt;
use std::io;

use async_cache_disk::DiskError;

/// The reason why a command failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The reader has closed the output. Not treated as an error.
    BrokenPipe,
    /// The file could not be read or written.
    Disk(DiskError),
    /// Input or output failed.
    Io(io::Error),
    /// Any other error; the sentence names the problem, the place and the remedy.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BrokenPipe => f.write_str("nobody reads the output"),
            Self::Disk(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk(error) => Some(error),
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::BrokenPipe } else { Self::Io(error) }
    }
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}
