//! The time until a write is where the contender puts it without a sync.

use std::time::Instant;

use async_cache_benches::{Report, digits, median};

use crate::stores::{Kind, Store, key, value};
use crate::{Sizes, folder};

/// Keys are drawn from so many.
const KEYS: u64 = 100_000;

/// The contenders: writes in a batch, and the data that survives a kill of the process.
const CONTENDERS: [(Kind, u64, &str); 6] = [
    (Kind::DiskStore, 1000, "all"),
    (Kind::Journal, 1000, "all"),
    (Kind::Snapshot, 1000, "until the last save"),
    (Kind::Redb, 50, "until the last sync"),
    (Kind::Fjall, 1000, "all"),
    (Kind::Sqlite, 200, "all"),
];

/// Nanoseconds per write.
#[derive(Default)]
struct Figures {
    /// Of whole batches.
    batches: Vec<f64>,
    /// Of single writes, timed one by one.
    singles: Vec<f64>,
}

pub(crate) fn report(report: &mut Report, sizes: Sizes) {
    let rounds = sizes.of(300, 2);
    let folders: Vec<_> = CONTENDERS.iter().map(|_| folder()).collect();
    let stores: Vec<Box<dyn Store>> =
        CONTENDERS.iter().zip(&folders).map(|((kind, ..), folder)| kind.open(folder.path())).collect();
    let mut figures: Vec<Figures> = CONTENDERS.iter().map(|_| Figures::default()).collect();
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..=rounds {
        for ((&(_, count, _), store), figures) in CONTENDERS.iter().zip(&stores).zip(&mut figures) {
            let mut entries = || -> Vec<(String, Vec<u8>)> {
                // Each value is another one: SQLite writes nothing if the value is the same.
                let entry = |_| (key(random.u64(..KEYS)), value(random.u64(..), 90));
                (0..sizes.of(count, 20)).map(entry).collect()
            };
            let (batch, singles) = (entries(), entries());
            let batch = of_a_batch(&**store, batch);
            let singles = one_by_one(&**store, singles);
            if round > 0 {
                figures.batches.push(batch); // The first round warms up.
                figures.singles.extend(singles);
            }
        }
    }
    report.line("## Landing a write, without a sync\n");
    report.line(&format!(
        "Random keys of {KEYS}. Median of {rounds} batches in turns, ratio to the first; and of single writes, each \
         timed. The cache and `DiskStore` sync and index every second meanwhile, in another thread, as always.\n"
    ));
    report.line(
        "| contender | ns per write | ratio | one by one: median | p99 | p99.9 | most (µs) | survives a kill |",
    );
    report.line("|---|---:|---:|---:|---:|---:|---:|---|");
    let first = median(figures[0].batches.clone());
    for ((kind, _, survives), Figures { batches, mut singles }) in CONTENDERS.into_iter().zip(figures) {
        let batch = median(batches);
        singles.sort_by(f64::total_cmp);
        let percentile = |share: f64| singles[((singles.len() - 1) as f64 * share) as usize];
        report.line(&format!(
            "| {} | {} | {:.2} | {} | {} | {} | {} | {survives} |",
            kind.title(),
            digits(batch),
            batch / first,
            digits(percentile(0.5)),
            digits(percentile(0.99)),
            digits(percentile(0.999)),
            digits(percentile(1.0) / 1e3),
        ));
    }
    report.line("");
    stores.into_iter().for_each(Store::close);
    #[cfg(feature = "foyer")]
    crate::hybrid::landing(report, sizes);
}

fn of_a_batch(store: &dyn Store, entries: Vec<(String, Vec<u8>)>) -> f64 {
    let count = entries.len();
    let started = Instant::now();
    if store.owns() {
        entries.into_iter().for_each(|(key, value)| store.put_owned(key, value));
    } else {
        entries.iter().for_each(|(key, value)| store.put(key, value));
    }
    started.elapsed().as_secs_f64() * 1e9 / count as f64
}

fn one_by_one(store: &dyn Store, entries: Vec<(String, Vec<u8>)>) -> Vec<f64> {
    let timed = |(key, value): (String, Vec<u8>)| {
        let started = Instant::now();
        if store.owns() {
            store.put_owned(key, value);
        } else {
            store.put(&key, &value);
        }
        started.elapsed().as_secs_f64() * 1e9
    };
    entries.into_iter().map(timed).collect()
}
