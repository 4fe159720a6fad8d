use async_cache::async_lru;

#[async_lru]
async fn get(ratio: f64) -> f64 {
    ratio
}

fn main() {}
