use async_cache::async_lru;

#[async_lru]
async fn get(name: impl Into<String>) -> String {
    name.into()
}

fn main() {}
