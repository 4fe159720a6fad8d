//! The integration tests of this crate in one program: every further program would be compiled and
//! linked separately. Each file of tests is a module here (`cargo test -p async-cache --test suite
//! races::`). Files that need a process to themselves are listed in `Cargo.toml`, with the reason;
//! `scripts/check_tests.py` finds files that are in neither list.

mod agent;
mod api;
mod autosave;
mod backends;
mod batches;
mod cancellation;
mod distinct_values;
mod invalidates;
mod journal;
mod limits;
mod macro_arguments;
mod macros;
mod merging;
mod merging_oracle;
mod method_caches;
mod own_vfs;
mod persistence;
mod races;
mod room_on_disk;
mod scenarios;
mod starvation;
mod trust;
mod user_code;
mod warm_up;

mod stage;
