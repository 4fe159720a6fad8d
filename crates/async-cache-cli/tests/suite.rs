//! The integration tests of this crate in one program: every further program would be compiled and
//! linked separately. Each file of tests is a module here (`cargo test -p async-cache-cli --test
//! suite promises::`). Files that need a process to themselves are listed in `Cargo.toml`, with the
//! reason; `scripts/check_tests.py` finds files that are in neither list.

mod document;
mod output;
mod promises;
mod robust;
mod store;

mod tool;
