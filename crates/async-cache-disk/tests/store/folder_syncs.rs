//! Syncs of folders that fail, and then a power loss.
//!
//! On the disk of these tests, no later sync of the store's folder makes durable what a failed one
//! has lost. A later sync of the folders above does, because no store can make their names anew.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::{Op, State, brief, cache, folder_of, key, open, put, sized, state, text, write_base};
use crate::sample::SAVED_AT;
use async_cache_disk::fake::{FakeDisk, Fault};

const BYTES: u32 = 4096 + 600;

/// What may be found after a power loss, and what must be.
struct Promised {
    /// The values of each key since a flush.
    may: Vec<(u8, Vec<u8>)>,
    /// What this process finds.
    live: State,
    /// Of these, what was written since the last write that failed.
    written: State,
    /// What is durable.
    must: State,
    /// Syncs may have failed in another process, and this one, which does not know, has written
    /// nothing.
    is_unknown: bool,
}

impl Promised {
    fn begin(base: &State) -> Self {
        let may = base.clone().into_iter().collect();
        Self { may, live: base.clone(), written: base.clone(), must: base.clone(), is_unknown: false }
    }

    /// Notes the result of an operation.
    fn ended(&mut self, op: Op, number: usize, is_ok: bool) {
        let mut new = State::new();
        op.apply(number, &mut new);
        self.may.extend(new);
        match op {
            // A write that fails deletes its key, and may give up everything earlier.
            Op::Put(i, _) | Op::Delete(i) => {
                for state in [&mut self.must, &mut self.live, &mut self.written] {
                    state.remove(&i);
                }
            }
            Op::Clear => self.must.clear(),
            _ => {}
        }
        if is_ok {
            op.apply(number, &mut self.live);
            op.apply(number, &mut self.written);
        } else if op.is_write() {
            (self.written, self.must) = (State::new(), State::new());
        }
        match op {
            Op::Reopen | Op::Fold => self.is_unknown |= !is_ok,
            Op::Drop => self.is_unknown = true,
            _ => self.is_unknown &= !(is_ok && op.is_write()),
        }
        if is_ok && matches!(op, Op::Flush | Op::Reopen | Op::Fold) && !self.is_unknown {
            self.must = self.written.clone();
            self.may.retain(|(i, value)| self.live.get(i) == Some(value));
        }
    }

    fn check(&self, disk: &FakeDisk, context: &str) {
        let is_looked_at = |name: &str| ["died", "All", "Synced"].iter().any(|end| name.ends_with(end));
        for (name, survivor) in disk.survivors().into_iter().filter(|(name, _)| is_looked_at(name)) {
            let found = state(&open(&survivor, BYTES));
            let context =
                || format!("{context}: {name}: {:?}, must be {:?}", brief(&found), brief(&self.must));
            assert!(self.must.iter().all(|(i, value)| found.get(i) == Some(value)), "{}", context());
            for (i, value) in &found {
                let is_allowed = self.may.iter().any(|(key, may)| (key, may) == (i, value));
                assert!(is_allowed, "key {i}, {}: {}", text(value), context());
            }
        }
    }
}

/// A disk with a durable base, or nothing, and no store.
fn prepared(base_keys: u8) -> (FakeDisk, State) {
    let disk = FakeDisk::new();
    disk.put_dir(Path::new(super::PATH).parent().unwrap());
    let base = if base_keys > 0 { write_base(&disk, base_keys) } else { State::new() };
    drop(open(&disk, BYTES));
    disk.lose_failed_syncs(&folder_of(&disk));
    (disk, base)
}

/// Runs the program with failing syncs. Returns how many syncs of folders it has.
fn run(program: &[Op], base_keys: u8, failing: Range<usize>) -> usize {
    let (disk, base) = prepared(base_keys);
    let before = disk.folder_syncs();
    disk.fail_folder_syncs(before + failing.start..before + failing.end);
    let mut promised = Promised::begin(&base);
    let mut store = cache(&disk).store(sized(BYTES), SAVED_AT).ok();
    for (number, op) in program.iter().enumerate() {
        let result = op.run(number, &disk, &mut store, BYTES);
        promised.ended(*op, number, result.is_ok());
        if !failing.is_empty() && disk.folder_syncs() > before + failing.start {
            let result = result.map_err(|error| error.to_string());
            promised.check(&disk, &format!("{failing:?} fail, after {number} {op:?}, {result:?}"));
        }
    }
    disk.folder_syncs() - before
}

fn fail_everywhere(program: &[Op], base_keys: u8) {
    let syncs = run(program, base_keys, 0..0);
    for first in 0..syncs {
        for count in [1, 2, 1000] {
            run(program, base_keys, first..first + count);
        }
    }
    assert!(syncs > 10, "{syncs}");
}

#[test]
fn a_failed_sync_of_a_folder_is_no_flush_and_costs_the_file_nothing() {
    use Op::{Delete, Drop, Flush, Fold, Put, Reopen};
    let program = [Put(0, 40), Put(1, 40), Flush, Delete(2), Flush, Put(1, 900), Put(3, 30), Flush];
    let then = [Drop, Put(4, 30), Flush, Reopen, Delete(1), Flush, Fold, Put(5, 20), Flush];
    let program = [&program[..], &then].concat();
    fail_everywhere(&program, 0);
    fail_everywhere(&program, 4);
}

/// The first record of a segment cannot be written, so the next segment takes its place. The
/// manifest that says so is not durable.
#[test]
fn a_segment_without_records_stays_as_long_as_a_durable_manifest_names_it() {
    let opened = || {
        let (disk, _) = prepared(2);
        let store = open(&disk, BYTES);
        put(&store, &key(0), b"durable", SAVED_AT).unwrap();
        store.close(SAVED_AT).unwrap();
        let store = open(&disk, BYTES);
        disk.repair();
        (disk, store)
    };
    let (rehearsal, store) = opened();
    put(&store, &key(5), b"five", SAVED_AT).unwrap();
    let first_record = rehearsal.calls().iter().rposition(|call| call.name == "write_at").unwrap();

    let (disk, store) = opened();
    disk.inject(first_record, Fault::Error(io::ErrorKind::Other));
    let of_next_segment = rehearsal.folder_syncs();
    disk.fail_folder_syncs(of_next_segment + 1..usize::MAX);
    put(&store, &key(5), b"five", SAVED_AT).unwrap_err();
    let expected = State::from([(0, b"durable".to_vec()), (1, super::base_value(1))]);
    for (name, survivor) in disk.survivors() {
        assert_eq!(state(&open(&survivor, BYTES)), expected, "{name}");
    }
}
