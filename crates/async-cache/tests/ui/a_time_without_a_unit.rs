use async_cache::async_ttl;

#[async_ttl(ttl = 60)]
async fn a(id: u64) -> u64 {
    id
}

#[async_ttl(ttl = "60")]
async fn b(id: u64) -> u64 {
    id
}

#[async_ttl(ttl = "1 hour and a bit")]
async fn c(id: u64) -> u64 {
    id
}

#[async_ttl(ttl = "0s")]
async fn d(id: u64) -> u64 {
    id
}

fn main() {}
