//! A time limit for each test, also for those of the examples.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Longer than any test takes on a busy machine. A test that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test in a thread of its own, so that a hang is a failure, even if the thread is blocked.
pub(crate) fn within_limit(test: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel::<()>();
    let name = thread::current().name().unwrap_or("test").to_owned();
    let body = move || {
        let _done = done; // dropped at the end, also after a panic
        test();
    };
    let running = thread::Builder::new().name(name).spawn(body).unwrap();
    assert_ne!(is_done.recv_timeout(LIMIT), Err(RecvTimeoutError::Timeout), "this hangs");
    if let Err(panic) = running.join() {
        std::panic::resume_unwind(panic);
    }
}
