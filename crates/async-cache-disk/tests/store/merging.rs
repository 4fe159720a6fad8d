//! Merges of runs: an index keeps the latest record of a key, and nothing that is earlier returns.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::hooked::{Hooked, Now};
use super::view::{check_verified, viewed};
use super::{
    Op, PATH, State, brief, cache, found, key, maintain, open, put, rounds, sized, state, state_of,
    store_files, value,
};
use crate::sample::{SAVED_AT, file};
use async_cache_disk::Vfs;
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::{DiskStore, RunFacts, StoreItem};

/// A segment of some hundreds of small records.
const SEGMENT: u32 = 4096 + 4500;

fn runs(disk: &FakeDisk) -> Vec<RunFacts> {
    cache(disk).store_view(SAVED_AT).unwrap().unwrap().runs().collect()
}

/// Writes a key again and again, and indexes each segment by itself. Now and then, another key is
/// written or deleted.
fn rewrite(store: &DiskStore, times: usize) -> State {
    let (mut model, mut segments) = (State::new(), 0);
    for number in 0..times {
        let other = [1, 2, 3, 4][number / 777 % 4];
        let op = match number % 777 {
            3 => Op::Put(other, 8),
            500 if other % 2 == 0 => Op::Delete(other),
            _ => Op::Put(0, 8),
        };
        op.apply(number, &mut model);
        match op {
            Op::Put(i, bytes) => drop(put(store, &key(i), &value(number, bytes), SAVED_AT).unwrap()),
            _ => drop(store.delete(&key(other), None, SAVED_AT).unwrap()),
        }
        let now = store.stats().segments;
        if now != segments {
            segments = now;
            maintain(store, SAVED_AT).unwrap();
        }
    }
    model
}

#[test]
fn a_key_that_is_rewritten_100_000_times_over_hundreds_of_runs_is_merged_and_found() {
    let disk = FakeDisk::new();
    let store = open(&disk, SEGMENT);
    let model = rewrite(&store, 100_000);
    assert_eq!(state(&store), model);
    assert!(store.stats().segments > 512, "{:?}", store.stats());
    let runs = runs(&disk);
    assert!(runs.iter().any(|run| run.level == 3), "{runs:?}");
    assert!(runs.iter().all(|run| run.slots <= 5), "{runs:?}");
    drop(store);
    assert_eq!(state(&open(&disk, SEGMENT)), model);
}

#[test]
fn what_is_not_in_the_page_cache_is_read_before_a_run_gets_too_full() {
    let disk = FakeDisk::new();
    let mut hooked = Hooked::new(&disk);
    hooked.read_now = Arc::new(|_| Now::WouldWait);
    let store = file(&hooked.as_vfs(), PATH).store(sized(SEGMENT), SAVED_AT).unwrap();
    let model = rewrite(&store, 12_000);
    assert_eq!(state(&store), model);
    assert!(runs(&disk).iter().all(|run| run.slots <= 5), "{:?}", runs(&disk));
}

const KEYS_PILED_UP: u8 = 200;

/// A store with this many runs, none of them merged.
fn piled_up(disk: &FakeDisk, count: u64) -> (DiskStore, State) {
    let (store, mut model) = (open(disk, SEGMENT), State::new());
    let mut segments = 0;
    for number in 0.. {
        let i = u8::try_from(number % usize::from(KEYS_PILED_UP)).unwrap();
        Op::Put(i, 8).apply(number, &mut model);
        put(&store, &key(i), &value(number, 8), SAVED_AT).unwrap();
        if store.stats().segments != segments {
            segments = store.stats().segments;
            store.index(SAVED_AT).unwrap();
            assert_eq!(store.unindexed_bytes(), 0);
            if store.stats().runs == count {
                break;
            }
        }
    }
    (store, model)
}

#[test]
fn runs_that_have_piled_up_are_merged_at_once() {
    for (count, levels) in
        [(7, vec![0; 7]), (8, vec![1]), (40, vec![1]), (64, vec![2]), (70, [vec![0; 6], vec![2]].concat())]
    {
        let disk = FakeDisk::new();
        let (store, model) = piled_up(&disk, count);
        assert!(runs(&disk).iter().all(|run| run.level == 0));
        maintain(&store, SAVED_AT).unwrap();
        let mut merged: Vec<u32> = runs(&disk).iter().map(|run| run.level).collect();
        merged.sort_unstable();
        assert_eq!(merged, levels);
        assert!(state_of(&store, KEYS_PILED_UP) == model);
        drop(store);
        assert!(state_of(&open(&disk, SEGMENT), KEYS_PILED_UP) == model);
    }
}

#[test]
fn full_segments_are_indexed_during_a_long_merge() {
    let disk = FakeDisk::new();
    let store = open(&disk, 400 << 10);
    let mut number = 0_u32;
    let mut write_until = |segments: u64| {
        while store.stats().segments < segments {
            put(&store, &number.to_be_bytes(), b"", SAVED_AT).unwrap();
            number += 1;
        }
    };
    for segments in 2..=9 {
        write_until(segments);
        store.index(SAVED_AT).unwrap();
    }
    write_until(12);
    assert!(store.unindexed_bytes() > 2 * (400 << 10));
    store.maintain(SAVED_AT).unwrap(); // A single step, which merges.
    assert_eq!(store.unindexed_bytes(), 0);
    let runs: Vec<(u32, u32)> = runs(&disk).iter().map(|run| (run.level, run.slots)).collect();
    assert_eq!(runs.iter().map(|run| run.0).collect::<Vec<_>>(), [1, 0]);
    assert!(runs[0].1 > 1 << 16, "{runs:?}");
    for i in (0..number).step_by(97) {
        assert_eq!(found(&store, &i.to_be_bytes()), Some(Vec::new()), "{i}");
    }
}

/// A store with a run for each of so many segments. Each segment has keys of its own, and deletes
/// some of the segment before.
fn chained(disk: &FakeDisk, count: u64) -> (DiskStore, BTreeMap<u32, bool>) {
    let (store, mut model, mut number) = (open(disk, SEGMENT), BTreeMap::new(), 0_u32);
    while store.stats().runs < count {
        put(&store, &number.to_be_bytes(), b"", SAVED_AT).unwrap();
        model.insert(number, true);
        if let (0, Some(before)) = (number % 5, number.checked_sub(60)) {
            store.delete(&before.to_be_bytes(), None, SAVED_AT).unwrap();
            model.insert(before, false);
        }
        number += 1;
        store.index(SAVED_AT).unwrap();
    }
    (store, model)
}

fn is_as(store: &DiskStore, model: &BTreeMap<u32, bool>) -> bool {
    model.iter().all(|(key, is_there)| found(store, &key.to_be_bytes()).is_some() == *is_there)
}

#[test]
fn a_merge_does_not_cover_the_segments_of_a_lost_run() {
    for lost in 0..9 {
        let disk = FakeDisk::new();
        let (store, model) = chained(&disk, 9);
        drop(store);
        let runs: Vec<PathBuf> = store_files(&disk).into_iter().filter(|path| is_run(path)).collect();
        assert_eq!(runs.len(), 9);
        disk.remove(&runs[lost]).unwrap();
        let store = open(&disk, SEGMENT);
        assert!(is_as(&store, &model), "{lost}");
        for _ in 0..4 {
            store.maintain(SAVED_AT).unwrap();
            assert!(is_as(&store, &model), "{lost}");
        }
        maintain(&store, SAVED_AT).unwrap();
        drop(store);
        assert!(is_as(&open(&disk, SEGMENT), &model), "{lost}");
    }
}

fn is_run(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('i'))
}

#[test]
fn runs_before_a_run_of_a_higher_level_are_merged_too() {
    let disk = FakeDisk::new();
    let mut store = open(&disk, SEGMENT);
    for round in 0..12_u8 {
        // In turns, piles that become a run of level 1, and of level 2.
        let before = store.stats().runs;
        let mut number = 0;
        while store.stats().runs < before + if round % 2 == 0 { 10 } else { 64 } {
            put(&store, &key(number % 200), &value(usize::from(round), 80), SAVED_AT).unwrap();
            number = number.wrapping_add(1);
            store.index(SAVED_AT).unwrap();
        }
        maintain(&store, SAVED_AT).unwrap();
    }
    assert!(store.stats().runs < 8, "{:?}", runs(&disk));
    drop(store);
    store = open(&disk, SEGMENT);
    assert!((0..200).all(|i| found(&store, &key(i)).is_some()));
}

#[test]
fn a_step_that_only_counts_writes_leaves_nothing_to_do() {
    let disk = FakeDisk::new();
    let (store, _) = chained(&disk, 2);
    maintain(&store, SAVED_AT).unwrap();
    for number in 0..5_u32 {
        // A key that no look-up has seen: its write waits to be counted. If the step left more to
        // do, a collection would not have its turn for as long as new keys come.
        put(&store, &(1_000_000 + number).to_be_bytes(), b"", SAVED_AT).unwrap();
        assert!(!store.maintain(SAVED_AT).unwrap());
    }
}

#[test]
fn look_ups_in_vain_get_filters_after_an_opening_too() {
    let disk = FakeDisk::new();
    let (store, model) = piled_up(&disk, 5);
    let bytes = store.stats().filter_bytes;
    assert!((5 * 64..5 * 1024).contains(&bytes), "{bytes}");
    drop(store);
    let store = open(&disk, SEGMENT);
    maintain(&store, SAVED_AT).unwrap();
    assert_eq!(store.stats().filter_bytes, 64, "that of the last segment, which the opening has sealed");
    for number in 0..1000_u32 {
        assert_eq!(found(&store, &number.to_be_bytes()), None);
    }
    maintain(&store, SAVED_AT).unwrap();
    assert!(store.stats().filter_bytes >= bytes, "{:?}", store.stats());
    assert!(state_of(&store, KEYS_PILED_UP) == model);
    store.close(SAVED_AT).unwrap();
}

/// The segments and offsets of all entries of the first key, the latest last.
fn places_of_key(disk: &FakeDisk) -> Vec<(usize, usize)> {
    let files = store_files(disk);
    let mut places = Vec::new();
    for (index, path) in files.iter().enumerate() {
        let is_segment = path.file_name().unwrap().to_str().unwrap().starts_with('s');
        let bytes = disk.bytes(path).unwrap();
        let key = key(0);
        places.extend(
            (4096..bytes.len().saturating_sub(key.len()))
                .filter(|at| is_segment && bytes[*at..].starts_with(&key))
                .map(|at| (index, at)),
        );
    }
    places
}

#[test]
fn a_damaged_record_hides_what_is_earlier_before_and_after_a_merge() {
    let bytes = 4096 + 200;
    let disk = FakeDisk::new();
    let store = open(&disk, bytes);
    let mut segments = 0;
    for number in 0..15_u8 {
        let i = u8::from(number >= 9);
        put(&store, &key(i), &value(usize::from(number), 100), SAVED_AT).unwrap();
        // Seven runs: the next run is merged with them.
        if store.stats().segments != segments && store.stats().runs < 7 {
            segments = store.stats().segments;
            maintain(&store, SAVED_AT).unwrap();
        }
    }
    assert_eq!((store.stats().runs, found(&store, &key(0))), (7, Some(value(8, 100))));
    drop(store);
    let model: State = [(0, value(8, 100)), (1, value(14, 100))].into();
    let files = store_files(&disk);
    let places = places_of_key(&disk);
    assert_eq!(places.len(), 9);
    for (number, (index, at)) in places.into_iter().enumerate() {
        let mut damaged = disk.bytes(&files[index]).unwrap();
        damaged[at] ^= 1;
        let disk = disk.survivors().swap_remove(0).1;
        disk.put(&files[index], &damaged);
        let expected = (number < 8).then(|| value(8, 100));
        let store = open(&disk, bytes);
        assert_eq!(found(&store, &key(0)), expected, "damaged {number}");
        maintain(&store, SAVED_AT).unwrap();
        assert!(runs(&disk).iter().any(|run| run.level == 1), "merged");
        assert_eq!(found(&store, &key(0)), expected, "damaged {number}, merged");
        drop(store);
        check_verified(&disk, &model, number);
        assert_eq!(found(&open(&disk, bytes), &key(0)), expected, "damaged {number}, opened");
    }
}

fn random_op(random: &mut fastrand::Rng) -> Op {
    let i = random.u8(0..super::KEYS).min(random.u8(0..super::KEYS));
    match random.u8(0..100) {
        0..55 => Op::Put(i, random.usize(0..120)),
        55..65 => Op::Delete(i),
        65 => Op::Clear,
        66..97 => Op::Maintain,
        97 if random.u8(0..4) == 0 => Op::Collect,
        97 if random.bool() => Op::Reopen,
        98 if random.u8(0..4) == 0 => Op::Fold,
        _ => Op::Drop,
    }
}

/// A random program whose segments hold two or three records, so that runs of runs are merged.
/// Returns how often runs were merged.
fn run(seed: u64) -> u32 {
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = FakeDisk::new();
    let mut model = State::new();
    let bytes = 4096 + 2 * random.u32(50..200); // Even: every entry stays.
    let mut store = Some(open(&disk, bytes));
    let mut level = 0;
    for number in 0..random.usize(200..700) {
        let op = random_op(&mut random);
        op.run(number, &disk, &mut store, bytes).unwrap();
        op.apply(number, &mut model);
        let found = state(store.as_ref().unwrap());
        assert!(found == model, "seed {seed}, {number}: {:?}, not {:?}", brief(&found), brief(&model));
        // Before the first write after a fold, there is no store.
        if number % 32 == 0
            && let Some(viewed) = viewed(&disk, 0)
        {
            assert!(viewed == model, "seed {seed}, {number}: viewed {:?}", brief(&viewed));
            level = runs(&disk).iter().map(|run| run.level).max().unwrap_or(0).max(level);
        }
    }
    level
}

#[test]
fn a_store_that_merges_all_the_time_is_a_map() {
    let first = std::env::var("ASYNC_CACHE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1 << 32);
    let levels: Vec<u32> = (first..first + rounds(40)).map(run).collect();
    assert!(levels.contains(&2), "{levels:?}");
}

#[test]
fn a_walk_over_a_merged_store_shows_each_key_once() {
    let disk = FakeDisk::new();
    let store = open(&disk, SEGMENT);
    let model = rewrite(&store, 5_000);
    drop(store);
    let view = cache(&disk).store_view(SAVED_AT).unwrap().unwrap();
    let mut walked: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let _ = view.each(|item| {
        if let StoreItem::Entry(entry) = item {
            assert!(walked.insert(entry.key.to_vec(), entry.value.to_vec()).is_none());
        }
        ControlFlow::Continue(())
    });
    let expected: BTreeMap<Vec<u8>, Vec<u8>> = model.into_iter().map(|(i, value)| (key(i), value)).collect();
    assert_eq!(walked, expected);
}
