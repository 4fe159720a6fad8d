//! Which operations count as changes for a save, and a load without a value.

use std::time::Duration;

use async_cache_core::cache::{Cache, Config, Loaded};
use async_cache_core::order::Eviction;
use async_cache_core::store::{NewEntry, Removed};
use async_cache_core::time::{Deadline, Time};

type Shard = Cache<u32, u32, ()>;

const NOW: Time = Time::from_nanos(0);

fn shard() -> Shard {
    Cache::new(Config::single(Some(2), Eviction::Lru))
}

fn set(shard: &mut Shard, key: u32) {
    let slot = shard.find(key.into(), |known| *known == key);
    let new = NewEntry { key, value: 0, deadline: Deadline::NEVER, origin: None, written_at: None };
    drop(shard.set(slot, None, key.into(), new, NOW));
}

fn delete(shard: &mut Shard, key: u32) {
    let slot = shard.find(key.into(), |known| *known == key);
    drop(shard.delete(slot, None, None, NOW));
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
        let deadline = Deadline::after(NOW, Duration::from_secs(1));
        let new = NewEntry { key, value: 0, deadline, origin: None, written_at: None };
        drop(shard.set(None, None, key.into(), new, NOW));
    };
    let expire = |shard: &mut Shard| {
        let mut removed = Removed::default();
        shard.reclaim_all(Time::from_nanos(2_000_000_000), &mut removed);
        assert_eq!(removed.len(), 1);
    };
    for (keeps_times, is_saved) in [(false, false), (true, false), (true, true)] {
        let mut shard = shard();
        if keeps_times {
            shard.keep_times();
            shard.tell_wall(1000);
        }
        timed(&mut shard, 1);
        let before = shard.changes();
        if is_saved {
            assert!(shard.begin_save(NOW, &mut Removed::default()).is_empty());
            shard.saved();
        }
        expire(&mut shard);
        let is_lost = keeps_times && !is_saved;
        assert_eq!(shard.changes() - before, u64::from(is_lost));
        let lost = shard.begin_save(NOW, &mut Removed::default());
        assert_eq!(lost.keys().collect::<Vec<_>>(), if is_lost { vec![(&1, 999)] } else { vec![] });
    }
}

#[test]
fn what_has_expired_by_a_save_is_no_reason_for_another_one() {
    let mut shard = shard();
    shard.keep_times();
    shard.tell_wall(1000);
    let deadline = Deadline::after(NOW, Duration::from_secs(1));
    drop(shard.set(
        None,
        None,
        1,
        NewEntry { key: 1, value: 0, deadline, origin: None, written_at: None },
        NOW,
    ));
    let before = shard.changes();
    let mut removed = Removed::default();
    let lost = shard.begin_save(Time::from_nanos(2_000_000_000), &mut removed);
    assert_eq!((lost.keys().next(), removed.len()), (Some((&1, 999)), 1));
    shard.saved();
    assert_eq!(shard.changes(), before);
}

#[test]
fn a_load_is_a_change_if_its_value_is_stored() {
    let loaded = || Loaded { value: 0, deadline: Deadline::NEVER, origin: None, took: Duration::ZERO };
    let mut shard = shard();
    let fails = shard.lead(1, 1, ());
    shard.fail(fails, Duration::ZERO);
    let fenced = shard.lead(1, 1, ());
    delete(&mut shard, 1);
    drop(shard.set(
        None,
        Some(fenced),
        2,
        NewEntry { key: 2, value: 0, deadline: Deadline::NEVER, origin: None, written_at: None },
        NOW,
    ));
    let before = shard.changes();
    drop(shard.land(fenced, None, 1, loaded(), NOW));
    assert_eq!(shard.changes(), before, "nothing was stored");
    let lands = shard.lead(3, 3, ());
    drop(shard.land(lands, None, 3, loaded(), NOW));
    assert_eq!(shard.changes(), before + 1);
}

#[test]
fn a_load_that_finds_nothing_ends_its_flight_and_is_no_error() {
    let mut shard = shard();
    let flight = shard.lead(1, 1, ());
    assert_eq!(shard.come_back_empty(flight, Duration::from_secs(2)), Some((1, ())));
    assert_eq!(shard.come_back_empty(flight, Duration::from_secs(2)), None, "it has ended");
    let stats = shard.stats();
    assert_eq!((stats.loads, stats.load_errors, stats.load_time), (1, 0, Duration::from_secs(2)));
    assert_eq!((stats.size, shard.changes(), shard.flights().len()), (0, 0, 0));
}
