//! An agent loop over real tools: the source files of this project, and a file of notes.
//!
//! ```text
//! cargo run -p async-cache-examples --bin agent
//! ```
//!
//! The model is a script, so that the example runs anywhere: it looks into files, asks for some of
//! them twice, notes the results, and then gets stuck. A framework works in the same way: the tools
//! are async functions, and their errors are returned to the model. A file is read from the disk
//! once per session, a note makes the cached notes stale, and the loop is reported to the model,
//! which finishes.

#![allow(clippy::print_stdout)] // a program with output

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use async_cache::agent::{AgentSession, LoopDetected, LoopDetection, ToolError, metrics};
use async_cache::{agent_cache, agent_invalidates};
use syn::visit::Visit;

/// How often a tool ran instead of being answered from a cache.
static RAN: AtomicU32 = AtomicU32::new(0);

/// The sources that the tools look into.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/async-cache-core/src/agent")
}

#[agent_cache(resource = "sources", scope = "session")]
async fn list_files(extension: &str) -> io::Result<Vec<String>> {
    RAN.fetch_add(1, Relaxed);
    let files = walkdir::WalkDir::new(sources()).sort_by_file_name().into_iter().flatten();
    let files = files.filter(|file| file.path().extension().is_some_and(|found| found == extension));
    Ok(files.map(|file| file.file_name().to_string_lossy().into_owned()).collect())
}

#[agent_cache(resource = "sources", scope = "session")]
async fn read_file(name: &str) -> io::Result<String> {
    RAN.fetch_add(1, Relaxed);
    read(&sources().join(name))
}

/// Counts functions. The definitions in a file are the same for all agents.
#[agent_cache(resource = "definitions", key = name)]
async fn count_functions(name: &str) -> io::Result<usize> {
    struct Functions(usize);
    impl Visit<'_> for Functions {
        fn visit_item_fn(&mut self, _: &syn::ItemFn) {
            self.0 += 1;
        }
        fn visit_impl_item_fn(&mut self, _: &syn::ImplItemFn) {
            self.0 += 1;
        }
    }
    RAN.fetch_add(1, Relaxed);
    let text = read_file(name).await.map_err(|error| io::Error::other(error.to_string()))?;
    let parsed = syn::parse_file(&text).map_err(io::Error::other)?;
    let mut functions = Functions(0);
    functions.visit_file(&parsed);
    Ok(functions.0)
}

#[agent_cache(resource = "notes", scope = "session")]
async fn notes(path: PathBuf) -> io::Result<String> {
    RAN.fetch_add(1, Relaxed);
    if path.exists() { read(&path) } else { Ok(String::new()) }
}

#[agent_invalidates(resource = "notes")]
async fn note(path: &Path, line: &str) -> io::Result<()> {
    RAN.fetch_add(1, Relaxed);
    write(path, &(read(path).unwrap_or_default() + line + "\n"))
}

#[allow(clippy::disallowed_methods)] // a user's file, not a file of the cache
fn read(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
}

#[allow(clippy::disallowed_methods)] // as above
fn write(path: &Path, text: &str) -> io::Result<()> {
    std::fs::write(path, text)
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The calls of the scripted model; returns the loop that was reported to the model.
async fn run_agent(notebook: &Path) -> Result<LoopDetected, Error> {
    let files = list_files("rs").await?;
    for name in &files {
        let functions = count_functions(name).await?;
        note(notebook, &format!("{name}: {functions} functions")).await?;
        assert!(notes(notebook.to_owned()).await?.ends_with(&format!("{functions} functions\n")));
    }
    // The model forgot that it has read them.
    for name in &files {
        read_file(name).await?;
        read_file(name).await?;
    }
    // Now the model is stuck: it asks, checks, asks, checks.
    loop {
        for stuck in [notes(notebook.to_owned()).await.err(), list_files("rs").await.err()] {
            match stuck {
                None => {}
                Some(ToolError::Loop(detected)) => return Ok(*detected),
                Some(error) => return Err(error.into()),
            }
        }
    }
}

async fn converse(notebook: &Path) -> Result<LoopDetected, Error> {
    let session = AgentSession::builder().loop_detection(LoopDetection::new()).open();
    let before = RAN.load(Relaxed);
    let told = session.run(run_agent(notebook)).await?;
    let of_session = session.metrics();
    println!(
        "{} calls of reading tools, {} answered from a cache; {} tools ran",
        of_session.hits + of_session.misses,
        of_session.hits,
        RAN.load(Relaxed) - before
    );
    println!("  the model was told: {told}");
    Ok(told)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let notebook = std::env::temp_dir().join(format!("async-cache-agent-{}.notes", std::process::id()));
    for _ in 0..2 {
        converse(&notebook).await?;
    }
    println!("all in all: {:?}", metrics());
    #[allow(clippy::disallowed_methods)] // as above
    std::fs::remove_file(&notebook)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use async_cache::agent::LoopKind;

    use super::*;

    #[tokio::test]
    async fn the_second_conversation_counts_nothing_anew_and_both_are_told_of_the_loop() {
        let folder = tempfile::tempdir().unwrap();
        let notebook = folder.path().join("notes");
        for _ in 0..2 {
            let told = converse(&notebook).await.unwrap();
            assert_eq!(told.kind, LoopKind::Oscillation);
            let cycle: Vec<_> = told.cycle.iter().map(|call| &*call.tool).collect();
            assert_eq!(cycle, ["notes", "list_files"]);
        }
        assert_eq!(metrics().loop_detections, 2);
        let counted = count_functions::metrics();
        assert!(counted.hits > 0);
        assert_eq!(counted.hits, counted.misses, "once each, and then from the cache");
        assert_eq!(read(&notebook).unwrap().lines().count() as u64, counted.hits + counted.misses);
    }
}
