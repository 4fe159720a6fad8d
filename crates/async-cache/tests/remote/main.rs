//! Caches that share their entries beyond one host, on real servers.

mod sharing;
mod support;
