//! Opening in a new process, to the first value: closed in order, and after a kill.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use async_cache_benches::{Report, digits, median, resident_bytes};

use crate::stores::{Kind, key, value};
use crate::{Sizes, folder};

const CONTENDERS: [Kind; 5] = [Kind::Journal, Kind::Snapshot, Kind::Redb, Kind::Fjall, Kind::Sqlite];

/// Bytes of records that the killed process has written.
const TAILS: u64 = 16 << 20;
const RECORD: u64 = 128;

/// The figures of a new process.
struct Restart {
    open: f64,
    first_get: f64,
    /// Open and first get, once more in the same process.
    again: f64,
    resident_mib: f64,
}

/// Does the work of another process of this program, if the arguments say so.
pub(crate) fn is_another_process(arguments: &[String]) -> bool {
    let [_, command, kind, folder, count] = arguments else { return false };
    if !["--restart", "--killed"].contains(&command.as_str()) {
        return false;
    }
    let (kind, folder) = (Kind::named(kind), Path::new(folder));
    let count: u64 = count.parse().expect("a number");
    match command.as_str() {
        "--restart" => restart(kind, folder, count),
        "--killed" => write_and_die(kind, folder, count),
        _ => return false,
    }
    true
}

fn restart(kind: Kind, folder: &Path, id: u64) {
    let key = key(id);
    let before = resident_bytes();
    let started = Instant::now();
    let store = kind.open(folder);
    let opened = started.elapsed();
    let resident = resident_bytes().saturating_sub(before) as f64 / f64::from(1 << 20);
    let found = store.get(&key);
    let got = started.elapsed();
    assert_eq!(found, Some(90), "the store has the key");
    store.close();
    let started = Instant::now();
    let store = kind.open(folder);
    assert_eq!(store.get(&key), Some(90), "the store has the key");
    let again = started.elapsed();
    store.close();
    let [opened, got, again] = [opened, got, again].map(|time| time.as_secs_f64() * 1e6);
    println!("{opened} {got} {again} {resident}");
}

/// Writes entries and ends at once, as if killed.
fn write_and_die(kind: Kind, folder: &Path, count: u64) {
    let store = kind.open(folder);
    for id in 0..count {
        store.put(&key(id), &value(id, 90));
    }
    std::process::abort();
}

fn another_process(command: &str, kind: Kind, folder: &Path, number: u64) -> Vec<f64> {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .args([command, kind.name()])
        .arg(folder)
        .arg(number.to_string())
        .output()
        .expect("this program starts");
    let failed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), command == "--restart", "{kind:?}: {failed}");
    let line = String::from_utf8(output.stdout).expect("numbers");
    line.split_whitespace().map(|number| number.parse().expect("a number")).collect()
}

fn restarted(kind: Kind, folder: &Path, entries: u64, rounds: u64, mut before_each: impl FnMut()) -> Restart {
    let runs: Vec<Vec<f64>> = (0..rounds)
        .map(|round| {
            before_each();
            another_process("--restart", kind, folder, (entries / 2 + round * 7919) % entries)
        })
        .collect();
    let column = |at: usize| median(runs.iter().map(|run| run[at]).collect());
    Restart { open: column(0), first_get: column(1), again: column(2), resident_mib: column(3) }
}

fn filled(kind: Kind, folder: &Path, entries: u64) {
    let store = kind.open(folder);
    store.fill(&mut (0..entries).map(|id| (key(id), value(id, 90))));
    store.close();
}

pub(crate) fn report(report: &mut Report, sizes: Sizes) {
    let rounds = sizes.of(9, 1);
    let row = |report: &mut Report, kind: Kind, state: &str, run: &Restart| {
        let [open, first, again] = [run.open, run.first_get, run.again].map(digits);
        let resident = digits(run.resident_mib);
        report.line(&format!("| {} | {state} | {open} | {first} | {again} | {resident} |", kind.title()));
    };
    report.line("## Opening in a new process, to the first value\n");
    report.line(&format!(
        "Medians of {rounds} processes. Closed in order; or killed after {} MiB of records that nothing has indexed \
         yet, each time anew. In a new process, the first use of each page of the program and of the system's \
         tables costs time as well; *once more* is without them, after the store was closed in order. A cache below 64 MiB was folded into one file, a larger one keeps its segments.\n",
        TAILS >> 20
    ));
    report
        .line("| contender | state | open (µs) | open and first get (µs) | once more in the process | resident by the opening (MiB) |");
    report.line("|---|---|---:|---:|---:|---:|");
    let few = sizes.entries(400_000);
    let small = folder();
    filled(Kind::Journal, small.path(), few);
    let run = restarted(Kind::Journal, small.path(), few, rounds, || ());
    row(report, Kind::Journal, &format!("{few} entries, folded"), &run);
    let many = sizes.entries(1_000_000);
    for kind in CONTENDERS {
        let folder = folder();
        filled(kind, folder.path(), many);
        let run = restarted(kind, folder.path(), many, rounds, || ());
        row(report, kind, &format!("{many} entries, closed"), &run);
        if kind == Kind::Snapshot {
            continue; // After a kill it is as it was saved.
        }
        let tail = sizes.of(TAILS / RECORD, 100).min(many);
        let killed = || drop(another_process("--killed", kind, folder.path(), tail));
        let run = restarted(kind, folder.path(), many, sizes.of(5, 1), killed);
        row(report, kind, "the same, killed", &run);
    }
    report.line("");
}
