//! A cache that is much larger than its memory under random traffic for a long time: reads by
//! Zipf's law with loads, sets, deletes and times to live, by two threads.
//!
//! The program ends with an error if a value is wrong, older than the last write of its key that
//! had returned before the read, or served after its deadline; if a write fails; if the files grow
//! beyond the limit; or if the memory grows.
//!
//! `ASYNC_CACHE_SOAK_MINUTES` sets the time (default: 10), and `ASYNC_CACHE_SOAK_MIB` the limit for
//! the disk (default: 2,048); the number of keys is in proportion to the limit. `soak_journal
//! --save` writes the report; `--smoke` takes ten seconds, with a small cache.

#![allow(clippy::disallowed_methods)] // measures time and reads its own files

mod latencies;
mod model;
mod traffic;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use async_cache::{AsyncCache, DiskBackend, Journal};
use async_cache_benches::{Report, digits, median, resident_bytes};
use cap::Cap;

use latencies::Latencies;
use model::Model;
use traffic::{Cache, Traffic};

/// Counts the bytes of live allocations: the resident memory contains free memory of the allocator,
/// too.
#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

const SEGMENT: u64 = 8 << 20;
const THREADS: u64 = 2;
/// Operations a second of all threads.
const RATE: u32 = 20_000;
/// Beyond this share and these MiB, the allocated memory has grown. (A merge of indexes, for one,
/// allocates for a moment.)
const GROWTH: (f64, f64) = (1.02, 2.0);
/// The same for the resident memory: arenas of the allocator fill up with holes.
const RESIDENT_GROWTH: (f64, f64) = (1.1, 16.0);

/// The size of the cache and the length of the run.
struct Sizes {
    is_smoke: bool,
    in_memory: usize,
    on_disk: u64,
    keys: u64,
    lasting: Duration,
}

impl Sizes {
    fn of_arguments() -> Self {
        let is_smoke = std::env::args().any(|argument| argument == "--smoke");
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse::<f64>().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
        };
        if is_smoke {
            let lasting = Duration::from_secs(8);
            return Self { is_smoke, in_memory: 500, on_disk: 24 << 20, keys: 60_000, lasting };
        }
        let lasting = Duration::from_secs_f64(number("ASYNC_CACHE_SOAK_MINUTES").unwrap_or(10.0) * 60.0);
        let mib = number("ASYNC_CACHE_SOAK_MIB").unwrap_or(2048.0);
        let (on_disk, keys) = ((mib as u64) << 20, (mib / 2048.0 * 4e6) as u64);
        Self { is_smoke, in_memory: 10_000, on_disk, keys, lasting }
    }
}

/// The figures of a moment.
struct Sample {
    at: Duration,
    resident_mib: f64,
    live_mib: f64,
    bytes: u64,
    index: u64,
}

fn main() {
    let sizes = Sizes::of_arguments();
    let folder = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")).expect("a folder");
    let mut report = Report::new("A journal under random traffic");
    report.line(&format!("{:.1} minutes.\n", sizes.lasting.as_secs_f64() / 60.0));
    let model = Arc::new(Model::new(sizes.keys));
    let cache = open(folder.path(), &sizes);
    let twin = AsyncCache::builder().maxsize(sizes.in_memory).build().expect("no backup");
    let traffic = Traffic::new(&cache, &twin, &model);

    let started = Instant::now();
    let filled = fill(&traffic, &sizes);
    report.line(&format!(
        "{} entries in memory and {} MiB on the disk; {} keys. At first {} MiB were written in {} s.\n",
        sizes.in_memory,
        sizes.on_disk >> 20,
        sizes.keys,
        filled >> 20,
        digits(started.elapsed().as_secs_f64())
    ));
    let (samples, latencies) = run(&traffic, folder.path(), &sizes);
    report_samples(&mut report, &samples);
    report_latencies(&mut report, &latencies);
    let stats = cache.stats();
    report.line(&format!(
        "Operations: {}. Hits: {}, of these from the disk: {}. Loads: {}. Evictions from memory: {}. Write errors: {}.\n",
        latencies.operations, stats.hits, stats.cold_hits, stats.loads, stats.evictions, stats.write_errors
    ));
    assert_eq!(
        (stats.write_errors, stats.undecodable, stats.unjournaled),
        (0, 0, 0),
        "every write is on file"
    );
    assert!(stats.cold_hits > 0, "the disk was read");
    check_samples(&samples, &sizes);

    drop(cache);
    let cache = open(folder.path(), &sizes);
    let is_there = |key: &u64| model.check(&model.look(*key), cache.get(key)).is_some();
    let found = (0..sizes.keys).filter(is_there).count();
    assert!(found > sizes.in_memory, "{found} entries after the restart");
    report.line(&format!("After closing and opening, {found} entries are there, and each is right."));
    report.finish("soak-journal");
}

fn open(folder: &Path, sizes: &Sizes) -> Cache {
    let backend = DiskBackend::new(folder.join("a.cache")).journal(Journal::new().disk_bytes(sizes.on_disk));
    let cache = AsyncCache::builder().maxsize(sizes.in_memory).backup(backend).build();
    let cache = cache.expect("the path is ours");
    assert!(cache.opening().warning.is_none(), "{:?}", cache.opening());
    cache
}

/// Writes more than the disk has room for.
fn fill(traffic: &Traffic<'_>, sizes: &Sizes) -> u64 {
    let mut random = fastrand::Rng::with_seed(0);
    let mut bytes = 0;
    while bytes < sizes.on_disk / 10 * 11 {
        bytes += traffic.set(random.u64(..sizes.keys), &mut random);
    }
    bytes
}

/// Runs the traffic, and looks at memory and disk meanwhile.
fn run(traffic: &Traffic<'_>, folder: &Path, sizes: &Sizes) -> (Vec<Sample>, Latencies) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|seed| {
                let is_over = &is_over;
                scope.spawn(move || traffic.run(seed, RATE / THREADS as u32, is_over))
            })
            .collect();
        let started = Instant::now();
        let mut samples = Vec::new();
        while started.elapsed() < sizes.lasting && !threads.iter().any(ScopedJoinHandle::is_finished) {
            std::thread::sleep(sizes.lasting / 40);
            let (bytes, index) = bytes_on_disk(folder);
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let (resident_mib, live_mib) = (mib(resident_bytes()), mib(ALLOCATOR.allocated() as u64));
            samples.push(Sample { at: started.elapsed(), resident_mib, live_mib, bytes, index });
        }
        is_over.store(true, Ordering::Relaxed);
        let latencies = threads.into_iter().map(|thread| thread.join().expect("every value was right"));
        (samples, latencies.fold(Latencies::default(), |sum, latencies| sum.with(&latencies)))
    })
}

/// The bytes of all files, and of the indexes among them.
fn bytes_on_disk(folder: &Path) -> (u64, u64) {
    let mut bytes = (0, 0);
    let Ok(entries) = std::fs::read_dir(folder) else { return bytes };
    for entry in entries.map_while(Result::ok) {
        let Ok(metadata) = entry.metadata() else { continue }; // It was collected.
        if metadata.is_dir() {
            let below = bytes_on_disk(&entry.path());
            bytes = (bytes.0 + below.0, bytes.1 + below.1);
        } else {
            bytes.0 += metadata.len();
            bytes.1 += if entry.file_name().to_string_lossy().starts_with('i') { metadata.len() } else { 0 };
        }
    }
    bytes
}

fn report_samples(report: &mut Report, samples: &[Sample]) {
    report.line("| second | resident (MiB) | allocated (MiB) | on disk (MiB) | of these, indexes |\n|---:|---:|---:|---:|---:|");
    for Sample { at, resident_mib, live_mib, bytes, index } in samples.iter().step_by(4) {
        let seconds = at.as_secs_f64();
        let (mib, index_mib) = (bytes >> 20, index >> 20);
        report.line(&format!("| {seconds:.0} | {resident_mib:.0} | {live_mib:.1} | {mib} | {index_mib} |"));
    }
    let most = samples.iter().map(|sample| sample.bytes).max().unwrap_or(0);
    report.line(&format!("\nMost bytes on the disk: {} MiB, in {} samples.\n", most >> 20, samples.len()));
}

fn report_latencies(report: &mut Report, latencies: &Latencies) {
    report.line(
        "`get` of an entry in memory, beside a cache without a journal that has the same traffic, in ns:\n",
    );
    report.line("| | median | p99 | p99.9 | most |\n|---|---:|---:|---:|---:|");
    for (name, times) in [("with a journal", &latencies.hot), ("without", &latencies.twin)] {
        let [median, p99, p999, most] = [0.5, 0.99, 0.999, 1.0].map(|share| times.percentile(share));
        report.line(&format!("| {name} | {median} | {p99} | {p999} | {most} |"));
    }
    report.line("");
}

/// The files stay within the limit and a segment, and the new index of a merge beside the old ones.
fn check_samples(samples: &[Sample], sizes: &Sizes) {
    for Sample { at, bytes, index, .. } in &samples[samples.len() / 4..] {
        let most = sizes.on_disk + SEGMENT + index;
        assert!(*bytes <= most, "{bytes} bytes on the disk after {at:?}; the limit is {}", sizes.on_disk);
    }
    if sizes.is_smoke {
        return; // Too short for a judgement on memory.
    }
    let fifth = (samples.len() / 5).max(1);
    let early = &samples[fifth.min(samples.len() - 1)..(2 * fifth).min(samples.len())];
    let late = &samples[samples.len() - fifth..];
    let grows = |name: &str, of: fn(&Sample) -> f64, (share, mib): (f64, f64)| {
        let [early, late] = [early, late].map(|samples| median(samples.iter().map(of).collect()));
        assert!(late <= early * share + mib, "the {name} memory grew from {early} to {late} MiB");
    };
    grows("allocated", |sample| sample.live_mib, GROWTH);
    grows("resident", |sample| sample.resident_mib, RESIDENT_GROWTH);
}
