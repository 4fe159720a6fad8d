//! The integration tests of this crate in one program: every further program would be compiled and
//! linked separately. Each file of tests is a module here (`cargo test -p async-cache-redis --test
//! suite resp::`). `scripts/check_tests.py` finds files outside of the list.

mod config;
mod envelope;
mod layout;
mod link;
mod real_servers;
mod resp;
mod route;
