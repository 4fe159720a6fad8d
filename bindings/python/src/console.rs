//! The tool `async-cache` as the package's console script: the crate `async-cache-cli`, with the
//! ability to run pickles, which only Python can add.

use std::ffi::OsString;

use pyo3::prelude::*;

use crate::codec::{CodecOptions, decode_value};

/// Runs the tool; returns the exit code. `args` begin with the name of the program.
#[pyfunction]
pub(crate) fn run_tool(py: Python<'_>, args: Vec<OsString>) -> u8 {
    let unpickle = |bytes: &[u8]| {
        let value = decode_value(py, bytes, CodecOptions { pickle: true });
        let repr = value.and_then(|value| Ok(value.repr()?.to_string_lossy().into_owned()));
        repr.map_err(|error| error.to_string())
    };
    async_cache_cli::run(args, Some(&unpickle))
}
