//! Caches that share their entries beyond one host, on real servers.

mod batches;
mod functions;
mod sharing;
mod support;
