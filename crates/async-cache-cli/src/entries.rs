//! All entries of a file, one after another: first the entries in the index, coldest first, then
//! the eager entries.

use std::ops::ControlFlow;

use async_cache_disk::{EagerStep, Snapshot, Step};

use crate::failure::Failure;
use crate::host::Progress;
use crate::human;
use crate::progress::Bar;

/// An entry that was read and verified.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'e> {
    /// The place of the entry in the order of use; `None` for eager entries.
    pub(crate) rank: Option<u32>,
    /// Nanoseconds since the Unix epoch; `None`: never.
    pub(crate) deadline: Option<u64>,
    /// The time of writing, in the same unit, if the file has it.
    pub(crate) written_at: Option<u64>,
    pub(crate) key: &'e [u8],
    pub(crate) value: &'e [u8],
}

impl Entry<'_> {
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// The data that could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Damaged entries in the index.
    pub(crate) entries: u64,
    /// Bytes of damaged eager records; the number of their entries is unknown.
    pub(crate) eager_bytes: u64,
}

impl Lost {
    /// A sentence, or `None` if nothing is lost.
    pub(crate) fn sentence(self) -> Option<String> {
        let entries = (self.entries > 0)
            .then(|| human::things(self.entries, "entry is damaged", "entries are damaged"));
        let eager = (self.eager_bytes > 0)
            .then(|| format!("{} of eager records are damaged", human::bytes(self.eager_bytes)));
        let parts: Vec<String> = entries.into_iter().chain(eager).collect();
        (!parts.is_empty()).then(|| format!("{}; `async-cache verify` says where", parts.join(", and ")))
    }
}

/// Visits all readable entries, until the last entry or until the visitor stops.
pub(crate) fn each(
    snapshot: &Snapshot,
    progress: Progress,
    doing: &'static str,
    mut visit: impl FnMut(Entry<'_>) -> Result<ControlFlow<()>, Failure>,
) -> Result<Lost, Failure> {
    let mut lost = Lost::default();
    let mut bar = Bar::new(progress, doing, snapshot.len().into());
    let mut ranked = snapshot.records();
    while let Some(step) = ranked.next_step() {
        bar.step();
        match step {
            Step::Record(it) => {
                let (rank, deadline, written_at) = (Some(it.rank), it.deadline, it.written_at);
                let entry = Entry { rank, deadline, written_at, key: it.key, value: it.value };
                if visit(entry)?.is_break() {
                    return Ok(lost);
                }
            }
            Step::Lost { .. } => lost.entries += 1 + u64::from(ranked.skip_lost()),
        }
    }
    let mut eager = snapshot.eager();
    while let Some(step) = eager.next_step() {
        match step {
            EagerStep::Record(it) => {
                let (deadline, written_at) = (it.deadline, it.written_at);
                let entry = Entry { rank: None, deadline, written_at, key: it.key, value: it.value };
                if visit(entry)?.is_break() {
                    return Ok(lost);
                }
            }
            EagerStep::Lost { bytes } => lost.eager_bytes = bytes,
        }
    }
    Ok(lost)
}
