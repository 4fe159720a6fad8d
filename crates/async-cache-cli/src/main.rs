//! The binary `async-cache`. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(async_cache_cli::run(std::env::args_os(), None))
}
