//! The environment of the tool: streams, time, secret.

use std::fmt;
use std::io::{BufRead, Write};

/// Runs a pickle: takes the bytes of a value of extension type 15, returns the `repr` of the
/// result, or an error message.
pub type Unpickle<'h> = dyn Fn(&[u8]) -> Result<String, String> + 'h;

/// The environment of the tool. Output may contain colours; to avoid colours, pass a stream that
/// strips them, for example [`anstream::StripStream`].
pub struct Environment<'h> {
    /// Results.
    pub out: &'h mut dyn Write,
    /// Errors.
    pub err: &'h mut dyn Write,
    /// The input of `import`.
    pub input: &'h mut dyn BufRead,
    /// The time, in nanoseconds since the Unix epoch.
    pub now: u64,
    /// The secret of files, unless an option gives a secret.
    pub secret: Option<Vec<u8>>,
    /// Whether long work displays a progress bar.
    pub progress: Progress,
    /// Runs pickles for `--allow-pickle`; with `None` the option is not available.
    pub unpickle: Option<&'h Unpickle<'h>>,
}

/// Whether long work displays a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// On standard error, if standard error is a terminal.
    OnTerminal,
    /// Never.
    Never,
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("now", &self.now)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}
