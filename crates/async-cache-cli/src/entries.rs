//! All entries of a file, one after another: first the entries in the index, coldest first, then
//! the eager entries.

use std::ops::ControlFlow;

use async_cache_disk::{Item, Loss, Record, Snapshot, Source};

use crate::environment::Progress;
use crate::failure::Failure;
use crate::human;
use crate::progress::Bar;

/// Whether the deadline of an entry has passed.
pub(crate) fn is_expired(entry: &Record<'_>, now: u64) -> bool {
    entry.deadline.is_some_and(|deadline| deadline <= now)
}

/// The data that could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Damaged entries in the index.
    pub(crate) entries: u64,
    /// Bytes of damaged records whose number is unknown: eager records, and in a repair all
    /// records.
    pub(crate) bytes: u64,
}

impl Lost {
    /// A sentence, or `None` if nothing is lost.
    pub(crate) fn sentence(self) -> Option<String> {
        let entries = (self.entries > 0)
            .then(|| human::things(self.entries, "entry is damaged", "entries are damaged"));
        let eager =
            (self.bytes > 0).then(|| format!("{} of eager records are damaged", human::bytes(self.bytes)));
        let parts: Vec<String> = entries.into_iter().chain(eager).collect();
        (!parts.is_empty()).then(|| format!("{}; `async-cache verify` says where", parts.join(", and ")))
    }
}

/// Visits all readable entries, until the last entry or until the visitor stops.
pub(crate) fn each(
    snapshot: &Snapshot,
    progress: Progress,
    doing: &'static str,
    mut visit: impl FnMut(Record<'_>) -> Result<ControlFlow<()>, Failure>,
) -> Result<Lost, Failure> {
    let mut lost = Lost::default();
    let mut bar = Bar::new(progress, doing, snapshot.len().into());
    if walk(&mut snapshot.records(), &mut bar, &mut lost, &mut visit)?.is_continue() {
        let _stopped = walk(&mut snapshot.eager(), &mut bar, &mut lost, &mut visit)?;
    }
    Ok(lost)
}

/// Visits all entries of a source, and counts its losses.
pub(crate) fn each_of(
    source: &mut impl Source,
    bar: &mut Bar,
    lost: &mut Lost,
    mut visit: impl FnMut(Record<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    walk(source, bar, lost, |record| visit(record).map(ControlFlow::Continue)).map(drop)
}

/// [`each_of`], until the visitor stops.
fn walk(
    source: &mut impl Source,
    bar: &mut Bar,
    lost: &mut Lost,
    mut visit: impl FnMut(Record<'_>) -> Result<ControlFlow<()>, Failure>,
) -> Result<ControlFlow<()>, Failure> {
    while let Some(item) = source.next() {
        bar.step();
        match item {
            Item::Entry(record) => {
                if visit(record)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Item::Lost(Loss::Entry { .. }) => lost.entries += 1 + u64::from(source.skip_lost()),
            Item::Lost(Loss::Bytes { bytes, .. }) => lost.bytes += bytes,
        }
    }
    Ok(ControlFlow::Continue(()))
}
