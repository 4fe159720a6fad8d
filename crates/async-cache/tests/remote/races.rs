//! Random reads and writes of few keys by several caches, over connections with random delays; an
//! origin with versions says which answers are stale.
//!
//! A read is *stale* if its value is older than a version whose write had reached the reader before
//! the read began. A write has reached a reader when, one after the other:
//! 1. the origin has the version, and the writer has invalidated the key (or has set the version);
//! 2. the server has acknowledged this. Then the version becomes the *floor* of its key;
//! 3. the reader has read the floor, and the server has answered a question that the reader's
//!    connection asked afterwards: the news of the change came before this answer. After a `clear`,
//!    a second question, since the news are followed by a question about the generation.
//!
//! `ASYNC_CACHE_RACES` sets the number of rounds (`make races`: 100,000).

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use servers::Direction::{ToClient, ToServer};
use servers::{Client, Reply};

use crate::support::{Cache, each, hears, over, proxy, redis_at, through};

const KEYS: u64 = 4;
const CACHES: u64 = 4;
const TASKS: u64 = 3;
const SERVER: &str = "ASYNC_CACHE_RACES_SERVER";
const PROXY: &str = "ASYNC_CACHE_RACES_PROXY";
const NUMBER: &str = "ASYNC_CACHE_RACES_NUMBER";
const EACH: &str = "ASYNC_CACHE_RACES_EACH";

/// Where the versions are: within the process, or, for several processes, on the server, under keys
/// that no cache reads.
enum Origin {
    Here(Mutex<HashMap<(char, u64), u64>>),
    Server(Mutex<Client>),
}

impl Origin {
    fn ask(client: &Mutex<Client>, command: &[&str]) -> u64 {
        match client.lock().unwrap().call(command).unwrap() {
            Reply::Number(number) => number.try_into().unwrap(),
            Reply::Text(text) => String::from_utf8(text).unwrap().parse().unwrap(),
            Reply::Nil => 0,
            other => panic!("{other:?}"),
        }
    }

    /// Writes the next version of a key.
    fn write(&self, key: u64) -> u64 {
        match self {
            Self::Here(versions) => {
                let mut versions = versions.lock().unwrap();
                let version = versions.entry(('v', key)).or_default();
                *version += 1;
                *version
            }
            Self::Server(client) => Self::ask(client, &["INCR", &format!("version {key}")]),
        }
    }

    fn read(&self, key: u64) -> u64 {
        self.get('v', key)
    }

    fn floor(&self, key: u64) -> u64 {
        self.get('f', key)
    }

    fn get(&self, what: char, key: u64) -> u64 {
        match self {
            Self::Here(versions) => versions.lock().unwrap().get(&(what, key)).copied().unwrap_or(0),
            Self::Server(client) if what == 'v' => Self::ask(client, &["GET", &format!("version {key}")]),
            Self::Server(client) => Self::ask(client, &["ZSCORE", "floors", &key.to_string()]),
        }
    }

    /// A version has reached the server.
    fn raise_floor(&self, key: u64, version: u64) {
        match self {
            Self::Here(versions) => {
                let mut versions = versions.lock().unwrap();
                let floor = versions.entry(('f', key)).or_default();
                *floor = version.max(*floor);
            }
            Self::Server(client) => {
                Self::ask(client, &["ZADD", "floors", "GT", &version.to_string(), &key.to_string()]);
            }
        }
    }
}

/// The counts of all tasks.
#[derive(Default)]
struct Counts {
    reads: AtomicU64,
    hits: AtomicU64,
    loads: AtomicU64,
    writes: AtomicU64,
    stale: AtomicU64,
}

/// The last events of all caches, printed with a stale read.
static HISTORY: Mutex<VecDeque<(Instant, u64, String)>> = Mutex::new(VecDeque::new());
const REMEMBERED: usize = 1000;

fn remember(task: u64, event: String) {
    let mut history = HISTORY.lock().unwrap();
    if history.len() == REMEMBERED {
        history.pop_front();
    }
    history.push_back((Instant::now(), task, event));
}

/// The events about a key, and about all keys.
#[allow(clippy::print_stdout)]
fn print_history(key: u64) {
    let history = HISTORY.lock().unwrap();
    let now = Instant::now();
    for (at, task, event) in &*history {
        if event.starts_with(&format!("{key} ")) || event.starts_with("all ") {
            println!("{:>12?} before: cache {} task {task}: {event}", now - *at, task / TASKS);
        }
    }
}

/// One task of a cache. The keys up to `KEYS` are invalidated by all. The key with the number of
/// the task is set by it alone: of concurrent sets of several hosts the last one wins.
struct Task {
    number: u64,
    cache: Cache,
    origin: Arc<Origin>,
    counts: Arc<Counts>,
    random: fastrand::Rng,
}

impl Task {
    async fn run(mut self, rounds: u64) {
        for _ in 0..rounds {
            match self.random.u8(0..20) {
                0..=2 => self.invalidate().await,
                3 => self.set().await,
                4 => self.clear().await,
                _ => self.read().await,
            }
        }
    }

    fn own(&self) -> u64 {
        KEYS + self.number
    }

    async fn invalidate(&mut self) {
        let key = self.random.u64(0..KEYS);
        let version = self.origin.write(key);
        remember(self.number, format!("{key} written {version}"));
        self.cache.delete(&key.to_string());
        assert!(self.cache.acknowledged().await);
        remember(self.number, format!("{key} floor {version}"));
        self.origin.raise_floor(key, version);
        self.counts.writes.fetch_add(1, SeqCst);
    }

    async fn set(&mut self) {
        let key = self.own();
        let version = self.origin.write(key);
        remember(self.number, format!("{key} set {version}"));
        self.cache.set(key.to_string(), version.to_string());
        assert!(self.cache.acknowledged().await);
        remember(self.number, format!("{key} floor {version}"));
        self.origin.raise_floor(key, version);
        self.counts.writes.fetch_add(1, SeqCst);
    }

    async fn clear(&mut self) {
        // Rare: else there are no hits.
        if self.random.u8(0..3) > 0 {
            return self.invalidate().await;
        }
        let versions: Vec<_> = (0..KEYS).map(|key| (key, self.origin.write(key))).collect();
        remember(self.number, format!("all clear {versions:?}"));
        self.cache.clear();
        assert!(self.cache.acknowledged().await);
        remember(self.number, format!("all cleared {versions:?}"));
        for (key, version) in versions {
            self.origin.raise_floor(key, version);
        }
        self.counts.writes.fetch_add(1, SeqCst);
    }

    #[allow(clippy::print_stdout)]
    async fn read(&mut self) {
        let key = if self.random.bool() {
            self.random.u64(0..KEYS)
        } else {
            KEYS + self.random.u64(0..CACHES * TASKS)
        };
        let floor = self.origin.floor(key);
        let number = self.number;
        remember(number, format!("{key} reads, floor {floor}"));
        hears(&self.cache).await;
        hears(&self.cache).await;
        let (origin, counts) = (Arc::clone(&self.origin), Arc::clone(&self.counts));
        remember(number, format!("{key} has heard, floor {floor}"));
        let takes = Duration::from_micros(self.random.u64(0..4000));
        let loaded = Arc::new(AtomicBool::new(false));
        let load = {
            let loaded = Arc::clone(&loaded);
            move || async move {
                let version = origin.read(key);
                loaded.store(true, SeqCst);
                counts.loads.fetch_add(1, SeqCst);
                remember(number, format!("{key} loads {version}"));
                tokio::time::sleep(takes).await;
                remember(number, format!("{key} loaded {version}"));
                Ok::<_, Infallible>(version.to_string())
            }
        };
        let value = if self.random.u8(0..4) == 0 {
            self.cache.fetch(&key.to_string()).await
        } else {
            Some(self.cache.get_or_load(&key.to_string(), load).await.unwrap())
        };
        self.counts.reads.fetch_add(1, SeqCst);
        remember(number, format!("{key} is {value:?}, floor {floor}"));
        let Some(value) = value else { return };
        if !loaded.load(SeqCst) {
            self.counts.hits.fetch_add(1, SeqCst);
        }
        if value.parse::<u64>().unwrap() < floor {
            self.counts.stale.fetch_add(1, SeqCst);
            println!("\nstale: key {key} is {value} below {floor}; a load: {}", loaded.load(SeqCst));
            print_history(key);
        }
    }
}

/// The tasks of one cache, in a runtime of its own.
fn run(number: u64, port: u16, origin: &Arc<Origin>, counts: &Arc<Counts>, rounds: u64, seed: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        // No call gives up: each answer is one of the server.
        let cache = over(redis_at(port).timeout(Duration::from_secs(20)));
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            let number = number * TASKS + task;
            let random = fastrand::Rng::with_seed(seed.wrapping_add(number));
            let (cache, origin, counts) = (cache.clone(), Arc::clone(origin), Arc::clone(counts));
            tasks.spawn(Task { number, cache, origin, counts, random }.run(rounds));
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
    });
}

fn rounds() -> u64 {
    std::env::var("ASYNC_CACHE_RACES").map_or(1000, |rounds| rounds.parse().unwrap())
}

fn random_delays(proxies: &[servers::Proxy], ended: &AtomicBool) {
    let mut random = fastrand::Rng::new();
    while !ended.load(SeqCst) {
        let proxy = &proxies[random.usize(0..proxies.len())];
        let direction = if random.bool() { ToClient } else { ToServer };
        let delay = if random.u8(0..3) == 0 { 0 } else { random.u64(0..4000) };
        proxy.delay(direction, Duration::from_micros(delay));
        std::thread::sleep(Duration::from_millis(2)); // the length of a phase with the same delays
    }
}

#[test]
#[allow(clippy::print_stdout)]
fn no_read_is_older_than_a_write_that_had_reached_the_reader() {
    for program in servers::all() {
        let server = program.start();
        let proxies: Vec<_> = (0..CACHES).map(|_| proxy(&server)).collect();
        let (origin, counts) = (Arc::new(Origin::Here(Mutex::default())), Arc::new(Counts::default()));
        let (ended, seed) = (AtomicBool::new(false), fastrand::u64(..));
        let each = rounds() / (CACHES * TASKS) + 1;
        println!("seed {seed}");
        std::thread::scope(|scope| {
            scope.spawn(|| random_delays(&proxies, &ended));
            let threads: Vec<_> = (0..CACHES)
                .zip(&proxies)
                .map(|(number, proxy)| {
                    let (origin, counts) = (&origin, &counts);
                    let port = proxy.address().port();
                    scope.spawn(move || run(number, port, origin, counts, each, seed))
                })
                .collect();
            let ends: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            ended.store(true, SeqCst);
            assert!(ends.iter().all(Result::is_ok), "a cache has failed");
        });
        report(program, &counts);
    }
}

#[allow(clippy::print_stdout)]
fn report(program: &servers::Program, counts: &Counts) {
    let [reads, hits, loads, writes, stale] =
        [&counts.reads, &counts.hits, &counts.loads, &counts.writes, &counts.stale].map(|it| it.load(SeqCst));
    println!(
        "{program}: {reads} reads, {hits} without a load, {loads} loads, {writes} writes, {stale} stale"
    );
    assert_eq!(stale, 0, "of {reads} reads");
    assert!(hits > reads / 20 && loads > 0 && writes > 0, "the harness reads, loads and writes");
}

/// Not a test of its own: run by the next test.
#[test]
#[allow(clippy::print_stdout)]
fn a_child_that_reads_and_writes() {
    let Ok(port) = std::env::var(SERVER) else { return };
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let server = ([127, 0, 0, 1], port.parse().unwrap()).into();
    let origin = Arc::new(Origin::Server(Mutex::new(Client::connect(server).unwrap())));
    let counts = Arc::new(Counts::default());
    run(number(NUMBER), number(PROXY).try_into().unwrap(), &origin, &counts, number(EACH), fastrand::u64(..));
    let [reads, hits, loads, writes, stale] =
        [&counts.reads, &counts.hits, &counts.loads, &counts.writes, &counts.stale].map(|it| it.load(SeqCst));
    println!("\ncounted {reads} {hits} {loads} {writes} {stale}");
}

#[test]
#[allow(clippy::print_stdout)]
fn no_read_is_stale_among_processes() {
    for program in servers::all() {
        let server = program.start();
        let proxies: Vec<_> = (0..CACHES).map(|_| proxy(&server)).collect();
        let (total, ended) = (Counts::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| random_delays(&proxies, &ended));
            let children: Vec<_> = (0..CACHES)
                .zip(&proxies)
                .map(|(number, proxy)| {
                    let mut command = Command::new(std::env::current_exe().unwrap());
                    command.args(["--exact", "races::a_child_that_reads_and_writes", "--nocapture"]);
                    command.env(SERVER, server.port().to_string()).env(NUMBER, number.to_string());
                    command.env(PROXY, proxy.address().port().to_string());
                    command.env(EACH, (rounds() / (CACHES * TASKS) / 4 + 1).to_string());
                    command.stdout(Stdio::piped()).spawn().unwrap()
                })
                .collect();
            let outputs: Vec<_> = children.into_iter().map(std::process::Child::wait_with_output).collect();
            ended.store(true, SeqCst);
            for output in outputs {
                let output = String::from_utf8(output.unwrap().stdout).unwrap();
                let line = output.lines().find_map(|line| line.strip_prefix("counted "));
                let line = line.unwrap_or_else(|| panic!("the child has failed: {output}"));
                let counted: Vec<u64> = line.split(' ').map(|it| it.parse().unwrap()).collect();
                let Counts { reads, hits, loads, writes, stale } = &total;
                for (count, counted) in [reads, hits, loads, writes, stale].into_iter().zip(counted) {
                    count.fetch_add(counted, SeqCst);
                }
            }
        });
        report(program, &total);
    }
}

#[test]
fn an_answer_on_its_way_during_an_invalidation_is_never_kept() {
    // The interleaving in which other clients keep the old value: the answer is processed by the
    // caller, the news by the connection, and the answer is late.
    each(async |server| {
        let proxy = proxy(&server);
        let (near, far) =
            (crate::support::cache(&server).await, crate::support::connected(through(&proxy)).await);
        proxy.delay(ToClient, Duration::from_millis(5));
        let mut stale = 0;
        for round in 0..50 {
            let key = format!("key {round}");
            near.set(key.clone(), "old".into());
            hears(&near).await;
            let asked = {
                let (far, key) = (far.clone(), key.clone());
                tokio::spawn(async move { far.fetch(&key).await })
            };
            tokio::time::sleep(Duration::from_millis(2)).await;
            near.delete(&key);
            hears(&near).await;
            asked.await.unwrap();
            hears(&far).await;
            stale += u32::from(far.get(&key).is_some());
        }
        assert_eq!(stale, 0, "of 50");
    });
}
