//! The command line. The texts here are the manual; `docs/cli.md` shows the output.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::open::{Access, InspectedFile};

#[derive(Debug, Parser)]
#[command(
    name = "async-cache",
    version,
    term_width = 100,
    about = "Looks into cache files of async-cache, checks, repairs, exports and compares them.",
    after_help = "Exit codes: 0 all is well; 1 a finding: damage, a difference, no such key; 2 it could not be done.\n\
                  Nothing in a file is ever run, and a file that is only looked at is not changed.",
    after_long_help = "Examples:\n  \
        async-cache inspect pages.cache\n  \
        async-cache ls pages.cache --match 'user:*' --expiring-within 1h\n  \
        async-cache get pages.cache user:7 | jq .name\n  \
        async-cache verify pages.cache || async-cache repair pages.cache intact.cache\n  \
        async-cache export pages.cache | jq -c 'select(.value.draft != true)' | async-cache import clean.cache\n  \
        async-cache diff yesterday.cache pages.cache\n\n\
        Exit codes: 0 all is well; 1 a finding: damage, a difference, no such key; 2 it could not be done.\n\
        Nothing in a file is ever run, and a file that is only looked at is not changed."
)]
pub(crate) struct Args {
    /// Write JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The reader of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    People,
    Programs,
}

impl Args {
    pub(crate) fn audience(&self) -> Audience {
        if self.json { Audience::Programs } else { Audience::People }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what a file is: entries, sizes, ages, times to live, the largest entries
    #[command(
        after_help = "The counts, sizes and times come from the header, the index and the pages of deadlines, so \
        they are exact and quick. The contents of keys and values come from a sample, or with --full from every entry."
    )]
    Inspect(Inspect),
    /// List entries, coldest first
    #[command(after_help = "Examples:\n  async-cache ls pages.cache --match 'user:*'\n  \
        async-cache ls pages.cache --min-bytes 100000 --limit 20\n  \
        async-cache ls pages.cache --expiring-within 10m --json")]
    Ls(Ls),
    /// Print the value of a key as JSON
    #[command(after_help = "Examples:\n  async-cache get pages.cache user:7\n  \
        async-cache get pages.cache '[\"user\", 7]'\n  \
        async-cache get pages.cache 7 --key-as json\n\n\
        What JSON has no form for is an object with one name that begins with $, such as {\"$tuple\": [1, 2]}; \
        docs/cli.md lists them. Pickles are described and not run.")]
    Get(Get),
    /// Read all of a file and list everything wrong with it
    #[command(
        after_help = "Exit codes: 0 nothing is wrong; 1 damage was found; 2 the file could not be read at all."
    )]
    Verify(Verify),
    /// Write the intact entries of a damaged file to a new file, even if the end of the file is
    /// missing
    Repair(Repair),
    /// Write all entries as lines of JSON, from which `import` makes the same entries
    #[command(after_help = "Example:\n  async-cache export pages.cache | gzip > pages.jsonl.gz")]
    Export(Export),
    /// Make a cache file of lines of JSON on standard input
    #[command(after_help = "Example:\n  zcat pages.jsonl.gz | async-cache import pages.cache")]
    Import(Import),
    /// Write a file anew without expired entries and records that were taken back
    #[command(
        after_help = "Without OUT the file itself is replaced, atomically. Meanwhile the saves of services wait. \
        Merging saves keep their entries; entries saved with merging switched off (merge=False) are lost.\n\
        A store is folded into its file; no process may have the store open."
    )]
    Compact(Compact),
    /// Say how the entries of two files differ
    Diff(Diff),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  async-cache completions bash > ~/.local/share/bash-completion/completions/async-cache"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) source: InspectedFile,
    /// Read every entry, not a sample
    #[arg(long)]
    pub(crate) full: bool,
    /// How many of the largest entries to name
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub(crate) largest: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) source: InspectedFile,
    /// Only keys that match: * any characters, ? one character, [a-z] one of a set; the key as
    /// displayed
    #[arg(long = "match", value_name = "PATTERN", value_parser = pattern)]
    pub(crate) pattern: Option<glob::Pattern>,
    /// Only keys that begin with this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,
    /// Only entries whose value has at least this many bytes
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) min_bytes: u64,
    /// Only entries that expire within this time, for example 90s, 10m, 2h30m, 7days; also expired
    /// ones
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) expiring_within: Option<Duration>,
    /// List at most this many entries
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) source: InspectedFile,
    /// The key, as text or as JSON
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// The form of KEY; by default text, or JSON if there is no such text key
    #[arg(long, value_name = "FORM", value_enum, default_value_t = KeyForm::Auto)]
    pub(crate) key_as: KeyForm,
    /// Run a pickled value and print the repr of the result. Only for files that you trust like
    /// code; only in the tool of the Python package
    #[arg(long)]
    pub(crate) allow_pickle: bool,
}

/// The form in which a key is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyForm {
    /// Text; JSON if there is no such text key
    Auto,
    /// Text
    Text,
    /// JSON
    Json,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) source: InspectedFile,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Repair {
    #[command(flatten)]
    pub(crate) source: InspectedFile,
    /// The new file. It must not exist
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) source: InspectedFile,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// The new file. It must not exist
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// The version tag of the data, instead of the one in the export
    #[arg(long, value_name = "TAG")]
    pub(crate) data_version: Option<String>,
    /// Compress the values
    #[arg(long, value_name = "METHOD", value_enum)]
    pub(crate) compression: Option<ImportCompression>,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// How values can be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportCompression {
    /// Zstandard, with a dictionary if worthwhile
    Zstd,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Compact {
    #[command(flatten)]
    pub(crate) source: InspectedFile,
    /// Write to this file instead. It must not exist
    #[arg(value_name = "OUT")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// The older file
    #[arg(value_name = "A")]
    pub(crate) old: PathBuf,
    /// The newer file
    #[arg(value_name = "B")]
    pub(crate) new: PathBuf,
    #[command(flatten)]
    pub(crate) access: Access,
    /// The version tag of the data, if there is data of several versions
    #[arg(long, value_name = "TAG")]
    pub(crate) data_version: Option<String>,
    /// Compare keys and values only
    #[arg(long)]
    pub(crate) ignore_deadlines: bool,
    /// Name at most this many differences; all are counted
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
}

fn pattern(text: &str) -> Result<glob::Pattern, String> {
    glob::Pattern::new(text).map_err(|error| error.to_string())
}
