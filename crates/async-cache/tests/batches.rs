//! Batches: which keys leave together, what the callers get, and every cell of the table of
//! batches: on a single-threaded and on a multi-threaded runtime. A hang is a failure.
#![allow(clippy::async_yields_async)] // calls are deliberately returned unawaited

mod callers;
mod failures;
mod gathering;
mod runtimes;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::stage::{Loads, Running, poll_once};
use async_cache::{AsyncCache, BatchLoader, LoadError};
use tokio::sync::Semaphore;

type Cache = AsyncCache<u32, String>;
type Loader = BatchLoader<u32, String, String>;
type Outcome = Result<Option<String>, LoadError<String>>;
type Call = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// The window of a batch that leaves only when the test says: no test waits for real time.
const LONG: Duration = Duration::from_secs(100_000);

fn cache() -> Cache {
    AsyncCache::builder().build().unwrap()
}

/// A table queried in batches: its queries, and loads that end when the test says.
struct Table {
    asked: Mutex<Vec<Vec<u32>>>,
    loads: Arc<Loads>,
    leave: Semaphore,
}

impl Table {
    fn new() -> Arc<Self> {
        Arc::new(Self { asked: Mutex::default(), loads: Loads::new(), leave: Semaphore::new(0) })
    }

    fn asked(&self) -> Vec<Vec<u32>> {
        self.asked.lock().unwrap().clone()
    }

    fn let_end(&self, batches: usize) {
        self.leave.add_permits(batches);
    }

    /// A loader of at most `max_size` keys, whose results contain the number of the batch.
    fn loader(self: &Arc<Self>, cache: &Cache, window: Duration, max_size: usize) -> Loader {
        let table = Arc::clone(self);
        BatchLoader::builder(cache).window(window).max_size(max_size).build(move |keys| {
            let table = Arc::clone(&table);
            async move {
                let _running = Running::begin(&table.loads);
                let number = {
                    let mut asked = table.asked.lock().unwrap();
                    asked.push(keys.clone());
                    asked.len()
                };
                table.leave.acquire().await.unwrap().forget();
                Ok(keys.into_iter().map(|key| (key, format!("{key} of {number}"))).collect::<HashMap<_, _>>())
            }
        })
    }
}

fn call(loader: &Loader, key: u32) -> Call {
    let loader = loader.clone();
    Box::pin(async move { loader.get(&key).await })
}

/// A call that gathers, or has joined, and is not polled any more.
fn waiting(loader: &Loader, key: u32) -> Call {
    let mut call = call(loader, key);
    assert!(poll_once(&mut call).is_pending(), "it has to wait");
    call
}

#[allow(clippy::unnecessary_wraps)] // compared with the result of a call
fn value(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// A loader that does not wait, and returns `answer` of its keys.
fn at_once<A, F>(cache: &Cache, answer: F) -> Loader
where
    A: async_cache::BatchAnswer<u32, String, String> + Send + 'static,
    F: Fn(Vec<u32>) -> Result<A, String> + Send + Sync + 'static,
{
    BatchLoader::builder(cache).window(Duration::ZERO).build(move |keys| {
        let answer = answer(keys);
        async move { answer }
    })
}
