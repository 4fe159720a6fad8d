//! All entries of a file, one after the other: those of the index, coldest first, and then the eager ones.

use std::ops::ControlFlow;

use async_cache_disk::{EagerStep, Snapshot, Step};

use crate::failure::Failure;
use crate::host::Progress;
use crate::human;
use crate::progress::Bar;

/// An entry that was read and verified.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'e> {
    /// Its place in the order of use; `None` for eager ones.
    pub(crate) rank: Option<u32>,
    /// Nanoseconds since the Unix epoch; `None`: never.
    pub(crate) deadline: Option<u64>,
    /// When it was written, likewise, if the file says so.
    pub(crate) written_at: Option<u64>,
    pub(crate) key: &'e [u8],
    pub(crate) value: &'e [u8],
}

impl Entry<'_> {
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// What could not be served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Entries of the index.
    pub(crate) entries: u64,
    /// Bytes of eager records; how many entries that is nobody knows.
    pub(crate) eager_bytes: u64,
}

impl Lost {
    /// A sentence, if there is something to say.
    pub(crate) fn sentence(self) -> Option<String> {
        let entries = (self.entries > 0)
            .then(|| human::things(self.entries, "entry is damaged", "entries are damaged"));
        let eager = (self.eager_bytes > 0)
            .then(|| format!("{} of eager records are damaged", human::bytes(self.eager_bytes)));
        let parts: Vec<String> = entries.into_iter().chain(eager).collect();
        (!parts.is_empty()).then(|| format!("{}; `async-cache verify` says where", parts.join(", and ")))
    }
}

/// Goes through all entries that can be served, until there are no more or the visitor has enough.
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
