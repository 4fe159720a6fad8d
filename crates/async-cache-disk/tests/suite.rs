//! The integration tests of this crate, one program: each program more would be compiled and linked for
//! itself. A file of tests is a module here (`cargo test -p async-cache-disk --test suite merge::`). Files that
//! need a process to themselves are listed in `Cargo.toml`, and say why; `scripts/check_tests.py` finds
//! files that are in neither list.

mod clear;
mod compression;
mod crash;
mod golden;
mod locks;
mod mac;
mod merge;
mod merge_options;
mod moved;
mod refusals;
mod round_trip;
mod salvage;
mod set_aside;
mod trust;

mod sample;
