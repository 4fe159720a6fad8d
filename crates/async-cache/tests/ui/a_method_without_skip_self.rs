use async_cache::async_lru;

#[derive(Clone)]
struct Shop;

impl Shop {
    #[async_lru]
    async fn price(&self, product: u64) -> u64 {
        product
    }

    #[async_lru(skip_self)]
    async fn stock(&mut self, product: u64) -> u64 {
        product
    }

    #[async_lru(skip_self, backup = async_cache::DiskBackend::new("shop.cache"))]
    async fn weight(&self, product: u64) -> u64 {
        product
    }

    #[async_lru(skip_self)]
    async fn itself(&self, product: u64) -> Self {
        Self
    }
}

fn main() {}
