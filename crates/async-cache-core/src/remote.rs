//! The tier beyond one host: what is decided about it.
//!
//! [`port`] says what an engine is asked and what it says; [`Machine`] decides. The front
//! carries bytes and time; `async-cache-redis` speaks to Redis and Valkey; memory is ordered to
//! forget ([`Output`]).

mod ask;
mod machine;
pub mod port;
mod settings;
#[cfg(test)]
mod tests;

pub use ask::{Answer, AskId, Landing, Want};
pub use machine::{Machine, Notice, Output, Word, WriteMark};
pub use settings::{Settings, WhileDown};
