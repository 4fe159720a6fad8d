//! Decorated functions that share their results beyond one host.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use async_cache::remote::Redis;
use async_cache::{async_ttl, invalidates};
use servers::all;

use crate::support::{connected, redis_at, shows};

static PORT: AtomicU16 = AtomicU16::new(0);
static LOADS: AtomicU64 = AtomicU64::new(0);

fn server() -> Redis {
    redis_at(PORT.load(Ordering::SeqCst)).build().unwrap()
}

#[async_ttl(ttl = "1h", remote = server())]
async fn price(product: String) -> Result<String, Infallible> {
    let number = LOADS.fetch_add(1, Ordering::SeqCst);
    Ok(format!("{product} {number}"))
}

#[invalidates(price, key = (product))]
async fn reprice(product: String) -> Result<(), Infallible> {
    let _ = product;
    Ok(())
}

/// The cache of a function lives as long as its process, so one server is enough here.
#[tokio::test]
async fn a_function_shares_its_results_under_its_name() {
    let server = all()[0].start();
    PORT.store(server.port(), Ordering::SeqCst);
    let other = connected(redis_at(server.port()).namespace("remote.functions.price")).await;
    assert_eq!(price("pen".to_owned()).await.unwrap(), "pen 0");
    assert_eq!(price("pen".to_owned()).await.unwrap(), "pen 0");
    shows(&other, "pen", Some("pen 0")).await;
    reprice("pen".to_owned()).await.unwrap();
    shows(&other, "pen", None).await;
    other.set("pen".into(), "pen of another".into());
    for _ in 0..1000 {
        let price = price("pen".to_owned()).await.unwrap();
        if price == "pen of another" {
            assert!(
                LOADS.load(Ordering::SeqCst) <= 2,
                "loaded once more before the set was heard, or not at all"
            );
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("the value of another process does not come");
}
