"""The errors of the cache."""


class CacheError(Exception):
    """Everything that the cache itself raises, apart from `TypeError` and `ValueError` for bad arguments."""


class LoadError(CacheError):
    """A load ended without a value and without an exception of the loader's own."""


class RecursiveLoadError(LoadError):
    """A loader asked the cache, directly or through other loaders, for its own key."""


class LoadCancelledError(LoadError):
    """A load was cancelled, from within or by somebody else, while its callers still waited."""


class BackupError(CacheError):
    """A save to the backup, or a load from it, failed. The old file is as it was."""


class CacheWarning(UserWarning):
    """A backup could not be read, or part of it: the cache starts without."""
