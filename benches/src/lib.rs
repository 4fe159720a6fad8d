//! The common parts of the benchmarks: timing in rounds, medians, and a table that becomes a result
//! file.
//!
//! All contenders of one table are measured in the same process, taking turns in every round, so
//! that a slow moment of the machine affects all of them. A table shows medians over the rounds and
//! their ratio to the first contender. Absolute times are those of one machine at one moment;
//! compare the ratios.

#![allow(clippy::disallowed_methods)] // measures time and reads its own files

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// One contender: its name and its work; a run of the work returns the number of operations.
pub struct Contender<'a> {
    name: String,
    run: Box<dyn FnMut() -> u64 + 'a>,
}

impl std::fmt::Debug for Contender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contender").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Names a contender.
pub fn contender<'a>(name: &str, run: impl FnMut() -> u64 + 'a) -> Contender<'a> {
    Contender { name: name.to_owned(), run: Box::new(run) }
}

/// A report that is printed as it grows, and finally becomes a Markdown document.
#[derive(Debug, Default)]
pub struct Report(String);

impl Report {
    /// A report that begins with the subject, the date, the command, the machine and the versions.
    pub fn new(title: &str) -> Self {
        let mut report = Self::default();
        report.line(&format!("# {title}\n"));
        report.line(&format!("- date: {}", today()));
        report.line(&format!("- command: `{}`", command()));
        report.line(&format!("- machine: {}", machine()));
        report.line(&format!("- versions: {}", env!("BENCH_VERSIONS")));
        report.line("");
        report
    }

    /// Adds a line.
    pub fn line(&mut self, line: &str) {
        println!("{line}");
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// Measures contenders in turns, and adds a table of nanoseconds per operation.
    pub fn race(&mut self, title: &str, rounds: usize, contenders: &mut [Contender<'_>]) -> Vec<f64> {
        let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
        for round in 0..=rounds {
            for (contender, times) in contenders.iter_mut().zip(&mut times) {
                let started = Instant::now();
                let operations = black_box((contender.run)());
                let took = started.elapsed();
                // The first round warms up.
                if round > 0 {
                    times.push(took.as_secs_f64() * 1e9 / operations as f64);
                }
            }
        }
        let medians: Vec<f64> = times.into_iter().map(median).collect();
        self.line(&format!("## {title}\n"));
        self.line(&format!(
            "Medians over {rounds} rounds in which all contenders took turns; ratio to the first one.\n"
        ));
        self.line("| contender | ns per operation | ratio |\n|---|---:|---:|");
        for (contender, nanos) in contenders.iter().zip(&medians) {
            let name = &contender.name;
            self.line(&format!("| {name} | {} | {:.2} |", digits(*nanos), nanos / medians[0]));
        }
        self.line("");
        medians
    }

    /// Writes the report to `benches/results/<name>.md` if the program's first argument is
    /// `--save`.
    pub fn finish(self, name: &str) {
        if std::env::args().nth(1).as_deref() == Some("--save") {
            let path = format!("{}/results/{name}.md", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(&path, self.0).unwrap_or_else(|error| panic!("{path}: {error}"));
            println!("written to {path}");
        }
    }
}

/// The median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median.
pub fn median_duration(values: &[Duration]) -> Duration {
    Duration::from_secs_f64(median(values.iter().map(Duration::as_secs_f64).collect()))
}

/// Three significant digits, but no more than are known.
pub fn digits(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The command line, with the name of the program only.
fn command() -> String {
    let mut arguments = std::env::args();
    let program = std::path::PathBuf::from(arguments.next().unwrap_or_default());
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    std::iter::once(name).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model =
        model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let mut machine = model.trim_start_matches([' ', '\t', ':']).to_owned();
    let threads = std::thread::available_parallelism().map_or(0, usize::from);
    let _ = write!(machine, ", {threads} threads, {}", std::env::consts::OS);
    machine
}

/// The number of bytes of this process now in memory, as counted by the kernel; 0 if the kernel
/// does not report the count.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// The date, by UTC.
fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (mut year, mut day) = (1970, since.as_secs() / 86_400);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", day + 1)
}
