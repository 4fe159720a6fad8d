//! What the tool needs of the process it runs in.

use std::fmt;
use std::io::{BufRead, Write};

/// Runs a pickle: the bytes of a value of extension type 15, to the `repr` of what comes out, or what went wrong.
pub type Unpickle<'h> = dyn Fn(&[u8]) -> Result<String, String> + 'h;

/// What the tool needs of the process it runs in. Output may hold colours; whoever does not want them gives a stream that
/// strips them, such as [`anstream::StripStream`].
pub struct Host<'h> {
    /// Results.
    pub out: &'h mut dyn Write,
    /// Errors.
    pub err: &'h mut dyn Write,
    /// What `import` reads.
    pub input: &'h mut dyn BufRead,
    /// The time, in nanoseconds since the Unix epoch.
    pub now: u64,
    /// The secret of files, unless an option gives it.
    pub secret: Option<Vec<u8>>,
    /// Whether long work shows how far it is.
    pub progress: Progress,
    /// Runs pickles, if asked to by `--allow-pickle`; where it is `None` that cannot be asked for.
    pub unpickle: Option<&'h Unpickle<'h>>,
}

/// Whether long work shows how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// On standard error, if that is a terminal.
    OnTerminal,
    /// Never.
    Never,
}

impl fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("now", &self.now)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}
