//! A hit of a decorated function does not allocate. A separate program with one test, because the
//! allocations of the whole process are counted.
#![cfg(feature = "macros")]

use std::future::Future;
use std::hint::black_box;
use std::task::{Context, Poll, Waker};

use async_cache::async_lru;
use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

fn allocated_during(work: impl FnOnce()) -> usize {
    let before = ALLOCATOR.total_allocated();
    work();
    ALLOCATOR.total_allocated() - before
}

#[async_lru]
async fn length(words: &[String], separator: &str, times: u64) -> Result<u64, String> {
    Ok(words.join(separator).len() as u64 * times)
}

#[test]
fn a_hit_allocates_nothing() {
    let words = ["a".to_owned(), "b".to_owned()];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(runtime.block_on(length(&words, "-", 2)).unwrap(), 6);
    drop(runtime);
    let allocated = allocated_during(|| {
        for _ in 0..100 {
            let hit = std::pin::pin!(length(&words, "-", 2));
            assert!(matches!(hit.poll(&mut context), Poll::Ready(Ok(6))));
        }
    });
    // The test harness may allocate a little at the same time, on its own thread.
    assert!(allocated < 100, "{allocated} bytes in 100 hits");
    assert!(allocated_during(|| drop(black_box(vec![1_u8; 100]))) >= 100, "they are counted");
}
