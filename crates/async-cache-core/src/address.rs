//! The place of a key: the result of a search, and the argument of every write.
//!
//! An operation on a key takes two steps with nothing between them: find the key, then act on the
//! result. Two types keep them apart:
//!
//! | type | made by | good for |
//! |---|---|---|
//! | [`FoundKey`] | [`Shard::locate`], or a [`Search`] | reading an entry, joining a load |
//! | [`Address`] | [`Shard::address`], [`Shard::admit`], [`Shard::address_of_flight`] | writing: the key's rank in the snapshot is known and checked |
//!
//! Both become invalid as soon as a key enters or leaves the shard; builds with debug assertions
//! check this.
//!
//! A [`Search`] is for keys whose comparison may fail, or may use the cache. The front asks the
//! shard for a candidate, releases the shard, compares, and continues:
//! 1. `Shard::search` looks for the key with a comparison that runs no user code and may miss it;
//! 2. `Shard::next_candidate` returns keys with the same hash, entries first, then running loads.
//!    The front reports an equal key with [`Search::is_equal`]. Its kind is then searched no
//!    further;
//! 3. if a key entered or left the shard since the search began, the answer is
//!    [`Candidate::Changed`], and the front begins again.
//!
//! [`Shard::locate`]: crate::shard::Shard::locate
//! [`Shard::address`]: crate::shard::Shard::address
//! [`Shard::admit`]: crate::shard::Shard::admit
//! [`Shard::address_of_flight`]: crate::shard::Shard::address_of_flight

use crate::cold::Rank;
use crate::flight::FlightId;
use crate::store::SlotId;

/// Where a key is in memory and among the running loads.
#[derive(Clone, Copy, Debug)]
pub struct FoundKey {
    pub(crate) hash: u64,
    pub(crate) slot: Option<SlotId>,
    pub(crate) flight: Option<FlightId>,
    /// The shard's version when the key was looked for.
    #[cfg(debug_assertions)]
    pub(crate) version: u64,
}

impl FoundKey {
    /// The key's hash.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The key's entry, expired or not.
    pub const fn slot(&self) -> Option<SlotId> {
        self.slot
    }

    /// The key's open flight.
    pub const fn flight(&self) -> Option<FlightId> {
        self.flight
    }
}

/// Where a key may be written: a [`FoundKey`] whose rank in the opened snapshot was checked.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub(crate) found: FoundKey,
    /// The rank of the key's record in the open snapshot.
    pub(crate) rank: Option<Rank>,
}

impl Address {
    /// The key's hash.
    pub const fn hash(&self) -> u64 {
        self.found.hash
    }

    /// The key's entry, expired or not.
    pub const fn slot(&self) -> Option<SlotId> {
        self.found.slot
    }

    /// The key's open flight.
    pub const fn flight(&self) -> Option<FlightId> {
        self.found.flight
    }

    /// The rank of the key's record in the opened snapshot, cold or not.
    pub const fn rank(&self) -> Option<Rank> {
        self.rank
    }
}

/// A search for a key whose comparisons are made by the caller, with the shard released.
#[derive(Debug)]
pub struct Search {
    pub(crate) hash: u64,
    pub(crate) slot: Option<SlotId>,
    pub(crate) flight: Option<FlightId>,
    /// The shard's version when the search began.
    pub(crate) version: u64,
    /// How many entries and flights were returned as candidates.
    pub(crate) compared: [usize; 2],
    /// The candidate returned last.
    pub(crate) last: Option<CandidatePlace>,
}

/// The kind and place of a candidate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CandidatePlace {
    Slot(SlotId),
    Flight(FlightId),
}

impl Search {
    /// Reports that the candidate returned last is the key.
    pub fn is_equal(&mut self) {
        match self.last {
            Some(CandidatePlace::Slot(slot)) => self.slot = Some(slot),
            Some(CandidatePlace::Flight(flight)) => self.flight = Some(flight),
            None => {}
        }
    }
}

/// How a [`Search`] goes on.
#[derive(Debug)]
#[must_use = "the search is not over before it answers `Found`"]
pub enum Candidate<'a, K> {
    /// Compare this key. If it is equal, call [`Search::is_equal`]. Then ask for the next.
    Compare(&'a K),
    /// The search is over.
    Found(FoundKey),
    /// A key entered or left the shard: begin again.
    Changed,
}
