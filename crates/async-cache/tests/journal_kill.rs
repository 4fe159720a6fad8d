//! Real processes with a journal, killed at random moments under load: every write that had
//! returned is there, and no deleted or older value returns.
//!
//! Each child writes on two threads. Before an operation, and after its return, the thread appends
//! a line to a *side channel*: a file of its own, which survives the kill. The next child begins by
//! reading every key, and the parent compares: a key has the state of its last operation that
//! returned, or of the operation that was running. `ASYNC_CACHE_KILLS` sets the number of kills
//! (`make kill`: 1,000).
//!
//! A separate program: the children are made from it.
#![cfg(unix)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // reads the clock, writes files

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_cache::{AsyncCache, DiskBackend, Journal};

const FOLDER: &str = "ASYNC_CACHE_KILL_FOLDER";
const MODE: &str = "ASYNC_CACHE_KILL_MODE";
const SEED: &str = "ASYNC_CACHE_KILL_SEED";
const KEYS: u64 = 60;
/// The entries in memory of a small cache.
const SMALL: usize = 15;
const THREADS: u64 = 2;
/// The longest life of a child.
const LONGEST: Duration = Duration::from_millis(40);

type Cache = AsyncCache<u64, (u64, Vec<u8>)>;

/// The state of a key: the number in its value.
type State = Option<u64>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// Everything stays.
    Unlimited,
    /// Most entries leave memory, and stay on the disk.
    LargerThanMemory,
    /// Entries leave memory and the disk: a key may be a miss, and is never an older value.
    Evicting,
}

impl Mode {
    const ALL: [(&str, Self); 3] = [
        ("unlimited", Self::Unlimited),
        ("larger than memory", Self::LargerThanMemory),
        ("evicting", Self::Evicting),
    ];

    fn open(self, folder: &Path) -> Cache {
        let journal = Journal::new().flush_every(Duration::from_millis(3));
        let journal = if self == Self::LargerThanMemory { journal.disk_bytes(1 << 30) } else { journal };
        let builder = AsyncCache::builder();
        let builder = if self == Self::Unlimited { builder } else { builder.maxsize(SMALL) };
        builder.backup(DiskBackend::new(folder.join("a.cache")).journal(journal)).build().unwrap()
    }
}

fn side_channel(folder: &Path, name: &str) -> File {
    OpenOptions::new().append(true).create(true).open(folder.join(name)).unwrap()
}

/// Appends a line with one system call.
fn say(channel: &mut File, line: &str) {
    let line = format!("{line}\n");
    assert_eq!(channel.write(line.as_bytes()).unwrap(), line.len());
}

fn shown(state: State) -> String {
    state.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn read_state(text: &str) -> State {
    (text != "-").then(|| text.parse().unwrap())
}

/// Not a test of its own: run and killed by the other test.
#[test]
#[allow(clippy::print_stdout)]
fn a_child_that_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let name = std::env::var(MODE).unwrap();
    let (_, mode) = Mode::ALL.into_iter().find(|(known, _)| *known == name).unwrap();
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let cache = mode.open(&folder);
    assert!(cache.opening().warning.is_none(), "{:?}", cache.opening());
    let mut channel = side_channel(&folder, "states");
    for key in 0..KEYS {
        let state = cache.get(&key).map(|(number, filler)| {
            assert!(filler.iter().all(|byte| u64::from(*byte) == number % 251), "a mixed value");
            number
        });
        say(&mut channel, &format!("{key} {}", shown(state)));
    }
    println!("ready");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (cache, channel) = (cache.clone(), side_channel(&folder, &format!("thread {thread}")));
            scope.spawn(move || write(&cache, thread, seed, channel));
        }
    });
}

/// Random operations on the keys of one thread.
fn write(cache: &Cache, thread: u64, seed: u64, mut channel: File) {
    let mut random = fastrand::Rng::with_seed(seed * THREADS + thread);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in seed * 1_000_000.. {
        let key = random.u64(0..KEYS / THREADS) * THREADS + thread;
        let value = |random: &mut fastrand::Rng| {
            let length = if random.u8(0..50) == 0 { 20_000 } else { random.usize(0..300) };
            (number, vec![(number % 251) as u8; length])
        };
        match random.u8(0..10) {
            0..=5 => {
                say(&mut channel, &format!("begin {key} {number}"));
                cache.set(key, value(&mut random));
            }
            6 | 7 => {
                say(&mut channel, &format!("begin {key} -"));
                cache.delete(&key);
            }
            _ => {
                let loaded = value(&mut random);
                say(&mut channel, &format!("load {key} {number}"));
                let load = cache.get_or_load(&key, || async move { Ok::<_, ()>(loaded) });
                let (found, _) = runtime.block_on(load).unwrap();
                say(&mut channel, &format!("found {key} {found}"));
                continue;
            }
        }
        say(&mut channel, "done");
    }
}

/// The states that a key may have.
#[derive(Clone, Debug, Default)]
struct Possible {
    /// After the last operation that has returned.
    sure: State,
    /// After the operation that was running.
    running: Option<State>,
}

/// Takes the lines of a thread into account, and removes the side channel.
fn follow(folder: &Path, thread: u64, states: &mut BTreeMap<u64, Possible>) -> usize {
    let path = folder.join(format!("thread {thread}"));
    let lines = std::fs::read_to_string(&path).unwrap_or_default();
    let (mut running, mut done) = (None, 0);
    for line in lines.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["begin" | "load", key, state] => {
                let (key, state) = (key.parse().unwrap(), read_state(state));
                states.entry(key).or_default().running = Some(state);
                running = Some((key, state));
            }
            ["done"] => {
                let (key, state) = running.take().unwrap();
                states.insert(key, Possible { sure: state, running: None });
                done += 1;
            }
            ["found", key, state] => {
                running = None;
                states.insert(key.parse().unwrap(), Possible { sure: read_state(state), running: None });
                done += 1;
            }
            _ => panic!("{line}"),
        }
    }
    drop(std::fs::remove_file(path));
    done
}

/// Compares the states that a child has found with the states that are possible.
fn compare(folder: &Path, mode: Mode, states: &mut BTreeMap<u64, Possible>) {
    let path = folder.join("states");
    let lines = std::fs::read_to_string(&path).unwrap();
    assert_eq!(lines.lines().count() as u64, KEYS, "the child read every key");
    for line in lines.lines() {
        let (key, state) = line.split_once(' ').unwrap();
        let (key, found) = (key.parse().unwrap(), read_state(state));
        let Possible { sure, running } = states.get(&key).cloned().unwrap_or_default();
        let was_evicted = mode == Mode::Evicting && found.is_none();
        assert!(
            found == sure || Some(found) == running || was_evicted,
            "{mode:?}, key {key}: found {found:?}; the last one that returned is {sure:?}, running was {running:?}"
        );
        states.insert(key, Possible { sure: found, running: None });
    }
    std::fs::remove_file(path).unwrap();
}

fn child(folder: &Path, mode: &str, seed: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_child_that_writes_until_it_is_killed", "--nocapture", "--test-threads=1"]);
    command.env(FOLDER, folder).env(MODE, mode).env(SEED, seed.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

#[test]
#[allow(clippy::print_stdout)]
fn killed_processes_lose_no_write_that_had_returned() {
    let kills: u64 = std::env::var("ASYNC_CACHE_KILLS").map_or(30, |kills| kills.parse().unwrap());
    let mut random = fastrand::Rng::new();
    for (name, mode) in Mode::ALL {
        let folder = tempfile::tempdir().unwrap();
        let mut states = BTreeMap::new();
        let mut returned = 0;
        for seed in 1..=kills {
            let mut child = child(folder.path(), name, seed);
            let mut output = child.stdout.take().unwrap();
            let mut said = Vec::new();
            while !said.ends_with(b"ready") {
                let mut byte = [0];
                let read = output.read(&mut byte).unwrap();
                assert_eq!(read, 1, "{mode:?}: the child ended: {}", String::from_utf8_lossy(&said));
                said.push(byte[0]);
            }
            compare(folder.path(), mode, &mut states);
            // Waits for no event: its length is the random moment of the kill.
            std::thread::sleep(LONGEST.mul_f64(random.f64()));
            child.kill().unwrap();
            child.wait().unwrap();
            returned += (0..THREADS).map(|it| follow(folder.path(), it, &mut states)).sum::<usize>();
        }
        assert!(returned > 0, "{mode:?}: the children wrote something");
        println!("{mode:?}: {kills} kills, {returned} operations had returned, none is lost");
        // An orderly end: everything is in the one file.
        let cache = mode.open(folder.path());
        for (key, Possible { sure, running }) in &states {
            let found = cache.get(key).map(|(number, _)| number);
            let was_evicted = mode == Mode::Evicting && found.is_none();
            assert!(
                found == *sure || Some(found) == *running || was_evicted,
                "{mode:?}, key {key}: {found:?}"
            );
        }
        drop(cache);
        let names = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, ["a.cache", "a.cache.lock"], "{mode:?}");
    }
}
