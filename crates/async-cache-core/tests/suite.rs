//! The integration tests of this crate in one program: every further program would be compiled and
//! linked separately. Each file of tests is a module here (`cargo test -p async-cache-core --test
//! suite fencing::`). Files that need a process to themselves are listed in `Cargo.toml`, with the
//! reason; `scripts/check_tests.py` finds files that are in neither list.

mod adaptive;
mod agent_loops;
mod batch_model;
mod changes;
mod cold_model;
mod cold_set;
mod expiry;
mod fencing;
mod flight_model;
mod listing_model;
mod places;
mod probes;
mod removals;
mod store_model;
mod suspects;
mod waits_model;

mod addressing;
mod ledger;
mod replay;
