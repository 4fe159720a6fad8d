//! Several servers that work together, for each program that is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use servers::Program;

/// Runs a test with each program.
#[allow(clippy::needless_pass_by_value, reason = "closures are written in place")]
pub(crate) fn each_program(test: impl AsyncFn(&Program)) {
    for program in servers::all() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let limited = tokio::time::timeout(Duration::from_secs(90), test(program)).await;
            assert!(limited.is_ok(), "it hangs, with {:?}", program.kind());
        });
    }
}

/// Does something until it holds, and returns how long that took.
#[track_caller]
pub(crate) fn until(
    limit: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> bool,
) -> impl Future<Output = Duration> {
    let place = std::panic::Location::caller();
    let what: Arc<str> = what.into();
    async move {
        let begun = Instant::now();
        while !holds().await {
            assert!(begun.elapsed() < limit, "{place}: not within {limit:?}: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        begun.elapsed()
    }
}
