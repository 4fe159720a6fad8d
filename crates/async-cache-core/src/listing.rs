//! Listing the entries of a cache in pieces, while it goes on being used.
//!
//! Owns the cursor of a listing and its rules. A front that must not hold the cache for as long as a walk
//! over all entries takes says [`Shard::begin_listing`], then [`Shard::list_some`] until it is done, with
//! hits and writes in between, then [`keep_last`] without the cache. What it has then is what
//! [`Shard::coldest_first`] would have said at the last piece, and besides tickets of entries that left,
//! which are redeemed for nothing. Only what was restored from a backup meanwhile, as the coldest, may be
//! missing.
//!
//! For [`Eviction::Lru`] it works like this:
//! 1. The cursor is at the entry that was listed last, or before the first one. What is behind the cursor was
//!    not listed since it got there; what is before it was listed, or restored meanwhile.
//! 2. An entry that is used leaves its place and goes to the end, as always. So it is behind the cursor, and
//!    listed again if it was listed before: its last place in the list is the one that counts.
//! 3. When the entry at the cursor leaves its place, the cursor goes back to the one before it. That is all
//!    that a hit pays: one comparison.
//! 4. A listing is done when nothing is behind the cursor. Callers that use entries faster than they are
//!    listed would keep it from that, so after twice as many steps as there were entries when it began, the
//!    rest comes in one piece.
//!
//! [`Eviction::Adaptive`] is listed in one piece, whatever was asked for: a hit under a shared borrow moves
//! no entry, so that there is no telling which ones were used meanwhile.
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

/// Makes the list of what a listing in pieces appended: each slot once, at its last place. It needs no cache,
/// and so no lock.
pub fn keep_last(mut tickets: Vec<Ticket>) -> Vec<Ticket> {
    // By slot rather than by ticket: of two entries in one slot the earlier one has left.
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
    /// The entry that was listed last; [`NONE`] before the first one, and if no listing runs.
    at: u32,
    /// Steps until the rest is listed in one go; `None` if no listing runs.
    steps: Option<u64>,
}

impl Cursor {
    /// No listing runs.
    pub(crate) const IDLE: Self = Self { at: NONE, steps: None };

    /// Begins a listing of a queue of this length.
    pub(crate) fn begin(&mut self, len: u64) {
        *self = Self { at: NONE, steps: Some(2 * len) };
    }

    /// Ends the listing; whether one ran.
    pub(crate) fn end(&mut self) -> bool {
        std::mem::replace(self, Self::IDLE).steps.is_some()
    }

    pub(crate) fn at(&self) -> u32 {
        self.at
    }

    /// Says `each` of the next `n` entries (at least one, so that every piece gets on), or of all that are
    /// left; see rule 4.
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
