//! Reading entries that are on the disk and not in memory, and the size of their index.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use async_cache_benches::{Report, digits, median, resident_bytes};

use crate::stores::{Finder, Kind, Store, bytes_on_disk, key, value};
use crate::{Sizes, folder};

const PEERS: [Kind; 3] = [Kind::Redb, Kind::Fjall, Kind::Sqlite];
const BATCH: u64 = 1000;

/// Nanoseconds per look-up.
#[derive(Default)]
struct Figures {
    hits: Vec<f64>,
    misses: Vec<f64>,
    singles: Vec<f64>,
}

impl Figures {
    /// Looks up a batch of keys that are there, a batch of others, and a batch that is timed one by
    /// one.
    fn measure(
        &mut self,
        entries: u64,
        length: usize,
        random: &mut fastrand::Rng,
        mut get: impl FnMut(&str) -> Option<usize>,
    ) {
        let mut keys = |from: u64| -> Vec<String> {
            (0..BATCH.min(entries)).map(|_| key(from + random.u64(..entries))).collect()
        };
        let (there, absent, again) = (keys(0), keys(entries), keys(0));
        let mut timed = |keys: &[String], found: Option<usize>| {
            let started = Instant::now();
            for key in keys {
                assert_eq!(black_box(get(key)), found, "{key}");
            }
            started.elapsed().as_secs_f64() * 1e9 / keys.len() as f64
        };
        self.hits.push(timed(&there, Some(length)));
        self.misses.push(timed(&absent, None));
        self.singles.extend(again.iter().map(|key| timed(std::slice::from_ref(key), Some(length))));
    }

    fn row(self, title: &str) -> String {
        let mut singles = self.singles;
        singles.sort_by(f64::total_cmp);
        let p99 = singles[singles.len() * 99 / 100];
        let [hit, miss, p99] = [median(self.hits), median(self.misses), p99].map(|nanos| digits(nanos / 1e3));
        format!("| {title} | {hit} | {p99} | {miss} |")
    }
}

pub(crate) fn report(report: &mut Report, sizes: Sizes) {
    let mut index_rows = Vec::new();
    for entries in [1_000_000, 10_000_000] {
        let entries = sizes.entries(entries);
        let folder = folder();
        let store = Kind::Cold.open(folder.path());
        let started = Instant::now();
        store.fill(&mut (0..entries).map(|id| (key(id), value(id, 90))));
        let filled = started.elapsed().as_secs_f64();
        store.close();
        let (bytes, index) = bytes_on_disk(folder.path());
        report.line(&format!("## Reading from the disk, {entries} entries\n"));
        report.line(&format!(
            "Random keys, page cache warm, medians of batches in turns, in µs. The cache holds {} entries in memory, and \
         was filled by `set` in {} s.\n",
            crate::stores::IN_MEMORY,
            digits(filled)
        ));
        report.line("| contender | hit | hit, p99 | miss |\n|---|---:|---:|---:|");
        let resident = read_ours(report, folder.path(), entries, sizes);
        if entries <= 1_000_000 {
            read_peers(report, entries, sizes);
        }
        report.line("");
        index_rows.push((entries, bytes, index, resident));
    }
    report.line("## What the index takes\n");
    report.line(
        "After closing in order. The memory is the growth of the resident set by the opening and the look-ups.\n",
    );
    report.line("| entries | bytes on disk an entry | of these, the index | in memory (MiB) | in memory, bytes an entry |");
    report.line("|---:|---:|---:|---:|---:|");
    for (entries, bytes, index, resident) in index_rows {
        let [bytes, index, an_entry] =
            [bytes, index, resident].map(|bytes| bytes as f64 / entries as f64).map(digits);
        let resident = digits(resident as f64 / f64::from(1 << 20));
        report.line(&format!("| {entries} | {bytes} | {index} | {resident} | {an_entry} |"));
    }
    report.line("");
    #[cfg(feature = "foyer")]
    crate::hybrid::reading(report, sizes);
}

/// Returns the bytes that opening and looking up have taken.
fn read_ours(report: &mut Report, folder: &Path, entries: u64, sizes: Sizes) -> u64 {
    let rounds = sizes.of(40, 1);
    let before = resident_bytes();
    let finder = Finder::open(folder);
    let mut random = fastrand::Rng::with_seed(1);
    let mut found = Figures::default();
    // The value is found as it is encoded: with a head of two bytes.
    let mut first = Figures::default();
    first.measure(entries, 92, &mut random, |key| finder.find(key));
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(sizes.of(3000, 10)) {
        Figures::default().measure(entries, 92, &mut random, |key| finder.find(key));
    }
    for _ in 0..rounds {
        found.measure(entries, 92, &mut random, |key| finder.find(key));
    }
    let resident = resident_bytes().saturating_sub(before);
    finder.close();
    report.line(&first.row("`DiskStore::find`, first batches after the opening"));
    report.line(&found.row("`DiskStore::find`"));
    let cache = Kind::Cold.open(folder);
    let mut got = Figures::default();
    for _ in 0..rounds {
        got.measure(entries, 90, &mut random, |key| cache.get(key));
    }
    cache.close();
    report.line(&got.row("`AsyncCache::get`, with decoding and keeping in memory"));
    resident
}

fn read_peers(report: &mut Report, entries: u64, sizes: Sizes) {
    let folders = PEERS.map(|_| folder());
    let stores: Vec<Box<dyn Store>> = PEERS
        .iter()
        .zip(&folders)
        .map(|(kind, folder)| {
            let store = kind.open(folder.path());
            store.fill(&mut (0..entries).map(|id| (key(id), value(id, 90))));
            store.close();
            kind.open(folder.path())
        })
        .collect();
    let mut figures = PEERS.map(|_| Figures::default());
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..sizes.of(40, 1) {
        for (store, figures) in stores.iter().zip(&mut figures) {
            figures.measure(entries, 90, &mut random, |key| store.get(key));
        }
    }
    for (kind, figures) in PEERS.iter().zip(figures) {
        report.line(&figures.row(kind.title()));
    }
    stores.into_iter().for_each(Store::close);
}
