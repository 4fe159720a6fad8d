//! Slots addressed by `u32`, doubly linked chains through them, and tickets for what is in them.
//!
//! Owns allocation of slots, the linking of chains and the names of occupants. Invariants:
//! - a slot is vacant and on the free chain, or occupied; an id stays valid until its slot is
//!   removed;
//! - storage grows by an eighth, not by doubling: with tens of bytes of bookkeeping an entry, the
//!   unused half of a doubled vector would be the largest overhead of the cache;
//! - a [`List`] holds each slot at most once, and a slot has one [`Link`] per [`Chain`].

use std::ops::{Index, IndexMut};

/// "No slot": the end of a chain.
pub(crate) const NONE: u32 = u32::MAX;

/// Names one entry from when it enters the store to when it leaves, whatever else happens to the
/// store. Serials wrap after 2^32 entries and departures; a ticket is meant to be kept for the
/// length of a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

/// Storage for values with stable `u32` ids.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<SlabSlot<T>>,
    free: u32,
    len: usize,
}

#[derive(Debug)]
enum SlabSlot<T> {
    Vacant { next_free: u32 },
    Occupied(T),
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Puts `value` into a vacant slot.
    ///
    /// # Panics
    /// At 2^32 - 1 slots, which no machine that runs this reaches before it runs out of memory.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.free != NONE {
            let id = self.free;
            let slot = &mut self.slots[id as usize];
            let SlabSlot::Vacant { next_free } = *slot else {
                unreachable!("the free chain holds vacant slots")
            };
            self.free = next_free;
            *slot = SlabSlot::Occupied(value);
            return id;
        }
        let id =
            u32::try_from(self.slots.len()).ok().filter(|&id| id != NONE).expect("fewer than 2^32 slots");
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact((self.slots.len() / 8).max(4));
        }
        self.slots.push(SlabSlot::Occupied(value));
        id
    }

    /// Empties the slot `id`, or does nothing if it is vacant.
    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let slot = self.slots.get_mut(id as usize)?;
        if matches!(slot, SlabSlot::Vacant { .. }) {
            return None;
        }
        let old = std::mem::replace(slot, SlabSlot::Vacant { next_free: self.free });
        self.free = id;
        self.len -= 1;
        match old {
            SlabSlot::Occupied(value) => Some(value),
            SlabSlot::Vacant { .. } => unreachable!("looked at above"),
        }
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        match self.slots.get(id as usize) {
            Some(SlabSlot::Occupied(value)) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        match self.slots.get_mut(id as usize) {
            Some(SlabSlot::Occupied(value)) => Some(value),
            _ => None,
        }
    }

    /// The occupied slots, by id.
    pub(crate) fn into_iter(self) -> impl Iterator<Item = T> {
        self.slots.into_iter().filter_map(|slot| match slot {
            SlabSlot::Occupied(value) => Some(value),
            SlabSlot::Vacant { .. } => None,
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0u32..).zip(&self.slots).filter_map(|(id, slot)| match slot {
            SlabSlot::Occupied(value) => Some((id, value)),
            SlabSlot::Vacant { .. } => None,
        })
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;
    #[inline]
    fn index(&self, id: u32) -> &T {
        match self.slots.get(id as usize) {
            Some(SlabSlot::Occupied(value)) => value,
            _ => not_occupied(id),
        }
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, id: u32) -> &mut T {
        match self.slots.get_mut(id as usize) {
            Some(SlabSlot::Occupied(value)) => value,
            _ => not_occupied(id),
        }
    }
}

/// Outside of the callers, which are inlined in many places.
#[cold]
#[inline(never)]
fn not_occupied(id: u32) -> ! {
    panic!("slot {id} is not occupied")
}

/// A slot's neighbours in one chain; [`NONE`] at the ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) prev: u32,
    pub(crate) next: u32,
}

impl Link {
    pub(crate) const UNLINKED: Self = Self { prev: NONE, next: NONE };
}

/// Which of a slot's links a list runs through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chain {
    /// The order in which entries are evicted.
    Order,
    /// Entries of one bucket of the timer wheel.
    Timer,
}

/// What a slot must have to be linked.
pub(crate) trait Linked {
    fn link(&self, chain: Chain) -> Link;
    fn link_mut(&mut self, chain: Chain) -> &mut Link;
}

/// A doubly linked list through the slots of a slab. It owns no slot: unlink before removing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    pub(crate) head: u32,
    pub(crate) tail: u32,
}

impl List {
    pub(crate) const EMPTY: Self = Self { head: NONE, tail: NONE };

    pub(crate) fn is_empty(self) -> bool {
        self.head == NONE
    }

    #[inline]
    pub(crate) fn push_back<T: Linked>(&mut self, slab: &mut Slab<T>, chain: Chain, id: u32) {
        *slab[id].link_mut(chain) = self.back();
        self.adopt_back(slab, chain, id);
    }

    /// The link of a slot that is pushed to the back.
    #[inline]
    pub(crate) fn back(self) -> Link {
        Link { prev: self.tail, next: NONE }
    }

    /// Pushes a slot to the back whose link is [`List::back`] already.
    #[inline]
    pub(crate) fn adopt_back<T: Linked>(&mut self, slab: &mut Slab<T>, chain: Chain, id: u32) {
        match self.tail {
            NONE => self.head = id,
            tail => slab[tail].link_mut(chain).next = id,
        }
        self.tail = id;
    }

    pub(crate) fn push_front<T: Linked>(&mut self, slab: &mut Slab<T>, chain: Chain, id: u32) {
        *slab[id].link_mut(chain) = Link { prev: NONE, next: self.head };
        match self.head {
            NONE => self.tail = id,
            head => slab[head].link_mut(chain).prev = id,
        }
        self.head = id;
    }

    #[inline]
    pub(crate) fn unlink<T: Linked>(&mut self, slab: &mut Slab<T>, chain: Chain, id: u32) {
        let link = slab[id].link(chain);
        self.bridge(slab, chain, link);
    }

    /// Links the neighbours of a slot to each other, given the slot's link, which is void then.
    #[inline]
    pub(crate) fn bridge<T: Linked>(&mut self, slab: &mut Slab<T>, chain: Chain, link: Link) {
        let Link { prev, next } = link;
        match prev {
            NONE => self.head = next,
            prev => slab[prev].link_mut(chain).next = next,
        }
        match next {
            NONE => self.tail = prev,
            next => slab[next].link_mut(chain).prev = prev,
        }
    }

    /// The ids from head to tail.
    pub(crate) fn iter<T: Linked>(self, slab: &Slab<T>, chain: Chain) -> impl Iterator<Item = u32> {
        let mut next = self.head;
        std::iter::from_fn(move || {
            let id = (next != NONE).then_some(next)?;
            next = slab[id].link(chain).next;
            Some(id)
        })
    }

    /// Checks that the links agree in both directions; returns the length.
    pub(crate) fn validate<T: Linked>(self, slab: &Slab<T>, chain: Chain) -> usize {
        let (mut prev, mut len) = (NONE, 0);
        for id in self.iter(slab, chain) {
            assert_eq!(
                slab[id].link(chain).prev,
                prev,
                "slot {id} of chain {chain:?} names another predecessor"
            );
            prev = id;
            len += 1;
            assert!(len <= slab.len(), "chain {chain:?} is a circle");
        }
        assert_eq!(self.tail, prev, "chain {chain:?} ends elsewhere than its tail says");
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vacant_slot_is_used_again_before_storage_grows() {
        let mut slab = Slab::new();
        let ids: Vec<u32> = (0..10).map(|value| slab.insert(value)).collect();
        assert_eq!((slab.remove(ids[3]), slab.remove(ids[7]), slab.remove(ids[7])), (Some(3), Some(7), None));
        let again = [slab.insert(10), slab.insert(11)];
        assert!(again.contains(&ids[3]) && again.contains(&ids[7]), "{again:?}");
        assert_eq!((slab.len(), slab.slots.len()), (10, 10));
    }
}
