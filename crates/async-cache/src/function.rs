//! The cache of a decorated function.
//!
//! Owns the parts of `#[async_lru]`, `#[async_ttl]` and `#[invalidates]` that need not be
//! generated: the cache that is built at its first use, the file that belongs to a function, the
//! steps of a call, and the guard that invalidates before a write and after it. Generated code
//! calls this module and has no logic. `name` has the name of a function in its file, `per_type`
//! the caches of a method in a generic `impl` block.
//!
//! States of a [`CachedFunction`]: *unbuilt* until the first use, then *built* for ever. Building
//! takes a lock, so it happens once; if it fails, the next use tries again. Each later use is a
//! single load of an atomic.

mod name;
mod per_type;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::{self, Debug};
use std::future::Future;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use async_cache_core::stats::Stats;
use parking_lot::Mutex;

pub use self::name::Name;
pub use self::per_type::PerType;
use crate::builder::Builder;
use crate::cache::{AsyncCache, Metrics};
use crate::error::{BackupError, BuildError, LoadError};
use crate::load::{Miss, Storing};
use crate::lookup::Lookup;
use crate::restore::Opening;
use crate::save::Saved;

/// The cache of a function decorated with [`async_lru`](crate::async_lru) or
/// [`async_ttl`](crate::async_ttl).
///
/// The cache of a method is returned by the associated function beside the method:
/// `Shop::price_cache()` for a method `price`. In an `impl` block of a generic type, each type has
/// its own cache: `Repository::<User>::row_cache()`. A function has the same operations in a type
/// with its name: `price::invalidate(&7)`.
///
/// The cache is built, and its file opened, at the first use. If that fails (see [`BuildError`]),
/// all operations but [`init`](Self::init) panic with the reason.
pub struct CachedFunction<K, V> {
    pub(crate) name: Name,
    pub(crate) build: fn(Builder<K, V>) -> Builder<K, V>,
    cache: OnceLock<AsyncCache<K, V>>,
    /// Held while the cache is built.
    building: Mutex<()>,
}

impl<K, V> Debug for CachedFunction<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("CachedFunction");
        fields.field("name", &self.name).field("cache", &self.cache.get()).finish_non_exhaustive()
    }
}

/// A call that memory did not answer: the hash of its key.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct MissedCall(pub(crate) u64);

impl<K, V> CachedFunction<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// `name` distinguishes the function's entries from those of other functions in a file.
    #[doc(hidden)]
    pub const fn new(name: Name, build: fn(Builder<K, V>) -> Builder<K, V>) -> Self {
        Self { name, build, cache: OnceLock::new(), building: Mutex::new(()) }
    }

    // The cache

    /// Builds the cache and opens its file, if that has not happened yet. Otherwise the first call
    /// does so. Call `init` when the service starts, so that a backup that cannot work is noticed
    /// there.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn init(&self) -> Result<(), BuildError> {
        self.try_cache().map(|_| ())
    }

    /// The cache itself.
    ///
    /// # Panics
    /// If the cache cannot be built; see [`init`](Self::init).
    #[inline]
    pub fn cache(&self) -> &AsyncCache<K, V> {
        match self.cache.get() {
            Some(cache) => cache,
            None => self.first_cache(),
        }
    }

    #[cold]
    fn first_cache(&self) -> &AsyncCache<K, V> {
        self.try_cache()
            .unwrap_or_else(|error| panic!("the cache of the function {} cannot be used: {error}", self.name))
    }

    fn try_cache(&self) -> Result<&AsyncCache<K, V>, BuildError> {
        if let Some(cache) = self.cache.get() {
            return Ok(cache);
        }
        let _building = self.building.lock();
        if self.cache.get().is_none() {
            let builder = (self.build)(AsyncCache::builder()).for_function(self.name.get())?;
            let file = builder.file().map(|path| ClaimedFile::claim(path, self.name.get())).transpose()?;
            let cache = builder.build()?;
            // For ever: so is the cache.
            std::mem::forget(file);
            // The cell was empty, and is set under the lock.
            let _ = self.cache.set(cache);
        }
        Ok(self.cache.get().expect("it was just set"))
    }

    // Operations of the type beside a function

    /// Removes the function's result for these arguments, given by reference: `&7`, `"name"`, or a
    /// tuple of references for several. A running call is fenced: it stores nothing.
    pub fn invalidate(&self, key: impl Lookup<K>) {
        self.cache().inner.delete(&key.to_key());
    }

    /// Removes all results, fences all running calls, and resets the counters.
    pub fn clear(&self) {
        self.cache().clear();
    }

    /// Hits, misses, size and hit rate.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.cache().metrics()
    }

    /// All counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.cache().stats()
    }

    /// [`AsyncCache::save_to_backup`].
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn save_to_backup(&self) -> Result<Saved, BackupError> {
        self.cache().save_to_backup()
    }

    /// [`AsyncCache::save_to_backup_async`].
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn save_to_backup_async(&self) -> Result<Saved, BackupError> {
        self.cache().save_to_backup_async().await
    }

    /// [`AsyncCache::load_from_backup`].
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn load_from_backup(&self) -> Result<Opening, BackupError> {
        self.cache().load_from_backup()
    }

    // A call

    /// Serves a call from memory.
    #[doc(hidden)]
    #[inline]
    pub fn hit(&self, key: impl Lookup<K>) -> Result<V, MissedCall> {
        let inner = &self.cache().inner;
        let hash = inner.hash(&key);
        inner.hot(hash, |known| key.is(known)).map_err(|_| MissedCall(hash))
    }

    /// Removes the cached result, so that the following load is new.
    #[doc(hidden)]
    pub fn forget(&self, key: impl Lookup<K>) -> MissedCall {
        let inner = &self.cache().inner;
        inner.delete(&key.to_key());
        MissedCall(inner.hash(&key))
    }

    /// Answers a call that memory did not answer.
    #[doc(hidden)]
    pub async fn load<F, Fut, E>(
        &self,
        asked: MissedCall,
        key: impl Lookup<K> + Debug,
        keeps: fn(&V) -> bool,
        load: F,
    ) -> Result<V, LoadError<E>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let inner = &self.cache().inner;
        inner.load(asked.0, key, Miss::default(), Storing { ttl: inner.default_ttl, keeps }, load).await
    }

    /// [`load`](Self::load) for a function that cannot return an error.
    #[doc(hidden)]
    pub async fn load_value<F, Fut>(
        &self,
        asked: MissedCall,
        key: impl Lookup<K> + Debug,
        keeps: fn(&V) -> bool,
        load: F,
    ) -> V
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, Infallible>> + Send + 'static,
    {
        let loaded = self.load(asked, key, keeps, load).await;
        loaded.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    // A write

    /// Invalidates now, and again when the guard is dropped.
    #[doc(hidden)]
    pub fn invalidating(&'static self, key: impl Lookup<K>) -> Invalidating<K, V> {
        Invalidating::begin(self, Some(key.to_key()))
    }

    /// Clears now, and again when the guard is dropped.
    #[doc(hidden)]
    pub fn clearing(&'static self) -> Invalidating<K, V> {
        Invalidating::begin(self, None)
    }
}

/// A running write. The stale results are removed when the write begins, and again when this guard
/// is dropped: after the write has returned, failed, panicked or been cancelled.
///
/// Without bounds on its types, so that the compiler reports an unsuitable key or value at its own
/// place and not here.
#[doc(hidden)]
#[must_use = "what is cached during the write has to go after it"]
pub struct Invalidating<K: 'static, V: 'static> {
    function: &'static CachedFunction<K, V>,
    /// `None`: everything.
    key: Option<K>,
    invalidate: fn(&CachedFunction<K, V>, Option<&K>),
}

impl<K, V> Invalidating<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn begin(function: &'static CachedFunction<K, V>, key: Option<K>) -> Self {
        let invalidate = |function: &CachedFunction<K, V>, key: Option<&K>| match key {
            Some(key) => function.cache().inner.delete(key),
            None => function.clear(),
        };
        invalidate(function, key.as_ref());
        Self { function, key, invalidate }
    }
}

impl<K: 'static, V: 'static> Drop for Invalidating<K, V> {
    fn drop(&mut self) {
        (self.invalidate)(self.function, self.key.as_ref());
    }
}

impl<K: 'static, V: 'static> Debug for Invalidating<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invalidating").field("function", &self.function.name).finish_non_exhaustive()
    }
}

/// A file that belongs to a function while this value lives.
struct ClaimedFile(PathBuf);

/// Which function keeps its entries in which file.
static FILES: Mutex<BTreeMap<PathBuf, &'static str>> = Mutex::new(BTreeMap::new());

impl ClaimedFile {
    fn claim(path: &Path, function: &'static str) -> Result<Self, BuildError> {
        let place = place(path);
        let mut files = FILES.lock();
        if let Some(&owner) = files.get(&place) {
            return Err(BuildError::FileInUse { path: path.to_owned(), owner, function });
        }
        files.insert(place.clone(), function);
        Ok(Self(place))
    }
}

impl Drop for ClaimedFile {
    fn drop(&mut self) {
        FILES.lock().remove(&self.0);
    }
}

/// As many links as Linux follows.
const MOST_LINKS: usize = 40;

/// The canonical path of a file that need not exist yet. Links are followed as a save follows them,
/// even if the target does not exist yet.
fn place(path: &Path) -> PathBuf {
    let mut absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for _ in 0..MOST_LINKS {
        if let Ok(file) = absolute.canonicalize() {
            return file;
        }
        let Ok(link) = absolute.read_link() else { break };
        // An absolute link replaces the whole path.
        absolute.pop();
        absolute.push(link);
    }
    match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        (Some(Ok(folder)), Some(name)) => folder.join(name),
        _ => absolute,
    }
}

// Questions about the types of a function's signature

/// A return type that is a `Result`, under any name.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Result`",
    label = "the name of this type ends in `Result`, or the attribute says `result`, but it is not a `Result`",
    note = "write `result = false` in the attribute: then the value is cached whatever it is"
)]
pub trait Fallible {
    /// The type inside `Ok`, which is cached.
    type Value;
    /// The type inside `Err`, which is not cached.
    type Error;
    /// The same, under its own name.
    fn into_result(self) -> Result<Self::Value, Self::Error>;
}

impl<T, E> Fallible for Result<T, E> {
    type Value = T;
    type Error = E;

    fn into_result(self) -> Self {
        self
    }
}

/// A value that may be `None`.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`cache_none = false` is for functions that return an `Option`, and this one returns `{Self}`",
    note = "leave `cache_none` out"
)]
pub trait Optional {
    /// Whether the value is not `None`.
    fn is_there(&self) -> bool;
}

impl<T> Optional for Option<T> {
    fn is_there(&self) -> bool {
        self.is_some()
    }
}

/// The bounds of an argument, so that the compiler reports an unsuitable type at the argument.
#[doc(hidden)]
pub const fn can_be_a_key<T>()
where
    T: Hash + Eq + Debug + ToOwned + Sync + ?Sized,
    T::Owned: Hash + Eq + Send + Sync + 'static,
{
}

/// The bounds of a value, so that the compiler reports an unsuitable type at the return type.
#[doc(hidden)]
pub const fn can_be_a_value<T: Clone + Send + Sync + 'static>() {}

/// Distinguishes a `Result` behind an alias from other types: its own constant hides the constant
/// of [`IsNoResult`].
#[doc(hidden)]
#[derive(Debug)]
pub struct Returned<T>(std::marker::PhantomData<T>);

/// See [`Returned`].
#[doc(hidden)]
pub trait IsNoResult {
    /// Whether the type is a `Result`.
    const IS_RESULT: bool = false;
}

impl<T> IsNoResult for Returned<T> {}

impl<T, E> Returned<Result<T, E>> {
    /// Whether the type is a `Result`.
    pub const IS_RESULT: bool = true;
}

/// The first `N` arguments of a write, where `N` is the number of arguments of the invalidated
/// function.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "the cached function has {N} key arguments, and the write does not begin with as many",
    note = "say which arguments name the entry: `#[invalidates(function, key = (id))]`, or `clear_all`"
)]
pub trait FirstArguments<const N: usize> {
    /// As many references.
    type First;
    /// The first ones.
    fn first(self) -> Self::First;
}

macro_rules! first_arguments {
    (@ $count:literal [$($first:ident)*] [$($all:ident)*]) => {
        impl<'a, $($all: ?Sized),*> FirstArguments<$count> for ($(&'a $all,)*) {
            type First = ($(&'a $first,)*);
            #[allow(non_snake_case, unused_variables, clippy::unused_unit)]
            fn first(self) -> Self::First {
                let ($($all,)*) = self;
                ($($first,)*)
            }
        }
    };
    ([$($all:ident)*]) => {
        first_arguments!(@@ $($all)* ; [$($all)*]);
    };
    (@@ ; $all:tt) => {};
    (@@ $a:ident ; $all:tt) => {
        first_arguments!(@ 1 [$a] $all);
    };
    (@@ $a:ident $b:ident ; $all:tt) => {
        first_arguments!(@@ $a ; $all);
        first_arguments!(@ 2 [$a $b] $all);
    };
    (@@ $a:ident $b:ident $c:ident ; $all:tt) => {
        first_arguments!(@@ $a $b ; $all);
        first_arguments!(@ 3 [$a $b $c] $all);
    };
    (@@ $a:ident $b:ident $c:ident $d:ident ; $all:tt) => {
        first_arguments!(@@ $a $b $c ; $all);
        first_arguments!(@ 4 [$a $b $c $d] $all);
    };
    (@@ $a:ident $b:ident $c:ident $d:ident $($rest:ident)+ ; $all:tt) => {
        first_arguments!(@@ $a $b $c $d ; $all);
    };
}

first_arguments!([A]);
first_arguments!([A B]);
first_arguments!([A B C]);
first_arguments!([A B C D]);
first_arguments!([A B C D E]);
first_arguments!([A B C D E F]);
first_arguments!([A B C D E F G]);
first_arguments!([A B C D E F G H]);

/// Runs a write. The write's closure may then return a borrow of its arguments.
#[doc(hidden)]
pub fn run<R>(write: impl FnOnce() -> R) -> R {
    write()
}

/// An argument of a write as the argument of the invalidated function: a `String` for a `str`.
#[doc(hidden)]
pub fn lend<T: ?Sized, A: Borrow<T> + ?Sized>(argument: &A) -> &T {
    argument.borrow()
}
