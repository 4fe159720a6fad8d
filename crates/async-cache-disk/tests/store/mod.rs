//! The store through its public interface, on the fake disk.

mod basic;
mod bytes;
mod counts;
mod crash;
mod damage;
mod eager;
mod evictions;
mod faults;
mod fold;
mod fold_evictions;
mod folder_syncs;
mod hooked;
mod indexing;
mod locks;
mod merging;
mod model;
mod now;
mod opening;
mod sync;
mod view;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sample::{SAVED_AT, file, options};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::{
    DiskStore, Folded, StoreAnswer, StoreLimit, StoreOptions, StoreScratch, StoreWrite,
};
use async_cache_disk::{CacheFile, DiskError, Times};

const PATH: &str = "/var/cache/pages.cache";
const FOLDERS: &str = "/var/cache/pages.cache.d";
/// How many keys the programs of these tests use.
const KEYS: u8 = 6;

/// The value of every key that has one.
type State = BTreeMap<u8, Vec<u8>>;

fn cache(disk: &FakeDisk) -> CacheFile {
    file(&disk.as_vfs(), PATH)
}

/// Stores with segments of an odd size have a limit in bytes: then entries may go at a collection.
fn sized(segment_bytes: u32) -> StoreOptions {
    let is_odd = segment_bytes % 2 == 1;
    let limit = if is_odd { StoreLimit::Bytes(30_000) } else { StoreLimit::Live };
    StoreOptions { segment_bytes, limit }
}

fn open(disk: &FakeDisk, segment_bytes: u32) -> DiskStore {
    cache(disk).store(sized(segment_bytes), SAVED_AT).unwrap()
}

fn key(key: u8) -> Vec<u8> {
    format!("key {key}").into_bytes()
}

/// The value with this number: values with different numbers differ.
fn value(number: usize, bytes: usize) -> Vec<u8> {
    format!("{number} ").into_bytes().into_iter().cycle().take(bytes.max(8)).collect()
}

fn put(store: &DiskStore, key: &[u8], value: &[u8], now: u64) -> Result<u64, DiskError> {
    store.put(&StoreWrite { key, value, deadline: None, replaces: None }, now).map(|written| written.time)
}

/// The value that is found; `None` for every kind of miss.
fn found(store: &DiskStore, key: &[u8]) -> Option<Vec<u8>> {
    match store.find(key, &mut StoreScratch::new()) {
        StoreAnswer::Entry(entry) => Some(entry.value.to_vec()),
        StoreAnswer::Absent | StoreAnswer::Hidden => None,
    }
}

fn state(store: &DiskStore) -> State {
    state_of(store, KEYS)
}

/// The state of this many keys.
fn state_of(store: &DiskStore, keys: u8) -> State {
    (0..keys).filter_map(|i| Some((i, found(store, &key(i))?))).collect()
}

/// A value for a message.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(8)]).into_owned()
}

/// A state for a message.
fn brief(state: &State) -> BTreeMap<u8, String> {
    state.iter().map(|(i, value)| (*i, text(value))).collect()
}

/// Maintains until nothing is left to do.
fn maintain(store: &DiskStore, now: u64) -> Result<(), DiskError> {
    while store.maintain(now)? {}
    Ok(())
}

/// Collects until nothing is left to do.
fn collect(store: &DiskStore, now: u64) -> Result<(), DiskError> {
    for _ in 0..1000 {
        let Some(collection) = store.next_collection() else { return Ok(()) };
        store.collect(&collection, &[], now)?;
    }
    panic!("no end of collections: {:?}", store.stats())
}

/// Writes a base with the first keys; every other entry has a time.
fn write_base(disk: &FakeDisk, keys: u8) -> State {
    let mut writer = cache(disk).write(options()).unwrap();
    for i in 0..keys {
        let written_at = (i % 2 == 0).then_some(SAVED_AT - 5);
        writer.push(&key(i), &base_value(i), Times { deadline: None, written_at }).unwrap();
    }
    writer.finish().unwrap();
    disk.repair();
    (0..keys).map(|i| (i, base_value(i))).collect()
}

fn base_value(key: u8) -> Vec<u8> {
    format!("base {key}").into_bytes()
}

/// The files of the store, without its lock.
fn store_files(disk: &FakeDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter();
    files.filter(|path| path.starts_with(FOLDERS) && path.file_name() != Some("lock".as_ref())).collect()
}

/// The folder of the store, which has a lock at least.
fn folder_of(disk: &FakeDisk) -> PathBuf {
    let file = disk.files().into_iter().find(|path| path.starts_with(FOLDERS)).unwrap();
    file.parent().unwrap().to_owned()
}

/// The number of the call that writes the first record of a store: the header page of the segment
/// is written before.
fn first_record(disk: &FakeDisk) -> usize {
    let is_segment = |path: &Path| path.file_name() == Some("s000001".as_ref());
    let calls = disk.calls().into_iter().enumerate();
    let mut writes = calls.filter(|(_, call)| call.name == "write_at" && is_segment(&call.path));
    writes.nth(1).unwrap().0
}

/// The number of files whose names begin so.
fn count(disk: &FakeDisk, prefix: &str) -> usize {
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    store_files(disk).iter().filter(|path| name(path)).count()
}

/// An operation of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Put(u8, usize),
    Delete(u8),
    Clear,
    Flush,
    Maintain,
    /// Collects while anything is to be collected. Memory has no entries.
    Collect,
    /// Closes the store and opens it again.
    Reopen,
    /// Folds the store and opens it again.
    Fold,
    /// Opens the store again without closing it.
    Drop,
}

impl Op {
    /// The state after the operation.
    fn apply(self, number: usize, state: &mut State) {
        match self {
            Self::Put(i, bytes) => {
                state.insert(i, value(number, bytes));
            }
            Self::Delete(i) => {
                state.remove(&i);
            }
            Self::Clear => state.clear(),
            Self::Flush | Self::Maintain | Self::Collect | Self::Reopen | Self::Fold | Self::Drop => {}
        }
    }

    fn is_write(self) -> bool {
        matches!(self, Self::Put(..) | Self::Delete(_) | Self::Clear)
    }

    /// Runs the operation. `None` for the store: it could not be opened again.
    fn run(
        self,
        number: usize,
        disk: &FakeDisk,
        store: &mut Option<DiskStore>,
        bytes: u32,
    ) -> Result<(), DiskError> {
        let now = SAVED_AT + 10 * number as u64;
        let Some(open) = store.as_ref() else {
            *store = Some(cache(disk).store(sized(bytes), now)?);
            return self.run(number, disk, store, bytes);
        };
        match self {
            Self::Put(i, bytes) => put(open, &key(i), &value(number, bytes), now).map(drop),
            Self::Delete(i) => open.delete(&key(i), None, now).map(drop),
            Self::Clear => open.clear(now).map(drop),
            Self::Flush => open.flush(),
            Self::Maintain => maintain(open, now),
            Self::Collect => collect(open, now),
            Self::Reopen | Self::Fold | Self::Drop => {
                let closed = store.take().map_or(Ok(()), |store| match self {
                    Self::Reopen => store.close(now),
                    Self::Fold => match store.fold(&[], Duration::ZERO, now)? {
                        Folded::Closed(error) => Err(error),
                        _ => Ok(()),
                    },
                    _ => Ok(()),
                });
                *store = Some(cache(disk).store(sized(bytes), now)?);
                closed
            }
        }
    }
}

/// A program with many small segments, which are indexed and merged.
fn small_segments() -> (Vec<Op>, u32) {
    let mut program = vec![Op::Put(0, 8), Op::Flush, Op::Delete(1)];
    for round in 0..9u8 {
        program.extend([Op::Put(round % KEYS, 300), Op::Put((round + 1) % KEYS, 300)]);
        program.push(if round % 3 == 0 { Op::Delete((round + 2) % KEYS) } else { Op::Put(5, 40) });
        program.push(Op::Maintain);
        if round == 4 {
            program.extend([Op::Flush, Op::Put(3, 10), Op::Drop, Op::Put(2, 9)]);
        }
    }
    program.extend([Op::Clear, Op::Put(1, 10), Op::Reopen, Op::Put(2, 20), Op::Delete(1), Op::Flush]);
    program.extend([Op::Put(4, 500), Op::Maintain, Op::Reopen]);
    (program, 4096 + 600)
}

/// A program whose store is collected several times. `bytes`: the size of its segments.
fn collections(bytes: u32) -> (Vec<Op>, u32) {
    let mut program = vec![Op::Put(0, 30), Op::Delete(1), Op::Put(5, 80)];
    for round in 0..9u8 {
        program.extend([Op::Put(2 + round % 2, 900), Op::Put(4, 700), Op::Delete(2 + (round + 1) % 2)]);
        program.extend([Op::Put(5, 600), Op::Collect]);
        match round {
            1 => program.extend([Op::Maintain, Op::Flush, Op::Collect]),
            3 => program.extend([Op::Drop, Op::Put(1, 50), Op::Maintain]),
            5 => program.extend([Op::Clear, Op::Put(0, 200), Op::Put(1, 60), Op::Reopen]),
            6 => program.extend([Op::Maintain, Op::Delete(1)]),
            _ => {}
        }
    }
    program.extend([Op::Put(2, 20), Op::Flush, Op::Maintain, Op::Collect, Op::Reopen, Op::Put(1, 30)]);
    (program, bytes)
}

/// A program with digests in the segments, and records over several pages.
fn large_records() -> (Vec<Op>, u32) {
    let mut program = Vec::new();
    for round in 0..8u8 {
        program.extend([Op::Put(round % KEYS, 9000), Op::Put((round + 3) % KEYS, 30)]);
        program.push(if round == 3 { Op::Flush } else { Op::Delete((round + 1) % KEYS) });
        program.push(Op::Put((round + 2) % KEYS, 14_000));
    }
    program.extend([Op::Drop, Op::Put(0, 9000), Op::Clear, Op::Put(1, 5000), Op::Maintain, Op::Put(3, 5000)]);
    program.extend([Op::Fold, Op::Put(0, 10), Op::Drop]);
    (program, 100_000)
}

/// The number of rounds: this many, or those of the environment.
fn rounds(quick: u64) -> u64 {
    std::env::var("ASYNC_CACHE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(quick)
}
