//! A store with a limit in bytes, against a model: a look-up finds the latest value or nothing,
//! entries that are used stay, and the files keep to the limit.

use std::collections::BTreeMap;

use super::{State, base_value, brief, cache, key, maintain, rounds, sized, state_of, value, write_base};
use crate::sample::{SAVED_AT, options};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::{
    DiskStore, EntryPlace, StoreAnswer, StoreLimit, StoreOptions, StoreScratch, StoreWrite,
};
use async_cache_disk::{CacheFile, Compression, Times};

const KEYS: u8 = 24;

struct Model {
    store: Option<DiskStore>,
    file: CacheFile,
    disk: FakeDisk,
    options: StoreOptions,
    memory: BTreeMap<u8, EntryPlace>,
    /// The only value that a key may have.
    allowed: State,
    deadlines: BTreeMap<u8, u64>,
    now: u64,
    number: usize,
    collected: usize,
}

impl Model {
    fn store(&self) -> &DiskStore {
        self.store.as_ref().unwrap()
    }

    fn put(&mut self, i: u8, bytes: usize, deadline: Option<u64>) {
        let value = value(self.number, bytes);
        let replaces = self.memory.get(&i).copied();
        let write = StoreWrite { key: &key(i), value: &value, deadline, replaces };
        let place = self.store().put(&write, self.now).unwrap().place;
        self.memory.insert(i, place);
        self.allowed.insert(i, value);
        self.deadlines.remove(&i);
        self.deadlines.extend(deadline.map(|deadline| (i, deadline)));
    }

    fn delete(&mut self, i: u8) {
        let replaces = self.memory.remove(&i);
        self.store().delete(&key(i), replaces, self.now).unwrap();
        self.allowed.remove(&i);
    }

    fn promote(&mut self, i: u8) {
        if self.memory.contains_key(&i) {
            return;
        }
        let mut scratch = StoreScratch::new();
        if let StoreAnswer::Entry(entry) = self.store().find(&key(i), &mut scratch) {
            let place = entry.sighting.place;
            assert!(self.store().is_current(&entry.sighting));
            self.store().promoted(place);
            self.memory.insert(i, place);
        }
    }

    fn collect_once(&mut self) -> Option<()> {
        let collection = self.store().next_collection()?;
        let listed = self.memory.values().filter(|place| collection.places().contains(place));
        let mut listed: Vec<_> = listed.copied().collect();
        listed.sort_unstable();
        let moved = self.store().collect(&collection, &listed, self.now).unwrap();
        let moved: BTreeMap<_, _> = moved.into_iter().collect();
        for place in self.memory.values_mut() {
            *place = moved.get(place).copied().unwrap_or(*place);
        }
        self.collected += 1;
        Some(())
    }

    fn collect(&mut self) {
        let mut collections = 0;
        while self.collect_once().is_some() {
            collections += 1;
            assert!(
                collections < 400,
                "no end: {:?} {:?}",
                self.store().next_collection(),
                self.store().stats()
            );
        }
        let (bytes, segment) = (self.store().bytes(), u64::from(self.options.segment_bytes));
        let StoreLimit::Bytes(limit) = self.options.limit else { panic!() };
        // An empty segment, and a record longer than a segment, exceed it anyway.
        let least = 2 * (4096 + 700) + self.store().stats().runs * (4096 + 512);
        assert!(bytes <= limit.max(least) + segment, "{bytes} bytes of {limit}: {:?}", self.store().stats());
    }

    fn reopen(&mut self, does_close: bool, replaces_base: bool) {
        let store = self.store.take();
        if does_close {
            store.unwrap().close(self.now).unwrap();
        } else {
            drop(store);
            self.disk = self.disk.survivors().swap_remove(0).1;
        }
        self.file = cache(&self.disk).compression(compression(self.options));
        if replaces_base {
            // Another program: it has read nothing of the store, and writes some keys now.
            let mut writer = self.file.write(options()).unwrap();
            for i in (0..KEYS).step_by(5) {
                let times = Times { deadline: None, written_at: Some(self.now + 5) };
                writer.push(&key(i), &base_value(i), times).unwrap();
                self.allowed.insert(i, base_value(i));
                self.deadlines.remove(&i);
            }
            writer.finish().unwrap();
            self.now += 20;
        }
        self.store = Some(self.file.store(self.options, self.now).unwrap());
        self.memory.clear();
    }

    fn check(&self, context: &str) {
        let found = state_of(self.store(), KEYS);
        for (i, value) in &found {
            assert!(
                Some(value) == self.allowed.get(i),
                "{context}: {i}: {:?}, not {:?}",
                brief(&found),
                brief(&self.allowed)
            );
        }
    }
}

/// Some of the stores compress their copies.
fn compression(options: StoreOptions) -> Compression {
    if options.segment_bytes.is_multiple_of(2) { Compression::OFF } else { Compression::ZSTD }
}

fn run(seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = FakeDisk::new();
    let allowed = if random.bool() { write_base(&disk, 6) } else { State::new() };
    let segment_bytes = [4200, 5001, 8000, 20_001][random.usize(0..4)];
    let limit = StoreLimit::Bytes(random.u64(20_000..200_000));
    let options = StoreOptions { limit, ..sized(segment_bytes) };
    let file = cache(&disk).compression(compression(options));
    let store = Some(file.store(options, SAVED_AT).unwrap());
    let mut model = Model {
        store,
        file,
        disk,
        options,
        memory: BTreeMap::new(),
        allowed,
        deadlines: BTreeMap::new(),
        now: SAVED_AT,
        number: 0,
        collected: 0,
    };
    let mut program = Vec::new();
    for number in 0..random.usize(10..400) {
        (model.number, model.now) = (number, model.now + 10);
        let (op, i) = (random.u8(0..100), random.u8(0..KEYS));
        program.push((op, i));
        match op {
            0..45 => {
                let deadline = (random.u8(0..4) == 0).then(|| model.now + random.u64(0..900));
                model.put(i, random.usize(0..700), deadline);
            }
            45..52 => model.delete(i),
            52..65 => model.promote(i),
            65..75 => {
                if let Some(i) = model.memory.keys().nth(random.usize(0..8)).copied() {
                    model.memory.remove(&i);
                    model.store().evicted(1);
                }
            }
            75..76 => {
                model.store().clear(model.now).unwrap();
                (model.memory, model.allowed) = (BTreeMap::new(), State::new());
            }
            76..83 => maintain(model.store(), model.now).unwrap(),
            83..85 => drop(model.store().maintain(model.now).unwrap()),
            85..87 => model.store().flush().unwrap(),
            87..90 => drop(model.collect_once()),
            90..95 => model.collect(),
            _ => model.reopen(random.bool(), random.u8(0..8) == 0),
        }
        model.check(&format!("seed {seed}, {program:?}"));
    }
    model.collected
}

#[test]
fn a_store_with_a_limit_in_bytes_never_has_an_older_value_and_keeps_to_its_limit() {
    let first = std::env::var("ASYNC_CACHE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let collected: usize = (first..first + rounds(60)).map(run).sum();
    assert!(collected as u64 > rounds(60), "{collected}");
}

/// Puts records until a key is gone, and returns how many.
fn puts_until_gone(store: &DiskStore, gone: u8) -> u32 {
    let mut puts = 0;
    while matches!(store.find(&key(gone), &mut StoreScratch::new()), StoreAnswer::Entry(_)) {
        put_others(store, 1);
        puts += 1;
        assert!(puts < 2_000, "{gone} stays");
    }
    puts
}

/// Puts records of other keys, with nothing in memory.
fn put_others(store: &DiskStore, count: u32) {
    for _ in 0..count {
        let key = store.latest().to_le_bytes();
        let write = StoreWrite { key: &key, value: &[7; 1_000], deadline: None, replaces: None };
        store.put(&write, SAVED_AT).unwrap();
        store.evicted(1);
        maintain(store, SAVED_AT).unwrap();
        while let Some(collection) = store.next_collection() {
            store.collect(&collection, &[], SAVED_AT).unwrap();
        }
    }
}

fn promote(store: &DiskStore, i: u8) {
    let mut scratch = StoreScratch::new();
    let StoreAnswer::Entry(entry) = store.find(&key(i), &mut scratch) else { panic!("{i} is gone") };
    store.promoted(entry.sighting.place);
    store.evicted(1);
}

#[test]
fn an_entry_outlives_its_segment_once_if_it_was_read_and_twice_if_it_was_read_late() {
    let disk = FakeDisk::new();
    let options = StoreOptions { limit: StoreLimit::Bytes(400_000), ..sized(20_000) };
    let store = cache(&disk).store(options, SAVED_AT).unwrap();
    let [unread, early, once, late] = [0, 1, 2, 3];
    for i in [unread, early, once, late] {
        let write = StoreWrite { key: &key(i), value: &[7; 100], deadline: None, replaces: None };
        store.put(&write, SAVED_AT).unwrap();
        store.evicted(1);
    }
    // The store has room for some 300 of the other records.
    for (puts, read) in [(20, early), (100, once), (120, late)] {
        put_others(&store, puts);
        promote(&store, read);
    }
    let mut puts = 240;
    let lasted = [unread, early, once, late].map(|i| {
        puts += puts_until_gone(&store, i);
        puts
    });
    let [pass, rest @ ..] = lasted;
    assert!((250..350).contains(&pass), "{lasted:?}");
    let [early, once, late] = rest.map(|puts| puts * 10 / pass);
    assert!(early == 10 && (17..=22).contains(&once) && (26..=33).contains(&late), "{lasted:?}");
}
