use async_cache::{DiskBackend, async_lru};

#[derive(Clone)]
struct Page;

#[async_lru(backup = DiskBackend::new("pages.cache"))]
async fn get(id: u64) -> Page {
    Page
}

fn main() {}
