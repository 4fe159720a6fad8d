//! Many caches whose server goes away: the attempts to connect.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::{Origin, connected, each, over, proxy, redis_at, through, within};

const CACHES: usize = 50;

#[test]
fn the_attempts_of_fifty_caches_are_few_and_spread() {
    each(async |server| {
        let proxy = proxy(&server);
        let caches = join_all((0..CACHES).map(|_| connected(through(&proxy)))).await;
        server.kill();
        let before = proxy.accepted();
        let (begun, mut seen, mut most) = (Instant::now(), before, 0);
        while begun.elapsed() < Duration::from_millis(2500) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = proxy.accepted();
            if begun.elapsed() > Duration::from_millis(500) {
                most = most.max(now - seen);
            }
            seen = now;
        }
        let attempts = seen - before;
        let caches_count = CACHES as u64;
        assert!((caches_count..=caches_count * 8).contains(&attempts), "{attempts} attempts in 2.5 seconds");
        assert!(most < caches_count / 2, "{most} attempts within 20 ms");
        tokio::task::block_in_place(|| server.restart());
        within(Duration::from_secs(6), "all are connected", || proxy.open() == CACHES).await;
        drop(caches);
    });
}

/// A server that accepts, says nothing, and closes after a while.
async fn mute(open: Arc<AtomicUsize>, most: Arc<AtomicUsize>, listener: tokio::net::TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        most.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
        let open = Arc::clone(&open);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            open.fetch_sub(1, SeqCst);
            drop(stream);
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_makes_one_attempt_at_a_time_however_many_call() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (open, most) = (Arc::default(), Arc::default());
    let server = tokio::spawn(mute(Arc::clone(&open), Arc::clone(&most), listener));
    let (cache, origin) = (over(redis_at(port)), Origin::default());
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < Duration::from_millis(1500) {
        let calls = (0..100).map(|_| {
            number += 1;
            let (cache, origin) = (cache.clone(), origin.clone());
            tokio::spawn(async move { origin.get(&cache, &number.to_string(), Duration::ZERO).await })
        });
        for call in join_all(calls).await {
            call.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(most.load(SeqCst), 1);
    server.abort();
}
