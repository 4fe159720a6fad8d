//! Reads, parses and summarises thousands of Rust source files, which takes seconds. The summaries
//! go through a cache that survives the process, so the second run has them at once.
//!
//! ```text
//! quickstart            # takes results of the last run from its file, computes the others
//! quickstart --fresh    # discards the results of the last run
//! quickstart FOLDER     # sources in FOLDER instead of cargo's registry
//! ```
//!
//! The cache is `summaries` below; the rest of the program is the work and the report.

#![allow(clippy::print_stdout, clippy::disallowed_methods)] // has output, reads its own files

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_cache::{AsyncCache, DiskBackend};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

/// Enough work for some seconds on any machine.
const MOST_FILES: usize = 4000;

/// The summary of a source file. Written to the cache's file as a map with these field names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Summary {
    lines: usize,
    functions: usize,
    unsafe_blocks: usize,
    /// Name and number of statements of the longest function.
    longest: Option<(String, usize)>,
}

/// How long a run took, in seconds: until the first summary, and in total.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Timing {
    first: f64,
    all: f64,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt().with_target(false).init();
    let (folder, fresh) = arguments()?;
    let home = PathBuf::from("target/quickstart");
    if fresh && home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    let files = sources(&folder);
    if files.is_empty() {
        return Err(format!("there are no .rs files under {}", folder.display()).into());
    }

    // The cache. Building it opens the file of the last run, and reads only the first page.
    let started = Instant::now();
    let summaries: AsyncCache<PathBuf, Summary> =
        AsyncCache::builder().backup(DiskBackend::new(home.join("summaries.cache"))).build()?;
    let opening = summaries.opening();
    println!(
        "{} summaries came back from the last run, in {:.2?}; {} files to go through in {}",
        opening.entries,
        opening.took,
        files.len(),
        folder.display()
    );

    let (found, first) = summarise_all(&summaries, files, started).await;
    let timing = Timing { first: first.as_secs_f64(), all: started.elapsed().as_secs_f64() };
    report(&found);

    // Without this line the next run would be as slow as the first.
    let saved = summaries.save_to_backup()?;
    println!("\n{} summaries saved, {} KiB", saved.entries, saved.bytes / 1024);

    let metrics = summaries.metrics();
    println!(
        "{} hits, {} misses; size {}, hit rate {:.2}",
        metrics.hits, metrics.misses, metrics.size, metrics.hit_rate
    );
    compare(&home, opening.entries, timing)
}

/// Processes all files, a few at a time. Returns the summaries, and the time of the first one.
async fn summarise_all(
    summaries: &AsyncCache<PathBuf, Summary>,
    files: Vec<PathBuf>,
    started: Instant,
) -> (Vec<(PathBuf, Summary)>, Duration) {
    let (total, mut failed, mut first) = (files.len(), 0, None);
    let mut found = Vec::with_capacity(total);
    let mut files = files.into_iter();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < 16
            && let Some(path) = files.next()
        {
            let summaries = summaries.clone();
            tasks.spawn(async move {
                // The one important line: from the cache, or from the slow function; once, for any
                // number of callers.
                let file = path.clone();
                let summary = summaries.get_or_load(&path, move || summarise(file)).await;
                summary.map(|summary| (path, summary))
            });
        }
        let Some(done) = tasks.join_next().await else { break };
        first.get_or_insert_with(|| started.elapsed());
        match done {
            Ok(Ok(summary)) => found.push(summary),
            // Not a Rust file of this edition. Errors are not cached: the next run tries again.
            Ok(Err(_)) | Err(_) => failed += 1,
        }
        progress(found.len() + failed, total);
    }
    println!("\r{} files summarised, {failed} could not be parsed      ", found.len());
    (found, first.unwrap_or_default())
}

/// The slow work: read a file, parse it, walk its syntax tree.
async fn summarise(path: PathBuf) -> Result<Summary, Error> {
    tokio::task::spawn_blocking(move || {
        let text = std::fs::read_to_string(&path)?;
        let file = syn::parse_file(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut summary = Summary { lines: text.lines().count(), ..Summary::default() };
        syn::visit::Visit::visit_file(&mut summary, &file);
        Ok(summary)
    })
    .await?
}

impl Summary {
    fn function(&mut self, name: &syn::Ident, body: &syn::Block) {
        self.functions += 1;
        if self.longest.as_ref().is_none_or(|(_, statements)| body.stmts.len() > *statements) {
            self.longest = Some((name.to_string(), body.stmts.len()));
        }
    }
}

impl<'ast> syn::visit::Visit<'ast> for Summary {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function(&function.sig.ident, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.function(&function.sig.ident, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.unsafe_blocks += 1;
        syn::visit::visit_expr_unsafe(self, block);
    }
}

fn arguments() -> Result<(PathBuf, bool), Error> {
    let (mut folder, mut fresh) = (None, false);
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--fresh") => fresh = true,
            Some(option) if option.starts_with('-') => {
                return Err(format!("unknown option {option}; usage: quickstart [--fresh] [FOLDER]").into());
            }
            _ => folder = Some(PathBuf::from(argument)),
        }
    }
    Ok((folder.map_or_else(registry, Ok)?, fresh))
}

/// The folder in which cargo keeps the sources of dependencies. Not empty, or this program could
/// not have been built.
fn registry() -> Result<PathBuf, Error> {
    #[allow(deprecated)] // correct on every platform since Rust 1.85
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .ok_or("neither CARGO_HOME nor a home folder is known; name a folder with Rust sources")?;
    Ok(cargo_home.join("registry").join("src"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let is_rust = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
    let walk = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().filter_map(Result::ok);
    walk.map(walkdir::DirEntry::into_path).filter(|path| is_rust(path)).take(MOST_FILES).collect()
}

fn progress(done: usize, total: usize) {
    if std::io::stdout().is_terminal() || done.is_multiple_of(1000) {
        let end = if std::io::stdout().is_terminal() { '\r' } else { '\n' };
        print!("{done} of {total}{end}");
        // Nothing depends on whether the progress is visible.
        let _ = std::io::stdout().flush();
    }
}

fn report(found: &[(PathBuf, Summary)]) {
    let sum = |count: fn(&Summary) -> usize| found.iter().map(|(_, summary)| count(summary)).sum::<usize>();
    println!(
        "\n{} lines, {} functions, {} unsafe blocks",
        sum(|summary| summary.lines),
        sum(|summary| summary.functions),
        sum(|summary| summary.unsafe_blocks)
    );
    let longest = found.iter().filter_map(|(path, summary)| Some((summary.longest.as_ref()?, path)));
    if let Some(((name, statements), path)) = longest.max_by_key(|((_, statements), _)| *statements) {
        println!("the longest function is {name}, {statements} statements, in {}", path.display());
    }
    if let Some((path, summary)) = found.iter().max_by_key(|(_, summary)| summary.unsafe_blocks) {
        println!("most unsafe blocks, {}, are in {}", summary.unsafe_blocks, path.display());
    }
}

/// Prints the time of this run beside the last cold run. The last cold run is stored in a cache of
/// its own.
fn compare(home: &Path, came_back: u64, timing: Timing) -> Result<(), Error> {
    let runs: AsyncCache<String, Timing> =
        AsyncCache::builder().backup(DiskBackend::new(home.join("runs.cache"))).build()?;
    let line = |name: &str, timing: &Timing| {
        println!("{name}: first answer after {:.3} ms, all after {:.3} s", timing.first * 1e3, timing.all);
    };
    println!();
    if came_back == 0 {
        line("cold", &timing);
        runs.set("cold".to_owned(), timing);
        runs.save_to_backup()?;
    } else {
        let cold = runs.get("cold");
        if let Some(cold) = &cold {
            line("cold", cold);
        }
        line("warm", &timing);
        if let Some(cold) = cold {
            println!("the warm start was {:.0} times as fast", cold.all / timing.all);
        }
    }
    Ok(())
}
