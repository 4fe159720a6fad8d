#[async_cache::async_lru]
async fn price(product: u64) -> u64 {
    product
}

#[async_cache::invalidates(price)]
fn set_price(product: u64) -> Box<dyn std::future::Future<Output = u64> + Unpin> {
    Box::new(std::future::ready(product))
}

#[async_cache::invalidates(price)]
fn take_price(product: u64) -> impl std::future::Future<Output = u64> + Unpin {
    std::future::ready(product)
}

fn main() {}
