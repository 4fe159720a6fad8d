use async_cache::agent_cache;

#[agent_cache(resource = "files")]
async fn read(path: String) -> String {
    path
}

fn main() {}
