//! Suspect entries: kept in memory, and not served until they are written anew.
//!
//! A cache with a tier beyond its host hears of changes by others only while it is connected. After
//! a gap, every entry in memory may be out of date, and is *suspect*. Owns the mark of an entry
//! that tells a suspect entry from the others.
//!
//! Rules:
//! 1. A store has an era. A write of an entry notes the era in the entry. An entry of another era
//!    is suspect.
//! 2. `Store::suspect_all` begins the next era. So it takes the same short time for any number of
//!    entries.
//! 3. An entry has room for 63 eras. When the last of them ends, all entries are suspect, and are
//!    moved to an era of their own, [`Era::ANCIENT`], which never is the era of a store. So an old
//!    mark never passes for a new one. This one call in 63 visits every entry.
//!
//! The era shares a byte with the visits that the order of eviction counts. A hit reads this byte
//! anyway. If the eras are equal, the exclusive or of the byte and the era of the store is the
//! number of visits; else it is larger than any number of visits.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::order::MAX_VISITS;

/// An era of a store, in the upper six bits. The lower two are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Era(u8);

impl Era {
    /// The era of entries that are suspect in every era of a store.
    pub(crate) const ANCIENT: Self = Self(0);
    /// The era of a new store.
    pub(crate) const FIRST: Self = Self(MAX_VISITS + 1);

    /// The era after this one. `None`: this is the last.
    pub(crate) fn next(self) -> Option<Self> {
        self.0.checked_add(MAX_VISITS + 1).map(Self)
    }
}

/// The era of an entry and its visits.
///
/// The visits are written under a shared borrow of the store, the era only under an exclusive one.
/// So two visits at the same moment may count as one, and both leave the era as it is.
#[derive(Debug)]
pub(crate) struct Marks(AtomicU8);

impl Marks {
    /// The marks of an entry that was written in this era.
    pub(crate) fn unvisited(era: Era) -> Self {
        Self(AtomicU8::new(era.0))
    }

    /// The visits of an entry of this era; `None` for an entry of another era.
    #[inline]
    pub(crate) fn visits_in(&self, era: Era) -> Option<u8> {
        let visits = self.0.load(Ordering::Relaxed) ^ era.0;
        (visits <= MAX_VISITS).then_some(visits)
    }

    /// The visits of an entry of any era.
    #[inline]
    pub(crate) fn visits(&self) -> u8 {
        self.0.load(Ordering::Relaxed) & MAX_VISITS
    }

    #[inline]
    pub(crate) fn set_visits(&self, visits: u8) {
        let era = self.0.load(Ordering::Relaxed) & !MAX_VISITS;
        self.0.store(era | visits, Ordering::Relaxed);
    }

    /// Moves the entry to an era. Its visits stay. The store is borrowed exclusively.
    pub(crate) fn set_era(&self, era: Era) {
        self.0.store(era.0 | self.visits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_visits_in_its_own_era_and_in_no_other() {
        let eras: Vec<Era> = std::iter::successors(Some(Era::FIRST), |era| era.next()).collect();
        assert_eq!(eras.len(), 63);
        assert!(!eras.contains(&Era::ANCIENT));
        for &written in eras.iter().chain([&Era::ANCIENT]) {
            for visits in 0..=MAX_VISITS {
                let marks = Marks::unvisited(written);
                marks.set_visits(visits);
                assert_eq!(marks.visits(), visits);
                for &present in &eras {
                    assert_eq!(marks.visits_in(present), (present == written).then_some(visits));
                }
            }
        }
    }

    #[test]
    fn an_entry_keeps_its_visits_in_another_era() {
        let marks = Marks::unvisited(Era::FIRST);
        marks.set_visits(2);
        marks.set_era(Era::ANCIENT);
        assert_eq!((marks.visits(), marks.visits_in(Era::FIRST)), (2, None));
    }
}
