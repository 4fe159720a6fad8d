use async_cache::async_lru;

#[async_lru]
async fn get(id: u64) -> u64 {
    let cell = std::rc::Rc::new(id);
    std::future::ready(()).await;
    *cell
}

fn main() {}
