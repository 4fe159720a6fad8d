//! A process that keeps its cache in a file shared with others, for
//! `bindings/python/tests/processes/workers`, which has the same program in Python. Executes the
//! commands on its standard input, one per line, and answers each with a line.

#![allow(clippy::print_stdout)] // a program with output

use std::io::{BufRead, Write, stdin, stdout};
use std::time::Duration;

use async_cache::{AsyncCache, DiskBackend};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut cache: AsyncCache<String, i64> = AsyncCache::builder().build()?;
    for line in stdin().lock().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["open", path] => {
                let backup = DiskBackend::new(path).lock_timeout(Duration::from_secs(100));
                cache = AsyncCache::builder().backup(backup).build()?;
            }
            ["set", key, value] => cache.set(key.to_owned(), value.parse()?),
            ["delete", key] => cache.delete(key),
            ["clear"] => cache.clear(),
            ["save"] => drop(cache.save_to_backup()?),
            _ => return Err(format!("no such command: {line}").into()),
        }
        println!("done");
        stdout().flush()?;
    }
    Ok(())
}
