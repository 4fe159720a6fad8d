//! Caches that share their entries beyond one host, on real servers.

mod batches;
mod cluster;
mod failover;
mod functions;
mod programs;
mod sharing;
mod support;
mod tls;
