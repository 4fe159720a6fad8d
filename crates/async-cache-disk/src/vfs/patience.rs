//! Reads that may or may not wait for the disk.

use std::cell::Cell;
use std::io;

use super::{MOST_INTERRUPTIONS, ReadFailure, VfsFile, read_exact_at};

/// Whether the reads of a look-up may wait for the disk, and whether a read would have waited.
#[derive(Debug)]
pub(crate) struct Patience {
    may_wait: bool,
    would_wait: Cell<bool>,
}

impl Patience {
    /// Reads wait.
    pub(crate) const fn unlimited() -> Self {
        Self { may_wait: true, would_wait: Cell::new(false) }
    }

    /// Reads fail instead of waiting, and [`would_wait`](Self::would_wait) says so.
    pub(crate) const fn none() -> Self {
        Self { may_wait: false, would_wait: Cell::new(false) }
    }

    /// Whether a read would have waited. Then nothing is known of what it was to read.
    pub(crate) fn would_wait(&self) -> bool {
        self.would_wait.get()
    }

    /// Whether a unit of this length may be read at once: a long one waits too long.
    pub(crate) fn allows(&self, bytes: usize) -> bool {
        const MOST_BYTES: usize = 1 << 20;
        let is_allowed = self.may_wait || bytes <= MOST_BYTES;
        if !is_allowed {
            self.would_wait.set(true);
        }
        is_allowed
    }

    /// As [`read_exact_at`].
    pub(crate) fn read_exact_at(
        &self,
        file: &dyn VfsFile,
        mut buffer: &mut [u8],
        mut offset: u64,
    ) -> Result<(), ReadFailure> {
        let mut interruptions = 0;
        while !self.may_wait && !buffer.is_empty() {
            match file.read_at_now(buffer, offset) {
                // The end of the file, or a kernel that returns 0 instead of an error: only a read
                // that may wait tells.
                Ok(Some(0)) => break,
                Ok(Some(count)) => {
                    buffer = buffer.get_mut(count..).unwrap_or_default();
                    offset = offset.saturating_add(count as u64);
                    interruptions = 0;
                }
                Ok(None) => {
                    self.would_wait.set(true);
                    return Err(ReadFailure::Short);
                }
                Err(error)
                    if error.kind() == io::ErrorKind::Interrupted && interruptions < MOST_INTERRUPTIONS =>
                {
                    interruptions = interruptions.saturating_add(1);
                }
                Err(error) => return Err(ReadFailure::Io(error)),
            }
        }
        read_exact_at(file, buffer, offset)
    }
}
