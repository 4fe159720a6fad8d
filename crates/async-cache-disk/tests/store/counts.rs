//! The count of cold entries, and evictions of the coldest, against a model of a cache whose memory
//! and disk are bounded together.

use std::collections::BTreeMap;

use super::{State, brief, cache, key, maintain, rounds, sized, state_of, value, write_base};
use crate::sample::SAVED_AT;
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::{DiskStore, EntryPlace, StoreAnswer, StoreScratch, StoreWrite};

const KEYS: u8 = 16;

/// A cache with a store.
struct Model {
    store: DiskStore,
    /// What memory has, and where the records stand.
    memory: BTreeMap<u8, EntryPlace>,
    /// Every entry.
    state: State,
    is_counted: bool,
    now: u64,
    number: usize,
    collected: usize,
}

fn place_of(store: &DiskStore, i: u8) -> Option<EntryPlace> {
    match store.find(&key(i), &mut StoreScratch::new()) {
        StoreAnswer::Entry(entry) => Some(entry.sighting.place),
        _ => None,
    }
}

impl Model {
    fn cold(&self) -> u64 {
        self.state.keys().filter(|i| !self.memory.contains_key(i)).count() as u64
    }

    fn put(&mut self, i: u8, bytes: usize) {
        let value = value(self.number, bytes);
        let replaces = self.memory.get(&i).copied();
        let write = StoreWrite { key: &key(i), value: &value, deadline: None, replaces };
        self.memory.insert(i, self.store.put(&write, self.now).unwrap().place);
        self.state.insert(i, value);
    }

    /// A delete by the user, or an eviction from memory.
    fn delete(&mut self, i: u8) {
        let replaces = self.memory.remove(&i);
        self.store.delete(&key(i), replaces, self.now).unwrap();
        self.state.remove(&i);
    }

    fn promote(&mut self, i: u8) {
        if !self.state.contains_key(&i) || self.memory.contains_key(&i) {
            return;
        }
        let mut scratch = StoreScratch::new();
        let StoreAnswer::Entry(entry) = self.store.find(&key(i), &mut scratch) else { panic!("{i}") };
        assert_eq!(Some(entry.value), self.state.get(&i).map(|value| &value[..]));
        assert!(self.store.is_current(&entry.sighting));
        self.store.promoted(entry.sighting.place);
        self.memory.insert(i, entry.sighting.place);
    }

    fn evict_coldest(&mut self, context: &str) {
        let cold = self.state.keys().filter(|i| !self.memory.contains_key(i)).copied();
        let places: BTreeMap<_, _> = cold.map(|i| (place_of(&self.store, i).unwrap(), i)).collect();
        let was_evicted = self.store.evict_coldest(self.now).unwrap();
        match places.first_key_value() {
            Some((_, i)) if was_evicted => {
                self.state.remove(i);
            }
            coldest => {
                let is_right = !was_evicted && (coldest.is_none() || !self.is_counted);
                assert!(is_right, "{context}: {coldest:?}");
            }
        }
    }

    /// Runs a collection, if one is due; `None` if none is.
    fn collect_once(&mut self) -> Option<()> {
        let collection = self.store.next_collection()?;
        let listed = self.memory.values().filter(|place| collection.places().contains(place));
        let mut listed: Vec<_> = listed.copied().collect();
        listed.sort_unstable();
        let moved: BTreeMap<_, _> =
            self.store.collect(&collection, &listed, self.now).unwrap().into_iter().collect();
        for place in self.memory.values_mut() {
            *place = moved.get(place).copied().unwrap_or(*place);
        }
        self.collected += 1;
        Some(())
    }

    fn reopen(&mut self, disk: &mut FakeDisk, bytes: u32, random: &mut fastrand::Rng) {
        let taken =
            std::mem::replace(&mut self.store, cache(&FakeDisk::new()).store(sized(bytes), 0).unwrap());
        if random.bool() {
            taken.close(self.now).unwrap();
        } else {
            drop(taken);
            *disk = disk.survivors().swap_remove(0).1;
        }
        self.store = cache(disk).store(sized(bytes), self.now).unwrap();
        self.memory.clear();
        self.is_counted = false;
    }

    fn check(&mut self, context: &str) {
        let found = state_of(&self.store, KEYS);
        assert!(found == self.state, "{context}: {:?}, not {:?}", brief(&found), brief(&self.state));
        let (cold, expected) = (self.store.cold(), self.cold());
        let is_right = cold == expected || !self.is_counted && cold > expected;
        assert!(is_right, "{context}: {cold} cold, not {expected}, {:?}", self.memory);
    }
}

fn run(seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut disk = FakeDisk::new();
    let state = if random.bool() { write_base(&disk, 4) } else { State::new() };
    let bytes = [4200, 5000, 20_000, 1 << 20][random.usize(0..4)];
    let store = cache(&disk).store(sized(bytes), SAVED_AT).unwrap();
    let memory = BTreeMap::new();
    let mut model = Model { store, memory, state, is_counted: true, now: SAVED_AT, number: 0, collected: 0 };
    model.check("opened");
    let mut program = Vec::new();
    let most = if random.bool() { 200 } else { 600 };
    for number in 0..random.usize(10..400) {
        (model.number, model.now) = (number, model.now + 10);
        let (op, i) = (random.u8(0..100), random.u8(0..KEYS));
        program.push((op, i));
        match op {
            0..35 => model.put(i, random.usize(0..most)),
            35..45 => model.delete(i),
            45..65 => model.promote(i),
            65..72 => model.evict_coldest(&format!("seed {seed}, {program:?}")),
            72..74 => {
                model.store.clear(model.now).unwrap();
                (model.state, model.memory, model.is_counted) = (State::new(), BTreeMap::new(), true);
            }
            74..86 => {
                maintain(&model.store, model.now).unwrap();
                model.is_counted = true;
            }
            86..90 => drop(model.store.maintain(model.now).unwrap()),
            90..92 => model.store.flush().unwrap(),
            92..94 => while random.bool() && model.collect_once().is_some() {},
            94..97 => while model.collect_once().is_some() {},
            _ => model.reopen(&mut disk, bytes, &mut random),
        }
        model.check(&format!("seed {seed}, {program:?}"));
    }
    for (i, place) in &model.memory {
        assert_eq!(place_of(&model.store, *i), Some(*place), "seed {seed}: {i} in memory");
    }
    model.collected
}

#[test]
fn cold_entries_are_counted_exactly_and_the_coldest_is_evicted_first() {
    let first = std::env::var("ASYNC_CACHE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let collected: usize = (first..first + rounds(60)).map(run).sum();
    assert!(collected as u64 > rounds(60), "{collected}");
}
