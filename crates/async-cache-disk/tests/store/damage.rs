//! Damage anywhere in the files of a store: a value, or a miss, and never an older value.

use std::path::PathBuf;

use super::view::{check_verified, viewed};
use super::{Op, State, collections, open, small_segments, state, text, write_base};
use crate::sample::SAVED_AT;
use async_cache_disk::fake::FakeDisk;

/// A store with damage at rest.
struct Stored {
    files: Vec<(PathBuf, Vec<u8>)>,
    state: State,
    bytes: u32,
}

/// Runs the program.
fn stored(program: &[Op], bytes: u32, has_base: bool, is_closed: bool) -> Stored {
    let disk = FakeDisk::new();
    let mut state = if has_base { write_base(&disk, 4) } else { State::new() };
    let mut store = Some(open(&disk, bytes));
    for (number, op) in program.iter().enumerate() {
        op.run(number, &disk, &mut store, bytes).unwrap();
        op.apply(number, &mut state);
    }
    if let Some(store) = store.filter(|_| is_closed) {
        store.close(0).unwrap();
    }
    let files = disk.files().into_iter().map(|path| (path.clone(), disk.bytes(&path).unwrap())).collect();
    Stored { files, state, bytes }
}

impl Stored {
    /// The store with another content of a file; `None`: without the file.
    fn with(&self, index: usize, bytes: Option<&[u8]>) -> FakeDisk {
        let disk = FakeDisk::new();
        for (other, (path, sound)) in self.files.iter().enumerate() {
            match bytes {
                _ if other != index => disk.put(path, sound),
                Some(bytes) => disk.put(path, bytes),
                None => {}
            }
        }
        disk
    }

    fn check(&self, disk: &FakeDisk, context: &str) {
        let viewed = viewed(disk, SAVED_AT);
        let opened = state(&open(disk, self.bytes));
        assert!(viewed.is_none_or(|viewed| viewed == opened), "{context}: viewed and opened");
        for step in ["opened", "again", "maintained"] {
            let store = open(disk, self.bytes);
            if step == "maintained" {
                super::maintain(&store, 0).unwrap();
            }
            for (i, value) in state(&store) {
                assert!(Some(&value) == self.state.get(&i), "{context}, {step}: key {i}: {:?}", text(&value));
            }
        }
    }

    /// Every byte that is not zero, and some zeros.
    fn offsets(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        let bytes = &self.files[index].1;
        let stride = if super::rounds(0) > 0 { 1 } else { 61 };
        (0..bytes.len()).filter(move |at| bytes[*at] != 0 || at % stride == 0)
    }

    fn check_all(&self, is_closed: bool) {
        // Nobody knows how long an open segment was.
        let is_segment = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('s');
        let open = self.files.iter().rposition(|(path, _)| is_segment(path)).filter(|_| !is_closed);
        for (index, (path, sound)) in self.files.iter().enumerate() {
            for at in self.offsets(index) {
                let mut bytes = sound.clone();
                bytes[at] ^= if at % 2 == 0 { 0x01 } else { 0xFF };
                if at % 4 == 0 {
                    check_verified(&self.with(index, Some(&bytes)), &self.state, at);
                }
                self.check(&self.with(index, Some(&bytes)), &format!("{}, byte {at}", path.display()));
                if open != Some(index) {
                    self.check(
                        &self.with(index, Some(&sound[..at])),
                        &format!("{}, cut at {at}", path.display()),
                    );
                }
            }
            self.check(&self.with(index, None), &format!("{} removed", path.display()));
        }
    }
}

fn short() -> Vec<Op> {
    let mut program = vec![Op::Put(0, 8), Op::Delete(1), Op::Put(4, 20), Op::Put(0, 600), Op::Maintain];
    program.extend([Op::Delete(4), Op::Put(2, 700), Op::Maintain, Op::Put(5, 30), Op::Put(0, 12)]);
    program
}

#[test]
fn damage_of_a_closed_store_costs_values_and_brings_none_back() {
    let program = short();
    stored(&program, 4096 + 600, true, true).check_all(true);
}

#[test]
fn damage_of_a_store_whose_process_died_costs_values_and_brings_none_back() {
    stored(&short(), 4096 + 600, true, false).check_all(false);
    let program = [Op::Put(0, 10), Op::Put(1, 10), Op::Clear, Op::Put(0, 20), Op::Delete(0), Op::Put(1, 30)];
    stored(&program, 1 << 20, true, false).check_all(false);
}

#[test]
fn a_lost_file_of_a_merged_store_costs_values_and_brings_none_back() {
    let (program, bytes) = small_segments();
    lose_each_file(&program, bytes);
    let (program, bytes) = collections(4096 + 600);
    lose_each_file(&program, bytes);
}

fn lose_each_file(program: &[Op], bytes: u32) {
    for end in (5..program.len()).step_by(3) {
        let stored = stored(&program[..end], bytes, true, false);
        for (index, (path, sound)) in stored.files.iter().enumerate() {
            stored.check(&stored.with(index, None), &format!("{end}, {} removed", path.display()));
            stored.check(
                &stored.with(index, Some(&vec![0; sound.len()])),
                &format!("{end}, {} zeros", path.display()),
            );
        }
    }
}

#[test]
fn damage_after_collections_costs_values_and_brings_none_back() {
    let (program, bytes) = collections(4096 + 600);
    let end = program.iter().rposition(|op| *op == Op::Reopen).unwrap();
    stored(&program[..end], bytes, true, false).check_all(false);
    stored(&program[..end], bytes + 1, true, true).check_all(true);
}
