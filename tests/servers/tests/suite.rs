//! The tests of this crate in one program: every further program would be compiled and linked
//! separately.

mod nodes;
mod proxy;
mod server;
