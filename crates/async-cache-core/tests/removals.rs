//! Why values leave, and when they were written.

use std::time::Duration;

use async_cache_core::address::Address;
use async_cache_core::entry::{Fetched, Meta, NewEntry, ValueSource};
use async_cache_core::ledger::SaveEnd;
use async_cache_core::order::Eviction;
use async_cache_core::removed::{Cause, Removed};
use async_cache_core::shard::{self, Config, Restored, Trust};
use async_cache_core::time::{Deadline, Now, Stamp, Time};

type Shard = shard::Shard<u32, char, ()>;

/// So many seconds after the beginning, on both clocks.
fn at_second(seconds: u64) -> Now {
    let nanos = seconds * 1_000_000_000;
    Now::new(Time::from_nanos(nanos), Stamp::from_nanos(nanos + 1))
}

fn in_a_second(now: Now) -> Deadline {
    Deadline::after(now.time, Duration::from_secs(1))
}

fn shard(maxsize: usize) -> Shard {
    let mut shard = Shard::new(Config::single(Some(maxsize), Eviction::Lru));
    shard.keep_times();
    shard
}

fn at(shard: &Shard, key: u32) -> Address {
    crate::addressing::at(shard, key.into(), None, |known| *known == key)
}

fn set(shard: &mut Shard, key: u32, value: char, now: Now) -> Vec<(char, Cause)> {
    causes(shard.set(at(shard, key), key, value, Deadline::NEVER, now))
}

fn causes(removed: Removed<u32, char>) -> Vec<(char, Cause)> {
    removed.into_entries().map(|left| (left.value, left.cause)).collect()
}

fn stamp(shard: &Shard, key: u32) -> Stamp {
    shard.store().entry(at(shard, key).slot().expect("it is there")).meta.stamp
}

#[test]
fn each_value_that_leaves_says_why() {
    let now = at_second(0);
    let mut shard = shard(2);
    assert_eq!(set(&mut shard, 1, 'a', now), []);
    assert_eq!(set(&mut shard, 1, 'b', now), [('a', Cause::Replaced)]);
    assert_eq!(set(&mut shard, 2, 'c', now), []);
    assert_eq!(set(&mut shard, 3, 'd', now), [('b', Cause::Evicted)]);
    assert_eq!(causes(shard.delete(at(&shard, 2), now)), [('c', Cause::Deleted)]);
    assert_eq!(causes(shard.delete(at(&shard, 2), now)), [], "it was gone");

    drop(shard.set(at(&shard, 4), 4, 'e', in_a_second(now), now));
    let mut removed = Removed::default();
    shard.reclaim_all(at_second(2), &mut removed);
    assert_eq!(causes(removed), [('e', Cause::Expired)]);
}

#[test]
fn a_value_that_is_not_stored_is_refused_and_one_of_a_fenced_load_is_fenced() {
    let now = at_second(5);
    let over = Deadline::at(now.time);
    let mut shard = shard(2);
    assert_eq!(causes(shard.set(at(&shard, 1), 1, 'a', over, now)), [('a', Cause::Refused)]);
    drop(set(&mut shard, 1, 'b', now));
    let left = causes(shard.set(at(&shard, 1), 1, 'c', over, now));
    assert_eq!(left, [('b', Cause::Replaced), ('c', Cause::Refused)]);

    let flight = shard.lead(at(&shard, 2), 2, (), now);
    drop(set(&mut shard, 2, 'd', now));
    let address = shard.address_of_flight(flight, 2).unwrap();
    let fetched = Fetched::loaded('e', Deadline::NEVER);
    let finished = shard.land(flight, address, fetched, Duration::ZERO, now).unwrap();
    assert_eq!(causes(finished.removed), [('e', Cause::Fenced)]);
    let mut nothing = Shard::new(Config::single(Some(0), Eviction::Lru));
    assert_eq!(set(&mut nothing, 1, 'a', now), [('a', Cause::Refused)]);
}

#[test]
fn a_second_load_of_a_key_fences_the_first() {
    let now = at_second(0);
    let mut shard = shard(2);
    let first = shard.lead(at(&shard, 1), 1, (), now);
    let second = shard.lead(at(&shard, 1), 1, (), now);
    assert_eq!(at(&shard, 1).flight(), Some(second));
    assert_eq!(shard.stats().fenced, 1);
    assert!(shard.flights().key(first).is_some(), "it runs on, for its own callers");
}

#[test]
fn a_value_is_dated_by_its_write_its_load_or_its_tier() {
    let mut shard = shard(8);
    drop(set(&mut shard, 1, 'a', at_second(1)));
    assert_eq!(stamp(&shard, 1), at_second(1).wall);

    let mut load = |key, from| {
        let flight = shard.lead(at(&shard, key), key, (), at_second(2));
        let address = shard.address_of_flight(flight, key.into()).unwrap();
        let tier = Stamp::from_nanos(77);
        let fetched = Fetched { value: 'b', deadline: Deadline::NEVER, stamp: tier, from };
        drop(shard.land(flight, address, fetched, Duration::ZERO, at_second(9)).unwrap());
        stamp(&shard, key)
    };
    assert_eq!(load(2, ValueSource::Loader), at_second(2).wall, "when the load began");
    assert_eq!(load(3, ValueSource::Tier), Stamp::from_nanos(77), "when the tier says");

    let meta = Meta::written_at(Stamp::UNKNOWN, Deadline::NEVER);
    let new = NewEntry { key: 4, value: 'c', meta };
    assert!(matches!(shard.restore(at(&shard, 4), new, Trust::Covered, at_second(9)), Restored::Stored));
    assert_eq!(stamp(&shard, 4), Stamp::UNKNOWN, "as the file says");
    assert!([1, 2, 3].iter().all(|&key| stamp(&shard, key) > Stamp::UNKNOWN));
}

#[test]
fn a_delete_is_later_than_all_writes_before_it_and_a_change_though_nothing_is_there() {
    let mut shard = shard(2);
    drop(set(&mut shard, 1, 'a', at_second(5)));
    let before = shard.changes();
    let deleted = shard.stamp_delete(at_second(4)).expect("times are kept");
    assert!(deleted > stamp(&shard, 1), "though the clock was set back");
    assert_eq!(shard.changes(), before + 1);
    let mut without = Shard::new(Config::single(None, Eviction::Lru));
    assert_eq!(without.stamp_delete(at_second(5)), None);
    assert_eq!((without.stamp(at_second(5)), without.changes()), (Stamp::UNKNOWN, 0));
}

#[test]
fn lost_writes_are_taken_once_and_return_if_they_could_not_be_recorded() {
    let now = at_second(0);
    let mut shard = shard(1);
    drop(set(&mut shard, 1, 'a', now));
    assert_eq!(set(&mut shard, 2, 'b', now), [('a', Cause::Evicted)]);
    let lost = shard.take_lost();
    assert_eq!(lost.overwritten().collect::<Vec<_>>(), [(&1, Stamp::UNKNOWN)]);
    assert!(shard.take_lost().is_empty());
    shard.settle(SaveEnd::Unrecorded(lost));
    let lost = shard.begin_save(now, &mut Removed::default());
    assert_eq!(lost.len(), 1);
    shard.settle(SaveEnd::Saved);
    assert_eq!(set(&mut shard, 3, 'c', now), [('b', Cause::Evicted)]);
    assert!(shard.store().lost().is_empty(), "the save had it");
}
