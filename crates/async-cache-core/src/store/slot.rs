//! The place of an entry in memory: its layout, and its links in the order of eviction and in the
//! timer wheel.

use crate::era::Marks;
use crate::order::{Ordered, Queue};
use crate::slab::{Chain, Link, Linked};
use crate::time::Deadline;
use crate::timer::Timed;

/// 40 bytes besides key and value. A hit reads the head, the key and the value, so these stand
/// together. Example: for two numbers they take 32 bytes, which cross a border of cache lines in
/// three of eight slots. The compiler's own order puts the head last; then six of eight slots cross
/// a border. The fixed order costs padding only for keys and values that are aligned to 16 bytes.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slot<K, V> {
    pub(super) head: Head,
    pub(super) key: K,
    pub(super) value: V,
    pub(super) tail: Tail,
}

/// The fields that a hit reads. `queue` also tells the slab whether the slot is occupied.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) deadline: Deadline,
    pub(super) hash: u32,
    pub(super) bucket: u16,
    /// The era of the write, and the visits.
    pub(super) marks: Marks,
    pub(super) queue: Queue,
}

/// The fields for writes. `order` is the first, because a hit of LRU reads it, too.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Tail {
    pub(super) order: Link,
    pub(super) timer: Link,
    /// Rank of the record with this key in the opened snapshot, or `NO_ORIGIN`.
    pub(super) origin: u32,
    /// Low half of the store's version when the entry came in: distinguishes the entry from a later
    /// entry in the same slot.
    pub(super) serial: u32,
}

pub(super) const NO_ORIGIN: u32 = u32::MAX;

impl<K, V> Linked for Slot<K, V> {
    #[inline]
    fn link(&self, chain: Chain) -> Link {
        match chain {
            Chain::Order => self.tail.order,
            Chain::Timer => self.tail.timer,
        }
    }

    #[inline]
    fn link_mut(&mut self, chain: Chain) -> &mut Link {
        match chain {
            Chain::Order => &mut self.tail.order,
            Chain::Timer => &mut self.tail.timer,
        }
    }
}

impl<K, V> Timed for Slot<K, V> {
    fn deadline(&self) -> Deadline {
        self.head.deadline
    }

    fn bucket(&self) -> u16 {
        self.head.bucket
    }

    fn set_bucket(&mut self, bucket: u16) {
        self.head.bucket = bucket;
    }
}

impl<K, V> Ordered for Slot<K, V> {
    fn hash(&self) -> u32 {
        self.head.hash
    }

    #[inline]
    fn visits(&self) -> u8 {
        self.head.marks.visits()
    }

    #[inline]
    fn set_visits(&self, visits: u8) {
        self.head.marks.set_visits(visits);
    }

    fn queue(&self) -> Queue {
        self.head.queue
    }

    fn set_queue(&mut self, queue: Queue) {
        self.head.queue = queue;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forty_bytes_besides<K, V>() {
        assert_eq!(size_of::<Slot<K, V>>(), (40 + size_of::<K>() + size_of::<V>()).next_multiple_of(8));
        assert_eq!(size_of::<Option<Slot<K, V>>>(), size_of::<Slot<K, V>>(), "vacancy costs nothing");
    }

    #[test]
    fn an_entry_takes_forty_bytes_besides_key_and_value() {
        forty_bytes_besides::<u64, u64>();
        forty_bytes_besides::<String, std::sync::Arc<str>>();
        forty_bytes_besides::<u32, String>();
        forty_bytes_besides::<[u8; 5], u16>();
        forty_bytes_besides::<u8, [u32; 3]>();
        forty_bytes_besides::<u32, u8>();
    }

    #[test]
    fn what_a_hit_reads_stands_together() {
        assert_eq!(std::mem::offset_of!(Slot<u64, u64>, tail), 32);
        assert_eq!(std::mem::offset_of!(Slot<String, u64>, tail), 48);
    }
}
