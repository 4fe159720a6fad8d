//! The integration tests of this crate, one program: each program more would be compiled and linked for
//! itself. A file of tests is a module here (`cargo test -p async-cache-cli --test suite promises::`). Files that
//! need a process to themselves are listed in `Cargo.toml`, and say why; `scripts/check_tests.py` finds
//! files that are in neither list.

mod document;
mod output;
mod promises;
mod robust;

mod tool;
