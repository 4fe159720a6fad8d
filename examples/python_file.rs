//! Reads the file written by the Python quickstart, and adds an entry that Python then finds.
//!
//! ```text
//! python bindings/python/examples/quickstart.py
//! python_file                                     # or python_file FILE
//! python bindings/python/examples/quickstart.py   # reports one more entry
//! ```
//!
//! Python cached plain dicts under text; here the values are a struct and the keys `String`. The
//! two programs agree only on the names of the fields.

#![allow(clippy::print_stdout)] // a program with output

use std::path::PathBuf;

use async_cache::{AsyncCache, CacheBackend, DiskBackend, SavedEntry};
use serde::{Deserialize, Serialize};

/// Python's notes about one of its modules.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Module {
    path: String,
    functions: usize,
    classes: usize,
    lines: usize,
    /// `NAME:LINE` of every definition in the module.
    names: Vec<String>,
}

/// The default path of the quickstart's cache.
const FILE: &str = "target/quickstart-python/modules.cache";

/// The added entry: not a module of the standard library.
const OURS: &str = "examples/python_file.rs";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(FILE), PathBuf::from);
    if !file.exists() {
        return Err(format!("{} is not there: run the Python quickstart first", file.display()).into());
    }

    // A backend without a cache reads all entries at once.
    let entries: Vec<SavedEntry<String, Module>> =
        DiskBackend::new(&file).load().map_err(|error| error.to_string())?;
    let sum = |count: fn(&Module) -> usize| entries.iter().map(|entry| count(&entry.value)).sum::<usize>();
    println!(
        "{} modules that Python indexed: {} lines, {} functions, {} classes",
        entries.len(),
        sum(|module| module.lines),
        sum(|module| module.functions),
        sum(|module| module.classes)
    );

    // A cache opens the file, and reads an entry at its first use.
    let modules: AsyncCache<String, Module> =
        AsyncCache::builder().backup(DiskBackend::new(&file)).build()?;
    println!("{} entries came back, in {:.2?}", modules.len(), modules.opening().took);
    for entry in entries.iter().filter(|entry| entry.value.classes > 0).take(3) {
        let module = modules.get(&entry.key).ok_or("an entry that was in the file is not in the cache")?;
        let names = module.names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
        println!("  {}: {} lines, {names}, ...", module.path, module.lines);
    }

    let ours = Module {
        path: OURS.to_owned(),
        functions: 1,
        classes: 1,
        lines: include_str!("python_file.rs").lines().count(),
        names: vec![format!("ours:{}", line!())],
    };
    modules.set(OURS.to_owned(), ours);
    let saved = modules.save_to_backup()?;
    println!("{} entries saved, {} bytes; one of them is {OURS}", saved.entries, saved.bytes);
    Ok(())
}
