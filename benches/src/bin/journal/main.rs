//! A cache with a journal, beside redb, fjall, `SQLite` and the cache with snapshots: what a write
//! costs, a save, an opening, a read from the disk, a synced write, and how many bytes the disk
//! writes for one inserted byte.
//!
//! `journal --save` writes the report. `--most N` limits the number of entries; 10 M entries need
//! 2 GiB of disk. `--only PART` runs a single part. `--smoke` runs everything at tiny sizes.
//!
//! # Layout
//! - [`stores`]: the contenders behind one trait, and ours; [`peers`]: the others; [`hybrid`]:
//!   foyer
//! - [`landing`], [`saving`], [`opening`], [`reading`], [`durable`], [`amplification`]: the parts

#![allow(clippy::disallowed_methods)] // measures time and reads its own files

mod amplification;
mod durable;
#[cfg(feature = "foyer")]
mod hybrid;
mod landing;
mod opening;
mod peers;
mod reading;
mod saving;
mod stores;

use async_cache_benches::Report;
use tempfile::TempDir;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    is_smoke: bool,
    most: u64,
}

impl Sizes {
    /// A number of entries, operations or rounds; in a smoke test a small one.
    pub(crate) fn of(self, full: u64, smoke: u64) -> u64 {
        if self.is_smoke { smoke } else { full }
    }

    /// A number of entries, within the limit.
    pub(crate) fn entries(self, full: u64) -> u64 {
        self.of(full.min(self.most), 2000)
    }
}

/// A part of the report, and its name for `--only`.
type Part = (&'static str, fn(&mut Report, Sizes));

const PARTS: [Part; 6] = [
    ("landing", landing::report),
    ("saving", saving::report),
    ("opening", opening::report),
    ("reading", reading::report),
    ("durable", durable::report),
    ("amplification", amplification::report),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if opening::is_another_process(&arguments) {
        return;
    }
    let after = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(at + 1).expect("a value behind the option").as_str())
    };
    let is_smoke = arguments.iter().any(|argument| argument == "--smoke");
    let most = after("--most").map_or(10_000_000, |most| most.parse().expect("a number after --most"));
    let only = after("--only").unwrap_or_default();
    let mut report = Report::new("A journal, beside peers");
    report.line(
        "Keys have 15 bytes, and values 90 bytes that do not compress, unless a table says otherwise: 128 bytes \
         a record in the journal. Every contender has its defaults, a folder of its own on the same disk, and \
         takes turns with the others. The page cache is warm.\n",
    );
    for (_, part) in PARTS.iter().filter(|(name, _)| name.contains(only)) {
        part(&mut report, Sizes { is_smoke, most });
    }
    report.finish("journal");
}

/// A folder on the disk of the project: the folder for temporary files may be in memory.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")).expect("a folder")
}
