use async_cache::{agent_cache, agent_invalidates};

#[agent_cache(scope = "session")]
async fn read(path: String) -> Result<String, std::io::Error> {
    Ok(path)
}

#[agent_invalidates]
async fn write() {}

fn main() {}
