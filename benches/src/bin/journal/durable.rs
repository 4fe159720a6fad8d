//! Writes that return when they are durable, from many threads at once.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use async_cache_benches::{Report, digits, median};

use crate::stores::{Kind, Store, key, value};
use crate::{Sizes, folder};

const CONTENDERS: [Kind; 4] = [Kind::Journal, Kind::Redb, Kind::Fjall, Kind::SqliteFull];

pub(crate) fn report(report: &mut Report, sizes: Sizes) {
    let lasting = Duration::from_millis(sizes.of(1000, 20));
    report.line("## Writes that are durable when they return\n");
    report.line(
        "`set`, then `flush`, by threads that each write one entry after the other. The time of a call, and the writes \
         of all threads together in a second.\n",
    );
    report.line("| contender | threads | call, median (µs) | p99 (µs) | writes a second | ratio |");
    report.line("|---|---:|---:|---:|---:|---:|");
    for threads in [1, 10, 100] {
        let mut first = None;
        for kind in CONTENDERS {
            let folder = folder();
            let store = kind.open(folder.path());
            let runs: Vec<_> = (0..sizes.of(3, 1)).map(|_| write(&*store, threads, lasting)).collect();
            store.close();
            let column = |of: fn(&Run) -> f64| median(runs.iter().map(of).collect());
            let (call, p99, rate) = (column(|run| run.call), column(|run| run.p99), column(|run| run.rate));
            let ratio = rate / *first.get_or_insert(rate);
            report.line(&format!(
                "| {} | {threads} | {} | {} | {rate:.0} | {ratio:.2} |",
                kind.title(),
                digits(call),
                digits(p99)
            ));
        }
    }
    report.line("");
}

struct Run {
    /// Microseconds.
    call: f64,
    p99: f64,
    /// Writes a second.
    rate: f64,
}

fn write(store: &dyn Store, threads: u64, lasting: Duration) -> Run {
    let barrier = Barrier::new(threads as usize);
    let work = &|thread: u64| {
        let mut calls = Vec::new();
        let mut random = fastrand::Rng::with_seed(thread);
        barrier.wait();
        let until = Instant::now() + lasting;
        while Instant::now() < until {
            let id = random.u64(..100_000);
            let (key, value) = (key(id), value(random.u64(..), 90));
            let started = Instant::now();
            store.put_durably(&key, &value);
            calls.push(started.elapsed().as_secs_f64() * 1e6);
        }
        calls
    };
    let started = Instant::now();
    let mut calls: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no thread panics")).collect()
    });
    let rate = calls.len() as f64 / started.elapsed().as_secs_f64();
    calls.sort_by(f64::total_cmp);
    Run { call: calls[calls.len() / 2], p99: calls[calls.len() * 99 / 100], rate }
}
