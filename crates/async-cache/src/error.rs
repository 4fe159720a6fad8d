//! What can go wrong, and what to do about it.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_cache_disk::DiskError;

/// Why a call that may load got no value.
///
/// `E` is the loader's own error. It arrives behind an [`Arc`], because every caller who waited gets it.
#[non_exhaustive]
pub enum LoadError<E> {
    /// The loader returned this error. It was not cached: the next call loads anew.
    Failed(Arc<E>),
    /// The loader panicked, with this message.
    Panicked {
        /// The key that was being loaded.
        key: String,
        /// The message of the panic.
        message: String,
    },
    /// The loader asked, itself or through other loaders, for the very key that it was loading; waiting would
    /// never end.
    Recursive {
        /// The key that was asked for.
        key: String,
    },
    /// The runtime that ran the load was shut down before it ended.
    Abandoned {
        /// The key that was being loaded.
        key: String,
    },
    /// The value was not in the cache, and there is no tokio runtime here to load it on.
    NoRuntime,
}

impl<E> LoadError<E> {
    /// The loader's own error, if that is what this is.
    pub fn loader_error(&self) -> Option<&E> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::Panicked { key, message } => Self::Panicked { key: key.clone(), message: message.clone() },
            Self::Recursive { key } => Self::Recursive { key: key.clone() },
            Self::Abandoned { key } => Self::Abandoned { key: key.clone() },
            Self::NoRuntime => Self::NoRuntime,
        }
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Panicked { key, message } => write!(f, "the loader of key {key} panicked: {message}"),
            Self::Recursive { key } => write!(
                f,
                "the loader of key {key} asked for the key that it is loading, directly or through other loaders; \
                 this would wait for ever"
            ),
            Self::Abandoned { key } => {
                write!(f, "the runtime that loaded key {key} was shut down before the load ended; ask again")
            }
            Self::NoRuntime => f.write_str(
                "the value is not in the cache, and there is no tokio runtime here to load it on; \
                 call from within a runtime, or enter one with `Handle::enter`",
            ),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            Self::Panicked { key, message } => {
                f.debug_struct("Panicked").field("key", key).field("message", message).finish()
            }
            Self::Recursive { key } => f.debug_struct("Recursive").field("key", key).finish(),
            Self::Abandoned { key } => f.debug_struct("Abandoned").field("key", key).finish(),
            Self::NoRuntime => f.write_str("NoRuntime"),
        }
    }
}

/// For any loader error that can be shown, `anyhow::Error` and `Box<dyn Error>` among them, which are not
/// errors themselves. That is why [`Error::source`] is empty: what the loader said is in the message, and
/// whole in [`LoadError::Failed`].
impl<E: fmt::Debug + fmt::Display> Error for LoadError<E> {}

/// So that `?` works in functions that return `io::Result`. The kind is the loader's; the `LoadError` is inside.
impl From<LoadError<io::Error>> for io::Error {
    fn from(error: LoadError<io::Error>) -> Self {
        let kind = error.loader_error().map_or(io::ErrorKind::Other, Self::kind);
        Self::new(kind, error)
    }
}

/// Why a cache could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The backup's path can never hold a cache, whatever is done about its content.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Two cached functions were given one file. Keys of one mean nothing to the other.
    #[error(
        "{} keeps the cache of the function {owner} already; give the function {function} a file of its own",
        path.display()
    )]
    FileInUse {
        /// The file.
        path: PathBuf,
        /// The function whose file it is.
        owner: &'static str,
        /// The function that was to use it, too.
        function: &'static str,
    },
    /// The name of a cached function and the version of its backup do not fit into the file's version tag.
    #[error(
        "the name of the function {function} and the version of its backup are {bytes} bytes too long together for \
         the file; give it a shorter one with `name = \"...\"`"
    )]
    NameTooLong {
        /// The function.
        function: &'static str,
        /// How much they are too long, in bytes.
        bytes: usize,
    },
}

/// What a user's own backend may fail with.
pub type BackendError = Box<dyn Error + Send + Sync>;

/// Why entries could not be saved to a backup or loaded from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The file: missing rights, damage, a foreign file, a full disk. [`DiskError::kind`] tells them apart.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The user's own backend failed.
    #[error("the backend could not {action} the cache: {source}")]
    Backend {
        /// "load" or "save".
        action: &'static str,
        /// What the backend said.
        source: BackendError,
    },
    /// The background save did not come to its end, because the runtime was shut down or the save panicked.
    #[error("the background save did not come to its end: {0}")]
    Interrupted(BackendError),
}

/// The message that a panic carried.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
