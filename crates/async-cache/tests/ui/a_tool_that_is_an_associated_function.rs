use async_cache::agent_cache;

struct Files;

impl Files {
    #[agent_cache(resource = "files")]
    async fn read(path: String) -> Result<String, std::io::Error> {
        std::fs::read_to_string(path)
    }
}

fn main() {}
