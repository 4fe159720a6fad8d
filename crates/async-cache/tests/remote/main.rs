//! Caches that share their entries beyond one host, on real servers.
// The clocks and the processes of these tests are real.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod batches;
mod cluster;
mod failover;
mod functions;
mod programs;
mod sharing;
mod support;
mod tls;
