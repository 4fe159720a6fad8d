//! Rounds with real threads. A thread has joined the next round when it holds a reference to it.

#![allow(clippy::arithmetic_side_effects)] // of tests

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::*;
use crate::error::DiskErrorKind;

fn error(what: &str) -> DiskError {
    DiskError::new(DiskErrorKind::Io, Path::new("/store"), what)
}

fn text(outcome: &Result<(), DiskError>) -> String {
    outcome.as_ref().map_or_else(ToString::to_string, |()| "ok".to_owned())
}

/// Waits until this many callers have joined the round that has not begun.
fn until_joined(flushes: &Flushes, callers: usize) {
    while Arc::strong_count(&flushes.lock().next) != callers + 1 {
        thread::yield_now();
    }
}

/// Leads a round with `callers` callers that have joined during the round before it.
fn follow<'s>(
    scope: &'s thread::Scope<'s, '_>,
    flushes: &'s Flushes,
    callers: usize,
    sync: impl Fn() -> Result<(), DiskError> + Copy + Send + 's,
) -> Vec<thread::ScopedJoinHandle<'s, thread::Result<Result<(), DiskError>>>> {
    let (release, released) = channel::<()>();
    let (began, has_begun): (Sender<()>, _) = channel();
    let leader = scope.spawn(move || {
        let sync = || {
            began.send(()).unwrap();
            released.recv().unwrap();
            Ok(())
        };
        flushes.join(sync, || error("abandoned"))
    });
    has_begun.recv().unwrap();
    let call = move || catch_unwind(AssertUnwindSafe(|| flushes.join(sync, || error("abandoned"))));
    let followers = (0..callers).map(|_| scope.spawn(call)).collect();
    until_joined(flushes, callers);
    release.send(()).unwrap();
    assert_eq!(text(&leader.join().unwrap()), "ok");
    followers
}

#[test]
fn callers_that_arrive_during_a_sync_share_the_next_one_and_its_error() {
    let (flushes, syncs) = (Flushes::default(), AtomicU32::new(0));
    for round in 1..=3 {
        thread::scope(|scope| {
            let sync = || {
                syncs.fetch_add(1, Ordering::Relaxed);
                Err(error("no power"))
            };
            for follower in follow(scope, &flushes, 7, sync) {
                let outcome = follower.join().unwrap().unwrap();
                assert!(text(&outcome).contains("no power"), "{outcome:?}");
            }
        });
        assert_eq!(syncs.load(Ordering::Relaxed), round, "one sync for seven callers");
    }
    flushes.join(|| Ok(()), || error("abandoned")).unwrap();
}

#[test]
fn a_leader_that_panics_leaves_an_error_and_nobody_waiting() {
    let flushes = Flushes::default();
    thread::scope(|scope| {
        let followers = follow(scope, &flushes, 5, || panic!("a panic of the test"));
        let outcomes = followers.into_iter().map(|follower| follower.join().unwrap());
        let (panicked, told): (Vec<_>, Vec<_>) = outcomes.partition(Result::is_err);
        assert_eq!((panicked.len(), told.len()), (1, 4));
        for outcome in told {
            assert!(text(&outcome.unwrap()).contains("abandoned"));
        }
    });
    flushes.join(|| Ok(()), || error("abandoned")).unwrap();
}

#[test]
fn whatever_was_written_before_a_call_is_synced_when_it_returns() {
    let (flushes, written, synced) = (Flushes::default(), AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let mine = written.fetch_add(1, Ordering::SeqCst) + 1;
                    let sync = || {
                        let until = written.load(Ordering::SeqCst);
                        thread::yield_now();
                        let before = synced.swap(until, Ordering::SeqCst);
                        assert!(before <= until, "one sync at a time");
                        Ok(())
                    };
                    flushes.join(sync, || error("abandoned")).unwrap();
                    assert!(synced.load(Ordering::SeqCst) >= mine);
                }
            });
        }
    });
}

#[test]
fn lost_writes_are_known_by_their_times_and_stay_lost() {
    let mut durability = Durability::new(10);
    durability.synced(20);
    durability.failed(30);
    durability.failed(30);
    durability.synced(40);
    durability.failed_unseen(50);
    durability.synced(45);
    let lost = (0..60).filter(|time| durability.is_lost(*time)).collect::<Vec<u64>>();
    assert_eq!(lost, (21..=30).chain(41..=50).collect::<Vec<u64>>());
    assert_eq!((durability.lost.len(), durability.is_unreported()), (2, true));
}

#[test]
fn of_many_failures_the_earliest_are_joined_and_none_is_forgotten() {
    let mut durability = Durability::new(0);
    for failure in 1..=1000 {
        durability.synced(10 * failure);
        durability.failed(10 * failure + 5);
    }
    assert_eq!(durability.lost.len(), MOST_LOST_RANGES);
    for failure in 1..=1000 {
        assert!((10 * failure + 1..=10 * failure + 5).all(|time| durability.is_lost(time)));
    }
    assert!(!durability.is_lost(10_000) && !durability.is_lost(10_006) && !durability.is_lost(10));
}
