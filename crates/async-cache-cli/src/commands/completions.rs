//! `completions`: a script for a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::CommandOutcome;
use crate::args::Args;
use crate::environment::Environment;
use crate::failure::Failure;

pub(crate) fn run(shell: Shell, environment: &mut Environment<'_>) -> Result<CommandOutcome, Failure> {
    // Into memory first: the generator panics if a write fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "async-cache", &mut script);
    environment.out.write_all(&script)?;
    Ok(CommandOutcome::Fine)
}
