//! Random histories of three processes and one path, against a naive model of the promises of
//! docs/semantics.md ("Several processes"): after every save the file holds exactly the expected
//! entries in the expected order, the save reports the exact numbers of dropped and left-out
//! entries, and each process serves only values that it wrote, loaded or opened.
//!
//! The histories contain: sets, loads (quick ones, and slow ones during which others write),
//! deletes, clears, reads, times to live on a manual clock, eviction with a `maxsize` for each
//! process, deletes forgotten because there are too many, writes lost before a save, values that
//! cannot be written, failing saves, files taken in by a running process, and restarts.
//!
//! A failing history prints its seed: `ASYNC_CACHE_SEED=...` replays the history, and with
//! `ASYNC_CACHE_TRACE=1` prints each step; `ASYNC_CACHE_ROUNDS=100000` sets the number of
//! histories.
#![allow(clippy::print_stdout)] // seeds, and steps on request

mod model;
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime};

use crate::stage;
use async_cache::{AsyncCache, Clock, DiskBackend, Eviction, ManualClock};
use async_cache_disk::fake::{FakeDisk, keep_deletes};
use async_cache_disk::{CacheFile, Item, Source};
use fastrand::Rng;
use model::{File, Key, Process, Time, Write};
use serde::{Deserialize, Serialize, Serializer};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const PATH: &str = "/var/cache/numbers.cache";
const KEYS: u64 = 6;
const STEPS: u64 = 70;
/// Between two operations. Deadlines are half-way between two operations, because expired entries
/// are reclaimed a millisecond later.
const STEP_MS: u64 = 4;
/// The number of histories under one time limit.
const AT_ONCE: usize = 500;
/// Values of this kind cannot be written, in histories with unsavable values.
const UNSAVABLE: u64 = 11;

/// The time of the write, and whether the value can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "u64")]
struct Value {
    time: Time,
    is_savable: bool,
}

impl From<u64> for Value {
    fn from(time: u64) -> Self {
        Self { time, is_savable: true }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_savable {
            self.time.serialize(serializer)
        } else {
            Err(serde::ser::Error::custom("not this one"))
        }
    }
}

type Cache = AsyncCache<Key, Value>;

/// A process with a cache, and its model.
struct Running {
    cache: Cache,
    model: Process,
    maxsize: Option<usize>,
    /// A running load.
    flight: Option<Flight>,
}

struct Flight {
    key: Key,
    began: Time,
    is_fenced: bool,
    go_on: oneshot::Sender<Value>,
    load: JoinHandle<()>,
}

struct History {
    rng: Rng,
    disk: FakeDisk,
    clock: Clock,
    hands: ManualClock,
    now_ms: u64,
    /// Counts operations.
    time: Time,
    most_deletes: usize,
    has_unsavable: bool,
    processes: Vec<Running>,
    file: File,
    lives: u64,
    runtime: Runtime,
    is_traced: bool,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (clock, hands) = Clock::manual();
        hands.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let disk = FakeDisk::new();
        disk.keep_no_log();
        let most_deletes = [2, 3, 5, 1 << 16][rng.usize(..4)];
        keep_deletes(most_deletes);
        let mut history = Self {
            disk,
            clock,
            hands,
            now_ms: 0,
            time: 0,
            most_deletes,
            has_unsavable: rng.u8(..4) == 0,
            processes: Vec::new(),
            file: File::default(),
            lives: 0,
            runtime: stage::one_thread(),
            is_traced: std::env::var_os("ASYNC_CACHE_TRACE").is_some(),
            rng,
        };
        for _ in 0..3 {
            let maxsize = [None, None, Some(1), Some(2), Some(3), Some(5)][history.rng.usize(..6)];
            let running = history.open(maxsize);
            history.processes.push(running);
        }
        history
    }

    fn open(&mut self, maxsize: Option<usize>) -> Running {
        let backend = DiskBackend::new(PATH).vfs(self.disk.as_vfs());
        let builder = Cache::builder().clock(self.clock.clone()).backup(backend).shards(1);
        let builder = builder.eviction(Eviction::Lru);
        let cache = match maxsize {
            Some(maxsize) => builder.maxsize(maxsize),
            None => builder,
        };
        self.lives += 1;
        let len = self.file.entries.len();
        let room = maxsize.unwrap_or(usize::MAX).min(len);
        let memory = self.file.entries[len - room..].iter().filter(|(_, write)| write.is_live(self.now_ms));
        let model = Process {
            memory: memory.copied().collect(),
            holds: (room == len && self.file.number > 0).then_some(self.file.number),
            life: self.lives,
            ..Process::default()
        };
        Running { cache: cache.build().unwrap(), model, maxsize, flight: None }
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:4} {:5} ms  {}", self.time, self.now_ms, what());
        }
    }

    fn advance(&mut self, ms: u64) {
        self.hands.advance(Duration::from_millis(ms));
        self.now_ms += ms;
    }

    fn value(&self, time: Time) -> Value {
        Value { time, is_savable: !self.has_unsavable || !time.is_multiple_of(UNSAVABLE) }
    }

    fn step(&mut self) {
        self.time += 1;
        self.advance(STEP_MS);
        let who = self.rng.usize(..3);
        let key = self.rng.u64(..KEYS);
        match self.rng.u32(..100) {
            0..14 => self.get(who, key),
            14..40 => self.set(who, key),
            40..46 => self.load(who, key),
            46..50 => self.begin_load(who, key),
            50..54 => self.end_load(who),
            54..62 => self.delete(who, key),
            62..64 => self.clear(who),
            64..67 => {
                let ms = self.rng.u64(1..40) * STEP_MS;
                self.trace(|| format!("{ms} ms pass"));
                self.advance(ms);
            }
            67..87 => self.save(who),
            87..90 => self.fail_to_save(who),
            90..94 => self.reload(who),
            94..98 => self.restart(who),
            _ => {
                self.trace(|| format!("{who} reclaims"));
                self.reclaim(who);
            }
        }
        self.look();
    }

    fn get(&mut self, who: usize, key: Key) {
        let now_ms = self.now_ms;
        let Running { cache, model, .. } = &mut self.processes[who];
        let got = cache.get(&key).map(|value| value.time);
        let known = model.memory.get(&key).filter(|write| write.is_live(now_ms)).map(|write| write.time);
        self.trace(|| format!("{who} gets {key}: {got:?}"));
        assert_eq!(got, known, "process {who} serves key {key}");
    }

    fn set(&mut self, who: usize, key: Key) {
        let ttl =
            [None, None, None, Some(0), Some(7 * STEP_MS + 2), Some(60 * STEP_MS + 2)][self.rng.usize(..6)];
        let (time, value) = (self.time, self.value(self.time));
        self.trace(|| format!("{who} sets {key}, for {ttl:?} ms"));
        let now_ms = self.now_ms;
        self.reclaim(who);
        let Running { cache, model, flight, .. } = &mut self.processes[who];
        cache.set_with_ttl(key, value, ttl.map(Duration::from_millis));
        if let Some(flight) = flight {
            flight.is_fenced |= flight.key == key;
        }
        model.set(key, time);
        if ttl == Some(0) {
            model.lose(key);
        } else {
            model.memory.insert(key, Write { time, deadline: ttl.map(|ttl| now_ms + ttl) });
        }
    }

    /// Reclaims expired entries. Done before a key is written or deleted, because the time of
    /// leaving then decides whether an entry was lost, or replaced or deleted.
    fn reclaim(&mut self, who: usize) {
        let Running { cache, model, .. } = &mut self.processes[who];
        let _ = cache.len();
        for key in 0..KEYS {
            if model.has_expired(key, self.now_ms) {
                model.lose(key);
            }
        }
    }

    fn load(&mut self, who: usize, key: Key) {
        let (time, value) = (self.time, self.value(self.time));
        self.reclaim(who);
        let Running { cache, model, flight, .. } = &mut self.processes[who];
        if flight.as_ref().is_some_and(|flight| flight.key == key) {
            return; // the call would wait
        }
        let loading = cache.get_or_load(&key, move || async move { Ok::<_, io::Error>(value) });
        let got = self.runtime.block_on(loading).unwrap();
        if got.time == time {
            model.memory.insert(key, Write { time, deadline: None });
        }
        self.trace(|| format!("{who} loads {key}: {}", got.time));
        let known = self.processes[who].model.memory.get(&key).map(|write| write.time);
        assert_eq!(Some(got.time), known, "process {who} serves key {key}");
    }

    fn begin_load(&mut self, who: usize, key: Key) {
        self.reclaim(who);
        let running = &mut self.processes[who];
        if running.flight.is_some() || running.cache.contains(&key) {
            return;
        }
        let (go_on, wait) = oneshot::channel::<Value>();
        let loading = running.cache.clone();
        let load = self.runtime.spawn(async move {
            let load = || async { wait.await.map_err(io::Error::other) };
            let _ = loading.get_or_load(&key, load).await;
        });
        let loads = running.cache.stats().loads;
        let cache = running.cache.clone();
        self.runtime.block_on(async {
            while cache.stats().loads == loads {
                tokio::task::yield_now().await;
            }
        });
        running.flight = Some(Flight { key, began: self.time, is_fenced: false, go_on, load });
        self.trace(|| format!("{who} begins to load {key}"));
    }

    fn end_load(&mut self, who: usize) {
        let Some(flight) = self.processes[who].flight.take() else { return };
        let value = self.value(flight.began);
        flight.go_on.send(value).unwrap();
        self.runtime.block_on(flight.load).unwrap();
        self.trace(|| format!("{who} has loaded {} (fenced: {})", flight.key, flight.is_fenced));
        if !flight.is_fenced {
            let write = Write { time: flight.began, deadline: None };
            self.processes[who].model.memory.insert(flight.key, write);
        }
    }

    fn delete(&mut self, who: usize, key: Key) {
        self.trace(|| format!("{who} deletes {key}"));
        let (time, most) = (self.time, self.most_deletes);
        self.reclaim(who);
        let Running { cache, model, flight, .. } = &mut self.processes[who];
        cache.delete(&key);
        if let Some(flight) = flight {
            flight.is_fenced |= flight.key == key;
        }
        model.delete(key, time, most);
    }

    fn clear(&mut self, who: usize) {
        self.trace(|| format!("{who} clears"));
        let Running { cache, model, flight, .. } = &mut self.processes[who];
        cache.clear();
        if let Some(flight) = flight {
            flight.is_fenced = true;
        }
        model.clear(self.time);
    }

    fn save(&mut self, who: usize) {
        let saved = self.processes[who].cache.save_to_backup().unwrap();
        let found = self.read();
        let keys: Vec<Key> = found.iter().map(|(key, _)| *key).collect();
        self.trace(|| format!("{who} saves: {found:?}; {saved:?}; before: {:?}", self.file));
        let has_unsavable = self.has_unsavable;
        let is_unsavable = |write: &Write| has_unsavable && write.time.is_multiple_of(UNSAVABLE);
        let Running { model, maxsize, .. } = &mut self.processes[who];
        let limits = (*maxsize, self.most_deletes);
        let expected = self.file.save(model, limits, self.now_ms, &found, is_unsavable);
        let expected = expected.unwrap_or_else(|broken| panic!("a promise is broken: {broken}"));
        let content: BTreeMap<Key, Write> = found.iter().copied().collect();
        assert_eq!(content.len(), found.len(), "a key is in the file twice");
        assert_eq!(content, expected.entries, "what is in the file");
        let said = (saved.entries, saved.dropped, saved.left_out);
        let right = (expected.entries.len(), expected.dropped, expected.left_out);
        assert_eq!(said, (right.0 as u64, right.1 as u64, right.2 as u64), "what the save says");
        if expected.left_out == 0 {
            assert_eq!(keys[..expected.theirs.len()], expected.theirs, "others are colder, in their order");
        }
        // From now on the cold entries are in the new file, except entries that the file does not
        // have.
        let Running { cache, model, .. } = &mut self.processes[who];
        model.memory.retain(|key, write| content.get(key) == Some(write) || cache.contains(key));
        self.file.entries = found;
    }

    fn fail_to_save(&mut self, who: usize) {
        self.trace(|| format!("{who} cannot save"));
        self.disk.fail_every("rename", io::ErrorKind::StorageFull);
        self.processes[who].cache.save_to_backup().unwrap_err();
        self.processes[who].model.note_lost(self.now_ms);
        self.disk.repair();
    }

    /// The entries of the file, the coldest first.
    fn read(&self) -> Vec<(Key, Write)> {
        let Some(snapshot) = CacheFile::new(self.disk.as_vfs(), PATH).open().unwrap() else {
            return Vec::new();
        };
        let start = 1_700_000_000_000;
        let mut records = snapshot.records();
        let mut entries = Vec::new();
        while let Some(item) = records.next() {
            let Item::Entry(record) = item else { panic!("a record is lost") };
            let deadline = record.deadline.map(|deadline| {
                assert_eq!(deadline % 1_000_000, 0);
                deadline / 1_000_000 - start
            });
            let (key, time) = (number(record.key), number(record.value));
            entries.push((key, Write { time, deadline }));
        }
        entries
    }

    fn reload(&mut self, who: usize) {
        self.end_load(who);
        self.look();
        let now_ms = self.now_ms;
        self.trace(|| format!("{who} takes in the file"));
        let Running { cache, model, maxsize, .. } = &mut self.processes[who];
        // With nothing in memory the cache opens the file; otherwise it adds the entries that it
        // does not have.
        let opens = cache.stats().cold == cache.len();
        cache.load_from_backup().unwrap();
        if self.file.number == 0 {
            return;
        }
        model.reloads(now_ms);
        let before = model.memory.clone();
        let len = self.file.entries.len();
        model.holds = (opens && maxsize.is_none_or(|maxsize| len <= maxsize)).then_some(self.file.number);
        for (key, their) in &self.file.entries {
            if !their.is_live(now_ms) || !cache.contains(key) {
                continue;
            }
            match before.get(key) {
                // For a cold entry the new file's version counts; for a hot entry the version in
                // memory.
                Some(our) if our.time != their.time => {
                    let got = cache.get(key).unwrap().time;
                    assert!([our.time, their.time].contains(&got), "{key}: {got}, not {our:?} or {their:?}");
                    model.memory.insert(*key, if got == our.time { *our } else { *their });
                }
                Some(_) => {}
                None => drop(model.memory.insert(*key, *their)),
            }
        }
        // Entries in memory stay; the file's entries are added as far as there is room: of a file
        // with more entries than `maxsize` only the last ones are considered.
        let is_full = maxsize.is_some_and(|maxsize| cache.len() >= maxsize);
        let read = &self.file.entries[len - maxsize.unwrap_or(len).min(len)..];
        for (key, _) in read.iter().filter(|(_, write)| write.is_live(now_ms)) {
            assert!(cache.contains(key) || is_full, "process {who}: {key} of the file did not come in");
        }
        for key in before.keys() {
            // For a key in both, the new file's version counts, even if expired.
            let has_expired = self.file.get(*key).is_some_and(|their| !their.is_live(now_ms));
            assert!(cache.contains(key) || is_full || has_expired, "process {who}: {key} did not stay");
            if has_expired && !cache.contains(key) {
                model.memory.remove(key);
            }
        }
    }

    fn restart(&mut self, who: usize) {
        self.trace(|| format!("{who} starts anew"));
        if let Some(flight) = self.processes[who].flight.take() {
            flight.load.abort();
            let _ = self.runtime.block_on(flight.load);
        }
        let maxsize = self.processes[who].maxsize;
        self.processes[who] = self.open(maxsize);
    }

    /// Every process serves the entries of its model, except evicted entries.
    fn look(&mut self) {
        let now_ms = self.now_ms;
        for (who, Running { cache, model, maxsize, .. }) in self.processes.iter_mut().enumerate() {
            for key in 0..KEYS {
                let is_known = model.memory.get(&key).is_some_and(|write| write.is_live(now_ms));
                match (cache.contains(&key), is_known) {
                    (true, true) | (false, false) => {}
                    (true, false) => panic!("process {who} serves {key}, which it does not have"),
                    (false, true) => {
                        assert!(maxsize.is_some(), "process {who} has lost {key}");
                        model.lose(key);
                    }
                }
            }
        }
    }
}

/// A small number in `MessagePack`.
fn number(bytes: &[u8]) -> u64 {
    match bytes {
        [small] if *small < 0x80 => (*small).into(),
        [0xcc, byte] => (*byte).into(),
        [0xcd, high, low] => u16::from_be_bytes([*high, *low]).into(),
        _ => panic!("{bytes:?} is no small number"),
    }
}

#[test]
fn the_file_holds_exactly_what_is_promised_after_every_save() {
    let first = stage::number_from_env("ASYNC_CACHE_SEED", 0);
    let is_replay = std::env::var_os("ASYNC_CACHE_SEED").is_some();
    let rounds = stage::number_from_env("ASYNC_CACHE_ROUNDS", if is_replay { 1 } else { 1500 });
    for begin in (first..first + rounds).step_by(AT_ONCE) {
        let end = (begin + AT_ONCE as u64).min(first + rounds);
        stage::within_limit(move || {
            for seed in begin..end {
                let run = std::panic::catch_unwind(|| {
                    let mut history = History::new(seed);
                    (0..STEPS).for_each(|_| history.step());
                });
                if let Err(panic) = run {
                    println!("ASYNC_CACHE_SEED={seed}");
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }
}
