//! Carrying cold entries over to the file of a save: as bytes, and under the ranks that they have.
//!
//! Invariant: when the opened snapshot goes on with the new file, every entry that is cold has a record there. What has none
//! has left the cold set: it has expired, cannot be read, may not be written, or the merge left it out, since another
//! process deleted it or wrote it later.

use std::ops::RangeInclusive;

use async_cache_core::cold::Frozen;
use async_cache_core::time::FileClock;
use async_cache_disk::{DiskError, Output, Pushed, Snapshot, Step};
use pyo3::prelude::*;

use crate::codec::{self, Options};
use crate::opened::Opened;
use crate::pace::in_background;

/// What became of the cold entries of a snapshot in a save.
pub(crate) struct Carried<'o> {
    opened: &'o Opened,
    /// The ranks of what the merge left out. They leave the cold set if the save succeeds.
    left_out: Vec<u32>,
}

impl Carried<'_> {
    /// The save has succeeded: what is cold is read from its file from now on.
    pub(crate) fn go_on_with(self, successor: Option<Snapshot>) {
        for rank in self.left_out {
            self.opened.cold.take(rank);
        }
        if let Some(snapshot) = successor {
            self.opened.move_to(snapshot);
        }
    }
}

/// Copies the cold entries whose time has not passed, and reports those that could not be read or are not allowed.
pub(crate) fn carry<'o>(
    py: Python<'_>,
    output: &mut Output,
    opened: &'o Opened,
    frozen: &Frozen,
    file: FileClock,
    options: Options,
) -> PyResult<Carried<'o>> {
    let (mut lost, mut left_out) = (Lost::default(), Vec::new());
    in_background(py, || copy(output, opened, frozen, file, options, &mut lost, &mut left_out))?;
    for (ranks, why) in lost.0 {
        ranks.for_each(|rank| opened.lose(py, rank, why));
    }
    Ok(Carried { opened, left_out })
}

/// Whether a value that is copied as bytes may be written.
pub(crate) fn is_allowed(value: &[u8], options: Options) -> bool {
    options.pickle || !codec::is_pickled(value)
}

/// What could not be read, or is not allowed, and why: as ranges, for a file may count more entries than it has.
#[derive(Default)]
struct Lost(Vec<(RangeInclusive<u32>, &'static str)>);

impl Lost {
    /// Adds the rank behind all others.
    fn push(&mut self, rank: u32, why: &'static str) {
        match self.0.last_mut() {
            Some((ranks, same)) if *same == why && rank.checked_sub(1) == Some(*ranks.end()) => {
                *ranks = *ranks.start()..=rank;
            }
            _ => self.0.push((rank..=rank, why)),
        }
    }
}

#[allow(clippy::too_many_arguments)] // all that there is of cold entries and of a save
fn copy(
    output: &mut Output,
    opened: &Opened,
    frozen: &Frozen,
    file: FileClock,
    options: Options,
    lost: &mut Lost,
    left_out: &mut Vec<u32>,
) -> Result<(), DiskError> {
    let mut records = opened.snapshot().records();
    while let Some(step) = records.next_wanted(|rank| frozen.contains(rank)) {
        match step {
            Step::Lost { rank } => lost.push(rank, "its record is damaged or cannot be read"),
            Step::Record(record) if record.deadline.is_some_and(|deadline| deadline <= file.file_now()) => {
                opened.expire(record.rank);
            }
            Step::Record(record) if !is_allowed(record.value, options) => {
                lost.push(record.rank, "pickle=False refuses a pickle");
            }
            Step::Record(record) => {
                if !matches!(output.carry(&record)?, Pushed::Written) {
                    left_out.push(record.rank);
                }
            }
        }
    }
    Ok(())
}
