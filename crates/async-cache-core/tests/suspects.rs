//! Suspect entries and the removal by hash, case by case. `store_model` has them in random runs.

use std::sync::Arc;
use std::time::Duration;

use async_cache_core::address::Address;
use async_cache_core::cold::ColdSet;
use async_cache_core::entry::{Fetched, Meta, NewEntry, ValueSource};
use async_cache_core::flight::FlightId;
use async_cache_core::ledger::SaveEnd;
use async_cache_core::order::Eviction;
use async_cache_core::removed::{Cause, Departed, Removed};
use async_cache_core::shard::{self, Config, FlightFate, Trust};
use async_cache_core::store::SlotId;
use async_cache_core::time::{Deadline, Now, Stamp, Time};

type Shard = shard::Shard<u32, char, ()>;

const NOW: Now = Now::new(Time::from_nanos(5), Stamp::from_nanos(1000));

fn shard(eviction: Eviction, maxsize: usize) -> Shard {
    Shard::new(Config::single(Some(maxsize), eviction))
}

/// The keys 10 to 19 have the hash 1, and so on.
fn hash(key: u32) -> u64 {
    u64::from(key / 10)
}

fn at(shard: &Shard, key: u32) -> Address {
    crate::addressing::at(shard, hash(key), None, |known| *known == key)
}

fn slot(shard: &Shard, key: u32) -> SlotId {
    shard.find(hash(key), |known| *known == key).expect("it is in memory")
}

fn set(shard: &mut Shard, key: u32, value: char) -> Removed<u32, char> {
    shard.set(at(shard, key), key, value, Deadline::NEVER, NOW)
}

fn lead(shard: &mut Shard, key: u32) -> FlightId {
    shard.lead(at(shard, key), key, (), NOW)
}

fn land(shard: &mut Shard, flight: FlightId, key: u32, value: char) -> Removed<u32, char> {
    let address = shard.address_of_flight(flight, hash(key)).expect("no snapshot is open");
    let fetched = Fetched::loaded(value, Deadline::NEVER);
    shard.land(flight, address, fetched, Duration::ZERO, NOW).expect("it runs").removed
}

fn served(shard: &Shard, key: u32) -> Option<char> {
    shard.hit(hash(key), |known| *known == key, |_| false, |value| *value)
}

fn departed(removed: &Removed<u32, char>) -> Vec<(Option<u32>, char, Cause, Stamp)> {
    removed.iter().map(|Departed { key, value, cause, stamp }| (*key, *value, *cause, *stamp)).collect()
}

#[test]
fn a_suspect_entry_is_served_by_no_read_until_it_is_written_anew() {
    for eviction in [Eviction::Lru, Eviction::Adaptive] {
        let mut shard = shard(eviction, 4);
        drop(set(&mut shard, 1, 'a'));
        drop(set(&mut shard, 2, 'b'));
        assert!(!shard.has_suspects());
        shard.suspect_all();
        let one = slot(&shard, 1);
        assert!(shard.is_suspect(one) && shard.has_suspects());
        assert_eq!(shard.store().len(), 2);
        assert_eq!(served(&shard, 1), None);
        assert_eq!(shard.hit_in_order(hash(1), |known| *known == 1, |_| false, |value| *value), None);
        assert_eq!(shard.hit_mut(one, |_| false), None);
        assert_eq!(shard.live(one, |_| false), None);
        assert_eq!(shard.live_or_suspect(one, |_| false), Some(&'a'));
        assert_eq!(shard.hit_or_suspect(one, |_| false), Some(&'a'));
        assert!(shard.is_suspect(one), "a use changes nothing");
        drop(set(&mut shard, 1, 'c'));
        assert_eq!((served(&shard, 1), served(&shard, 2)), (Some('c'), None));
        let flight = lead(&mut shard, 2);
        drop(land(&mut shard, flight, 2, 'd'));
        assert_eq!((served(&shard, 2), shard.has_suspects()), (Some('d'), false));
    }
}

#[test]
fn an_entry_stays_suspect_however_often_all_become_suspect() {
    for eviction in [Eviction::Lru, Eviction::Adaptive] {
        let mut shard = shard(eviction, 4);
        drop(set(&mut shard, 1, 'a'));
        for round in 0..300 {
            // Another entry each time, so that entries of all ages meet.
            let key = 2 + round % 3;
            drop(set(&mut shard, key, 'b'));
            assert!(served(&shard, key).is_some() && served(&shard, 1).is_some() == (round == 0));
            shard.suspect_all();
            assert_eq!((1..5).find_map(|key| served(&shard, key)), None, "round {round}");
            assert_eq!(shard.store().suspects(), shard.store().len());
            shard.validate();
        }
    }
}

#[test]
fn an_entry_keeps_its_visits_when_it_becomes_suspect() {
    // Key 1 was used, so key 2 has to go first, though it is the younger one.
    for rounds in [0, 1, 62, 63, 64, 130] {
        let mut shard = shard(Eviction::Adaptive, 2);
        drop(set(&mut shard, 1, 'a'));
        drop(set(&mut shard, 2, 'b'));
        assert_eq!(served(&shard, 1), Some('a'));
        (0..rounds).for_each(|_| shard.suspect_all());
        let removed = set(&mut shard, 3, 'c');
        assert_eq!(removed.iter().map(|it| it.value).collect::<Vec<_>>(), ['b'], "{rounds} rounds");
    }
}

#[test]
fn a_write_over_a_suspect_entry_keeps_its_ticket_and_replaces_its_value() {
    let mut shard = shard(Eviction::Lru, 4);
    drop(set(&mut shard, 1, 'a'));
    let ticket = shard.coldest_first()[0];
    shard.suspect_all();
    let removed = set(&mut shard, 1, 'b');
    assert_eq!(departed(&removed), [(Some(1), 'a', Cause::Replaced, Stamp::UNKNOWN)]);
    assert_eq!(shard.store().redeem(ticket).map(|entry| *entry.value), Some('b'));
}

#[test]
fn suspect_entries_leave_as_others_do_and_then_none_is_left() {
    type Leave = fn(&mut Shard) -> usize;
    let ways: [(&str, Leave); 4] = [
        ("delete", |shard| shard.delete(at(shard, 1), NOW).len()),
        ("message", |shard| shard.forget_hash(hash(1), FlightFate::Kept, NOW).len()),
        ("eviction", |shard| set(shard, 2, 'b').len()),
        ("clear", |shard| shard.clear().store.len()),
    ];
    for (way, leave) in ways {
        let mut shard = shard(Eviction::Lru, 1);
        drop(set(&mut shard, 1, 'a'));
        shard.suspect_all();
        assert_eq!((leave(&mut shard), shard.has_suspects()), (1, false), "{way}");
        shard.validate();
    }
    let mut shard = shard(Eviction::Lru, 1);
    let soon = Deadline::after(NOW.time, Duration::from_nanos(1));
    drop(shard.set(at(&shard, 1), 1, 'a', soon, NOW));
    shard.suspect_all();
    assert_eq!(shard.live_or_suspect(slot(&shard, 1), |_| true), None, "it has expired");
    let mut removed = Removed::default();
    shard.reclaim_all(Now::without_wall(Time::from_nanos(1 << 40)), &mut removed);
    assert_eq!((removed.len(), shard.has_suspects()), (1, false), "expiry");
}

#[test]
fn a_suspect_entry_is_still_the_entry_that_the_file_has_or_is_owed() {
    // Saved before: a load that replaces it is owed, since the file has an older value. Evicted
    // then, it is a lost write.
    let lost = |is_suspect: bool| {
        let mut shard = shard(Eviction::Lru, 1);
        shard.keep_times();
        drop(set(&mut shard, 1, 'a'));
        assert!(shard.begin_save(NOW, &mut Removed::default()).is_empty());
        shard.settle(SaveEnd::Saved);
        if is_suspect {
            shard.suspect_all();
        }
        let flight = lead(&mut shard, 1);
        drop(land(&mut shard, flight, 1, 'b'));
        drop(set(&mut shard, 2, 'c'));
        shard.take_lost().overwritten().map(|(key, _)| *key).collect::<Vec<_>>()
    };
    assert_eq!((lost(false), lost(true)), (vec![1], vec![1]));

    // Not saved: it is owed itself, and lost when it is evicted as a suspect entry.
    let mut shard = shard(Eviction::Lru, 1);
    shard.keep_times();
    drop(set(&mut shard, 1, 'a'));
    shard.suspect_all();
    drop(set(&mut shard, 2, 'b'));
    assert_eq!(shard.take_lost().overwritten().map(|(key, _)| *key).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_suspect_entry_from_a_file_is_suspect_in_memory_and_counts_as_a_hit() {
    let new = |value| NewEntry { key: 1, value, meta: Meta::written_at(Stamp::UNKNOWN, Deadline::NEVER) };
    for trust in [Trust::Covered, Trust::Suspect] {
        let is_suspect = trust == Trust::Suspect;
        let mut journal = shard(Eviction::Lru, 4);
        journal.keep_places();
        assert!(journal.take_in(at(&journal, 1), new('j'), trust, NOW).is_ok());
        let mut snapshot = shard(Eviction::Lru, 4);
        assert_eq!(snapshot.open(Arc::new(ColdSet::new(1, Some(4))), &[]), []);
        let address = crate::addressing::at(&snapshot, hash(1), Some(0), |known| *known == 1);
        assert!(snapshot.promote(address, new('s'), trust, NOW).is_ok());
        let mut backup = shard(Eviction::Lru, 4);
        assert!(matches!(backup.restore(at(&backup, 1), new('b'), trust, NOW), shard::Restored::Stored));
        for (shard, value, hits) in [(journal, 'j', 1), (snapshot, 's', 1), (backup, 'b', 0)] {
            assert_eq!(served(&shard, 1), (!is_suspect).then_some(value));
            assert_eq!(shard.live_or_suspect(slot(&shard, 1), |_| false), Some(&value));
            assert_eq!((shard.stats().hits, shard.has_suspects()), (hits, is_suspect));
            shard.validate();
        }
    }
}

#[test]
fn a_message_removes_every_entry_with_the_hash_and_no_other() {
    let mut shard = shard(Eviction::Lru, 8);
    shard.keep_places();
    for (key, place) in [(10, 100), (11, 110), (20, 200)] {
        let meta = Meta::written_at(Stamp::from_nanos(place), Deadline::NEVER);
        drop(shard.set_stamped(at(&shard, key), key, 'v', meta, NOW));
    }
    let before = shard.changes();
    let mut removed = departed(&shard.forget_hash(1, FlightFate::Fenced, NOW));
    removed.sort_unstable_by_key(|(key, ..)| *key);
    let deleted = |key, place| (Some(key), 'v', Cause::Deleted, Stamp::from_nanos(place));
    assert_eq!(removed, [deleted(10, 100), deleted(11, 110)], "with their places");
    assert_eq!((shard.changes() - before, served(&shard, 20)), (2, Some('v')));
    assert!(!shard.has_hash(1) && shard.has_hash(2));
    assert!(shard.forget_hash(1, FlightFate::Fenced, NOW).is_empty());
    assert_eq!(shard.changes() - before, 2, "nothing was there");
}

#[test]
fn a_message_fences_the_open_loads_of_the_hash_only_if_it_says_so() {
    for fate in [FlightFate::Fenced, FlightFate::Kept] {
        let mut shard = shard(Eviction::Lru, 8);
        let fenced_before = lead(&mut shard, 10);
        drop(set(&mut shard, 10, 'o'));
        let loads = [10, 11, 20].map(|key| (key, lead(&mut shard, key)));
        let fenced = shard.stats().fenced;
        assert!(shard.has_hash(1) && shard.has_hash(2));
        assert_eq!(shard.forget_hash(1, fate, NOW).len(), 1);
        let will_store = loads.map(|(_, flight)| shard.flights().will_store(flight));
        let kept = fate == FlightFate::Kept;
        assert_eq!(will_store, [kept, kept, true]);
        assert_eq!(shard.stats().fenced - fenced, if kept { 0 } else { 2 });
        let open = shard.locate(hash(10), |known| *known == 10).flight();
        assert_eq!(open, kept.then_some(loads[0].1), "a fenced load is not joined");
        for (key, flight) in loads {
            drop(land(&mut shard, flight, key, 'n'));
        }
        drop(land(&mut shard, fenced_before, 10, 'f'));
        let expected = kept.then_some('n');
        assert_eq!([10, 11, 20].map(|key| served(&shard, key)), [expected, expected, Some('n')]);
        shard.validate();
    }
}

#[test]
fn a_load_that_lands_on_a_suspect_entry_may_come_from_another_tier() {
    let mut shard = shard(Eviction::Lru, 4);
    shard.keep_times();
    drop(set(&mut shard, 1, 'a'));
    shard.suspect_all();
    let flight = lead(&mut shard, 1);
    let stamp = Stamp::from_nanos(7);
    let fetched = Fetched { value: 't', deadline: Deadline::NEVER, stamp, from: ValueSource::Tier };
    let address = shard.address_of_flight(flight, hash(1)).expect("no snapshot is open");
    drop(shard.land(flight, address, fetched, Duration::ZERO, NOW).expect("it runs"));
    assert_eq!((served(&shard, 1), shard.stamp_at(&at(&shard, 1))), (Some('t'), Some(stamp)));
}
