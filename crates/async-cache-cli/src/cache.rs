//! What a command reads: a file, or a store together with its base.
//!
//! Rules:
//! 1. If there is a store beside the file, the cache is the store and its base. A store that cannot
//!    be opened is an error: the file alone may hold entries that were deleted since.
//! 2. Data of several versions is not mixed: with more than one version, the user chooses. A store
//!    that holds nothing is no choice.
//! 3. A store with another secret is another cache.

use async_cache_disk::store::{FoundStore, StoreAnswer, StoreScratch, StoreView};
use async_cache_disk::{CacheFile, DiskErrorKind, Scratch, Snapshot};

use crate::failure::Failure;
use crate::human;

/// An opened cache.
pub(crate) enum Cache {
    /// A file without a store.
    File(Snapshot),
    /// A store, and its base.
    Store(Box<StoreView>),
}

/// The part of a cache that is to be opened.
pub(crate) enum Choice {
    File,
    Store(Box<StoreView>),
}

/// The buffers of look-ups.
#[derive(Default)]
pub(crate) struct CacheScratch {
    file: Scratch,
    store: StoreScratch,
}

/// The answer to a key.
pub(crate) struct FoundValue<'s> {
    pub(crate) value: &'s [u8],
    pub(crate) deadline: Option<u64>,
}

impl Cache {
    /// The version tag of the data.
    pub(crate) fn version(&self) -> &str {
        match self {
            Self::File(snapshot) => snapshot.version(),
            Self::Store(view) => view.version(),
        }
    }

    /// A description of the program that wrote the cache last.
    pub(crate) fn producer(&self) -> &str {
        match self {
            Self::File(snapshot) => snapshot.producer(),
            Self::Store(view) => view.producer(),
        }
    }

    /// A time that no write is later than.
    pub(crate) fn saved_at(&self) -> u64 {
        match self {
            Self::File(snapshot) => snapshot.saved_at(),
            Self::Store(view) => view.base().map_or(0, Snapshot::saved_at).max(view.written_until()),
        }
    }

    /// The cache has this many entries at most.
    pub(crate) fn most_entries(&self) -> u64 {
        match self {
            Self::File(snapshot) => snapshot.len().into(),
            Self::Store(view) => view.most_entries(),
        }
    }

    /// Looks up a key with a canonical encoding.
    pub(crate) fn find<'s>(&self, key: &[u8], scratch: &'s mut CacheScratch) -> Option<FoundValue<'s>> {
        match self {
            Self::File(snapshot) => {
                let found = snapshot.find(key, &mut scratch.file)?;
                Some(FoundValue { value: found.value, deadline: found.deadline })
            }
            Self::Store(view) => match view.find(key, &mut scratch.store) {
                StoreAnswer::Entry(found) => {
                    Some(FoundValue { value: found.value, deadline: found.deadline })
                }
                StoreAnswer::Absent | StoreAnswer::Hidden => None,
            },
        }
    }

    /// Whether damage may hide a key that was not found.
    pub(crate) fn may_hide(&self, key: &[u8], scratch: &mut CacheScratch) -> bool {
        match self {
            Self::File(snapshot) => {
                let is_found = snapshot.find(key, &mut scratch.file).is_some();
                !is_found && (scratch.file.may_have_missed() || !scratch.file.lost().is_empty())
            }
            Self::Store(view) => {
                let is_hidden = view.find(key, &mut scratch.store) == StoreAnswer::Hidden;
                is_hidden
                    || view.base_error().is_some()
                    || view.base().is_some_and(|base| {
                        base.find(key, &mut scratch.file).is_none()
                            && (scratch.file.may_have_missed() || !scratch.file.lost().is_empty())
                    })
            }
        }
    }
}

/// The file, if its data is to have this version.
pub(crate) fn of_version(file: &CacheFile, version: Option<&str>) -> CacheFile {
    version.map_or_else(|| file.clone(), |version| file.clone().version(version))
}

/// Chooses the cache of a version, or the only cache, at a path (rules 1 to 3).
pub(crate) fn choose(file: &CacheFile, version: Option<&str>, now: u64) -> Result<Choice, Failure> {
    let (mut views, mut refused, mut broken) = (Vec::new(), None, None);
    for FoundStore { version: found, .. } in file.stores()? {
        match found {
            Ok(found) => match file.clone().version(found).store_view(now) {
                Ok(view) => views.extend(view.map(Box::new)),
                Err(error) => broken = Some(error),
            },
            Err(error) if error.kind() == &DiskErrorKind::Trust => refused = Some(error), // Rule 3.
            Err(error) => broken = Some(error),
        }
    }
    // Rule 1. Another version may be sound.
    if let Some(error) = broken
        && (version.is_none() || views.iter().all(|view| Some(view.version()) != version))
    {
        return Err(error.into());
    }
    if views.is_empty() {
        let is_there = file.vfs().metadata(file.path()).is_ok();
        return refused.filter(|_| !is_there).map_or(Ok(Choice::File), |error| Err(error.into()));
    }
    // Rule 2.
    let of_file = file.open().ok().flatten().map(|snapshot| snapshot.version().to_owned());
    let of_file = of_file.filter(|found| views.iter().all(|view| view.version() != found));
    if version.is_none() && views.len() + usize::from(of_file.is_some()) > 1 {
        views.retain(|view| view.most_entries() > 0);
    }
    let mut names: Vec<&str> = views.iter().map(|view| view.version()).chain(of_file.as_deref()).collect();
    names.sort_unstable();
    let is_wanted = |name: &str| version.is_none_or(|version| version == name);
    if names.iter().filter(|name| is_wanted(name)).count() != 1 {
        let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        let (path, names) = (file.path().display(), names.join(", "));
        let what = match version {
            Some(version) => format!("there is no data of version {version:?}; there is {names}"),
            None => format!("there is data of several versions, {names}; choose with `--data-version TAG`"),
        };
        return Err(Failure::Other(human::plain(&format!("{path}: {what}"))));
    }
    let view = views.into_iter().find(|view| is_wanted(view.version()));
    Ok(view.map_or(Choice::File, Choice::Store))
}
