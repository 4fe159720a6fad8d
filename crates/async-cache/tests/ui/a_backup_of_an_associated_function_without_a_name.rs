use async_cache::{DiskBackend, async_lru};

struct User;

impl User {
    #[async_lru(backup = DiskBackend::new("users.cache"))]
    async fn name(id: u32) -> String {
        format!("user {id}")
    }
}

fn main() {}
