//! Hit ratios of a store with a limit in bytes on access traces, beside exact LRU of as many
//! entries: fill on miss, memory of a tenth of the entries. Memory is an exact LRU, or adaptive
//! (the default of a cache).
//!
//! `hit_ratio_disk --save FOLDER [TRACE]`: the folder as for `hit_ratio`. The stores are written to
//! the folder for temporary files (`TMPDIR`). `--smoke` runs a short random trace.
//!
//! The limit is the bytes of the records and of their slots in an index, for as many entries as LRU
//! has. Pages of headers, digests, the unused part of index pages, and records that do not count
//! any more take room from entries. Values are so large that the store has some 64 MiB.

#![allow(clippy::disallowed_methods)] // reads its own files

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use async_cache::{AsyncCache, Eviction};
use async_cache_benches::Report;
use async_cache_disk::store::{
    DiskStore, EntryPlace, StoreAnswer, StoreLimit, StoreOptions, StoreScratch, StoreWrite,
};
use async_cache_disk::{CacheFile, RealDisk};

/// Trace, and numbers of entries on disk: those of `hit_ratio`, and some that are larger.
const ROWS: [(&str, &[usize]); 7] = [
    ("OLTP", &[1_000, 2_000, 5_000, 20_000]),
    ("P3", &[25_000, 50_000, 100_000, 200_000]),
    ("orm-night", &[1_000, 5_000, 10_000]),
    ("web07", &[500, 1_000, 2_000]),
    ("loop", &[250, 500, 750]),
    ("multi3", &[500, 1_000, 2_000]),
    ("corda", &[1_000, 5_000, 20_000]),
];
/// The bytes of a record beside its value, at least: checksum and head, and the key.
const RECORD_BYTES: usize = 15 + 4;
/// The bytes of a slot in an index: 30 of 42 slots of 12 bytes are used in a page.
const SLOT_BYTES: usize = 18;
/// The store has about this many bytes, if the values keep to their bounds.
const STORE_BYTES: usize = 64 << 20;
const VALUE_BYTES: (usize, usize) = (1 << 10, 32 << 10);
/// A trace with more accesses runs only with the first kind of memory.
const LONG: usize = 1_000_000;
const HEAD: &str = "| trace | entries on disk | LRU of a tenth | LRU \
    | LRU and store | more than LRU | written | adaptive and store | more than LRU | written |";
/// Accesses between two rounds of maintenance.
const MAINTAINED_EVERY: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_smoke = arguments.first().is_some_and(|argument| argument == "--smoke");
    let folder = arguments.get(1);
    if !is_smoke && folder.is_none() {
        println!("usage: hit_ratio_disk --save|--print FOLDER [TRACE], or hit_ratio_disk --smoke");
        return;
    }
    let mut report = Report::new("Hit ratios of a store ten times as large as memory");
    report.line(HEAD);
    report.line("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let Some(folder) = folder.filter(|_| !is_smoke) else {
        add_row(&mut report, "random", &random_trace(), 500);
        return;
    };
    for (name, capacities) in ROWS {
        if arguments.get(2).is_some_and(|only| only != name) {
            continue;
        }
        let path = Path::new(folder).join(name).with_extension("u32");
        let Some(trace) = read(&path) else { continue };
        for capacity in capacities {
            add_row(&mut report, name, &trace, *capacity);
        }
    }
    report.finish("hit_ratio_disk");
}

fn read(path: &Path) -> Option<Vec<u32>> {
    let bytes = std::fs::read(path).ok()?;
    Some(bytes.as_chunks().0.iter().map(|key| u32::from_le_bytes(*key)).collect())
}

/// Some keys are much more frequent than others.
fn random_trace() -> Vec<u32> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..10_000).map(|_| (random.f64().powi(3) * 4_000.0) as u32).collect()
}

fn add_row(report: &mut Report, name: &str, trace: &[u32], capacity: usize) {
    let exact = in_memory(trace, capacity);
    let tenth = in_memory(trace, capacity / 10);
    let mut row = format!("| {name} | {capacity} | {tenth:.4} | {exact:.4} |");
    for eviction in [Eviction::Lru, Eviction::Adaptive] {
        if eviction == Eviction::Adaptive && trace.len() > LONG {
            row.push_str(" | | |");
            continue;
        }
        let Stored { ratio, written } = stored(trace, capacity, eviction);
        let _ = write!(row, " {ratio:.4} | {:+.4} | {written:.2} |", ratio - exact);
    }
    report.line(&row);
}

/// The keys in memory.
enum Memory {
    Lru(Lru),
    /// The default of a cache.
    Adaptive(AsyncCache<u32, ()>),
}

impl Memory {
    fn new(eviction: Eviction, capacity: usize) -> Self {
        match eviction {
            Eviction::Lru => Self::Lru(Lru::new(capacity)),
            _ => Self::Adaptive(
                AsyncCache::builder()
                    .maxsize(capacity)
                    .eviction(eviction)
                    .shards(1)
                    .build()
                    .expect("no backup"),
            ),
        }
    }

    /// Whether an access finds the key.
    fn get(&mut self, key: u32) -> bool {
        match self {
            Self::Lru(lru) => lru.get(key),
            Self::Adaptive(cache) => cache.get(&key).is_some(),
        }
    }

    fn contains(&self, key: u32) -> bool {
        match self {
            Self::Lru(lru) => lru.links.contains_key(&key),
            Self::Adaptive(cache) => cache.contains(&key),
        }
    }

    /// Adds a key that is not there.
    fn insert(&mut self, key: u32) {
        match self {
            Self::Lru(lru) => lru.insert(key),
            Self::Adaptive(cache) => cache.set(key, ()),
        }
    }
}

const NONE: u32 = u32::MAX;

/// An exact LRU of keys.
struct Lru {
    capacity: usize,
    /// By key: the next colder key and the next warmer key.
    links: HashMap<u32, (u32, u32)>,
    coldest: u32,
    warmest: u32,
}

impl Lru {
    fn new(capacity: usize) -> Self {
        Self { capacity, links: HashMap::new(), coldest: NONE, warmest: NONE }
    }

    fn remove(&mut self, key: u32) -> bool {
        let Some((colder, warmer)) = self.links.remove(&key) else { return false };
        match self.links.get_mut(&colder) {
            Some(link) => link.1 = warmer,
            None => self.coldest = warmer,
        }
        match self.links.get_mut(&warmer) {
            Some(link) => link.0 = colder,
            None => self.warmest = colder,
        }
        true
    }

    fn insert(&mut self, key: u32) {
        match self.links.get_mut(&self.warmest) {
            Some(link) => link.1 = key,
            None => self.coldest = key,
        }
        self.links.insert(key, (self.warmest, NONE));
        self.warmest = key;
        if self.links.len() > self.capacity {
            self.remove(self.coldest);
        }
    }

    fn get(&mut self, key: u32) -> bool {
        let was_there = self.remove(key);
        if was_there {
            self.insert(key);
        }
        was_there
    }
}

fn in_memory(trace: &[u32], capacity: usize) -> f64 {
    let mut memory = Memory::new(Eviction::Lru, capacity);
    let mut hits = 0;
    for &key in trace {
        if memory.get(key) {
            hits += 1;
        } else {
            memory.insert(key);
        }
    }
    f64::from(hits) / trace.len() as f64
}

struct Stored {
    ratio: f64,
    /// Records written for each that was inserted.
    written: f64,
}

fn stored(trace: &[u32], capacity: usize, eviction: Eviction) -> Stored {
    let folder = tempfile::tempdir().expect("a folder");
    let value = vec![7; (STORE_BYTES / capacity).clamp(VALUE_BYTES.0, VALUE_BYTES.1)];
    let limit = (capacity * (RECORD_BYTES + SLOT_BYTES + value.len())) as u64;
    let options = StoreOptions { limit: StoreLimit::Bytes(limit), ..StoreOptions::default() };
    let file = CacheFile::new(Arc::new(RealDisk), folder.path().join("trace.cache"));
    let store = file.store(options, 1).expect("a store");
    let mut memory = Memory::new(eviction, capacity / 10);
    let mut places = HashMap::new();
    let mut scratch = StoreScratch::new();
    let (mut hits, mut puts, mut copies) = (0, 0_u32, 0_u32);
    for (number, &key) in trace.iter().enumerate() {
        if memory.get(key) {
            hits += 1;
            continue;
        }
        let bytes = key.to_le_bytes();
        let place = if let StoreAnswer::Entry(entry) = store.find(&bytes, &mut scratch) {
            hits += 1;
            store.promoted(entry.sighting.place);
            entry.sighting.place
        } else {
            puts += 1;
            let write = StoreWrite { key: &bytes, value: &value, deadline: None, replaces: None };
            store.put(&write, 1).expect("room").place
        };
        memory.insert(key);
        places.insert(key, place);
        if number % MAINTAINED_EVERY == 0 {
            while store.maintain(1).expect("room") {}
        }
        copies += collect(&store, &memory, &mut places);
    }
    let ratio = f64::from(hits) / trace.len() as f64;
    Stored { ratio, written: f64::from(puts + copies) / f64::from(puts) }
}

/// Collects until the store keeps to its limit. Returns how many records were copied.
fn collect(store: &DiskStore, memory: &Memory, places: &mut HashMap<u32, EntryPlace>) -> u32 {
    let mut copies = 0;
    while let Some(collection) = store.next_collection() {
        places.retain(|key, _| memory.contains(*key));
        let range = collection.places();
        let listed = places.iter().filter(|(_, place)| range.contains(place));
        let mut listed: Vec<_> = listed.map(|(key, place)| (*place, *key)).collect();
        listed.sort_unstable();
        let in_memory: Vec<EntryPlace> = listed.iter().map(|(place, _)| *place).collect();
        for (old, new) in store.collect(&collection, &in_memory, 1).expect("room") {
            copies += 1;
            if let Ok(index) = in_memory.binary_search(&old) {
                places.insert(listed[index].1, new);
            }
        }
    }
    copies
}
