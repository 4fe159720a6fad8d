use async_cache::async_lru;

#[async_lru]
async fn get(names: &mut Vec<String>) -> usize {
    names.len()
}

fn main() {}
