use async_cache::async_lru;

struct Page;

#[async_lru]
async fn get(id: u64) -> Page {
    Page
}

fn main() {}
