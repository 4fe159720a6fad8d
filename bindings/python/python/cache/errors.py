"""The errors of the cache."""


class CacheError(Exception):
    """The base of all exceptions that the cache raises, except `TypeError` and `ValueError` for bad
    arguments.
    """


class LoadError(CacheError):
    """A load ended without a value and without an exception of the loader's own."""


class RecursiveLoadError(LoadError):
    """A loader asked the cache, directly or through other loaders, for its own key."""


class LoadCancelledError(LoadError):
    """A load was cancelled, from within or from elsewhere, while callers still waited for it."""


class BackupError(CacheError):
    """A save to the backup, or a load from the backup, failed. The old file is unchanged."""


class CacheWarning(UserWarning):
    """A backup, or part of a backup, could not be read: the cache starts without the unreadable
    entries.
    """
