//! The fate of a load and its waiting callers when a caller is dropped, fails or interferes: every
//! row of the table of cancellation, on a single-threaded and on a multi-threaded runtime. A hang
//! is a failure.
#![allow(clippy::async_yields_async)] // calls are deliberately returned unawaited

mod callers;
mod failures;
mod recursion;
mod runtimes;
mod writes;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::stage::{Loads, poll_once, until};
use async_cache::{AsyncCache, LoadError};

type Cache = AsyncCache<String, u32>;
type Outcome = Result<u32, LoadError<String>>;
type Call = Pin<Box<dyn Future<Output = Outcome> + Send>>;

fn cache() -> Cache {
    AsyncCache::builder().build().unwrap()
}

/// A call that has not begun.
fn call(cache: &Cache, key: &'static str, loads: &Arc<Loads>, result: Result<u32, &str>) -> Call {
    let (cache, load) = (cache.clone(), loads.load(result.map_err(str::to_owned)));
    Box::pin(async move { cache.get_or_load(key, load).await })
}

/// A call that leads or has joined, and is not polled any more.
fn waiting(cache: &Cache, key: &'static str, loads: &Arc<Loads>, result: Result<u32, &str>) -> Call {
    let mut call = call(cache, key, loads, result);
    assert!(poll_once(&mut call).is_pending(), "it has to wait");
    call
}

async fn started(loads: &Loads, count: usize) {
    until(|| loads.started() == count).await;
}

/// Calls a function when it is dropped.
struct WhenDropped(Box<dyn Fn() + Send>);

impl Drop for WhenDropped {
    fn drop(&mut self) {
        self.0();
    }
}
