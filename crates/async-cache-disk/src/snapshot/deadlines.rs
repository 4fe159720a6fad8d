//! Reading deadlines in order, so that expired entries can be reclaimed without reading them.

use std::fmt;

use super::opened::Snapshot;
use crate::format::page::{PAGE_BYTES, Page, page_items};

/// An entry and its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The deadline, in nanoseconds since the Unix epoch by the clock that wrote the file.
    pub deadline: u64,
    /// The rank of the entry.
    pub rank: u32,
}

/// Goes through the deadlines from the soonest on. Made by [`Snapshot::deadlines`].
pub struct Deadlines {
    snapshot: Snapshot,
    /// The number of the next deadline in the section.
    next: u32,
    page: Box<[u8; PAGE_BYTES]>,
    /// The number of the page in `page`, if a page is there. The page was verified when it was
    /// read.
    loaded: Option<u32>,
}

impl Snapshot {
    /// Reads deadlines from the soonest on.
    pub fn deadlines(&self) -> Deadlines {
        Deadlines::new(self.clone())
    }
}

impl Deadlines {
    fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, next: 0, page: Box::new([0; PAGE_BYTES]), loaded: None }
    }

    /// Returns the next entry whose deadline is at or before `until`. A call reads at most one page
    /// of 512 bytes.
    ///
    /// `None`: nothing more is due by then; or the next page is damaged, and the next call
    /// continues behind the page (and behind the hole in the file around it). The entries in a
    /// damaged page are not reclaimed in this way; their own deadlines hold as always.
    pub fn next_due(&mut self, until: u64) -> Option<Due> {
        loop {
            let Due { deadline, rank } = self.next_here(until)?;
            if let Some(rank) = self.snapshot.known_rank(rank) {
                return Some(Due { deadline, rank });
            }
        }
    }

    /// The same by the file's ranks, and of all entries of the file.
    fn next_here(&mut self, until: u64) -> Option<Due> {
        if self.next >= self.snapshot.deadline_count() {
            return None;
        }
        let page_items = page_items(self.snapshot.has_mac());
        let number = self.next.checked_div(page_items)?;
        let index = self.next.checked_rem(page_items)?;
        let item = self.item(number, index as usize);
        let entries = self.snapshot.header().entries;
        let Some((deadline, rank)) = item.filter(|(_, rank)| *rank < entries) else {
            let section = self.snapshot.header().deadline_section.offset;
            let pages = self.snapshot.deadline_count().div_ceil(page_items);
            let next = self.snapshot.skip_hole(section, number.saturating_add(1), pages);
            self.snapshot.damage_log().count_deadline_pages(u64::from(next.saturating_sub(number)));
            self.next = next.saturating_mul(page_items);
            return None;
        };
        if deadline > until {
            return None;
        }
        self.next = self.next.saturating_add(1);
        Some(Due { deadline, rank })
    }

    /// Whether every deadline was returned or lost.
    pub fn is_finished(&self) -> bool {
        self.next >= self.snapshot.deadline_count()
    }

    fn item(&mut self, number: u32, index: usize) -> Option<(u64, u32)> {
        let offset = self.snapshot.deadline_page_offset(number);
        if self.loaded == Some(number) {
            return Page::reopen(&self.page)?.due(index);
        }
        self.loaded = None;
        if !self.snapshot.read(&mut *self.page, offset) {
            return None;
        }
        let page = Page::open(self.snapshot.seal(), offset, &self.page)?;
        self.loaded = Some(number);
        page.due(index)
    }
}

impl fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadlines")
            .field("snapshot", &self.snapshot)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
