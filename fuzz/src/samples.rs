//! Small files with every feature that a file may have: the first inputs of fuzzers, and the
//! originals of forgers.

use std::ops::Range;
use std::path::Path;

use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{
    CacheFile, Compression, KeyKind, Secret, Times, Tombstones, WriteOptions, fuzzing,
};

const SAVED_AT: u64 = 1_700_000_000_000_000_000;

/// The secret of all files with a secret.
pub fn secret() -> Secret {
    Secret::new("correct horse battery staple").expect("it is long enough")
}

/// The content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A few entries, some of them eager, and tombstones.
    Plain,
    /// Only a few entries: a small file.
    Tiny,
    /// Values that compress alone.
    Compressed,
    /// Values that compress with a dictionary, which is stored in the file.
    WithDictionary,
}

/// An entry of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Its times.
    pub times: Times,
}

/// A file and its content.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its file id.
    pub file_id: [u8; 16],
    /// Its entries, coldest first.
    pub entries: Vec<Entry>,
    /// Its eager entries, coldest first.
    pub eager: Vec<Entry>,
    /// The deleted keys.
    pub tombstones: Tombstones,
    /// The time of the save.
    pub saved_at: u64,
    /// The positions of its units.
    pub units: Vec<Range<usize>>,
}

/// A file of a shape. Files of two generations have the same keys and different values of the same
/// length.
pub fn sample(shape: Shape, generation: u8, secret: Option<Secret>) -> Sample {
    let file_id = [generation ^ 0x5A; 16];
    let saved_at = SAVED_AT + u64::from(generation) * 1_000_000_000;
    let compression = match shape {
        Shape::Plain | Shape::Tiny => Compression::OFF,
        Shape::Compressed | Shape::WithDictionary => Compression::ZSTD,
    };
    let (disk, path) = (FakeDisk::new(), Path::new("/sample.cache"));
    let file = CacheFile::new(disk.as_vfs(), path).version("").secret(secret).compression(compression);
    let options = WriteOptions::new(saved_at).identity(file_id, [7; 16]);
    let mut writer = file.write(options).expect("the disk is sound");
    let entries = entries(shape, generation, saved_at);
    let eager = eager(shape, generation, saved_at);
    let tombstones = tombstones(shape, saved_at);
    for entry in &entries {
        writer.push(&entry.key, &entry.value, entry.times).expect("it fits");
    }
    for entry in &eager {
        writer.push_eager(&entry.key, &entry.value, entry.times).expect("it fits");
    }
    writer.set_tombstones(tombstones.clone());
    writer.finish().expect("the disk is sound");
    let report = file.verify().expect("it was saved");
    assert!(report.is_clean(), "{report:?}");
    let bytes = disk.bytes(path).expect("it was saved");
    let units = fuzzing::units(&bytes, secret.as_ref());
    Sample { bytes, file_id, entries, eager, tombstones, saved_at, units }
}

fn entries(shape: Shape, generation: u8, saved_at: u64) -> Vec<Entry> {
    let count = match shape {
        Shape::Tiny => 4,
        Shape::Plain | Shape::Compressed => 12,
        Shape::WithDictionary => 64,
    };
    let entry = |i: u64| Entry {
        key: format!("key {i:02}").into_bytes(),
        value: value(shape, generation, i),
        times: Times {
            deadline: (i % 3 == 1).then(|| saved_at + i * 7919 % 13),
            written_at: (i % 4 != 3).then(|| saved_at - 100 + i),
        },
    };
    (0..count).map(entry).collect()
}

fn eager(shape: Shape, generation: u8, saved_at: u64) -> Vec<Entry> {
    let count = if shape == Shape::Tiny { 0 } else { 3 };
    let entry = |i: u64| Entry {
        key: format!("pickled {}", i % 2).into_bytes(),
        value: value(shape, generation, 100 + i),
        times: Times { deadline: None, written_at: Some(saved_at - i) },
    };
    (0..count).map(entry).collect()
}

fn tombstones(shape: Shape, saved_at: u64) -> Tombstones {
    let mut tombstones = Tombstones::default();
    if shape != Shape::Tiny {
        tombstones.record_clear(saved_at - 1000);
        tombstones.record_unknown_delete(saved_at - 2000);
        tombstones.record_delete(KeyKind::Canonical, b"gone", saved_at - 10);
        tombstones.record_delete(KeyKind::Eager, b"pickled and gone", saved_at - 20);
    }
    tombstones
}

fn value(shape: Shape, generation: u8, i: u64) -> Vec<u8> {
    let own = format!("generation {generation:03} entry {i:03} ");
    match shape {
        Shape::Plain | Shape::Tiny => own.into_bytes(),
        Shape::Compressed => own.repeat(9).into_bytes(),
        // Noise common to all values, so that only a dictionary can contain it.
        Shape::WithDictionary => {
            let noise = (0..60u32).map(|place| format!("{:x}", place.wrapping_mul(0x9E37_79B9) >> 7));
            (own + &noise.collect::<String>()).into_bytes()
        }
    }
}
