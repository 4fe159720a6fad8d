//! A process that dies, or a system that loses power, at any call.

use super::{
    Op, State, brief, collections, folder_of, large_records, open, small_segments, state, write_base,
};
use crate::sample::SAVED_AT;
use async_cache_disk::fake::{FakeDisk, Fault};

/// What a program did before a crash.
struct Crashed {
    /// The states after each write, from the first state on.
    states: Vec<State>,
    /// How many writes have returned.
    returned: usize,
    /// How many of them a flush, or a close, has made durable.
    durable: usize,
}

fn run(program: &[Op], disk: &FakeDisk, bytes: u32, base: State) -> Crashed {
    let mut crashed = Crashed { states: vec![base], returned: 0, durable: 0 };
    let mut store = super::cache(disk).store(super::sized(bytes), SAVED_AT).ok();
    if store.is_none() {
        return crashed;
    }
    for (number, op) in program.iter().enumerate() {
        let mut next = crashed.states.last().unwrap().clone();
        op.apply(number, &mut next);
        if op.is_write() {
            crashed.states.push(next);
        }
        if op.run(number, disk, &mut store, bytes).is_err() {
            return crashed;
        }
        crashed.returned += usize::from(op.is_write());
        if matches!(op, Op::Flush | Op::Reopen | Op::Fold) {
            crashed.durable = crashed.returned;
        }
    }
    crashed
}

fn check(survivors: Vec<(String, FakeDisk)>, crashed: &Crashed, bytes: u32, context: &str) {
    for (index, (name, survivor)) in survivors.into_iter().enumerate() {
        let first = if index == 0 { crashed.returned } else { crashed.durable };
        let store = open(&survivor, bytes);
        let found = state(&store);
        let allowed = &crashed.states[first..];
        let is_part = |state: &State| found.iter().all(|(i, value)| state.get(i) == Some(value));
        let may_lose = bytes % 2 == 1;
        assert!(
            allowed.contains(&found) || may_lose && allowed.iter().any(is_part),
            "{context}: {name}: {:?} is none of {:?}; before {:?}",
            brief(&found),
            allowed.iter().map(brief).collect::<Vec<_>>(),
            crashed.states[..first].last().map(brief)
        );
        // What was found stays.
        drop(store);
        let again = state(&open(&survivor, bytes));
        assert!(again == found, "{context}: {name}: {:?}, and then {:?}", brief(&found), brief(&again));
    }
}

fn crash_everywhere((program, bytes): (Vec<Op>, u32), base_keys: u8) {
    let prepared = || {
        let disk = FakeDisk::new();
        if base_keys == 0 {
            return (disk, State::new());
        }
        // The folder is durable, so that there are fewer survivors.
        let base = write_base(&disk, base_keys);
        drop(open(&disk, bytes));
        for folder in folder_of(&disk).ancestors().take(3) {
            disk.as_vfs().sync_dir(folder).unwrap();
        }
        disk.repair();
        (disk, base)
    };
    let (rehearsal, base) = prepared();
    let all = run(&program, &rehearsal, bytes, base);
    assert_eq!(all.returned + 1, all.states.len());
    let calls = rehearsal.calls();
    for (number, call) in calls.iter().enumerate() {
        let is_read = matches!(call.name, "read_at" | "metadata" | "bytes" | "read_link" | "list" | "open");
        if is_read && number % 7 != 0 {
            continue; // The disk is as at the next call that writes.
        }
        for fault in [Fault::Crash, Fault::TornCrash] {
            if fault == Fault::TornCrash && call.name != "write_at" {
                continue;
            }
            let (disk, base) = prepared();
            disk.inject(number, fault);
            let crashed = run(&program, &disk, bytes, base);
            check(disk.survivors(), &crashed, bytes, &format!("{fault:?} at call {number} {call:?}"));
        }
    }
}

#[test]
fn a_crash_loses_nothing_and_a_power_loss_only_the_latest_writes() {
    crash_everywhere(small_segments(), 0);
}

#[test]
fn a_crash_with_a_base_loses_nothing_and_a_power_loss_only_the_latest_writes() {
    crash_everywhere(small_segments(), 4);
}

#[test]
fn a_crash_in_large_records_loses_nothing_and_a_power_loss_only_the_latest_writes() {
    crash_everywhere(large_records(), 4);
}

#[test]
fn a_crash_of_a_collection_loses_nothing_and_a_power_loss_only_the_latest_writes() {
    crash_everywhere(collections(4096 + 600), 4);
}

#[test]
fn a_crash_of_a_collection_that_keeps_a_limit_brings_no_older_value_back() {
    crash_everywhere(collections(4096 + 601), 4);
}
