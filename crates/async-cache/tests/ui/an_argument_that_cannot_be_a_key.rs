use async_cache::async_lru;

#[derive(Clone, Debug)]
struct Ratio(f64);

#[async_lru]
async fn get(ratio: Ratio) -> f64 {
    ratio.0
}

fn main() {}
