//! Caches that share their entries beyond one host, on real servers.

mod batches;
mod sharing;
mod support;
