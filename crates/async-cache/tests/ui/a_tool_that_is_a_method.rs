use async_cache::agent_cache;

struct Files;

impl Files {
    #[agent_cache(resource = "files")]
    async fn read(&self, path: String) -> Result<String, std::io::Error> {
        Ok(path)
    }
}

fn main() {}
