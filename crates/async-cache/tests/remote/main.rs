//! Caches that share their entries beyond one host, on real servers.
// The clocks and the processes of these tests are real.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod acknowledged;
mod batches;
mod beside_files;
mod callers;
mod cluster;
mod failover;
mod fences;
mod foreign;
mod functions;
mod holders;
mod old_servers;
mod order;
mod outages;
mod outside;
mod programs;
mod races;
mod recovery;
mod rights;
mod sharing;
mod sizes;
mod storms;
mod support;
mod tls;
