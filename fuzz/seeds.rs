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
    write("tombstones", "plain", &[&len[..], body, body].concat())?;
    redis()
}

/// Replies of a server, envelopes, and connections.
fn redis() -> std::io::Result<()> {
    let reply: &[u8] =
        b"*3\r\n$3\r\nabc\r\n%1\r\n+a\r\n:1\r\n|1\r\n+b\r\n_\r\n#t\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n\
        -ERR x\r\n=5\r\ntxt:y\r\n~0\r\n,1.5\r\n(1\r\n!3\r\nERR\r\n$-1\r\n";
    write("redis_reply", "types", &[b"\x03", reply].concat())?;
    // A tag that is right, a key of one byte, the kind, and the bytes behind the tag.
    let forged = |name: &str, choice: u8, key: &[u8], kind: u8, rest: &[u8]| {
        let head = [b'A', b'C', 1, kind, choice & 1];
        write("redis_envelope", name, &[&[choice], key, &head, &[0; 6], rest].concat())
    };
    forged("value", 6, b"\x07", 1, b"\x00payload")?;
    forged("pickles", 7, b"\x07", 1, b"\x01payload")?;
    forged("lease", 6, b"\x07", 2, &[1; 16])?;
    forged("stub", 7, b"\x07", 3, b"")?;
    write("redis_envelope", "entry", b"\x040000000000010:skey")?;
    write("redis_envelope", "owner", b"\x04o:0000000000000007")?;
    let told: &[u8] = b">2\r\n$10\r\ninvalidate\r\n*2\r\n$15\r\nac:{default:}:g\r\n$1\r\nx\r\n+OK\r\n";
    write("redis_link", "news", &[b"\x01\x0c", &[63 + told.len() as u8][..], told].concat())?;
    let read: &[u8] = b"*2\r\n_\r\n$1\r\nx\r\n:-2\r\n:5\r\n_\r\n:5\r\n$1\r\nx\r\n";
    write("redis_link", "read", &[b"\x01\x20\x01\x08", &[63 + read.len() as u8][..], read].concat())?;
    let hello: &[u8] = b"%1\r\n+proto\r\n:3\r\n+OK\r\n+OK\r\n+OK\r\n-ERR x\r\n";
    write("redis_link", "greeting", &[b"\x00", &[63 + hello.len() as u8][..], hello].concat())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}
