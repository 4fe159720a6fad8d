//! Batch loaders: many keys in a single call.
//!
//! Owns the face: [`BatchLoader`], its builder, and the results of its calls. `answer` has the
//! shapes that a batch loader may return, `gather` the protocol of gathering, leaving and loading,
//! `beyond` the questions of a batch to the tier beyond one host.

mod answer;
#[cfg(feature = "redis")]
mod beyond;
mod gather;

use std::any::TypeId;
use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_cache_core::batch::Planner;

pub use self::answer::{BatchAnswer, KeyAnswer};
use self::gather::{EnteredBatch, Gatherer};
use crate::cache::AsyncCache;
use crate::error::LoadError;
use crate::load::{Joins, Miss};
use crate::room::{Answer, AnyError};
use crate::sync::Mutex;

/// Loads many keys of a cache in a single call of an async function: one query instead of a
/// hundred.
///
/// Keys requested within a *window*, by any callers, go to the loader together, each once. A batch
/// leaves early when it is full. A slow batch delays no other batch. Keys that are cached or being
/// loaded are not requested again: each key of a batch is an ordinary load of the cache, which
/// [`AsyncCache::get_or_load`] joins, and which `set`, `delete` and `clear` fence.
///
/// Clones are cheap and share the same loader. Two loaders never mix, even over the same cache. Nor
/// do callers on different runtimes: a batch is loaded on the runtime whose callers requested its
/// keys.
///
/// # The result of the loader
/// A `HashMap` or a `BTreeMap` from keys, which may lack keys, or a `Vec` with an element for each
/// key in their order. The elements are values, `Option`s, or, if keys can fail separately,
/// `Result`s. See [`BatchAnswer`].
///
/// For a key without a value, the callers get `None`. The `None` is not stored, so the key is
/// requested again the next time. To store that a key has no value, let the cache's values be
/// `Option`s, and return an `Option` for every key.
///
/// # Example
///
/// ```
/// use async_cache::{AsyncCache, BatchLoader};
/// use std::collections::HashMap;
/// use std::time::Duration;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// async fn select_authors(ids: Vec<u64>) -> Result<HashMap<u64, String>, std::io::Error> {
///     println!("SELECT id, name FROM authors WHERE id IN {ids:?}"); // once
///     Ok(ids.into_iter().filter(|id| *id < 100).map(|id| (id, format!("author {id}"))).collect())
/// }
///
/// let cache: AsyncCache<u64, String> = AsyncCache::builder().maxsize(10_000).build()?;
/// let authors = BatchLoader::builder(&cache).window(Duration::from_millis(2)).build(select_authors);
///
/// let (one, two, none) = tokio::join!(authors.get(&1), authors.get(&2), authors.get(&100));
/// assert_eq!((one?.as_deref(), two?.as_deref(), none?), (Some("author 1"), Some("author 2"), None));
/// assert_eq!(authors.get_many(&[2, 1]).await?, [Some("author 2".to_owned()), Some("author 1".to_owned())]);
/// assert_eq!((cache.stats().batches, cache.stats().batched_keys), (1, 3));
/// # Ok(())
/// # }
/// ```
pub struct BatchLoader<K, V, E> {
    cache: AsyncCache<K, V>,
    gatherer: Arc<Gatherer<K, V>>,
    /// The loader's errors are shared among threads.
    error: PhantomData<fn() -> E>,
}

impl<K, V, E> Clone for BatchLoader<K, V, E> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), gatherer: Arc::clone(&self.gatherer), error: PhantomData }
    }
}

impl<K, V, E> fmt::Debug for BatchLoader<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = &self.gatherer.window;
        f.debug_struct("BatchLoader")
            .field("cache", &self.cache)
            .field("window", window)
            .finish_non_exhaustive()
    }
}

/// Makes a [`BatchLoader`]; from [`BatchLoader::builder`].
#[must_use = "nothing is made before `build`"]
pub struct BatchLoaderBuilder<K, V> {
    cache: AsyncCache<K, V>,
    window: Duration,
    max_size: NonZeroUsize,
    ttl: Option<Duration>,
}

impl<K, V> fmt::Debug for BatchLoaderBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchLoaderBuilder")
            .field("cache", &self.cache)
            .field("window", &self.window)
            .field("max_size", &self.max_size)
            .field("ttl", &self.ttl)
            .finish()
    }
}

impl<K, V> BatchLoader<K, V, ()>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Begins a batch loader for a cache, with a window of 5 ms and at most 100 keys by default.
    /// The error type is that of the function given to [`build`](BatchLoaderBuilder::build).
    pub fn builder(cache: &AsyncCache<K, V>) -> BatchLoaderBuilder<K, V> {
        BatchLoaderBuilder {
            cache: cache.clone(),
            window: Duration::from_millis(5),
            max_size: NonZeroUsize::new(100).expect("a hundred is not zero"),
            ttl: cache.inner.default_ttl,
        }
    }
}

impl<K, V> BatchLoaderBuilder<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// How long a batch waits for further keys after its first key. Default: 5 ms.
    ///
    /// With zero, the batch waits until the runtime has run other tasks once. This needs no timer,
    /// and gathers the keys of a [`get_many`](BatchLoader::get_many) and, on a single-threaded
    /// runtime, the keys requested by all tasks in a turn; on several threads, the batch may leave
    /// before a second task adds its keys. Any other window needs the timer of tokio's runtime
    /// (`enable_time`); without the timer, callers get [`LoadError::Panicked`] with tokio's
    /// message.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// The maximum number of keys in a batch; a full batch leaves at once. At least 1, which
    /// gathers nothing. Default: 100.
    pub fn max_size(mut self, keys: usize) -> Self {
        self.max_size = NonZeroUsize::new(keys).unwrap_or(NonZeroUsize::MIN);
        self
    }

    /// The time to live of loaded values; `None` never expires. Default: that of the cache.
    pub fn ttl(mut self, ttl: Option<Duration>) -> Self {
        self.ttl = ttl;
        self
    }

    /// Makes the loader from an async function over keys. The function gets at least one key, and
    /// no key twice, in the order of the first requests. For its result, see [`BatchAnswer`].
    ///
    /// If the function returns an error, every caller of the batch gets the error, and nothing is
    /// stored.
    pub fn build<F, Fut, A, E>(self, load: F) -> BatchLoader<K, V, E>
    where
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, E>> + Send + 'static,
        A: BatchAnswer<K, V, E>,
        E: Send + Sync + 'static,
    {
        let load = Arc::new(load);
        let loader = move |keys: Vec<K>| -> gather::Loading<V> {
            let load = Arc::clone(&load);
            Box::pin(async move {
                let answer = load(keys.clone()).await.map_err(failed)?;
                let results = answer.into_results(&keys).map_err(failed)?;
                let answers = results.into_iter().map(|result| match result {
                    Ok(Some(value)) => Answer::Value(value),
                    Ok(None) => Answer::Missing,
                    Err(error) => failed(error),
                });
                Ok(answers.collect())
            })
        };
        let gatherer = Gatherer {
            inner: Arc::clone(&self.cache.inner),
            loader: Box::new(loader),
            window: self.window,
            ttl: self.ttl,
            planner: Mutex::new(Planner::new(self.window, self.max_size)),
        };
        BatchLoader { cache: self.cache, gatherer: Arc::new(gatherer), error: PhantomData }
    }
}

fn failed<V>(error: impl Send + Sync + 'static) -> Answer<V> {
    Answer::Failed(Arc::new(error) as AnyError)
}

impl<K, V, E> BatchLoader<K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// The cache that the loader loads into.
    pub fn cache(&self) -> &AsyncCache<K, V> {
        &self.cache
    }

    /// Returns the value of a key, from the cache, from a running load, or from the next batch.
    /// Returns `None` if the loader has no value for the key.
    ///
    /// # Errors
    /// [`LoadError::Failed`] with the loader's error, that of the batch or of this key.
    /// [`LoadError::WrongCount`] if the loader returned a `Vec` with another length than its keys.
    /// Otherwise as [`AsyncCache::get_or_load`].
    ///
    /// # Cancel safety
    /// Dropping the returned future removes this caller only. If it was the last caller of its key,
    /// and the batch has not left, the key is dropped from the batch; a batch that has left
    /// continues, and its values are stored.
    pub async fn get<Q>(&self, key: &Q) -> Result<Option<V>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + fmt::Debug + Sync + ?Sized,
    {
        let hash = self.gatherer.inner.hash(key);
        match self.gatherer.inner.hot(hash, |known| known.borrow() == key) {
            Ok(value) => Ok(Some(value)),
            // Boxed, so that the future of a hit is small.
            Err(under) => Box::pin(self.load(hash, key, Miss::under(under))).await,
        }
    }

    /// Returns the values of many keys, each as by [`get`](Self::get): a result for each key, in
    /// the order of the keys, which may contain duplicates. Only keys that are not cached are
    /// requested. More keys than [`max_size`](BatchLoaderBuilder::max_size) leave in several
    /// batches, which are loaded at the same time.
    ///
    /// # Errors
    /// As [`get`](Self::get): the error of the first key with an error.
    ///
    /// # Cancel safety
    /// As [`get`](Self::get), for each of the keys.
    pub async fn get_many<'a, Q>(
        &self,
        keys: impl IntoIterator<Item = &'a Q>,
    ) -> Result<Vec<Option<V>>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + fmt::Debug + Sync + ?Sized + 'a,
    {
        self.look_up(keys.into_iter().collect()).await.into_iter().collect()
    }

    /// [`get_many`](Self::get_many) with the error of each key at its place, for callers that can
    /// use the remaining values.
    ///
    /// # Cancel safety
    /// As [`get`](Self::get), for each of the keys.
    pub async fn get_each<'a, Q>(
        &self,
        keys: impl IntoIterator<Item = &'a Q>,
    ) -> Vec<Result<Option<V>, LoadError<E>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + fmt::Debug + Sync + ?Sized + 'a,
    {
        self.look_up(keys.into_iter().collect()).await
    }

    async fn load<Q>(&self, hash: u64, key: &Q, mut miss: Miss) -> Result<Option<V>, LoadError<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + fmt::Debug + Sync + ?Sized,
    {
        if let Some(value) = self.gatherer.inner.read_journal(hash, key, &mut miss).await {
            return Ok(Some(value));
        }
        let mut joins = Joins::Any;
        loop {
            match self.gatherer.enter(hash, key, joins, &mut miss)? {
                EnteredBatch::Hit(value) => return Ok(Some(value)),
                EnteredBatch::Waits(waiting) => {
                    if let Some(outcome) = waiting.outcome(key).await {
                        return outcome;
                    }
                    joins = Joins::OnlyErrorsOf(TypeId::of::<E>());
                }
            }
        }
    }

    async fn look_up<Q>(&self, keys: Vec<&Q>) -> Vec<Result<Option<V>, LoadError<E>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + fmt::Debug + Sync + ?Sized,
    {
        let mut asked: Vec<RequestedKey<'_, Q, V, E>> = keys.into_iter().map(RequestedKey::new).collect();
        for key in &mut asked {
            key.hash = self.gatherer.inner.hash(key.key);
            match self.gatherer.inner.hot(key.hash, |known| known.borrow() == key.key) {
                Ok(value) => key.outcome = Some(Ok(Some(value))),
                Err(under) => key.miss = Miss::under(under),
            }
        }
        while asked.iter().any(|key| key.outcome.is_none()) {
            // All of them join or gather before anything is waited for.
            let mut waiting = Vec::new();
            for (at, key) in asked.iter_mut().enumerate().filter(|(_, key)| key.outcome.is_none()) {
                match self.gatherer.enter(key.hash, key.key, key.joins, &mut key.miss) {
                    Ok(EnteredBatch::Hit(value)) => key.outcome = Some(Ok(Some(value))),
                    Ok(EnteredBatch::Waits(waits)) => waiting.push((at, waits)),
                    Err(error) => key.outcome = Some(Err(error)),
                }
            }
            for (_, waits) in &mut waiting {
                waits.set_off();
            }
            for (at, waits) in waiting {
                asked[at].outcome = waits.outcome(asked[at].key).await;
                asked[at].joins = Joins::OnlyErrorsOf(TypeId::of::<E>());
            }
        }
        asked.into_iter().map(|key| key.outcome.expect("the loop ends when all have one")).collect()
    }
}

/// One of many keys, and what is known of it.
struct RequestedKey<'a, Q: ?Sized, V, E> {
    key: &'a Q,
    hash: u64,
    miss: Miss,
    /// Which load it may join: after one that has brought nothing, a load that answers it.
    joins: Joins,
    outcome: Option<Result<Option<V>, LoadError<E>>>,
}

impl<'a, Q: ?Sized, V, E> RequestedKey<'a, Q, V, E> {
    fn new(key: &'a Q) -> Self {
        Self { key, hash: 0, miss: Miss::default(), joins: Joins::Any, outcome: None }
    }
}
