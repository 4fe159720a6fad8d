//! The cost of saving, opening and reading on this machine: `cargo run --release --example measure
//! -- [records] [folder]`. Values are 64 bytes, keys 16 to 24; half of the entries have a deadline.
//! The times are those of one run; run the program several times.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::cast_precision_loss)] // measures

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_cache_disk::{CacheFile, Item, RealDisk, Scratch, Source, WriteOptions};

const FINDS: u32 = 100_000;

fn key(i: u32) -> String {
    format!("product:{:08x}:{i}", i.wrapping_mul(0x9E37_79B9))
}

fn timed<T>(name: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    println!("{name:>24}: {:>12.1} us", start.elapsed().as_secs_f64() * 1e6);
    result
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: u32 = arguments.next().map_or(Ok(1_000_000), |count| count.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("measure-{}.cache", std::process::id()));
    let file = CacheFile::new(Arc::new(RealDisk), path).version("v1");
    let keys: Vec<String> = (0..count).map(key).collect();

    let start = Instant::now();
    let mut writer = file.write(WriteOptions::new(0))?;
    timed("push all", || {
        keys.iter().zip(0u32..).try_for_each(|(key, i)| {
            let deadline = (i % 2 == 0).then_some(u64::from(i) * 1_000_003 % 1_000_000_007);
            writer.push(key.as_bytes(), &[i.to_le_bytes()[0]; 64], deadline).map(|_| ())
        })
    })?;
    let saved = timed("finish", || writer.finish())?;
    println!("{:>24}: {:>12.1} us, {} bytes", "save", start.elapsed().as_secs_f64() * 1e6, saved.bytes);

    let snapshot = timed("open", || file.open())?.ok_or("it was just saved")?;
    let mut scratch = Scratch::new();
    let first = keys[keys.len() / 3].as_bytes();
    timed("first find", || snapshot.find(first, &mut scratch).is_some());

    let mut random = 1u32;
    let mut times: Vec<Duration> = Vec::new();
    let start = Instant::now();
    for _ in 0..FINDS {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let key = key(u32::try_from((u64::from(random) * u64::from(count)) >> 32)?);
        let start = Instant::now();
        let found = snapshot.find(key.as_bytes(), &mut scratch).is_some();
        times.push(start.elapsed());
        assert!(found, "{key}");
    }
    let mean = start.elapsed().as_nanos() as f64 / f64::from(FINDS);
    times.sort_unstable();
    println!(
        "{:>24}: median {:?}, p99 {:?}, mean {mean:.0} ns",
        "find",
        times[times.len() / 2],
        times[times.len() / 100 * 99]
    );

    let read = timed("read all", || {
        let (mut records, mut read) = (snapshot.records(), 0u32);
        while let Some(Item::Entry(_)) = records.next() {
            read += 1;
        }
        read
    });
    assert_eq!(read, count);
    timed("copy all, unsynced", || -> Result<(), Box<dyn Error>> {
        let mut writer = file.write(WriteOptions::new(0))?;
        let mut records = snapshot.records();
        while let Some(Item::Entry(record)) = records.next() {
            writer.copy(&record)?;
        }
        Ok(())
    })?;
    timed("verify", || file.verify()).map(|report| assert!(report.is_clean(), "{report:?}"))?;
    file.clear(None)?;
    Ok(())
}
