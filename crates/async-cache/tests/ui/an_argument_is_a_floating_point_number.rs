use async_cache::async_lru;

#[async_lru]
async fn area(width: f64, heights: &[f32]) -> f64 {
    width * f64::from(heights[0])
}

#[async_lru(key: Option<f64> = Some(*width))]
async fn keyed(width: f64) -> f64 {
    width
}

fn main() {}
