//! What several fuzzers do: reading all of a file, and writing small ones to begin with.

mod read_all;
mod samples;

pub use read_all::read_all;
pub use samples::{Entry, Sample, Shape, sample, secret};
