use async_cache::async_lru;

#[async_lru]
async fn sum(#[cfg(a)] a: u8, #[cfg(a)] b: u8, #[cfg(a)] c: u8, #[cfg(a)] d: u8, #[cfg(a)] e: u8) -> u8 {
    0
}

fn main() {}
