//! Expiry by manual time: no entry is returned at or after its deadline, and expired entries are
//! soon reclaimed.
//!
//! The random test below takes its seeds as described in `replay/mod.rs`.

use std::collections::BinaryHeap;
use std::time::Duration;

use async_cache_core::address::Address;
use async_cache_core::entry::{Meta, NewEntry};
use async_cache_core::order::Eviction;
use async_cache_core::removed::Removed;
use async_cache_core::shard::{Config, Restored, Shard, Trust};
use async_cache_core::time::{Deadline, Now, Stamp, Time};

use crate::replay::every_seed;

/// The granularity of reclaiming, in nanoseconds; see the head of `timer.rs`.
const TICK: u64 = 1 << 20;

const SECOND: u64 = 1_000_000_000;

type Numbers = Shard<u64, (), ()>;

fn unlimited() -> Numbers {
    Shard::new(Config::single(None, Eviction::Lru))
}

fn hash(key: u64) -> u64 {
    fastrand::Rng::with_seed(key).u64(..)
}

fn at(cache: &Numbers, key: u64) -> Address {
    crate::addressing::at(cache, hash(key), None, |&known| known == key)
}

/// Sets a key; returns the number of entries that left.
fn set(cache: &mut Numbers, key: u64, deadline: Deadline, now: Time) -> usize {
    cache.set(at(cache, key), key, (), deadline, Now::without_wall(now)).len()
}

fn is_served(cache: &Numbers, key: u64, now: Time) -> bool {
    cache.hit(hash(key), |&known| known == key, |deadline| deadline.has_passed(now), |&()| ()).is_some()
}

fn reclaim_all(cache: &mut Numbers, now: Time) {
    let mut removed = Removed::default();
    cache.reclaim_all(Now::without_wall(now), &mut removed);
}

#[test]
fn an_entry_is_served_until_the_nanosecond_before_its_deadline() {
    for deadline in [1, TICK - 1, TICK, TICK + 1, 63 * TICK, 64 * TICK, 1 << 62, u64::MAX - 1] {
        let mut cache = unlimited();
        set(&mut cache, 7, Deadline::at(Time::from_nanos(deadline)), Time::from_nanos(0));
        let before = Time::from_nanos(deadline - 1);
        reclaim_all(&mut cache, before);
        assert!(is_served(&cache, 7, before), "{deadline}: gone too early");
        assert!(!is_served(&cache, 7, Time::from_nanos(deadline)), "{deadline}: served too late");
        cache.validate();
    }
}

#[test]
fn reclaim_all_leaves_nothing_that_expired_a_tick_ago() {
    every_seed(40, |run| {
        let mut cache = unlimited();
        let mut now = Time::from_nanos(run.dice.u64(..) >> run.dice.u32(..64));
        let mut deadlines = Vec::new();
        run.set_up(&now);
        for key in 0..2_000 {
            let ttl = run.dice.u64(..) >> run.dice.u32(..64);
            let deadline = Deadline::after(now, Duration::from_nanos(ttl));
            run.note((key, now, deadline));
            set(&mut cache, key, deadline, now);
            deadlines.push(deadline);
            if key % 100 == 0 {
                let jump = run.dice.u64(..) >> run.dice.u32(..64);
                now = Time::from_nanos(now.as_nanos().saturating_add(jump));
                reclaim_all(&mut cache, now);
                cache.validate();
                let tick_ago = Time::from_nanos(now.as_nanos() / TICK * TICK);
                let may_stay = deadlines.iter().filter(|deadline| !deadline.has_passed(tick_ago)).count();
                let must_stay = deadlines.iter().filter(|deadline| !deadline.has_passed(now)).count();
                let len = cache.store().len();
                assert!((must_stay..=may_stay).contains(&len), "{len} of {must_stay} to {may_stay} are left");
            }
        }
    });
}

#[test]
fn a_clock_at_its_end_keeps_what_never_expires_and_serves_nothing_else() {
    let end = Time::from_nanos(u64::MAX);
    let mut cache = unlimited();
    set(&mut cache, 1, Deadline::NEVER, Time::from_nanos(0));
    set(&mut cache, 2, Deadline::at(Time::from_nanos(u64::MAX - 1)), Time::from_nanos(0));
    set(&mut cache, 3, Deadline::after(end, Duration::from_secs(1)), end);
    reclaim_all(&mut cache, end);
    cache.validate();
    assert_eq!([1, 2, 3].map(|key| is_served(&cache, key, end)), [true, false, true]);
    set(&mut cache, 4, Deadline::at(end), Time::from_nanos(5));
    assert!(is_served(&cache, 4, end), "the last instant stands for never");
}

/// Writes `writes` new keys to an unlimited cache, one every `step` nanoseconds, each with the time
/// to live `ttl()`, and checks all the time that there are not many more resident entries than live
/// ones.
fn does_not_grow(what: &str, writes: u64, step: u64, mut ttl: impl FnMut() -> u64) {
    let mut cache = unlimited();
    let mut deadlines = BinaryHeap::new();
    for key in 0..writes {
        let now = Time::from_nanos(key * step);
        let deadline = Deadline::after(now, Duration::from_nanos(ttl()));
        let left = set(&mut cache, key, deadline, now);
        assert!(left <= 8, "{what}: one write reclaimed {left} entries");
        deadlines.push(std::cmp::Reverse(deadline));
        while deadlines.peek().is_some_and(|deadline| deadline.0.has_passed(now)) {
            deadlines.pop();
        }
        // Entries that expired within the last tick are not due yet.
        let within_a_tick = usize::try_from(TICK / step + 1).unwrap();
        let (resident, live) = (cache.store().len(), deadlines.len());
        assert!(
            resident <= live + live / 8 + within_a_tick + 64,
            "{what}: {resident} resident entries, {live} live ones, after {key} writes"
        );
    }
    cache.validate();
}

#[test]
fn an_unlimited_cache_does_not_grow_whatever_its_constant_ttl() {
    for exponent in 3..12 {
        let ttl = 10u64.pow(exponent);
        does_not_grow(&format!("a ttl of {ttl} ns"), 20_000, SECOND / 1_000, || ttl);
        does_not_grow(&format!("a ttl of {ttl} ns, fast"), 20_000, 1_000, || ttl);
    }
}

#[test]
fn an_unlimited_cache_does_not_grow_with_ttls_over_eight_orders_of_magnitude() {
    let mut dice = fastrand::Rng::with_seed(8);
    does_not_grow("1 us to 100 s", 100_000, SECOND / 1_000, || 10u64.pow(dice.u32(3..11)) * dice.u64(1..10));
    let mut dice = fastrand::Rng::with_seed(9);
    does_not_grow("mostly long", 50_000, SECOND / 1_000, || dice.u64(1..20 * SECOND));
    let mut nth = 0;
    does_not_grow("long and short in turn", 50_000, SECOND / 1_000, || {
        nth += 1;
        if nth % 2 == 0 { SECOND / 100 } else { 30 * SECOND }
    });
}

#[test]
fn writes_that_come_after_a_burst_reclaim_it_a_few_entries_each() {
    const BURST: u64 = 20_000;
    // Deadlines on every level of the wheel, all passing at once.
    for ttl in [TICK, 100 * TICK, 5_000 * TICK, 300_000 * TICK, 20_000_000 * TICK, 1 << 60] {
        let mut cache = unlimited();
        for key in 0..BURST {
            let deadline = Deadline::at(Time::from_nanos(ttl + key));
            let new = NewEntry { key, value: (), meta: Meta::written_at(Stamp::UNKNOWN, deadline) };
            let start = Now::without_wall(Time::from_nanos(0));
            let restored = cache.restore(at(&cache, key), new, Trust::Covered, start);
            assert!(matches!(restored, Restored::Stored));
        }
        let now = Time::from_nanos(1 << 61);
        for _ in 0..BURST {
            let left = set(&mut cache, u64::MAX, Deadline::NEVER, now);
            assert!(left <= 9, "one write handed out {left} entries");
        }
        assert_eq!(cache.store().len(), 1, "a ttl of {ttl}");
        cache.validate();
    }
}
