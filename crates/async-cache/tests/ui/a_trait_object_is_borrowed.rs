use async_cache::async_lru;

#[async_lru]
async fn get(name: &(dyn ToString + Sync)) -> String {
    name.to_string()
}

fn main() {}
