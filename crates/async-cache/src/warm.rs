//! Warming up: many keys are loaded before the first caller asks for them.
//!
//! Owns the number of simultaneous loads and the report; each load is a call of `get_or_load`. All
//! loads are polled by the task that waits for the warm-up, each after its own wake-up. So the
//! warm-up needs no task of its own, ends with its future, and is recognised as recursive when a
//! loader warms up its own key.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::cache::AsyncCache;
use crate::error::LoadError;

/// Loads many keys; from [`AsyncCache::warm_up`]. The loads begin when the future is awaited.
#[must_use = "nothing is loaded before it is awaited"]
pub struct WarmUp<'a, K, V, L> {
    cache: AsyncCache<K, V>,
    keys: Vec<K>,
    load: L,
    concurrency: usize,
    ttl: Option<Duration>,
    on_progress: Box<dyn FnMut(usize, usize) + Send + 'a>,
}

/// The result of a [`WarmUp`].
#[derive(Debug)]
#[non_exhaustive]
pub struct WarmedUp<K, E> {
    /// Keys that were loaded.
    pub loaded: usize,
    /// Keys that were present already, in memory or in the opened snapshot.
    pub already_there: usize,
    /// Keys that could not be loaded, with their errors, in the order of the failures.
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
    /// Loads the missing keys of many, a few at a time, before the first caller asks for them.
    ///
    /// A key that is already present, in memory or in the opened snapshot, is left unchanged. All
    /// other keys are loaded as by [`get_or_load`](Self::get_or_load), together with callers that
    /// ask meanwhile. A key that fails is reported and stops nothing.
    ///
    /// # Cancel safety
    /// Dropping the future removes one caller from each running load; loaded values stay.
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

    /// The time to live of loaded values; `None` never expires. Default: that of the cache.
    pub fn ttl(mut self, ttl: Option<Duration>) -> Self {
        self.ttl = ttl;
        self
    }

    /// Called after each key, with any outcome, with the number of finished keys and the number of
    /// all keys.
    pub fn on_progress(mut self, call: impl FnMut(usize, usize) + Send + 'a) -> Self {
        self.on_progress = Box::new(call);
        self
    }
}

type KeyOutcome<K, E> = Result<(), (K, LoadError<E>)>;
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
            let mut running: FuturesUnordered<Boxed<'_, KeyOutcome<K, E>>> = FuturesUnordered::new();
            loop {
                while running.len() < concurrency
                    && let Some(key) = keys.next()
                {
                    if cache.contains(&key) {
                        report.already_there += 1;
                        on_progress(report.done(), total);
                        // A million present keys must not keep the thread from other tasks.
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
