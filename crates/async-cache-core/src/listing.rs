//! Listing the entries of a cache in pieces, while the cache stays in use.
//!
//! Owns the cursor of a listing and its rules. A front that must not hold the cache for a whole
//! walk over all entries calls [`Shard::begin_listing`], then [`Shard::list_some`] until the
//! listing is done, with hits and writes in between, then [`keep_last`] without the cache. The
//! result equals the result of [`Shard::coldest_first`] at the last piece, with two differences: it
//! may include tickets of entries that have left, which redeem to nothing, and it may lack entries
//! that were restored from a backup meanwhile, as the coldest.
//!
//! The rules for [`Eviction::Lru`]:
//! 1. The cursor is at the entry listed last, or before the first entry. Entries behind the cursor
//!    were not listed since the cursor got there; entries before it were listed, or restored
//!    meanwhile.
//! 2. An entry that is used leaves its place and goes to the end, as always. So it is behind the
//!    cursor, and listed again if it was listed before: its last place in the list counts.
//! 3. When the entry at the cursor leaves its place, the cursor goes back to the previous entry.
//!    For a hit, the whole cost is a comparison.
//! 4. A listing is done when nothing is behind the cursor. Callers that use entries faster than
//!    they are listed would prevent this, so after twice as many steps as there were entries at the
//!    beginning, the rest comes in a single piece.
//!
//! [`Eviction::Adaptive`] is always listed in a single piece: a hit under a shared borrow moves no
//! entry, so a cursor could not tell which entries were used meanwhile.
//!
//! There is one listing at a time. Clearing the cache ends it.
//!
//! [`Shard::begin_listing`]: crate::shard::Shard::begin_listing
//! [`Shard::list_some`]: crate::shard::Shard::list_some
//! [`Shard::coldest_first`]: crate::shard::Shard::coldest_first
//! [`Eviction::Lru`]: crate::order::Eviction::Lru
//! [`Eviction::Adaptive`]: crate::order::Eviction::Adaptive

pub use crate::slab::Ticket;
use crate::slab::{Chain, Linked, List, NONE, Slab};

/// Whether a listing goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the list is whole when it is done"]
pub enum Listing {
    /// There is more.
    More,
    /// All was listed, and the listing has ended.
    Done,
}

/// Makes the list from the tickets appended by a listing in pieces: each slot once, at its last
/// place. Needs no cache, and so no lock.
pub fn keep_last(mut tickets: Vec<Ticket>) -> Vec<Ticket> {
    // By slot rather than by ticket: of two entries in the same slot, the earlier has left.
    let slots = tickets.iter().map(|ticket| ticket.slot as usize + 1).max().unwrap_or(0);
    let mut seen = vec![0_u64; slots.div_ceil(64)];
    let mut is_first = |ticket: Ticket| {
        let (word, bit) = (&mut seen[ticket.slot as usize / 64], 1 << (ticket.slot % 64));
        let is_first = *word & bit == 0;
        *word |= bit;
        is_first
    };
    let mut kept = tickets.len();
    for at in (0..tickets.len()).rev() {
        let ticket = tickets[at];
        if is_first(ticket) {
            kept -= 1;
            tickets[kept] = ticket;
        }
    }
    tickets.drain(..kept);
    tickets
}

/// Where a listing is in its queue.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// The entry listed last; [`NONE`] before the first entry, and if no listing runs.
    at: u32,
    /// Steps until the rest is listed in a single piece; `None` if no listing runs.
    steps: Option<u64>,
}

impl Cursor {
    /// No listing runs.
    pub(crate) const IDLE: Self = Self { at: NONE, steps: None };

    /// Begins a listing of a queue of this length.
    pub(crate) fn begin(&mut self, len: u64) {
        *self = Self { at: NONE, steps: Some(2 * len) };
    }

    /// Ends the listing; returns whether a listing was running.
    pub(crate) fn end(&mut self) -> bool {
        std::mem::replace(self, Self::IDLE).steps.is_some()
    }

    pub(crate) fn at(&self) -> u32 {
        self.at
    }

    /// Calls `each` for the next `n` entries (at least one, so that every piece makes progress), or
    /// for all remaining entries; see rule 4.
    pub(crate) fn advance<T: Linked>(
        &mut self,
        list: List,
        slab: &Slab<T>,
        n: usize,
        mut each: impl FnMut(u32),
    ) -> Listing {
        let Some(steps) = self.steps else { return Listing::Done };
        let n = if steps == 0 { u64::MAX } else { steps.min((n as u64).max(1)) };
        let next_of = |at| if at == NONE { list.head } else { slab[at].link(Chain::Order).next };
        let mut next = next_of(self.at);
        for _ in 0..n {
            if next == NONE {
                break;
            }
            each(next);
            self.at = next;
            next = next_of(next);
        }
        if next == NONE {
            *self = Self::IDLE;
            return Listing::Done;
        }
        self.steps = Some(steps.saturating_sub(n));
        Listing::More
    }

    /// To be told before an entry leaves its place; see rule 3.
    #[inline]
    pub(crate) fn before_unlink<T: Linked>(&mut self, slab: &Slab<T>, id: u32) {
        if id == self.at {
            self.at = slab[id].link(Chain::Order).prev;
        }
    }
}
