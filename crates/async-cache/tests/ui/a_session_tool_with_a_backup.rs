use async_cache::{DiskBackend, agent_cache};

#[agent_cache(resource = "files", scope = "session", backup = DiskBackend::new("files.cache"))]
async fn read(path: String) -> Result<String, std::io::Error> {
    Ok(path)
}

fn main() {}
