//! The tool `async-cache`: looks into cache files, checks, repairs, exports and compares them. `docs/cli.md` shows it.
//!
//! It is a library so that the Python package's console script can be the same program: [`run`] with the process's
//! streams, or [`run_with`] a [`Host`] of one's own, as the tests do.
//!
//! # Invariants
//!
//! - No file can make it panic or hang, and nothing in a file is ever run.
//! - A file that is looked at is not changed. What is written is written as a save is: whole, beside the target, and
//!   then renamed.
//! - What comes from a file reaches a terminal with its control characters escaped.
//! - Exit codes: 0 all is well, 1 a finding (damage, a difference, no such key), 2 it could not be done.
//!
//! # Layout
//!
//! - `args`: what may be typed; `commands`: one file each; `open`: the one place that opens a file to look at
//! - `json`: keys and values as JSON and back; `entries`: all entries of a file, one after the other
//! - `human`: sizes, times and keys for people; `chart`: histograms
//! - `host`: where output goes; `progress`: bars; `clock`: the only module that reads the time
//! - `failure`: why a command could not be carried out

mod args;
mod chart;
mod clock;
mod commands;
mod entries;
mod failure;
mod host;
mod human;
mod json;
mod open;
mod progress;

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};

use clap::{CommandFactory as _, FromArgMatches as _};

use args::{Args, Command};
use commands::Outcome;
pub use failure::Failure;
pub use host::{Host, Progress, Unpickle};
pub use json::{exact, from_json, show};

/// Runs the tool on the process's streams; answers its exit code. `args` begin with the name of the program.
/// `unpickle` is what [`Host::unpickle`] says.
pub fn run(args: impl IntoIterator<Item = OsString>, unpickle: Option<&Unpickle<'_>>) -> u8 {
    // Colours, where they are wanted: `NO_COLOR` and pipes are respected there.
    let mut out = BufWriter::new(anstream::AutoStream::auto(io::stdout()));
    let mut err = anstream::AutoStream::auto(io::stderr());
    let code = run_with(
        args,
        &mut Host {
            out: &mut out,
            err: &mut err,
            input: &mut io::stdin().lock(),
            now: clock::now(),
            secret: std::env::var_os("ASYNC_CACHE_SECRET").map(OsString::into_encoded_bytes),
            progress: Progress::OnTerminal,
            unpickle,
        },
    );
    // What is still in the buffer goes into a pipe that is broken, or `run_with` has flushed it.
    drop(out.into_parts());
    code
}

/// Runs the tool; answers its exit code. `args` begin with the name of the program.
pub fn run_with(args: impl IntoIterator<Item = OsString>, host: &mut Host<'_>) -> u8 {
    let parsed = Args::command().try_get_matches_from(args).and_then(|found| Args::from_arg_matches(&found));
    let result = match parsed {
        Ok(args) => {
            let result = dispatch(&args, host);
            result.and_then(|outcome| host.out.flush().map_err(Failure::from).map(|()| outcome))
        }
        Err(error) => {
            let stream = if error.use_stderr() { &mut host.err } else { &mut host.out };
            let text = error.render();
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            return match write!(stream, "{}", text.ansi()).and_then(|()| stream.flush()) {
                Ok(()) => code,
                Err(_) => 2,
            };
        }
    };
    match result {
        // If the pipe is broken, whoever read our output has seen enough.
        Ok(Outcome::Fine) | Err(Failure::BrokenPipe) => 0,
        Ok(Outcome::Found) => 1,
        Err(failure) => {
            let error = human::BAD;
            // Nobody is left to be told if this fails.
            let _ = writeln!(host.err, "{error}async-cache:{error:#} {failure}");
            let _ = host.err.flush();
            2
        }
    }
}

fn dispatch(args: &Args, host: &mut Host<'_>) -> Result<Outcome, Failure> {
    match &args.command {
        Command::Inspect(command) => commands::inspect::run(command, args.output(), host),
        Command::Ls(command) => commands::ls::run(command, args.output(), host),
        Command::Get(command) => commands::get::run(command, host),
        Command::Verify(command) => commands::verify::run(command, args.output(), host),
        Command::Repair(command) => commands::repair::run(command, args.output(), host),
        Command::Export(command) => commands::export::run(command, host),
        Command::Import(command) => commands::import::run(command, args.output(), host),
        Command::Compact(command) => commands::compact::run(command, args.output(), host),
        Command::Diff(command) => commands::diff::run(command, args.output(), host),
        Command::Completions { shell } => commands::completions::run(*shell, host),
    }
}
