//! Warming up: many keys are loaded before anybody asks for them.
//!
//! Owns how many loads run at once and what is reported of them; each is a call of `get_or_load`. All of them are
//! polled by the task that waits for the warm-up, each when it was woken itself, so that the warm-up needs no task of its
//! own, ends with its future, and is recognised as recursive when a loader warms up what it loads.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::cache::AsyncCache;
use crate::error::LoadError;

/// Loads many keys; from [`AsyncCache::warm_up`]. It begins when it is awaited.
#[must_use = "nothing is loaded before it is awaited"]
pub struct WarmUp<'a, K, V, L> {
    cache: AsyncCache<K, V>,
    keys: Vec<K>,
    load: L,
    concurrency: usize,
    ttl: Option<Duration>,
    on_progress: Box<dyn FnMut(usize, usize) + Send + 'a>,
}

/// What a [`WarmUp`] came to.
#[derive(Debug)]
#[non_exhaustive]
pub struct WarmedUp<K, E> {
    /// Keys that were loaded.
    pub loaded: usize,
    /// Keys that were there already, in memory or in the opened snapshot.
    pub already_there: usize,
    /// Keys that could not be loaded, and why, in the order in which that turned out.
    pub errors: Vec<(K, LoadError<E>)>,
}

impl<K, V, L> fmt::Debug for WarmUp<'_, K, V, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WarmUp")
            .field("cache", &self.cache)
            .field("keys", &self.keys.len())
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

impl<K, V> AsyncCache<K, V>
where
    K: Hash + Eq + Clone + fmt::Debug + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Loads what is missing of many keys, a few at a time, before anybody asks for it.
    ///
    /// A key that is there already, in memory or in the opened snapshot, is left alone. Any other is loaded as by
    /// [`get_or_load`](Self::get_or_load), together with whoever asks for it meanwhile. A key that fails is reported
    /// and stops nothing.
    ///
    /// # Cancel safety
    /// Dropping it takes one caller away from each load that runs; what was loaded stays.
    ///
    /// # Example
    ///
    /// ```
    /// use async_cache::AsyncCache;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// async fn fetch(id: u64) -> Result<String, String> {
    ///     if id == 3 { Err("there is no 3".to_owned()) } else { Ok(format!("product {id}")) }
    /// }
    ///
    /// let cache: AsyncCache<u64, String> = AsyncCache::builder().build()?;
    /// cache.set(1, "known".to_owned());
    /// let report = cache
    ///     .warm_up(1..=4, fetch)
    ///     .concurrency(2)
    ///     .on_progress(|done, total| println!("{done} of {total}"))
    ///     .await;
    /// assert_eq!((report.already_there, report.loaded), (1, 2));
    /// assert_eq!(report.errors[0].0, 3);
    /// assert_eq!(report.errors[0].1.to_string(), "there is no 3");
    /// # Ok(())
    /// # }
    /// ```
    pub fn warm_up<'a, L, Fut, E>(&self, keys: impl IntoIterator<Item = K>, load: L) -> WarmUp<'a, K, V, L>
    where
        L: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        WarmUp {
            cache: self.clone(),
            keys: keys.into_iter().collect(),
            load,
            concurrency: 16,
            ttl: self.inner.default_ttl,
            on_progress: Box::new(|_, _| {}),
        }
    }
}

impl<'a, K, V, L> WarmUp<'a, K, V, L> {
    /// How many keys are loaded at the same time, at least 1. Default: 16.
    pub fn concurrency(mut self, loads: usize) -> Self {
        self.concurrency = loads.max(1);
        self
    }

    /// The time to live of what is loaded; `None` never expires. Default: that of the cache.
    pub fn ttl(mut self, ttl: Option<Duration>) -> Self {
        self.ttl = ttl;
        self
    }

    /// Called after each key, whatever came of it, with how many are done and how many there are.
    pub fn on_progress(mut self, call: impl FnMut(usize, usize) + Send + 'a) -> Self {
        self.on_progress = Box::new(call);
        self
    }
}

type Outcome<K, E> = Result<(), (K, LoadError<E>)>;
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl<'a, K, V, L, Fut, E> IntoFuture for WarmUp<'a, K, V, L>
where
    K: Hash + Eq + Clone + fmt::Debug + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    L: Fn(K) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
    E: Send + Sync + 'static,
{
    type Output = WarmedUp<K, E>;
    type IntoFuture = Boxed<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, keys, load, concurrency, ttl, mut on_progress } = self;
        Box::pin(async move {
            let (total, load) = (keys.len(), Arc::new(load));
            let mut report = WarmedUp { loaded: 0, already_there: 0, errors: Vec::new() };
            let mut keys = keys.into_iter();
            let mut running: FuturesUnordered<Boxed<'_, Outcome<K, E>>> = FuturesUnordered::new();
            loop {
                while running.len() < concurrency
                    && let Some(key) = keys.next()
                {
                    if cache.contains(&key) {
                        report.already_there += 1;
                        on_progress(report.done(), total);
                        // A million keys that are there must not keep the thread from everybody else.
                        tokio::task::coop::consume_budget().await;
                        continue;
                    }
                    let (cache, load) = (&cache, Arc::clone(&load));
                    running.push(Box::pin(async move {
                        let asked = key.clone();
                        let loaded = cache.get_or_load_with_ttl(&key, ttl, move || load(asked)).await;
                        loaded.map(drop).map_err(|error| (key, error))
                    }));
                }
                match running.next().await {
                    None => return report,
                    Some(Ok(())) => report.loaded += 1,
                    Some(Err(error)) => report.errors.push(error),
                }
                on_progress(report.done(), total);
            }
        })
    }
}

impl<K, E> WarmedUp<K, E> {
    fn done(&self) -> usize {
        self.loaded + self.already_there + self.errors.len()
    }
}
