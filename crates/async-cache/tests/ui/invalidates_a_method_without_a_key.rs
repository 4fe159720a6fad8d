use async_cache::{async_lru, invalidates};

#[derive(Clone)]
struct Shop;

impl Shop {
    #[async_lru(skip_self)]
    async fn price(&self, product: u64) -> u64 {
        product
    }

    #[invalidates(Shop::price_cache())]
    async fn set_price(&self, product: u64) {}

    #[invalidates(Shop::price_cache(), key = (&product, product))]
    async fn swap(&self, product: u64) {}

    #[invalidates(Shop::price_cache(), keys = (product))]
    async fn double(&self, product: u64) {}
}

fn main() {}
