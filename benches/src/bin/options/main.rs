//! What the options of a file cost: a secret, compression at three levels, and both, on saving, opening, the first
//! get, cold gets, saving again with everything cold, and the size. On small records and on pages of HTML; all
//! variants take turns in every round. `options --save` writes the report; `--smoke` only runs it.

#![allow(clippy::disallowed_methods)] // measures time

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use async_cache::{AsyncCache, Compression, DiskBackend, Secret};
use async_cache_benches::{Report, digits, median};
use serde::{Deserialize, Serialize};

const ROUNDS: usize = 5;

#[derive(Clone, Serialize, Deserialize)]
struct Record {
    id: u64,
    name: String,
    email: String,
    price: f64,
    tags: Vec<String>,
}

fn record(id: u64) -> Record {
    let mixed = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Record {
        id,
        name: format!("user number {id}"),
        email: format!("user.{:x}@example.com", mixed >> 40),
        price: (mixed % 100_000) as f64 / 100.0,
        tags: vec![format!("tag{}", mixed % 17), "common".to_owned(), "active".to_owned()],
    }
}

/// A page of some 8 KB: markup that repeats, text that does not.
fn page(id: u64) -> String {
    const WORDS: [&str; 24] = [
        "cache", "never", "cold", "deploy", "value", "entry", "key", "load", "price", "order", "cart",
        "summer", "winter", "blue", "green", "large", "small", "fast", "slow", "new", "old", "light",
        "heavy", "sale",
    ];
    let mut random = fastrand::Rng::with_seed(id);
    let mut page =
        format!("<!doctype html><html><head><title>Page {id}</title></head><body><ul class=\"list\">");
    for item in 0..40 {
        let text: Vec<&str> = (0..12).map(|_| WORDS[random.usize(..WORDS.len())]).collect();
        let (text, price) = (text.join(" "), random.u32(..100_000));
        page.push_str("<li class=\"item\"><a href=\"/items/");
        for part in [&*id.to_string(), "/", &item.to_string(), "\">", &text, "</a><span class=\"price\">"] {
            page.push_str(part);
        }
        page.push_str(&price.to_string());
        page.push_str("</span></li>\n");
    }
    page + "</ul></body></html>"
}

struct Variant {
    name: &'static str,
    secret: bool,
    compression: Compression,
    save: Vec<f64>,
    bytes: u64,
    open: Vec<f64>,
    first_get: Vec<f64>,
    get: Vec<f64>,
    save_cold: Vec<f64>,
}

impl Variant {
    fn new(name: &'static str, secret: bool, compression: Compression) -> Self {
        let (save, open, first_get, get, save_cold) = Default::default();
        Self { name, secret, compression, save, bytes: 0, open, first_get, get, save_cold }
    }

    fn backend(&self, path: &Path) -> DiskBackend {
        let backend = DiskBackend::new(path).compression(self.compression);
        if self.secret {
            backend.secret(Secret::new("a secret for benchmarks").expect("long enough"))
        } else {
            backend
        }
    }

    fn round<V>(&mut self, folder: &Path, entries: u64, value: impl Fn(u64) -> V)
    where
        V: Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
    {
        let micros = |started: Instant| started.elapsed().as_secs_f64() * 1e6;
        let path = folder.join("options.cache");
        let cache: AsyncCache<u64, V> =
            AsyncCache::builder().backup(self.backend(&path)).build().expect("the path is a file");
        (0..entries).for_each(|id| cache.set(id, value(id)));
        let started = Instant::now();
        self.bytes = cache.save_to_backup().expect("there is room").bytes;
        self.save.push(micros(started) / 1e3);
        drop(cache);

        let started = Instant::now();
        let cache: AsyncCache<u64, V> =
            AsyncCache::builder().backup(self.backend(&path)).build().expect("the path is a file");
        self.open.push(micros(started));
        assert!(black_box(cache.get(&(entries / 2))).is_some());
        self.first_get.push(micros(started));
        let gets = (0..2000.min(entries / 4)).map(|id| {
            let started = Instant::now();
            assert!(black_box(cache.get(&(id * 3))).is_some());
            micros(started)
        });
        self.get.push(median(gets.collect()));
        let started = Instant::now();
        cache.save_to_backup().expect("there is room");
        self.save_cold.push(micros(started) / 1e3);
        drop(cache);
        std::fs::remove_file(&path).expect("it was just written");
    }
}

fn measure<V>(report: &mut Report, title: &str, rounds: usize, entries: u64, value: impl Fn(u64) -> V)
where
    V: Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
{
    let folder = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")).expect("a folder");
    let level = |level| Compression::zstd(level).expect("there is such a level");
    let mut variants = [
        Variant::new("none", false, Compression::OFF),
        Variant::new("secret", true, Compression::OFF),
        Variant::new("zstd:1", false, level(1)),
        Variant::new("zstd (3)", false, Compression::ZSTD),
        Variant::new("zstd:9", false, level(9)),
        Variant::new("secret and zstd (3)", true, Compression::ZSTD),
    ];
    for _ in 0..rounds {
        variants.iter_mut().for_each(|variant| variant.round(folder.path(), entries, &value));
    }
    report.line(&format!("## {entries} {title}\n"));
    report.line("| options | save, synced (ms) | file (MiB) | of plain | open (µs) | open and first get (µs) | cold get (µs) | save again, nearly all cold (ms) |");
    report.line("|---|---:|---:|---:|---:|---:|---:|---:|");
    let plain = variants[0].bytes;
    for variant in variants {
        report.line(&format!(
            "| {} | {} | {} | {:.2} | {} | {} | {} | {} |",
            variant.name,
            digits(median(variant.save)),
            digits(variant.bytes as f64 / f64::from(1 << 20)),
            variant.bytes as f64 / plain as f64,
            digits(median(variant.open)),
            digits(median(variant.first_get)),
            digits(median(variant.get)),
            digits(median(variant.save_cold)),
        ));
    }
    report.line("");
}

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let (rounds, scale) = if smoke { (1, 100) } else { (ROUNDS, 1) };
    let mut report = Report::new("What the options of a file cost");
    report.line("Medians over the rounds, in which all variants took turns; warm page cache.\n");
    measure(&mut report, "small records, `{id, name, email, price, tags}`", rounds, 200_000 / scale, record);
    measure(&mut report, "pages of HTML of some 6 KB", rounds, 10_000 / scale, page);
    report.finish("options");
}
