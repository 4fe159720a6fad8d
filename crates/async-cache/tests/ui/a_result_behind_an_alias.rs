use async_cache::async_lru;

type Fetched = Result<u64, String>;

#[async_lru]
async fn get(id: u64) -> Fetched {
    Ok(id)
}

fn main() {}
