//! Which operations count as changes for a save, and a load without a value.

use std::time::Duration;

use async_cache_core::address::Address;
use async_cache_core::entry::Fetched;
use async_cache_core::ledger::SaveEnd;
use async_cache_core::order::Eviction;
use async_cache_core::removed::Removed;
use async_cache_core::shard::{self, Config};
use async_cache_core::time::{Deadline, Now, Stamp, Time};

type Shard = shard::Shard<u32, u32, ()>;

const NOW: Now = Now::new(Time::from_nanos(0), Stamp::from_nanos(1000));
const TWO_SECONDS_LATER: Now = Now::new(Time::from_nanos(2_000_000_000), Stamp::from_nanos(2_000_001_000));

fn shard() -> Shard {
    Shard::new(Config::single(Some(2), Eviction::Lru))
}

fn at(shard: &Shard, key: u32) -> Address {
    crate::addressing::at(shard, key.into(), None, |known| *known == key)
}

fn set(shard: &mut Shard, key: u32) {
    drop(shard.set(at(shard, key), key, 0, Deadline::NEVER, NOW));
}

fn delete(shard: &mut Shard, key: u32) {
    drop(shard.delete(at(shard, key), NOW));
}

#[test]
fn what_is_stored_deleted_or_cleared_is_a_change_and_a_use_is_none() {
    let mut shard = shard();
    let mut seen = vec![shard.changes()];
    set(&mut shard, 1);
    seen.push(shard.changes());
    set(&mut shard, 1);
    seen.push(shard.changes());
    delete(&mut shard, 1);
    seen.push(shard.changes());
    drop(shard.clear());
    seen.push(shard.changes());
    assert!(seen.windows(2).all(|two| two[0] < two[1]), "a clear does not set it back: {seen:?}");

    set(&mut shard, 1);
    let before = shard.changes();
    let slot = shard.find(1, |known| *known == 1).unwrap();
    assert!(shard.hit_mut(slot, |_| false).is_some());
    delete(&mut shard, 9);
    assert_eq!(shard.changes(), before);
}

#[test]
fn a_write_that_is_lost_is_a_change_and_another_expiry_is_none() {
    let timed = |shard: &mut Shard, key: u32| {
        let deadline = Deadline::after(NOW.time, Duration::from_secs(1));
        drop(shard.set(at(shard, key), key, 0, deadline, NOW));
    };
    let expire = |shard: &mut Shard| {
        let mut removed = Removed::default();
        shard.reclaim_all(TWO_SECONDS_LATER, &mut removed);
        assert_eq!(removed.len(), 1);
    };
    for (keeps_times, is_saved) in [(false, false), (true, false), (true, true)] {
        let mut shard = shard();
        if keeps_times {
            shard.keep_times();
        }
        timed(&mut shard, 1);
        let before = shard.changes();
        if is_saved {
            assert!(shard.begin_save(NOW, &mut Removed::default()).is_empty());
            shard.settle(SaveEnd::Saved);
        }
        expire(&mut shard);
        let is_lost = keeps_times && !is_saved;
        assert_eq!(shard.changes() - before, u64::from(is_lost));
        let lost = shard.begin_save(NOW, &mut Removed::default());
        let expected = if is_lost { vec![(&1, Stamp::from_nanos(999))] } else { vec![] };
        assert_eq!(lost.overwritten().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn what_has_expired_by_a_save_is_no_reason_for_another_one() {
    let mut shard = shard();
    shard.keep_times();
    let deadline = Deadline::after(NOW.time, Duration::from_secs(1));
    drop(shard.set(at(&shard, 1), 1, 0, deadline, NOW));
    let before = shard.changes();
    let mut removed = Removed::default();
    let lost = shard.begin_save(TWO_SECONDS_LATER, &mut removed);
    assert_eq!((lost.overwritten().next(), removed.len()), (Some((&1, Stamp::from_nanos(999))), 1));
    shard.settle(SaveEnd::Saved);
    assert_eq!(shard.changes(), before);
}

#[test]
fn a_load_is_a_change_if_its_value_is_stored() {
    let lead = |shard: &mut Shard, key: u32| shard.lead(at(shard, key), key, (), NOW);
    let land = |shard: &mut Shard, flight, key: u32| {
        let at = shard.address_of_flight(flight, key.into()).expect("no snapshot is open");
        let fetched = Fetched::loaded(0, Deadline::NEVER);
        drop(shard.land(flight, at, fetched, Duration::ZERO, NOW).expect("it runs"));
    };
    let mut shard = shard();
    let fails = lead(&mut shard, 1);
    shard.fail(fails, Duration::ZERO);
    let fenced = lead(&mut shard, 1);
    set(&mut shard, 1);
    let before = shard.changes();
    land(&mut shard, fenced, 1);
    assert_eq!(shard.changes(), before, "nothing was stored");
    let lands = lead(&mut shard, 3);
    land(&mut shard, lands, 3);
    assert_eq!(shard.changes(), before + 1);
}

#[test]
fn a_load_that_finds_nothing_ends_its_flight_and_is_no_error() {
    let mut shard = shard();
    let flight = shard.lead(at(&shard, 1), 1, (), NOW);
    assert_eq!(shard.finish_without_storing(flight, Duration::from_secs(2)), Some((1, ())));
    assert_eq!(shard.finish_without_storing(flight, Duration::from_secs(2)), None, "it has ended");
    let stats = shard.stats();
    assert_eq!((stats.loads, stats.load_errors, stats.load_time), (1, 0, Duration::from_secs(2)));
    assert_eq!((stats.size, shard.changes(), shard.flights().len()), (0, 0, 0));
}
