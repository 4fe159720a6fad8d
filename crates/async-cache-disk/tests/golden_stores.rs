//! Stores of every format version stay readable for ever.
#![allow(clippy::disallowed_methods)] // tests may read files

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use crate::sample::file;
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::{EagerWrite, StoreAnswer, StoreItem, StoreOptions, StoreScratch};
use async_cache_disk::{CacheFile, Secret, Times};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
/// The time at which the stores were read when they were written.
const NOW: u64 = 1_700_000_000_000_001_000;
const STORES: [(&str, bool); 5] = [
    ("v2-closed", false),
    ("v2-crashed", false),
    ("v2-secret", true),
    ("v2-eager", false),
    ("v2-collected", false),
];

/// A disk with a golden store: the modes of a checkout depend on its maker.
fn disk_with(name: &str, has_secret: bool) -> (FakeDisk, CacheFile) {
    let disk = FakeDisk::new();
    let base = format!("{name}.acf");
    // Collections have removed one of the bases.
    if let Ok(bytes) = std::fs::read(format!("{GOLDEN}/{base}")) {
        disk.put(&Path::new("/golden").join(&base), &bytes);
    }
    for store in std::fs::read_dir(format!("{GOLDEN}/{base}.d")).unwrap() {
        let store = store.unwrap();
        let target = Path::new("/golden").join(format!("{base}.d")).join(store.file_name());
        for file in std::fs::read_dir(store.path()).unwrap() {
            let file = file.unwrap();
            disk.put(&target.join(file.file_name()), &std::fs::read(file.path()).unwrap());
        }
    }
    let secret = has_secret.then(|| Secret::new("correct_horse_battery_staple").unwrap());
    let file = file(&disk.as_vfs(), Path::new("/golden").join(&base)).secret(secret);
    (disk, file)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = &hex.as_bytes()[1..];
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn line(what: &str, key: &[u8], value: &[u8], times: Times) -> String {
    let time = |time: Option<u64>| time.map_or("-".to_owned(), |time| time.to_string());
    format!("{what} {} {} {} {}\n", hex(key), hex(value), time(times.deadline), time(times.written_at))
}

#[test]
fn the_stores_of_format_version_2_are_readable_without_their_locks() {
    for (name, has_secret) in STORES {
        let (_disk, file) = disk_with(name, has_secret);
        let view = file.store_view(NOW).unwrap().unwrap();
        let mut found = String::new();
        let _ = view.each(|item| {
            let StoreItem::Entry(entry) = item else { panic!("{name}: {item:?}") };
            let times = Times { deadline: entry.deadline, written_at: entry.written_at };
            found += &line("entry", entry.key, entry.value, times);
            ControlFlow::Continue(())
        });
        for write in view.eager() {
            match write {
                EagerWrite::Entry { key, value, deadline, written_at, .. } => {
                    found += &line("eager", &key, &value, Times { deadline, written_at });
                }
                EagerWrite::Delete { key } => writeln!(found, "deleted {}", hex(&key)).unwrap(),
            }
        }
        let (segments, runs) = (view.segments().count(), view.runs().count());
        writeln!(found, "facts {} {segments} {runs}", view.is_clean()).unwrap();
        assert_eq!(found, std::fs::read_to_string(format!("{GOLDEN}/{name}.txt")).unwrap(), "{name}");
        let report = view.verify();
        assert!(report.is_clean(), "{name}: {report:?}");
        assert_eq!(view.has_mac(), has_secret);
    }
}

#[test]
fn the_stores_of_format_version_2_are_opened_and_folded() {
    for (name, has_secret) in STORES {
        let (_disk, file) = disk_with(name, has_secret);
        let text = std::fs::read_to_string(format!("{GOLDEN}/{name}.txt")).unwrap();
        let entries = text.lines().filter_map(|line| line.strip_prefix("entry "));
        let entries: Vec<Vec<&str>> = entries.map(|line| line.split(' ').collect()).collect();
        assert!(entries.len() > 3);
        let store = file.store(StoreOptions::default(), NOW).unwrap();
        let mut scratch = StoreScratch::new();
        for entry in &entries {
            let StoreAnswer::Entry(found) = store.find(&bytes(entry[0]), &mut scratch) else {
                panic!("{name}")
            };
            assert_eq!(found.value, bytes(entry[1]), "{name}");
        }
        store.fold_always(std::time::Duration::ZERO, NOW).unwrap();
        let folded = file.open().unwrap().unwrap();
        assert_eq!(folded.len() as usize, entries.len(), "{name}");
    }
}
