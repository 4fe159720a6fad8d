//! How many bytes a store hands to the system for one inserted byte.

use std::time::{Duration, Instant};

use async_cache_benches::{Report, digits};

use crate::stores::{Kind, bytes_on_disk, key, value};
use crate::{Sizes, folder};

/// The keys of a workload, and how its reads are drawn.
#[derive(Clone, Copy)]
enum Traffic {
    /// Every operation replaces a random key.
    Overwrites,
    /// Reads of skewed popularity; a miss inserts the entry, as a load does.
    Loads,
}

pub(crate) fn report(report: &mut Report, sizes: Sizes) {
    let mebibytes = sizes.of((sizes.most / 60_000).clamp(1, 16), 1);
    report.line("## Bytes written for one inserted byte\n");
    report.line(&format!(
        "Bytes that the process hands to the system (`wchar` in `/proc/self/io`), over the bytes of the inserted keys \
         and values, in a steady state: a store of {mebibytes} MiB was filled before, and then takes three times as many \
         (redb and SQLite, in transactions of 1,000: a quarter). *Replacing*: random keys, all of which have room. *Loading*: reads by Zipf's law of twice as many \
         keys as the disk has room for; a miss inserts. At most {RATE} operations a second, so that a collector which \
         takes a tenth of a core can keep up.\n"
    ));
    report.line("| contender | traffic | value (bytes) | written per inserted byte | on disk (MiB) | hits |");
    report.line("|---|---|---:|---:|---:|---:|");
    let (replacing, loading) = ("replacing", "loading");
    for bytes in [90, 1000] {
        let capacity = (mebibytes << 20) / (bytes + 55);
        let rows = [
            (Kind::Limited(mebibytes), loading, Traffic::Loads, capacity * 2),
            (Kind::Limited(mebibytes), replacing, Traffic::Overwrites, capacity / 2),
            (Kind::Journal, replacing, Traffic::Overwrites, capacity / 2),
            (Kind::Fjall, replacing, Traffic::Overwrites, capacity / 2),
            (Kind::Redb, replacing, Traffic::Overwrites, capacity / 2),
            (Kind::Sqlite, replacing, Traffic::Overwrites, capacity / 2),
        ];
        for (kind, name, traffic, keys) in rows {
            // Their trees are steady from the start, and slow to fill.
            let is_tree = matches!(kind, Kind::Redb | Kind::Sqlite);
            let inserts = if is_tree { capacity / 4 } else { capacity * 3 };
            let run = run(kind, traffic, keys, inserts, bytes as usize);
            report.line(&format!(
                "| {} | {name} | {bytes} | {} | {} | {} |",
                kind.title(),
                digits(run.written),
                digits(run.on_disk_mib),
                if run.hits > 0.0 { format!("{:.3}", run.hits) } else { String::new() },
            ));
        }
    }
    report.line("");
    #[cfg(feature = "foyer")]
    crate::hybrid::amplification(report, sizes);
}

/// Reads for an insertion, at most.
const MOST_GETS: u64 = 10;

/// Operations a second.
const RATE: u32 = 200_000;

struct Run {
    written: f64,
    on_disk_mib: f64,
    hits: f64,
}

fn run(kind: Kind, traffic: Traffic, keys: u64, inserts: u64, bytes: usize) -> Run {
    let folder = folder();
    let store = kind.open(folder.path());
    if matches!(traffic, Traffic::Overwrites) {
        store.fill(&mut (0..keys).map(|id| (key(id), value(id, bytes))));
    }
    let mut random = fastrand::Rng::with_seed(1);
    // Peers without a put of their own that is cheap get their inserts in transactions.
    let in_batches = matches!(kind, Kind::Redb | Kind::Sqlite);
    let mut batch = Vec::new();
    let (mut inserted, mut hits, mut gets) = (0, 0, 0);
    let mut step = |inserts: u64, inserted: &mut u64, hits: &mut u64, gets: &mut u64| {
        let mut pace = Pace::new();
        let (mut count, mut asked) = (0, 0);
        // With room for all keys, there would be no more misses.
        while count < inserts && asked < inserts * MOST_GETS {
            pace.wait();
            let id = match traffic {
                Traffic::Overwrites => random.u64(..keys),
                Traffic::Loads => {
                    let id = zipf(&mut random, keys);
                    *gets += 1;
                    asked += 1;
                    if store.get(&key(id)).is_some() {
                        *hits += 1;
                        continue;
                    }
                    id
                }
            };
            let (key, value) = (key(id), value(id ^ count, bytes));
            *inserted += (key.len() + value.len()) as u64;
            count += 1;
            if in_batches {
                batch.push((key, value));
                if batch.len() >= 1000 {
                    store.fill(&mut std::mem::take(&mut batch).into_iter());
                }
            } else {
                store.put_owned(key, value);
            }
        }
    };
    step(inserts, &mut 0, &mut 0, &mut 0);
    let before = written_bytes();
    step(inserts, &mut inserted, &mut hits, &mut gets);
    let written = (written_bytes() - before) as f64 / inserted as f64;
    let on_disk_mib = bytes_on_disk(folder.path()).0 as f64 / f64::from(1 << 20);
    store.close();
    Run { written, on_disk_mib, hits: if gets > 0 { hits as f64 / gets as f64 } else { 0.0 } }
}

/// Keeps a loop to [`RATE`].
struct Pace {
    started: Instant,
    count: u32,
}

impl Pace {
    fn new() -> Self {
        Self { started: Instant::now(), count: 0 }
    }

    fn wait(&mut self) {
        self.count += 1;
        if self.count.is_multiple_of(200) {
            let due = Duration::from_secs(1).mul_f64(f64::from(self.count) / f64::from(RATE));
            std::thread::sleep(due.saturating_sub(self.started.elapsed()));
        }
    }
}

/// A rank by Zipf's law with the exponent 0.9, scattered over the keys.
fn zipf(random: &mut fastrand::Rng, keys: u64) -> u64 {
    const FLAT: f64 = 0.1;
    let top = (keys as f64).powf(FLAT) - 1.0;
    let rank = (random.f64() * top + 1.0).powf(1.0 / FLAT);
    (rank as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) % keys
}

/// The bytes that this process has handed to the system.
pub(crate) fn written_bytes() -> u64 {
    let counters = std::fs::read_to_string("/proc/self/io").expect("Linux");
    let line = counters.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("a line of Linux");
    line.parse().expect("a number")
}
