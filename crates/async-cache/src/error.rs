//! The errors of the crate, and the reaction to each.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_cache_disk::DiskError;

/// The reason why a call that may load got no value.
///
/// `E` is the loader's own error. It is behind an [`Arc`], because every waiting caller gets it.
#[non_exhaustive]
pub enum LoadError<E> {
    /// The loader returned this error. The error was not cached: the next call loads anew.
    Failed(Arc<E>),
    /// The loader panicked, with this message.
    Panicked {
        /// The key that was being loaded.
        key: String,
        /// The message of the panic.
        message: String,
    },
    /// The loader asked, directly or through other loaders, for the key that it was loading;
    /// waiting would never end.
    Recursive {
        /// The requested key.
        key: String,
    },
    /// The runtime that ran the load was shut down before the load ended.
    Abandoned {
        /// The key that was being loaded.
        key: String,
    },
    /// A batch loader returned a list with another length than its keys.
    WrongCount {
        /// The number of requested keys.
        asked: usize,
        /// The number of returned values.
        returned: usize,
    },
    /// The value was not in the cache, and there is no tokio runtime here to load it.
    NoRuntime,
}

impl<E> LoadError<E> {
    /// The loader's own error; `None` for all other variants.
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
            &Self::WrongCount { asked, returned } => Self::WrongCount { asked, returned },
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
            Self::WrongCount { asked, returned } => write!(
                f,
                "a batch loader was asked for {asked} keys and returned {returned} values; return one value for each \
                 key, in their order, or a map, which may lack keys"
            ),
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
            Self::WrongCount { asked, returned } => {
                f.debug_struct("WrongCount").field("asked", asked).field("returned", returned).finish()
            }
            Self::NoRuntime => f.write_str("NoRuntime"),
        }
    }
}

/// For any loader error that can be displayed, including `anyhow::Error` and `Box<dyn Error>`,
/// which are not errors themselves. For the same reason [`Error::source`] is empty: the message
/// includes the loader's message, and [`LoadError::Failed`] has the whole error.
impl<E: fmt::Debug + fmt::Display> Error for LoadError<E> {}

/// Makes `?` work in functions that return `io::Result`. The kind is the loader's; the `LoadError`
/// is inside.
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
    /// The backup's path can never hold a cache, whatever its content.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The system refused to start the thread that saves.
    #[error("the thread for autosave could not be started: {0}")]
    Autosave(io::Error),
    /// Two cached functions have the same file. Keys of a function mean nothing to another
    /// function.
    #[error(
        "{} keeps the cache of the function {owner} already; give the function {function} a file of its own",
        path.display()
    )]
    FileInUse {
        /// The file.
        path: PathBuf,
        /// The function that owns the file.
        owner: &'static str,
        /// The second function with the same file.
        function: &'static str,
    },
    /// The name of a cached function and the version of its backup do not fit into the file's
    /// version tag.
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

/// The error type of a user's own backend.
pub type BackendError = Box<dyn Error + Send + Sync>;

/// The reason why entries could not be saved to a backup or loaded from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// An error of the file: missing rights, damage, a foreign file, a full disk.
    /// [`DiskError::kind`] distinguishes them.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The user's own backend failed.
    #[error("the backend could not {action} the cache: {source}")]
    Backend {
        /// "load" or "save".
        action: &'static str,
        /// The backend's own error.
        source: BackendError,
    },
    /// The background save did not finish, because the runtime was shut down or the save panicked.
    #[error("the background save did not come to its end: {0}")]
    Interrupted(BackendError),
}

/// The message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
