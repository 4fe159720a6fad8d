//! Writes stores, and reads them without their locks, for
//! `bindings/python/tests/files/test_independent_store.py`. Executes the commands on its standard
//! input, one per line, and answers each with a line `done`.

#![allow(clippy::print_stdout)] // a program with output

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::ops::ControlFlow;
use std::sync::Arc;

use async_cache_disk::store::{
    DiskStore, EagerWrite, EntryPlace, StoreAnswer, StoreItem, StoreLimit, StoreOptions, StoreScratch,
    StoreWrite,
};
use async_cache_disk::{CacheFile, Compression, RealDisk, Secret, Times, WriteOptions};

/// More collections in a row never end.
const MOST_COLLECTIONS: usize = 1000;

/// The file, and its store while it is open.
struct Stores {
    file: CacheFile,
    store: Option<DiskStore>,
    /// The entries in memory by their keys, with the places of their records; `true`: eager.
    memory: BTreeMap<(bool, Vec<u8>), EntryPlace>,
    now: u64,
}

impl Stores {
    fn store(&self) -> Result<&DiskStore, Box<dyn Error>> {
        self.store.as_ref().ok_or_else(|| "no store is open".into())
    }

    fn run(&mut self, words: &[&str]) -> Result<(), Box<dyn Error>> {
        self.now += 10;
        let now = self.now;
        match *words {
            ["file", path, version, secret] => {
                let secret = if secret == "-" { None } else { Some(Secret::new(secret)?) };
                self.file = CacheFile::new(Arc::new(RealDisk), path).version(version).secret(secret);
            }
            ["compress"] => self.file = self.file.clone().compression(Compression::ZSTD),
            ["now", time] => self.now = time.parse()?,
            ["base", count] => self.write_base(count.parse()?)?,
            ["open", segment_bytes] => self.open(segment_bytes.parse()?, StoreLimit::Live)?,
            ["open", segment_bytes, most_bytes] => {
                self.open(segment_bytes.parse()?, StoreLimit::Bytes(most_bytes.parse()?))?;
            }
            [kind @ ("put" | "put_eager"), key, value, times, deadline] => {
                let value = value.repeat(times.parse()?);
                let deadline = if deadline == "-" { None } else { Some(deadline.parse()?) };
                let (key, value) = (key.as_bytes(), value.as_bytes());
                let is_eager = kind == "put_eager";
                let replaces = self.memory.get(&(is_eager, key.to_vec())).copied();
                let write = StoreWrite { key, value, deadline, replaces };
                let store = self.store()?;
                let written = if is_eager { store.put_eager(&write, now) } else { store.put(&write, now) };
                let place = written?.place;
                self.memory.insert((is_eager, key.to_vec()), place);
            }
            ["delete", key] => {
                let replaces = self.memory.remove(&(false, key.as_bytes().to_vec()));
                self.store()?.delete(key.as_bytes(), replaces, now)?;
            }
            ["delete_eager", key] => {
                self.memory.remove(&(true, key.as_bytes().to_vec()));
                self.store()?.delete_eager(key.as_bytes(), now)?;
            }
            ["clear"] => {
                self.memory.clear();
                self.store()?.clear(now)?;
            }
            ["evict", key] => {
                if self.memory.remove(&(false, key.as_bytes().to_vec())).is_some() {
                    self.store()?.evicted(1);
                }
            }
            ["use", key] => self.bring_in(key.as_bytes())?,
            ["collect"] => self.collect()?,
            ["flush"] => self.store()?.flush()?,
            ["maintain"] => while self.store()?.maintain(now)? {},
            ["drop"] => drop(self.store.take()),
            ["close"] => self.store.take().map_or(Ok(()), |store| store.close(now))?,
            ["read"] => self.read()?,
            _ => return Err(format!("no such command: {words:?}").into()),
        }
        Ok(())
    }

    /// Opens the store. Its eager entries are in memory, and no other entries.
    fn open(&mut self, segment_bytes: u32, limit: StoreLimit) -> Result<(), Box<dyn Error>> {
        let store = self.file.store(StoreOptions { segment_bytes, limit }, self.now)?;
        self.memory.clear();
        for write in store.eager()? {
            match write {
                EagerWrite::Entry { key, place, .. } => self.memory.insert((true, key), place),
                EagerWrite::Delete { key } => self.memory.remove(&(true, key)),
            };
        }
        self.store = Some(store);
        Ok(())
    }

    /// Reads an entry into memory.
    fn bring_in(&mut self, key: &[u8]) -> Result<(), Box<dyn Error>> {
        let known = (false, key.to_vec());
        if self.memory.contains_key(&known) {
            return Ok(());
        }
        let mut scratch = StoreScratch::new();
        let store = self.store()?;
        let StoreAnswer::Entry(entry) = store.find(key, &mut scratch) else { return Ok(()) };
        let place = entry.sighting.place;
        store.promoted(place);
        self.memory.insert(known, place);
        Ok(())
    }

    /// Collects until nothing is to be collected.
    fn collect(&mut self) -> Result<(), Box<dyn Error>> {
        for _ in 0..MOST_COLLECTIONS {
            let Some(collection) = self.store()?.next_collection() else { return Ok(()) };
            let listed = self.memory.values().filter(|place| collection.places().contains(place));
            let mut listed: Vec<_> = listed.copied().collect();
            listed.sort_unstable();
            let moved = self.store()?.collect(&collection, &listed, self.now)?;
            let moved: BTreeMap<_, _> = moved.into_iter().collect();
            for place in self.memory.values_mut() {
                *place = moved.get(place).copied().unwrap_or(*place);
            }
        }
        Err("collections do not end".into())
    }

    /// Entries with a time of writing and without, and eager ones.
    fn write_base(&self, count: u32) -> Result<(), Box<dyn Error>> {
        let mut writer = self.file.write(WriteOptions::new(self.now))?;
        for i in 0..count {
            let times = Times { deadline: None, written_at: (i % 2 == 0).then_some(self.now - 5) };
            writer.push(format!("key{i}").as_bytes(), format!("base{i}").as_bytes(), times)?;
            writer.push_eager(format!("eager{i}").as_bytes(), b"of the base", times)?;
        }
        writer.finish()?;
        Ok(())
    }

    fn read(&self) -> Result<(), Box<dyn Error>> {
        let Some(view) = self.file.store_view(self.now)? else {
            println!("facts none");
            return Ok(());
        };
        let _ = view.each(|item| {
            if let StoreItem::Entry(entry) = item {
                let times = Times { deadline: entry.deadline, written_at: entry.written_at };
                print("entry", entry.key, entry.value, times);
            }
            ControlFlow::Continue(())
        });
        for write in view.eager() {
            match write {
                EagerWrite::Entry { key, value, deadline, written_at, .. } => {
                    print("eager", &key, &value, Times { deadline, written_at });
                }
                EagerWrite::Delete { key } => println!("deleted {}", hex(&key)),
            }
        }
        println!("facts {} {} {}", view.is_clean(), view.segments().count(), view.runs().count());
        Ok(())
    }
}

fn print(what: &str, key: &[u8], value: &[u8], times: Times) {
    let time = |time: Option<u64>| time.map_or("-".to_owned(), |time| time.to_string());
    let (deadline, written_at) = (time(times.deadline), time(times.written_at));
    println!("{what} {} {} {deadline} {written_at}", hex(key), hex(value));
}

/// Never empty, so that words can be told apart.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = CacheFile::new(Arc::new(RealDisk), "none");
    let mut stores = Stores { file, store: None, memory: BTreeMap::new(), now: 1_700_000_000_000_000_000 };
    for line in stdin().lock().lines() {
        let line = line?;
        stores.run(&line.split(' ').collect::<Vec<_>>())?;
        println!("done");
        stdout().flush()?;
    }
    Ok(())
}
