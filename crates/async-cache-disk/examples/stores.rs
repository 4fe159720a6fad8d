//! Writes stores, and reads them without their locks, for
//! `bindings/python/tests/files/test_independent_store.py`. Executes the commands on its standard
//! input, one per line, and answers each with a line `done`.

#![allow(clippy::print_stdout)] // a program with output

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::ops::ControlFlow;
use std::sync::Arc;

use async_cache_disk::store::{DiskStore, EagerWrite, StoreItem, StoreOptions, StoreWrite};
use async_cache_disk::{CacheFile, RealDisk, Secret, Times, WriteOptions};

/// The file, and its store while it is open.
struct Stores {
    file: CacheFile,
    store: Option<DiskStore>,
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
            ["now", time] => self.now = time.parse()?,
            ["base", count] => self.write_base(count.parse()?)?,
            ["open", segment_bytes] => {
                let segment_bytes = segment_bytes.parse()?;
                let options = StoreOptions { segment_bytes, ..StoreOptions::default() };
                self.store = Some(self.file.store(options, now)?);
            }
            [kind @ ("put" | "put_eager"), key, value, times, deadline] => {
                let value = value.repeat(times.parse()?);
                let deadline = if deadline == "-" { None } else { Some(deadline.parse()?) };
                let (key, value) = (key.as_bytes(), value.as_bytes());
                let write = StoreWrite { key, value, deadline, replaces: None };
                let store = self.store()?;
                if kind == "put" {
                    store.put(&write, now)?
                } else {
                    store.put_eager(&write, now)?
                };
            }
            ["delete", key] => drop(self.store()?.delete(key.as_bytes(), None, now)?),
            ["delete_eager", key] => drop(self.store()?.delete_eager(key.as_bytes(), now)?),
            ["clear"] => drop(self.store()?.clear(now)?),
            ["flush"] => self.store()?.flush()?,
            ["maintain"] => while self.store()?.maintain(now)? {},
            ["drop"] => drop(self.store.take()),
            ["close"] => self.store.take().map_or(Ok(()), |store| store.close(now))?,
            ["read"] => self.read()?,
            _ => return Err(format!("no such command: {words:?}").into()),
        }
        Ok(())
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
        let view = self.file.store_view(self.now)?.ok_or("there is no store")?;
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
    let mut stores = Stores { file, store: None, now: 1_700_000_000_000_000_000 };
    for line in stdin().lock().lines() {
        let line = line?;
        stores.run(&line.split(' ').collect::<Vec<_>>())?;
        println!("done");
        stdout().flush()?;
    }
    Ok(())
}
