//! The adaptive order: compared with LRU on synthetic sequences of requests, and its further
//! promises.
//!
//! Each sequence needs one part of the adaptive order, and the bounds lie between the ratios
//! reached with and without the part. The sequences come from fixed seeds, so the ratios are always
//! the same; real traces are measured elsewhere.

use async_cache_core::order::Eviction;
use async_cache_core::removed::{Cause, Departed};
use async_cache_core::shard::{Config, Shard};
use async_cache_core::time::{Deadline, Now, Time};

use crate::addressing::at;

const CAPACITY: usize = 500;
const REQUESTS: usize = 200_000;

/// The share of hits among the requests, if every miss is stored.
fn hit_ratio(eviction: Eviction, requests: &[u64]) -> f64 {
    let mut cache = Shard::<u64, (), ()>::new(Config::single(Some(CAPACITY), eviction));
    let now = Now::without_wall(Time::from_nanos(0));
    for &key in requests {
        let hash = fastrand::Rng::with_seed(key).u64(..);
        if let Some(slot) = cache.find(hash, |&known| known == key) {
            assert!(cache.hit_mut(slot, |_| unreachable!("nothing expires")).is_some());
        } else {
            cache.miss();
            let at = at(&cache, hash, None, |&known| known == key);
            drop(cache.set(at, key, (), Deadline::NEVER, now));
        }
    }
    cache.validate();
    cache.stats().hit_rate()
}

fn both(requests: &[u64]) -> (f64, f64) {
    (hit_ratio(Eviction::Adaptive, requests), hit_ratio(Eviction::Lru, requests))
}

/// Keys from 0 up, the nth requested in proportion to 1 / n.
struct Zipf {
    cumulated: Vec<f64>,
    dice: fastrand::Rng,
}

impl Zipf {
    fn new(keys: u32, seed: u64) -> Self {
        let mut sum = 0.0;
        let cumulated = (1..=keys).map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        });
        Self { cumulated: cumulated.collect(), dice: fastrand::Rng::with_seed(seed) }
    }

    fn next(&mut self) -> u64 {
        let point = self.dice.f64() * self.cumulated.last().unwrap();
        self.cumulated.partition_point(|&cumulated| cumulated < point) as u64
    }
}

#[test]
fn a_skewed_sequence_is_served_better_than_by_lru() {
    let mut zipf = Zipf::new(20_000, 1);
    let requests: Vec<u64> = (0..REQUESTS).map(|_| zipf.next()).collect();
    let (adaptive, lru) = both(&requests);
    assert!(adaptive > lru + 0.075, "adaptive {adaptive:.4}, LRU {lru:.4}");
}

#[test]
fn a_loop_that_is_a_little_too_long_is_served_in_part() {
    let requests: Vec<u64> = (0..CAPACITY as u64 * 6 / 5).cycle().take(REQUESTS).collect();
    let (adaptive, lru) = both(&requests);
    assert!(lru == 0.0, "LRU evicts just what is asked for next, but served {lru:.4}");
    assert!(adaptive > 0.5, "adaptive {adaptive:.4}");
}

#[test]
fn keys_that_are_used_once_do_not_push_out_those_that_are_used_again() {
    let mut zipf = Zipf::new(2_000, 2);
    let mut once = 1_000_000;
    let requests: Vec<u64> = (0..REQUESTS)
        .map(|nth| {
            if nth % 4_000 < 2_000 {
                return zipf.next();
            }
            once += 1;
            once
        })
        .collect();
    let (adaptive, lru) = both(&requests);
    assert!(adaptive > lru + 0.05, "adaptive {adaptive:.4}, LRU {lru:.4}");
}

/// Every key is requested twice, with `between` other keys in between, and never again.
fn twice(between: usize) -> Vec<u64> {
    // Between the two, equally many keys are requested for the first and for the second time.
    let back = between / 2;
    let pairs = (0..REQUESTS / 2).flat_map(|nth| [Some(nth), nth.checked_sub(back)]);
    pairs.flatten().map(|key| key as u64).collect()
}

#[test]
fn keys_that_are_used_twice_are_kept_for_the_second_time() {
    // Good for LRU, bad for a small queue that does not grow.
    let (adaptive, lru) = both(&twice(CAPACITY * 4 / 5));
    assert!(lru > 0.49, "LRU {lru:.4}");
    assert!(adaptive > lru - 0.02, "adaptive {adaptive:.4}, LRU {lru:.4}");
}

#[test]
fn keys_that_come_back_just_out_of_reach_of_lru_are_served_all_the_same() {
    // The ghost detects their return, and the small queue grows until it holds them.
    let (adaptive, lru) = both(&twice(CAPACITY * 6 / 5));
    assert!(lru < 0.01, "LRU {lru:.4}");
    assert!(adaptive > 0.4, "adaptive {adaptive:.4}");
}

#[test]
fn keys_that_were_used_much_and_are_not_any_more_make_room() {
    // Every key of a working set is used again and again, and then never; the same with the next
    // set.
    let set = CAPACITY as u64 * 4 / 5;
    let requests: Vec<u64> = (0..REQUESTS as u64).map(|nth| nth / (set * 20) * set + nth % set).collect();
    let (adaptive, lru) = both(&requests);
    assert!(lru > 0.9, "LRU {lru:.4}");
    assert!(adaptive > lru - 0.1, "adaptive {adaptive:.4}, LRU {lru:.4}");
}

#[test]
fn a_search_for_a_victim_ends_though_every_entry_was_used() {
    let mut cache = Shard::<u64, (), ()>::new(Config::single(Some(CAPACITY), Eviction::Adaptive));
    let hash = |key: u64| fastrand::Rng::with_seed(key).u64(..);
    let now = Now::without_wall(Time::from_nanos(0));
    for key in 0..CAPACITY as u64 {
        let at = at(&cache, hash(key), None, |&known| known == key);
        drop(cache.set(at, key, (), Deadline::NEVER, now));
    }
    for key in 0..CAPACITY as u64 {
        for _ in 0..3 {
            let hit = cache.hit(hash(key), |&known| known == key, |_| false, |&()| ());
            hit.expect("there is room for all");
        }
    }
    let read = |ticket| *cache.store().redeem(ticket).expect("a ticket of now").key;
    let order: Vec<u64> = cache.coldest_first().into_iter().map(read).collect();
    let at = at(&cache, hash(u64::MAX), None, |&known| known == u64::MAX);
    let removed = cache.set(at, u64::MAX, (), Deadline::NEVER, now);
    let Departed { key: victim, cause, .. } = removed.into_entries().next().expect("a victim");
    assert_eq!(cause, Cause::Evicted);
    let steps = order.iter().position(|&key| Some(key) == victim).expect("it was there");
    assert!(steps < 64, "the search went {steps} entries far");
}
