//! A save after one entry in a hundred has changed.

use std::time::Instant;

use async_cache_benches::{Report, digits, median};

use crate::stores::{Kind, key, value};
use crate::{Sizes, folder};

const CONTENDERS: [Kind; 5] = [Kind::Journal, Kind::Snapshot, Kind::Redb, Kind::Fjall, Kind::SqliteFull];

pub(crate) fn report(report: &mut Report, sizes: Sizes) {
    let entries = sizes.entries(1_000_000);
    let count = entries / 100;
    let rounds = sizes.of(7, 1);
    let mut rows = Vec::new();
    // One after the other: each is in memory as a whole.
    for kind in CONTENDERS {
        let folder = folder();
        let store = kind.open(folder.path());
        store.fill(&mut (0..entries).map(|id| (key(id), value(id, 90))));
        store.sync();
        let mut random = fastrand::Rng::with_seed(1);
        let (mut writes, mut saves) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let changed = (0..count).map(|_| random.u64(..entries));
            let changed: Vec<_> = changed.map(|id| (key(id), value(id + round, 90))).collect();
            let started = Instant::now();
            let mut written = started;
            if store.owns() {
                changed.into_iter().for_each(|(key, value)| store.put_owned(key, value));
                written = Instant::now();
                store.sync();
            } else {
                store.change(changed);
            }
            writes.push((written - started).as_secs_f64() * 1e3);
            saves.push(written.elapsed().as_secs_f64() * 1e3);
        }
        store.close();
        rows.push((kind, median(writes), median(saves)));
    }
    report.line(&format!("## A save after {count} of {entries} entries have changed\n"));
    report.line(&format!(
        "Medians of {rounds}, in ms; ratio of the sums to the first. The peers write the changes in one durable \
         transaction or batch. A cache with a journal writes each change in its `set`, and syncs in the save.\n"
    ));
    report.line("| contender | the changes | the save | both | ratio |\n|---|---:|---:|---:|---:|");
    let first = rows[0].1 + rows[0].2;
    for (kind, write, save) in rows {
        let (both, writes) = (write + save, if write > 0.0 { digits(write) } else { "in the save".into() });
        let ratio = both / first;
        report.line(&format!(
            "| {} | {writes} | {} | {} | {ratio:.2} |",
            kind.title(),
            digits(save),
            digits(both)
        ));
    }
    report.line("");
}
