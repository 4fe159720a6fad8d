//! Times of `async-cache inspect` and `async-cache inspect --json` on a file of a million entries:
//! plain, with a secret, and compressed. Every run is a new process, timed from start to end.
//!
//! `inspect --save` writes the report; `--smoke` only runs the benchmark, on a small file. The tool
//! is next to the benchmark's program, built with the same profile.

#![allow(clippy::disallowed_methods)] // measures time and writes its own files

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use async_cache::{AsyncCache, Compression, DiskBackend, Secret};
use async_cache_benches::{Report, digits, median};
use serde::{Deserialize, Serialize};

const ROUNDS: usize = 7;
const SECRET: &str = "a secret for benchmarks";

#[derive(Clone, Serialize, Deserialize)]
struct Record {
    id: u64,
    name: String,
    score: f64,
    tags: Vec<String>,
}

fn record(id: u64) -> Record {
    let tags = vec![format!("tag{}", id % 17), "common".to_owned()];
    Record { id, name: format!("name of {id}"), score: id as f64 / 7.0, tags }
}

fn write(backend: DiskBackend, entries: u64) -> u64 {
    let cache: AsyncCache<String, Record> =
        AsyncCache::builder().backup(backend).build().expect("the path is a file");
    (0..entries).for_each(|id| cache.set(format!("user:{id}"), record(id)));
    cache.save_to_backup().expect("there is room").bytes
}

fn tool() -> PathBuf {
    std::env::current_exe().expect("this program").with_file_name("async-cache")
}

fn millis_to_inspect(arguments: &[&Path]) -> f64 {
    let started = Instant::now();
    let ran = Command::new(tool()).arg("inspect").args(arguments).output().expect("the tool was built");
    let took = started.elapsed();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    took.as_secs_f64() * 1e3
}

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let (rounds, entries) = if smoke { (1, 1000) } else { (ROUNDS, 1_000_000) };
    let folder = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")).expect("a folder");
    let secret_file = folder.path().join("secret");
    std::fs::write(&secret_file, SECRET).expect("there is room");
    let secret = || Secret::new(SECRET).expect("long enough");
    let file = |name: &str| folder.path().join(name);
    let (plain, sealed, compressed) = (file("plain.cache"), file("sealed.cache"), file("zstd.cache"));
    let with_secret = [&*sealed, Path::new("--secret-file"), &*secret_file];
    let json = Path::new("--json");
    let files = [
        ("plain", vec![&*plain], write(DiskBackend::new(&plain), entries)),
        ("plain, `--json`", vec![&*plain, json], 0),
        ("with a secret", with_secret.to_vec(), write(DiskBackend::new(&sealed).secret(secret()), entries)),
        (
            "compressed",
            vec![&*compressed],
            write(DiskBackend::new(&compressed).compression(Compression::ZSTD), entries),
        ),
    ];
    let mut times = vec![Vec::new(); files.len()];
    for _ in 0..rounds {
        for ((_, arguments, _), times) in files.iter().zip(&mut times) {
            times.push(millis_to_inspect(arguments));
        }
    }
    let mut report = Report::new("Looking into a file");
    report.line(&format!(
        "`async-cache inspect FILE`, {entries} entries `{{id, name, score, tags}}` under keys like `user:123`; warm page \
         cache. Each run is a process, from start to end; medians of {rounds} rounds, in which the files took turns.\n"
    ));
    report.line("| file | MiB | inspect (ms) |\n|---|---:|---:|");
    let plain_bytes = files[0].2;
    for ((name, _, bytes), times) in files.iter().zip(times) {
        let mebibytes = if *bytes == 0 { plain_bytes } else { *bytes } as f64 / f64::from(1 << 20);
        report.line(&format!("| {name} | {} | {} |", digits(mebibytes), digits(median(times))));
    }
    report.line("");
    report.finish("inspect");
}
