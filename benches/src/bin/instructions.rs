//! Instructions per operation, counted by Callgrind, beside `quick_cache`: figures that a busy
//! machine does not change.
//!
//! Each row runs in two processes under `valgrind --tool=callgrind`, the second with twice as many
//! operations. The difference of the counts is divided by the difference of the operations; so the
//! start of the process and the filling of the cache are left out. Callgrind runs one thread at a
//! time. It counts instructions, not the time that they wait for memory or for a lock, and it hides
//! the vDSO: a reading of a clock is counted as a system call.
//!
//! `instructions ROW COUNT` runs one row in this process: for `valgrind` with other options.

use std::convert::Infallible;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_cache::{AsyncCache, DiskBackend, Eviction, Journal};
use async_cache_benches::Report;
use serde_bytes::ByteBuf;

const KEYS: u64 = 10_000;
const CAPACITY: usize = 20_000;
const SMALL: u64 = 10_000;

/// A row: its name, and a function that does the operation this many times.
type Row = (&'static str, fn(u64));

/// A table: its title, and its rows; the ratio is to the first.
type Table = (&'static str, &'static [Row]);

const TABLES: &[Table] = &[
    (
        "`get`, a hit, u64 keys",
        &[
            ("quick", |n| gets(n, &quick())),
            ("hit", |n| gets(n, &ours(Eviction::Adaptive, None))),
            ("hit-ttl", |n| gets(n, &ours(Eviction::Adaptive, MINUTE))),
            ("hit-lru", |n| gets(n, &ours(Eviction::Lru, None))),
        ],
    ),
    (
        "`get`, a hit, String keys by &str, Arc values",
        &[
            ("quick-string", |n| string_gets(n, &quick())),
            ("hit-string", |n| string_gets(n, &ours(Eviction::Adaptive, None))),
        ],
    ),
    (
        "get or load, a hit",
        &[
            ("quick-async", |n| on_runtime(quick_loads(n, true))),
            ("hit-async", |n| on_runtime(our_loads(n, true))),
        ],
    ),
    (
        "insert of a new key with eviction",
        &[
            ("quick-insert", |n| inserts(n, &quick())),
            ("insert", |n| inserts(n, &ours(Eviction::Adaptive, None))),
            ("insert-ttl", |n| inserts(n, &ours(Eviction::Adaptive, MINUTE))),
            ("insert-lru", |n| inserts(n, &ours(Eviction::Lru, None))),
        ],
    ),
    (
        "insert of a key that is there",
        &[
            ("quick-replace", |n| replaces(n, &quick())),
            ("replace", |n| replaces(n, &ours(Eviction::Adaptive, None))),
            ("replace-ttl", |n| replaces(n, &ours(Eviction::Adaptive, MINUTE))),
            ("replace-lru", |n| replaces(n, &ours(Eviction::Lru, None))),
        ],
    ),
    (
        "miss with a load that suspends once, on a runtime of one thread",
        &[
            ("spawn", |n| on_runtime(spawns(n))),
            ("quick-miss", |n| on_runtime(quick_loads(n, false))),
            ("miss", |n| on_runtime(our_loads(n, false))),
            ("miss-string", |n| on_runtime(our_string_loads(n))),
        ],
    ),
    (
        "`set` of 90 bytes; a journal's system calls are not counted",
        &[
            ("bytes", |n| byte_sets(n, None, KEYS)),
            ("bytes-journal", |n| byte_sets(n, Some(Journal::new()), KEYS)),
            ("bytes-evict", |n| byte_sets(n, None, u64::MAX)),
            ("bytes-evict-journal", |n| byte_sets(n, Some(Journal::new()), u64::MAX)),
            ("bytes-evict-disk", |n| byte_sets(n, Some(Journal::new().disk_bytes(1 << 40)), u64::MAX)),
        ],
    ),
];

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

trait Cache<K, V> {
    fn get(&self, key: &K) -> Option<V>;
    fn set(&self, key: K, value: V);
}

type Quick<K, V> = quick_cache::sync::Cache<K, V>;

impl Cache<u64, u64> for Quick<u64, u64> {
    fn get(&self, key: &u64) -> Option<u64> {
        self.get(key)
    }
    fn set(&self, key: u64, value: u64) {
        self.insert(key, value);
    }
}

impl Cache<u64, u64> for AsyncCache<u64, u64> {
    fn get(&self, key: &u64) -> Option<u64> {
        self.get(key)
    }
    fn set(&self, key: u64, value: u64) {
        self.set(key, value);
    }
}

impl Cache<String, Arc<str>> for Quick<String, Arc<str>> {
    fn get(&self, key: &String) -> Option<Arc<str>> {
        self.get(key.as_str())
    }
    fn set(&self, key: String, value: Arc<str>) {
        self.insert(key, value);
    }
}

impl Cache<String, Arc<str>> for AsyncCache<String, Arc<str>> {
    fn get(&self, key: &String) -> Option<Arc<str>> {
        self.get(key.as_str())
    }
    fn set(&self, key: String, value: Arc<str>) {
        self.set(key, value);
    }
}

fn quick<K: Eq + std::hash::Hash, V: Clone>() -> Quick<K, V> {
    Quick::new(CAPACITY)
}

fn ours<K, V>(eviction: Eviction, ttl: Option<Duration>) -> AsyncCache<K, V>
where
    K: Eq + std::hash::Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    let builder = AsyncCache::builder().maxsize(CAPACITY).eviction(eviction);
    let builder = if let Some(ttl) = ttl { builder.default_ttl(ttl) } else { builder };
    builder.build().expect("no backup")
}

fn gets(count: u64, cache: &impl Cache<u64, u64>) {
    (0..KEYS).for_each(|key| cache.set(key, key));
    let mut random = fastrand::Rng::with_seed(1);
    let keys: Vec<u64> = (0..SMALL).map(|_| random.u64(..KEYS)).collect();
    for _ in 0..count / SMALL {
        for key in &keys {
            black_box(cache.get(key));
        }
    }
}

fn string_gets(count: u64, cache: &impl Cache<String, Arc<str>>) {
    let name = |key: u64| format!("user:{key}:profile");
    let value: Arc<str> = "a value that is shared".into();
    (0..KEYS).for_each(|key| cache.set(name(key), Arc::clone(&value)));
    let mut random = fastrand::Rng::with_seed(1);
    let keys: Vec<String> = (0..SMALL).map(|_| name(random.u64(..KEYS))).collect();
    for _ in 0..count / SMALL {
        for key in &keys {
            black_box(cache.get(key));
        }
    }
}

fn inserts(count: u64, cache: &impl Cache<u64, u64>) {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..2 * CAPACITY as u64 + count {
        let key = random.u64(..);
        cache.set(key, key);
    }
}

fn replaces(count: u64, cache: &impl Cache<u64, u64>) {
    (0..KEYS).for_each(|key| cache.set(key, key));
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..count {
        let key = random.u64(..KEYS);
        cache.set(key, key);
    }
}

/// Replaces entries of a cache, or inserts new ones into a full cache.
fn byte_sets(count: u64, journal: Option<Journal>, keys: u64) {
    let folder = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")).expect("a folder");
    let builder = AsyncCache::builder().maxsize(CAPACITY);
    let builder = journal.into_iter().fold(builder, |builder, journal| {
        let journal = journal.flush_every(Duration::from_secs(3600));
        builder.backup(DiskBackend::new(folder.path().join("a.cache")).journal(journal))
    });
    let cache = builder.build().expect("the path is ours");
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..2 * CAPACITY as u64 + count {
        cache.set(random.u64(..keys), ByteBuf::from(vec![7; 90]));
    }
}

fn on_runtime(work: impl Future<Output = ()> + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async { tokio::spawn(work).await.expect("nothing panics") });
}

/// A load that takes no time, but lets others run first.
async fn suspended(key: u64) -> u64 {
    tokio::task::yield_now().await;
    key
}

async fn spawns(count: u64) {
    for key in 0..count {
        black_box(tokio::spawn(suspended(key)).await).ok();
    }
}

/// The keys of calls that load: a few keys again and again, or each key once.
fn loaded(count: u64, hits: bool) -> impl Iterator<Item = u64> {
    let fill = 2 * CAPACITY as u64;
    let keys = move |n| if hits { n % KEYS } else { n };
    (0..fill + count).map(keys)
}

async fn quick_loads(count: u64, hits: bool) {
    let cache = quick();
    for key in loaded(count, hits) {
        let load = async { Ok::<_, Infallible>(suspended(key).await) };
        black_box(cache.get_or_insert_async(&key, load).await).ok();
    }
}

async fn our_loads(count: u64, hits: bool) {
    let cache: AsyncCache<u64, u64> = ours(Eviction::Adaptive, None);
    for key in loaded(count, hits) {
        let load = move || async move { Ok::<_, Infallible>(suspended(key).await) };
        black_box(cache.get_or_load(&key, load).await).ok();
    }
}

async fn our_string_loads(count: u64) {
    let cache: AsyncCache<String, u64> = ours(Eviction::Adaptive, None);
    for key in loaded(count, false) {
        let name = key.to_string();
        let load = move || async move { Ok::<_, Infallible>(suspended(key).await) };
        black_box(cache.get_or_load(name.as_str(), load).await).ok();
    }
}

/// The instructions that a process takes for this many operations of a row.
fn count(row: &str, operations: u64) -> f64 {
    let program = std::env::current_exe().expect("this program's path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([row, &operations.to_string()])
        .output()
        .expect("`valgrind` runs");
    let report = String::from_utf8_lossy(&output.stderr);
    let counted = report.lines().find_map(|line| line.split_once("Collected : "));
    counted.and_then(|(_, number)| number.trim().parse().ok()).unwrap_or_else(|| panic!("{report}"))
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    if let Some(name) = arguments.next() {
        let operations = arguments.next().and_then(|count| count.parse().ok()).expect("ROW COUNT");
        let mut rows = TABLES.iter().flat_map(|(_, rows)| *rows);
        let (_, run) = rows.find(|(row, _)| *row == name).expect("a row of this name");
        return run(operations);
    }
    let mut report = Report::new("Instructions per operation");
    let (operations, only) = (100_000, std::env::var("ROWS").unwrap_or_default());
    for (title, rows) in TABLES {
        report.line(&format!("## {title}\n\n| row | instructions | ratio |\n|---|---:|---:|"));
        let mut first = None;
        for (row, _) in rows.iter().filter(|(row, _)| row.contains(&only)) {
            let counted = (count(row, 2 * operations) - count(row, operations)) / operations as f64;
            let ratio = counted / *first.get_or_insert(counted);
            report.line(&format!("| {row} | {counted:.0} | {ratio:.2} |"));
        }
        report.line("");
    }
    report.finish("instructions");
}
