use async_cache::async_lru;

#[derive(Clone)]
struct SearchResult;

#[async_lru]
async fn search(word: &str) -> SearchResult {
    SearchResult
}

fn main() {}
