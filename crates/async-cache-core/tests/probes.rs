//! The snapshot's answer for a key counts as long as that snapshot is open, and no longer.

use std::sync::Arc;
use std::time::Duration;

use async_cache_core::address::Candidate;
use async_cache_core::cold::ColdSet;
use async_cache_core::entry::{Fetched, Meta, NewEntry};
use async_cache_core::order::Eviction;
use async_cache_core::probe::{Probed, Stale};
use async_cache_core::shard::{self, Config, Trust};
use async_cache_core::time::{Deadline, Now, Stamp, Time};

type Shard = shard::Shard<u32, char, ()>;

const NOW: Now = Now::without_wall(Time::from_nanos(0));

fn shard() -> Shard {
    Shard::new(Config::single(Some(10), Eviction::Lru))
}

fn set(shard: &mut Shard, key: u32, probed: Probed) {
    let at = shard.address(key.into(), probed, |known| *known == key).expect("it counts");
    drop(shard.set(at, key, 'a', Deadline::NEVER, NOW));
}

fn open(shard: &mut Shard, records: u32) -> Arc<ColdSet> {
    let cold = Arc::new(ColdSet::new(records, None));
    let ranks: Vec<_> = shard.coldest_first().into_iter().map(|ticket| (ticket, None)).collect();
    assert_eq!(shard.open(Arc::clone(&cold), &ranks), [], "all entries are listed");
    cold
}

#[test]
fn a_probe_of_before_a_snapshot_was_opened_is_stale() {
    let mut shard = shard();
    let probed = shard.epoch().answered(None);
    set(&mut shard, 1, probed);
    open(&mut shard, 3);
    assert_eq!(shard.address(2, probed, |known| *known == 2).unwrap_err(), Stale);
    let found = shard.locate(2, |known| *known == 2);
    assert_eq!(shard.admit(found, probed).unwrap_err(), Stale);
    let asked_again = shard.epoch().answered(Some(2));
    assert_eq!(shard.admit(found, asked_again).unwrap().rank(), Some(2));
}

#[test]
fn a_probe_of_another_snapshot_is_stale() {
    let mut shard = shard();
    open(&mut shard, 3);
    let probed = shard.epoch().answered(Some(0));
    let second = open(&mut shard, 3);
    assert!(shard.address(5, probed, |known| *known == 5).is_err());
    assert_eq!(second.live(), 3, "no rank of the second left for one of the first");
}

#[test]
fn the_rank_of_a_closed_snapshot_is_ignored() {
    let mut shard = shard();
    let cold = open(&mut shard, 1);
    let probed = shard.epoch().answered(Some(0));
    cold.take(0);
    drop(shard.close_snapshot());
    let at = shard.address(5, probed, |known| *known == 5).expect("no snapshot is open");
    assert_eq!(at.rank(), None);
    set(&mut shard, 5, probed);
    let slot = shard.find(5, |known| *known == 5).unwrap();
    assert_eq!(shard.store().entry(slot).meta.origin, None);
    open(&mut shard, 1);
    assert!(shard.address(6, probed, |known| *known == 6).is_err(), "it does not count for a later one");
}

#[test]
fn a_load_that_lands_after_a_snapshot_was_opened_probes_again() {
    let mut shard = shard();
    let probed = shard.epoch().answered(None);
    let lead = |shard: &mut Shard, key: u32| {
        let at = shard.address(key.into(), probed, |known| *known == key).unwrap();
        shard.lead(at, key, (), NOW)
    };
    let (flight, fenced) = (lead(&mut shard, 1), lead(&mut shard, 2));
    set(&mut shard, 2, probed);
    let cold = open(&mut shard, 3);
    assert_eq!(shard.address_of_flight(flight, 1).unwrap_err(), Stale);
    let asked_again = shard.epoch().answered(Some(0));
    let at = shard.address(1, asked_again, |known| *known == 1).unwrap();
    let fetched = Fetched::loaded('b', Deadline::NEVER);
    drop(shard.land(flight, at, fetched, Duration::ZERO, NOW).unwrap());
    assert!(!cold.contains(0), "the loaded value took the place of the cold one");

    let at = shard.address_of_flight(fenced, 2).expect("it stores nothing, so no rank matters");
    assert!(shard.land(fenced, at, fetched, Duration::ZERO, NOW).is_some());
}

#[test]
fn a_key_is_not_promoted_twice_nor_over_a_hot_entry() {
    let mut shard = shard();
    open(&mut shard, 3);
    let probed = shard.epoch().answered(Some(1));
    let promote = |shard: &mut Shard| {
        let at = shard.address(7, probed, |known| *known == 7).unwrap();
        let meta = Meta::written_at(Stamp::from_nanos(5), Deadline::NEVER);
        shard
            .promote(at, NewEntry { key: 7, value: 'c', meta }, Trust::Covered, NOW)
            .map(|removed| removed.len())
    };
    assert_eq!(promote(&mut shard).unwrap(), 0);
    assert_eq!(promote(&mut shard).unwrap_err().value, 'c');
    let entry = shard.store().entry(shard.find(7, |known| *known == 7).unwrap());
    assert_eq!((entry.meta.origin, shard.stats().cold_hits), (Some(1), 1));
}

#[test]
fn entries_that_were_not_looked_up_when_a_snapshot_is_opened_are_named_and_have_no_rank_in_it() {
    let mut shard = shard();
    let before = open(&mut shard, 9);
    let probed = |shard: &Shard, rank| shard.epoch().answered(rank);
    let known = probed(&shard, Some(8));
    set(&mut shard, 1, known);
    let listed: Vec<_> = shard.coldest_first().into_iter().map(|ticket| (ticket, Some(2))).collect();
    // Written after the list was made: one new key, and a new value of a listed one.
    for (key, rank) in [(2, Some(7)), (1, Some(8))] {
        let answer = probed(&shard, rank);
        set(&mut shard, key, answer);
    }
    assert_eq!(before.live(), 7);
    let cold = Arc::new(ColdSet::new(3, None));
    let unknown = shard.open(Arc::clone(&cold), &listed);
    let origin =
        |key: u32| shard.store().entry(shard.find(key.into(), |known| *known == key).unwrap()).meta.origin;
    assert_eq!((origin(1), origin(2)), (Some(2), None), "ranks of the snapshot before mean nothing here");
    let keys: Vec<_> = unknown.iter().map(|ticket| *shard.store().redeem(*ticket).unwrap().key).collect();
    assert_eq!(keys, [2]);
    assert_eq!((cold.live(), cold.hot(), cold.contains(2)), (2, 2, false));
}

#[test]
fn an_entry_that_left_after_it_was_looked_up_gives_its_rank_up_all_the_same() {
    let mut shard = shard();
    let none = shard.epoch().answered(None);
    set(&mut shard, 1, none);
    let listed: Vec<_> = shard.coldest_first().into_iter().map(|ticket| (ticket, Some(2))).collect();
    let at = shard.address(1, none, |known| *known == 1).unwrap();
    drop(shard.delete(at, NOW));
    let cold = Arc::new(ColdSet::new(3, None));
    assert_eq!(shard.open(Arc::clone(&cold), &listed), []);
    assert_eq!((cold.live(), cold.hot(), cold.contains(2)), (2, 0, false));
}

#[test]
fn a_snapshot_that_is_opened_drops_the_coldest_entries_that_are_too_many() {
    let mut shard = shard();
    let none = shard.epoch().answered(None);
    (0..4).for_each(|key| set(&mut shard, key, none));
    let cold = open(&mut shard, 8);
    assert_eq!((cold.live(), cold.contains(1), cold.contains(2)), (6, false, true));
    shard.validate();
}

#[test]
fn a_search_begins_again_when_a_key_came_or_left() {
    let mut shard = shard();
    let none = shard.epoch().answered(None);
    let hash = 1;
    set(&mut shard, 1, none);
    let mut search = shard.search(hash, |_| false);
    assert!(matches!(shard.next_candidate(&mut search), Candidate::Compare(1)));
    set(&mut shard, 2, none);
    assert!(matches!(shard.next_candidate(&mut search), Candidate::Changed));

    let at = shard.address(hash, none, |_| false).unwrap();
    let flight = shard.lead(at, 9, (), NOW);
    let mut search = shard.search(hash, |_| false);
    assert!(matches!(shard.next_candidate(&mut search), Candidate::Compare(1)));
    assert!(matches!(shard.next_candidate(&mut search), Candidate::Compare(9)));
    search.is_equal();
    let Candidate::Found(found) = shard.next_candidate(&mut search) else { panic!("all were compared") };
    assert_eq!((found.slot(), found.flight()), (None, Some(flight)));
}
