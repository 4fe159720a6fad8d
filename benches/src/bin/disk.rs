//! Save, open, first get and read-all of caches of 1 k to 10 M small records, beside bitcode
//! (dumping the whole map) and redb (a database on disk) at 1 M. As after a restart, opening is
//! measured in a new process.
//!
//! `disk --save` writes the report; `--most N` leaves out sizes above N. 10 M entries need 8 GiB of
//! memory and 4 GiB of disk.

#![allow(clippy::disallowed_methods)] // measures time and reads its own files

use std::collections::HashMap;
use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use async_cache::{AsyncCache, DiskBackend};
use async_cache_benches::{Report, digits, median, resident_bytes};
use redb::{ReadableDatabase as _, TableDefinition};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, bitcode::Encode, bitcode::Decode)]
struct Record {
    id: u64,
    name: String,
    score: f64,
    tags: Vec<String>,
}

fn key(id: u64) -> String {
    format!("user:{id}")
}

fn record(id: u64) -> Record {
    let tags = vec![format!("tag{}", id % 17), "common".to_owned()];
    Record { id, name: format!("name of {id}"), score: id as f64 / 7.0, tags }
}

type Cache = AsyncCache<String, Record>;

fn open(path: &Path) -> Cache {
    AsyncCache::builder().backup(DiskBackend::new(path)).build().expect("the path is a file")
}

/// The measurements of a fresh process; one line of numbers on its standard output.
struct Restart {
    open: f64,
    first_get: f64,
    resident_mib: f64,
    get_median: f64,
    get_p99: f64,
    read_all: f64,
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// In a new process: opens, gets, reads all.
fn restart(path: &Path, entries: u64) {
    let before = resident_bytes();
    let mut random = fastrand::Rng::new();
    let first = key(random.u64(..entries));
    let started = Instant::now();
    let cache = open(path);
    let open_took = started.elapsed();
    let resident = resident_bytes().saturating_sub(before);
    let value = cache.get(first.as_str());
    let first_took = started.elapsed();
    assert!(value.is_some(), "the file has the key");
    let count = entries.min(20_000);
    let names: Vec<String> = (0..count).map(|_| key(random.u64(..entries))).collect();
    let mut gets: Vec<f64> = names
        .iter()
        .map(|name| {
            let started = Instant::now();
            black_box(cache.get(name.as_str()));
            started.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    drop(cache);
    let cache = open(path);
    let started = Instant::now();
    for id in 0..entries {
        assert_eq!(black_box(cache.get(key(id).as_str())).expect("every key is there").id, id);
    }
    let read_all = started.elapsed().as_secs_f64();
    gets.sort_by(f64::total_cmp);
    let (p50, p99) = (gets[gets.len() / 2], gets[gets.len() * 99 / 100]);
    let resident = resident as f64 / f64::from(1 << 20);
    println!("{} {} {resident} {p50} {p99} {read_all}", micros(open_took), micros(first_took));
}

fn restarted(path: &Path, entries: u64, rounds: usize) -> Restart {
    let program = std::env::current_exe().expect("this program");
    let runs: Vec<Vec<f64>> = (0..rounds)
        .map(|_| {
            let output = Command::new(&program).arg("--restart").arg(path).arg(entries.to_string()).output();
            let output = output.expect("this program starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let line = String::from_utf8(output.stdout).expect("numbers");
            line.split_whitespace().map(|number| number.parse().expect("a number")).collect()
        })
        .collect();
    let column = |at: usize| median(runs.iter().map(|run| run[at]).collect());
    Restart {
        open: column(0),
        first_get: column(1),
        resident_mib: column(2),
        get_median: column(3),
        get_p99: column(4),
        read_all: column(5),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, path, entries] = &arguments[..]
        && command == "--restart"
    {
        return restart(Path::new(path), entries.parse().expect("a number"));
    }
    let most = arguments.iter().position(|argument| argument == "--most");
    let most: u64 = most.map_or(10_000_000, |at| arguments[at + 1].parse().expect("a number after --most"));
    let folder = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")).expect("a folder");
    let mut report = Report::new("On disk");
    report.line("Records are `{id, name, score, tags}` under keys like `user:123`; warm page cache.\n");
    report.line("| entries | save, synced (ms) | file (MiB) | open (µs) | open and first get (µs) | resident at open (MiB) | cold get, median / p99 (µs) | get all, promoting (s) |");
    report.line("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for entries in [1_000, 100_000, 1_000_000, 10_000_000].into_iter().filter(|&entries| entries <= most) {
        let path = folder.path().join(format!("{entries}.cache"));
        let rounds = if entries > 1_000_000 { 2 } else { 5 };
        let (save, bytes) = {
            let cache = open(&path);
            (0..entries).for_each(|id| cache.set(key(id), record(id)));
            let saves = (0..rounds).map(|_| {
                let started = Instant::now();
                let saved = cache.save_to_backup().expect("there is room");
                (started.elapsed().as_secs_f64() * 1e3, saved.bytes)
            });
            let (times, bytes): (Vec<f64>, Vec<u64>) = saves.unzip();
            (median(times), bytes[0])
        };
        let run = restarted(&path, entries, rounds);
        report.line(&format!(
            "| {entries} | {} | {} | {} | {} | {} | {} / {} | {} |",
            digits(save),
            digits(bytes as f64 / f64::from(1 << 20)),
            digits(run.open),
            digits(run.first_get),
            digits(run.resident_mib),
            digits(run.get_median),
            digits(run.get_p99),
            digits(run.read_all)
        ));
    }
    report.line("");
    peers(&mut report, folder.path(), 1_000_000.min(most));
    merging(&mut report, folder.path(), 1_000_000.min(most));
    report.finish("disk");
}

/// Peers save and open the same map, in turns with ours.
fn peers(report: &mut Report, folder: &Path, entries: u64) {
    let map: HashMap<String, Record> = (0..entries).map(|id| (key(id), record(id))).collect();
    let ours_path = folder.join("ours.cache");
    let cache = open(&ours_path);
    map.iter().for_each(|(key, record)| cache.set(key.clone(), record.clone()));

    let timed = |work: &mut dyn FnMut()| {
        let started = Instant::now();
        work();
        started.elapsed().as_secs_f64() * 1e3
    };
    let (mut bitcode_saves, mut our_saves, mut redb_saves) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        bitcode_saves.push(timed(&mut || dump(&map, &folder.join("map.bitcode"))));
        our_saves.push(timed(&mut || drop(cache.save_to_backup().expect("there is room"))));
    }
    for round in 0..2 {
        redb_saves.push(timed(&mut || fill_redb(&map, &folder.join(format!("{round}.redb")))));
    }
    report.line(&format!("## Saving {entries} records, synced\n"));
    report.line("| contender | ms | ratio |\n|---|---:|---:|");
    let base = median(bitcode_saves.clone());
    for (name, times) in [
        ("bitcode: the whole map, written and synced", bitcode_saves),
        ("async-cache: `save_to_backup`", our_saves),
        ("redb: one transaction, each value bitcode", redb_saves),
    ] {
        let time = median(times);
        report.line(&format!("| {name} | {} | {:.2} |", digits(time), time / base));
    }

    report.line(&format!("\n## Opening {entries} records, to the first value\n"));
    report.line("| contender | open and first get (µs) | cold get, median (µs) |\n|---|---:|---:|");
    drop(cache);
    let (first, get) = read_ours(&ours_path, entries);
    report.line(&format!("| async-cache | {} | {} |", digits(first), digits(get)));
    let (first, get) = read_redb(&folder.join("1.redb"), entries);
    report.line(&format!("| redb | {} | {} |", digits(first), digits(get)));
    let started = Instant::now();
    let bytes = std::fs::read(folder.join("map.bitcode")).expect("just written");
    let decoded: HashMap<String, Record> = bitcode::decode(&bytes).expect("just encoded");
    assert_eq!(decoded[&key(1)].id, 1);
    report.line(&format!("| bitcode, decoding the whole map | {} | |\n", digits(micros(started.elapsed()))));
}

/// The cost of allowing several processes to save to one path.
fn merging(report: &mut Report, folder: &Path, entries: u64) {
    let opened = |name: &str, merges: bool| -> Cache {
        let backup = DiskBackend::new(folder.join(name));
        let backup = if merges { backup } else { backup.without_merging() };
        AsyncCache::builder().backup(backup).build().expect("the path is a file")
    };
    let fill = |cache: &Cache| (0..entries).for_each(|id| cache.set(key(id), record(id)));
    let millis_to_save = |cache: &Cache| {
        let started = Instant::now();
        cache.save_to_backup().expect("there is room");
        started.elapsed().as_secs_f64() * 1e3
    };
    let (plain, alone) = (opened("plain.cache", false), opened("alone.cache", true));
    let [one, other] = [(); 2].map(|()| opened("shared.cache", true));
    for cache in [&plain, &alone, &one] {
        fill(cache);
    }
    one.save_to_backup().expect("there is room");
    fill(&other);
    let cold = opened("shared.cache", true);
    let mut times = [(); 4].map(|()| Vec::new());
    for round in 0..5 {
        times[0].push(millis_to_save(&plain));
        times[1].push(millis_to_save(&alone));
        times[2].push(millis_to_save(if round % 2 == 0 { &one } else { &other }));
        times[3].push(millis_to_save(&cold));
    }
    report.line(&format!("\n## Saving {entries} records to a path of several processes\n"));
    report.line("| save | ms | ratio |\n|---|---:|---:|");
    let base = median(times[0].clone());
    let names = [
        "`without_merging`: replaces the file",
        "merging, and nobody else has saved",
        "merging with a file of the same keys, all of ours in memory",
        "merging with a file of the same keys, all of ours cold",
    ];
    for (name, times) in names.into_iter().zip(times) {
        let time = median(times);
        report.line(&format!("| {name} | {} | {:.2} |", digits(time), time / base));
    }
    report.line("");
}

fn dump(map: &HashMap<String, Record>, path: &Path) {
    let bytes = bitcode::encode(map);
    let mut file = File::create(path).expect("the folder is there");
    file.write_all(&bytes).expect("there is room");
    file.sync_all().expect("the disk works");
}

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");

fn fill_redb(map: &HashMap<String, Record>, path: &Path) {
    let database = redb::Database::create(path).expect("the folder is there");
    let transaction = database.begin_write().expect("nobody else writes");
    {
        let mut table = transaction.open_table(TABLE).expect("a new table");
        for (key, record) in map {
            table.insert(key.as_str(), bitcode::encode(record).as_slice()).expect("there is room");
        }
    }
    transaction.commit().expect("there is room");
}

fn read_ours(path: &Path, entries: u64) -> (f64, f64) {
    let mut random = fastrand::Rng::new();
    let started = Instant::now();
    let cache = open(path);
    black_box(cache.get(key(random.u64(..entries)).as_str()).expect("every key is there"));
    let first = micros(started.elapsed());
    let gets = (0..20_000).map(|_| {
        let id = random.u64(..entries);
        let started = Instant::now();
        black_box(cache.get(key(id).as_str()).expect("every key is there"));
        micros(started.elapsed())
    });
    (first, median(gets.collect()))
}

fn read_redb(path: &Path, entries: u64) -> (f64, f64) {
    let mut random = fastrand::Rng::new();
    let started = Instant::now();
    let database = redb::Database::open(path).expect("just written");
    let transaction = database.begin_read().expect("a snapshot");
    let table = transaction.open_table(TABLE).expect("just written");
    let get = |id: u64| -> Record {
        let value = table.get(key(id).as_str()).expect("the disk works").expect("every key is there");
        bitcode::decode(value.value()).expect("just encoded")
    };
    black_box(get(random.u64(..entries)));
    let first = micros(started.elapsed());
    let gets = (0..20_000).map(|_| {
        let id = random.u64(..entries);
        let started = Instant::now();
        black_box(get(id));
        micros(started.elapsed())
    });
    (first, median(gets.collect()))
}
