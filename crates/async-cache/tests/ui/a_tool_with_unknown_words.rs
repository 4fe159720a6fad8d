use async_cache::{agent_cache, agent_invalidates};

#[agent_cache(resource = "files", scope = "agent")]
async fn read(path: String) -> Result<String, std::io::Error> {
    Ok(path)
}

#[agent_cache(resource = "files", skip_self)]
async fn list(path: String) -> Result<String, std::io::Error> {
    Ok(path)
}

#[agent_invalidates(resource = "files", key = (path))]
async fn write(path: String) {
    drop(path);
}

fn main() {}
