//! The agent cache in Rust: every row of the table in docs/agent.md.

mod loops;
mod tools;

use std::convert::Infallible;
use std::future::Future;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use async_cache::agent::{self, AgentSession, LoopDetection, ToolError};

/// A hang is a failure.
async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it hangs")
}

fn next(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, SeqCst) + 1
}

fn detecting() -> LoopDetection {
    LoopDetection::new()
}

fn watched() -> AgentSession {
    AgentSession::builder().loop_detection(detecting()).open()
}

fn repeats(max: u32) -> NonZeroU32 {
    NonZeroU32::new(max).unwrap()
}

fn detected<T, E>(result: Result<T, ToolError<E>>) -> agent::LoopDetected {
    match result {
        Err(ToolError::Loop(detected)) => *detected,
        _ => panic!("it is no loop"),
    }
}

type Never = Infallible;
