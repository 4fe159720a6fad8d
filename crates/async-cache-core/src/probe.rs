//! The snapshot's answer for one key, and whether the answer still counts.
//!
//! A key is hot or cold, never both. So every operation that inserts or removes a key must know the
//! key's rank in the opened snapshot. The snapshot is asked before the shard is locked, because
//! asking may read the file. Rules:
//! 1. an [`Epoch`] names the snapshot that is open under a shard. It changes when another snapshot
//!    is opened;
//! 2. the front reads the epoch and the snapshot under one lock, asks the snapshot for the key's
//!    rank without a lock, and makes a [`Probed`] of the epoch and the rank;
//! 3. the shard makes an address of a key only from a `Probed` ([`Shard::address`],
//!    [`Shard::admit`]), and refuses a `Probed` of another epoch as [`Stale`]. If no snapshot is
//!    open, every `Probed` counts, and the rank in it is ignored: it belongs to a snapshot that was
//!    closed.
//!
//! [`Shard::address`]: crate::shard::Shard::address
//! [`Shard::admit`]: crate::shard::Shard::admit

use crate::cold::Rank;

/// Names the snapshot that is open under a shard, from
/// [`Shard::epoch`](crate::shard::Shard::epoch).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch after this one: another snapshot was opened.
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The snapshot of this epoch was asked for a key: `rank` is the rank of its record, cold or
    /// not, `None` if the snapshot has no record of the key. If no snapshot is open, the rank is
    /// `None`.
    pub const fn answered(self, rank: Option<Rank>) -> Probed {
        Probed { epoch: self, rank }
    }
}

/// The snapshot's answer for one key, obtained before the shard is locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    epoch: Epoch,
    rank: Option<Rank>,
}

impl Probed {
    /// The rank of the key's record in the snapshot that was asked.
    pub const fn rank(self) -> Option<Rank> {
        self.rank
    }

    pub(crate) fn is_of(self, epoch: Epoch) -> bool {
        self.epoch == epoch
    }
}

/// Another snapshot was opened since the probe: probe again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "probe again"]
pub struct Stale;
