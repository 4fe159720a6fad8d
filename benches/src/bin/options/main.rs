//! The cost of a file's options: merging, a secret, compression at three levels, and a secret with
//! compression. Measured for saving, opening, the first get, cold gets, saving again with nearly
//! all entries cold, and the size. With the feature `foyer`, beside foyer's hybrid cache. On small
//! records and on pages of HTML; all variants take turns in every round.
//!
//! `options --save` writes the report; `--smoke` only runs the benchmark.

#![allow(clippy::disallowed_methods)] // measures time

mod data;
#[cfg(feature = "foyer")]
mod hybrid;
mod ours;

use std::path::Path;
use std::time::Instant;

use async_cache::Compression;
use async_cache_benches::{Report, digits, median};
use ours::{Ours, Sharing};
use serde::{Deserialize, Serialize};

const ROUNDS: usize = 5;

/// The cached values: any type that both caches can write.
pub(crate) trait Value: Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static {}
impl<V: Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static> Value for V {}

/// One contender; a round saves the entries, opens the file, and saves again.
pub(crate) trait Contender<V> {
    fn round(&mut self, folder: &Path, entries: u64, value: &dyn Fn(u64) -> V, figures: &mut Figures);
}

/// The measurements: times in milliseconds or microseconds, and the size.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) save_millis: Vec<f64>,
    pub(crate) bytes: u64,
    pub(crate) open_micros: Vec<f64>,
    pub(crate) first_get_micros: Vec<f64>,
    pub(crate) get_micros: Vec<f64>,
    pub(crate) save_again_millis: Vec<f64>,
}

pub(crate) fn millis(since: Instant) -> f64 {
    micros(since) / 1e3
}

pub(crate) fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// The entries that are asked for several times.
pub(crate) fn asked(entries: u64) -> impl Iterator<Item = u64> {
    (0..2000.min(entries / 4)).map(|id| id * 3)
}

fn contenders<V: Value>() -> Vec<(&'static str, Box<dyn Contender<V>>)> {
    let level = |level| Compression::zstd(level).expect("there is such a level");
    let ours = |name, ours: Ours| (name, Box::new(ours) as Box<dyn Contender<V>>);
    #[allow(unused_mut)] // without the feature
    let mut contenders = vec![
        ours("none", Ours::default()),
        ours("`without_merging`", Ours { sharing: Sharing::Replaced, ..Ours::default() }),
        ours(
            "merging with another's file of the same keys",
            Ours { sharing: Sharing::Joined, ..Ours::default() },
        ),
        ours("secret", Ours { has_secret: true, ..Ours::default() }),
        ours("zstd:1", Ours { compression: level(1), ..Ours::default() }),
        ours("zstd (3)", Ours { compression: Compression::ZSTD, ..Ours::default() }),
        ours("zstd:9", Ours { compression: level(9), ..Ours::default() }),
        ours(
            "secret and zstd (3)",
            Ours { has_secret: true, compression: Compression::ZSTD, ..Ours::default() },
        ),
    ];
    #[cfg(feature = "foyer")]
    contenders.extend([
        ("foyer", Box::new(hybrid::Hybrid::plain()) as Box<dyn Contender<V>>),
        ("foyer, zstd", Box::new(hybrid::Hybrid::zstd())),
    ]);
    contenders
}

fn measure<V: Value>(
    report: &mut Report,
    title: &str,
    rounds: usize,
    entries: u64,
    value: impl Fn(u64) -> V,
) {
    let folder = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")).expect("a folder");
    let mut contenders: Vec<_> =
        contenders().into_iter().map(|(name, contender)| (name, contender, Figures::default())).collect();
    for _ in 0..rounds {
        for (_, contender, figures) in &mut contenders {
            contender.round(folder.path(), entries, &value, figures);
        }
    }
    report.line(&format!("## {entries} {title}\n"));
    report.line("| options | save, synced (ms) | of plain | on disk (MiB) | of plain | open (µs) | open and first get (µs) | cold get (µs) | save again, nearly all cold (ms) |");
    report.line("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    let (plain_millis, plain_bytes) = (median(contenders[0].2.save_millis.clone()), contenders[0].2.bytes);
    for (name, _, figures) in contenders {
        let save = median(figures.save_millis);
        report.line(&format!(
            "| {name} | {} | {:.2} | {} | {:.2} | {} | {} | {} | {} |",
            digits(save),
            save / plain_millis,
            digits(figures.bytes as f64 / f64::from(1 << 20)),
            figures.bytes as f64 / plain_bytes as f64,
            digits(median(figures.open_micros)),
            digits(median(figures.first_get_micros)),
            digits(median(figures.get_micros)),
            digits(median(figures.save_again_millis)),
        ));
    }
    report.line("");
}

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let (rounds, scale) = if smoke { (1, 100) } else { (ROUNDS, 1) };
    let mut report = Report::new("What the options of a file cost");
    report.line("Medians over the rounds, in which all contenders took turns; warm page cache. \"None\" merges, and nobody else has saved.\n");
    #[cfg(feature = "foyer")]
    report.line(hybrid::WHAT_DIFFERS);
    measure(
        &mut report,
        "small records, `{id, name, email, price, tags}`",
        rounds,
        200_000 / scale,
        data::record,
    );
    measure(&mut report, "pages of HTML of some 6 KB", rounds, 10_000 / scale, data::page);
    report.finish("options");
}
