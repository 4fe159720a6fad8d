//! Tools of AI agents: cached for all users or for a session, invalidated by writes, and kept from
//! looping.
//!
//! A *tool* is an async function that returns a `Result` and is decorated with
//! [`#[agent_cache]`](macro@crate::agent_cache); a write is decorated with
//! [`#[agent_invalidates]`](macro@crate::agent_invalidates). An agent runs in an [`AgentSession`]:
//!
//! ```
//! use async_cache::agent::{AgentSession, LoopDetection, ToolError};
//! use async_cache::{agent_cache, agent_invalidates};
//! use std::io;
//!
//! #[agent_cache(resource = "files", scope = "session")]
//! async fn read_file(path: &str) -> io::Result<String> {
//!     tokio::fs::read_to_string(path).await
//! }
//!
//! #[agent_invalidates(resource = "files", scope = "session")]
//! async fn write_file(path: &str, text: &str) -> io::Result<()> {
//!     tokio::fs::write(path, text).await
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("notes").to_str().unwrap().to_owned();
//! let session = AgentSession::builder().loop_detection(LoopDetection::new()).open();
//! session
//!     .run(async {
//!         write_file(&path, "draft").await?;
//!         assert_eq!(read_file(&path).await?, "draft"); // from the disk
//!         for _ in 0..4 {
//!             assert_eq!(read_file(&path).await?, "draft"); // cached
//!         }
//!         // The sixth time, for the same: a loop.
//!         let Err(ToolError::Loop(detected)) = read_file(&path).await else { panic!() };
//!         assert_eq!(detected.count, 6);
//!         Ok::<_, Box<dyn std::error::Error>>(())
//!     })
//!     .await?;
//! assert_eq!(session.metrics().hits, 4);
//! # Ok(())
//! # }
//! ```
//!
//! A session applies to the future that [`run`](AgentSession::run) polls. A task spawned inside is
//! outside the session, unless it is spawned with [`inherit`].
//!
//! # Layout
//!
//! - `session`: [`AgentSession`]; `shared`: the caches of a session; `detection`: the settings of
//!   loop detection; `scope`: [`Scope`]
//! - `frame`: the place of a call; `tool`: a call, from session to cache
//! - `registry`: sessions by id, tools by resource; `report`: [`ToolError`] and [`LoopDetected`];
//!   `metrics`: counting
//!
//! The module `async_cache_core::agent` defines loops, and decides when a session ends.

mod detection;
mod frame;
mod metrics;
mod registry;
mod report;
mod scope;
mod session;
mod shared;
mod tool;

pub use detection::{LoopDetection, OnLoop};
pub use frame::inherit;
pub use metrics::{AgentMetrics, metrics};
pub use registry::{Writing, writing};
pub use report::{LoopDetected, LoopKind, ToolCall, ToolError};
pub use scope::Scope;
pub use session::{AgentSession, SessionBuilder};
pub use tool::Tool;
