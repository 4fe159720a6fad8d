//! A shard that keeps the places of records: which place an entry has, and what is not owed.

use std::time::Duration;

use async_cache_core::address::Address;
use async_cache_core::entry::{Fetched, Meta, NewEntry, ValueSource};
use async_cache_core::order::Eviction;
use async_cache_core::removed::{Cause, Departed, Removed};
use async_cache_core::shard::{self, Config, Trust};
use async_cache_core::time::{Deadline, Now, Stamp, Time};

type Shard = shard::Shard<u32, char, ()>;

const NOW: Now = Now::without_wall(Time::from_nanos(5));

fn shard() -> Shard {
    let mut shard = Shard::new(Config::single(Some(2), Eviction::Lru));
    shard.keep_places();
    shard
}

fn at(shard: &Shard, key: u32) -> Address {
    crate::addressing::at(shard, key.into(), None, |known| *known == key)
}

fn place(number: u64) -> Stamp {
    Stamp::from_nanos(number)
}

fn set(shard: &mut Shard, key: u32, number: u64) -> Removed<u32, char> {
    let meta = Meta::written_at(place(number), Deadline::NEVER);
    shard.set_stamped(at(shard, key), key, 'v', meta, NOW)
}

fn placed(shard: &Shard, first: u64, last: u64) -> Vec<u64> {
    let mut into = Vec::new();
    shard.placed_within(place(first)..=place(last), &mut into);
    let mut places: Vec<u64> = into.into_iter().map(|(stamp, _)| stamp.as_nanos()).collect();
    places.sort_unstable();
    places
}

#[test]
fn an_entry_has_the_place_that_its_latest_write_stated() {
    let mut shard = shard();
    assert_eq!(shard.stamp_at(&at(&shard, 1)), None);
    drop(set(&mut shard, 1, 10));
    drop(set(&mut shard, 2, 20));
    drop(set(&mut shard, 1, 30));
    assert_eq!(shard.stamp_at(&at(&shard, 1)), Some(place(30)));
    assert_eq!((placed(&shard, 0, 100), placed(&shard, 20, 29)), (vec![20, 30], vec![20]));
    assert!(!shard.keeps_times() && shard.stamp_delete(NOW).is_none() && shard.take_lost().is_empty());
}

#[test]
fn an_entry_that_is_evicted_or_expires_leaves_with_its_place_and_owes_nothing() {
    let mut shard = shard();
    let soon = Deadline::after(NOW.time, Duration::from_nanos(1));
    drop(shard.set_stamped(at(&shard, 1), 1, 'a', Meta::written_at(place(10), soon), NOW));
    drop(set(&mut shard, 2, 20));
    let later = Now::without_wall(Time::from_nanos(1_000_000_000));
    let mut expired = Removed::default();
    shard.reclaim_all(later, &mut expired);
    let facts = |removed: &Removed<u32, char>| -> Vec<(Option<u32>, Cause, Stamp)> {
        removed.iter().map(|Departed { key, cause, stamp, .. }| (*key, *cause, *stamp)).collect()
    };
    assert_eq!(facts(&expired), [(Some(1), Cause::Expired, place(10))]);
    drop(set(&mut shard, 3, 30));
    assert_eq!(facts(&set(&mut shard, 4, 40)), [(Some(2), Cause::Evicted, place(20))]);
    assert_eq!(facts(&set(&mut shard, 4, 50)), [(Some(4), Cause::Replaced, Stamp::UNKNOWN)]);
    assert!(shard.take_lost().is_empty());
}

#[test]
fn an_entry_that_was_read_comes_in_unless_its_key_is_there() {
    let mut shard = shard();
    let new =
        |number| NewEntry { key: 1, value: 'r', meta: Meta::written_at(place(number), Deadline::NEVER) };
    assert!(shard.take_in(at(&shard, 1), new(10), Trust::Covered, NOW).is_ok());
    assert_eq!(shard.stamp_at(&at(&shard, 1)), Some(place(10)));
    assert_eq!((shard.stats().hits, shard.stats().cold_hits), (1, 1));
    assert!(shard.take_in(at(&shard, 1), new(20), Trust::Covered, NOW).is_err());
    let mut passed = new(30);
    (passed.key, passed.meta.deadline) = (2, Deadline::at(NOW.time));
    assert!(shard.take_in(at(&shard, 2), passed, Trust::Covered, NOW).is_err());
    assert_eq!((shard.stats().hits, shard.store().len()), (1, 1));
}

#[test]
fn a_load_that_was_fenced_will_not_store_and_another_has_the_stated_place() {
    let mut shard = shard();
    let lead = |shard: &mut Shard, key: u32| shard.lead(at(shard, key), key, (), NOW);
    let fetched = |number| Fetched {
        value: 'l',
        deadline: Deadline::NEVER,
        stamp: place(number),
        from: ValueSource::Tier,
    };
    let flight = lead(&mut shard, 1);
    assert!(shard.flights().will_store(flight));
    let address = shard.address_of_flight(flight, 1).unwrap();
    assert!(shard.land(flight, address, fetched(10), Duration::ZERO, NOW).is_some());
    assert_eq!(shard.stamp_at(&at(&shard, 1)), Some(place(10)));
    assert!(!shard.flights().will_store(flight), "it has ended");
    let flight = lead(&mut shard, 2);
    drop(set(&mut shard, 2, 20));
    assert!(!shard.flights().will_store(flight), "it was fenced");
}

#[test]
fn a_copied_record_moves_its_entry_unless_the_entry_was_written_or_left() {
    let mut shard = shard();
    drop(set(&mut shard, 1, 10));
    drop(set(&mut shard, 2, 20));
    let mut tickets = Vec::new();
    shard.placed_within(place(0)..=place(100), &mut tickets);
    let ticket = |number| tickets.iter().find(|(stamp, _)| *stamp == place(number)).unwrap().1;
    shard.move_place(ticket(10), place(10), place(110));
    assert_eq!(placed(&shard, 0, 200), [20, 110]);
    drop(set(&mut shard, 2, 30));
    shard.move_place(ticket(20), place(20), place(120));
    assert_eq!(placed(&shard, 0, 200), [30, 110], "it was written since");
    drop(shard.delete(at(&shard, 1), NOW));
    drop(set(&mut shard, 3, 110));
    shard.move_place(ticket(10), place(110), place(111));
    assert_eq!(placed(&shard, 0, 200), [30, 110], "another entry has its slot");
    drop(shard.clear());
    drop(set(&mut shard, 5, 50));
    assert_eq!(placed(&shard, 0, 200), [50], "a cleared shard still keeps places");
}
