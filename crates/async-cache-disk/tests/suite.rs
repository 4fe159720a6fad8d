//! The integration tests of this crate in one program: every further program would be compiled and
//! linked separately. Each file of tests is a module here (`cargo test -p async-cache-disk --test
//! suite merge::`). Files that need a process to themselves are listed in `Cargo.toml`, with the
//! reason; `scripts/check_tests.py` finds files that are in neither list.

mod clear;
mod compression;
mod crash;
mod golden;
mod golden_stores;
mod locks;
mod mac;
mod merge;
mod merge_options;
mod moved;
mod refusals;
mod round_trip;
mod salvage;
mod set_aside;
mod store;
mod trust;
mod values;

mod sample;
