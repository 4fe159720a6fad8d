//! The tool `async-cache`: inspects, checks, repairs, exports and compares cache files. Manual:
//! `docs/cli.md`.
//!
//! The tool is a library, so that the console script of the Python package can be the same program:
//! [`run`] uses the process's streams, [`run_with`] a given [`Environment`], as in the tests.
//!
//! # Invariants
//!
//! - No file can make the tool panic or hang, and nothing in a file is ever run.
//! - Inspecting a file does not change it. A file is written in the same way as by a save:
//!   completely, beside the target, and then renamed.
//! - Control characters from a file are escaped before they reach a terminal.
//! - Exit codes: 0 success, 1 a finding (damage, a difference, no such key), 2 failure.
//!
//! # Layout
//!
//! - `args`: the command line; `commands`: one file each; `open`: the one place that opens a file
//!   for inspection; `cache`: a file, or a store and its base
//! - `json`: keys and values as JSON and back; `entries`: all entries of a cache, one after another
//! - `human`: sizes, times and keys for people; `chart`: histograms
//! - `environment`: streams, time and secret; `progress`: bars; `clock`: the only module to read
//!   the time
//! - `failure`: the reasons why a command failed

mod args;
mod cache;
mod chart;
mod clock;
mod commands;
mod entries;
mod environment;
mod failure;
mod human;
mod json;
mod open;
mod progress;

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};

use clap::{CommandFactory as _, FromArgMatches as _};

use args::{Args, Command};
use commands::CommandOutcome;
pub use environment::{Environment, Progress, Unpickle};
pub use failure::Failure;
pub use json::{exact, from_json, show};

/// Runs the tool on the process's streams; returns the exit code. `args` begin with the name of the
/// program. For `unpickle` see [`Environment::unpickle`].
pub fn run(args: impl IntoIterator<Item = OsString>, unpickle: Option<&Unpickle<'_>>) -> u8 {
    // Colours if supported: `AutoStream` respects `NO_COLOR` and pipes.
    let mut out = BufWriter::new(anstream::AutoStream::auto(io::stdout()));
    let mut err = anstream::AutoStream::auto(io::stderr());
    let code = run_with(
        args,
        &mut Environment {
            out: &mut out,
            err: &mut err,
            input: &mut io::stdin().lock(),
            now: clock::now(),
            secret: std::env::var_os("ASYNC_CACHE_SECRET").map(OsString::into_encoded_bytes),
            progress: Progress::OnTerminal,
            unpickle,
        },
    );
    // A non-empty buffer here means a broken pipe: otherwise `run_with` has flushed the buffer.
    drop(out.into_parts());
    code
}

/// Runs the tool; returns the exit code. `args` begin with the name of the program.
pub fn run_with(args: impl IntoIterator<Item = OsString>, environment: &mut Environment<'_>) -> u8 {
    let parsed = Args::command().try_get_matches_from(args).and_then(|found| Args::from_arg_matches(&found));
    let result = match parsed {
        Ok(args) => {
            let result = dispatch(&args, environment);
            result.and_then(|outcome| environment.out.flush().map_err(Failure::from).map(|()| outcome))
        }
        Err(error) => {
            let stream = if error.use_stderr() { &mut environment.err } else { &mut environment.out };
            let text = error.render();
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            return match write!(stream, "{}", text.ansi()).and_then(|()| stream.flush()) {
                Ok(()) => code,
                Err(_) => 2,
            };
        }
    };
    match result {
        // A broken pipe means that the reader of our output has seen enough.
        Ok(CommandOutcome::Fine) | Err(Failure::BrokenPipe) => 0,
        Ok(CommandOutcome::Found) => 1,
        Err(failure) => {
            let error = human::BAD;
            // If writing the message fails, nothing else can be done.
            let _ = writeln!(environment.err, "{error}async-cache:{error:#} {failure}");
            let _ = environment.err.flush();
            2
        }
    }
}

fn dispatch(args: &Args, environment: &mut Environment<'_>) -> Result<CommandOutcome, Failure> {
    match &args.command {
        Command::Inspect(command) => commands::inspect::run(command, args.audience(), environment),
        Command::Ls(command) => commands::ls::run(command, args.audience(), environment),
        Command::Get(command) => commands::get::run(command, environment),
        Command::Verify(command) => commands::verify::run(command, args.audience(), environment),
        Command::Repair(command) => commands::repair::run(command, args.audience(), environment),
        Command::Export(command) => commands::export::run(command, environment),
        Command::Import(command) => commands::import::run(command, args.audience(), environment),
        Command::Compact(command) => commands::compact::run(command, args.audience(), environment),
        Command::Diff(command) => commands::diff::run(command, args.audience(), environment),
        Command::Completions { shell } => commands::completions::run(*shell, environment),
    }
}
