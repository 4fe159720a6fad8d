//! Writes the samples into `fuzz/seeds`, as first inputs of the fuzzers: `cargo run --example
//! seeds`, in this folder. The same samples give the same bytes, except for differences between
//! versions of zstd.
#![allow(clippy::disallowed_methods)] // writes files

use std::fs;
use std::path::Path;

use async_cache_fuzz::{Shape, sample, secret};

fn main() -> std::io::Result<()> {
    let shapes = [
        ("plain", Shape::Plain),
        ("tiny", Shape::Tiny),
        ("compressed", Shape::Compressed),
        ("with-dictionary", Shape::WithDictionary),
    ];
    for (name, shape) in shapes {
        write("file", name, &sample(shape, 1, None).bytes)?;
        write("sealed", name, &sample(shape, 1, Some(secret())).bytes)?;
    }
    let [theirs, ours] = [1, 2].map(|generation| sample(Shape::Tiny, generation, None).bytes);
    let theirs_bytes = u16::try_from(theirs.len()).expect("it is tiny").to_le_bytes();
    // A write and a delete in memory, then the files.
    let script = [2, 0, 0, 200, 1, 1, 150];
    write("merge", "tiny", &[&script, &theirs_bytes[..], &theirs, &ours].concat())?;
    let tombstones = sample(Shape::Plain, 1, None);
    let section = tombstones.units.iter().find(|unit| unit.start % 512 == 0 && unit.len() % 512 != 0);
    let section = &tombstones.bytes[section.expect("there are tombstones").clone()];
    let body = &section[4..];
    let len = u16::try_from(body.len()).expect("they are few").to_le_bytes();
    write("tombstones", "plain", &[&len[..], body, body].concat())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}
