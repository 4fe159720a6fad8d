//! The tier beyond one host: what is decided about it.

pub mod port;
