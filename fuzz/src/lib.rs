//! The common parts of the fuzzers: reading all of a file, and writing small files as first inputs.

mod read_all;
mod samples;

pub use read_all::read_all;
pub use samples::{Entry, Sample, Shape, sample, secret};
