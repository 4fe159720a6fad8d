//! Tools of agents: decorated functions called within sessions, with loop detection.
//!
//! The decisions (when calls are a loop, when a session ends) are made by the core,
//! `async_cache_core::agent`; the Python package `agent_cache` contains the rarely called code.
//! This module has the code on the path of every call.
//!
//! - `call`: the awaitable of a call; `tool`: the parts of a tool; `decorate`: makes tools
//! - `frame`: the place of a call: its session, its depth, the calls before it
//! - `session`: the caches of one session; `registry`: sessions by id, tools by resource
//! - `outcome`: whether two results are the same

mod call;
mod decorate;
mod frame;
mod outcome;
mod registry;
mod session;
mod tool;

use pyo3::prelude::*;

pub(crate) use call::ToolCall;
pub(crate) use tool::Tool;

/// Adds the classes and functions for `agent_cache` to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<session::Session>()?;
    module.add_class::<frame::Guard>()?;
    module.add_class::<frame::Frame>()?;
    module.add_class::<registry::Registry>()?;
    module.add_class::<registry::SessionEntry>()?;
    module.add_function(wrap_pyfunction!(decorate::decorate_tool, module)?)?;
    module.add_function(wrap_pyfunction!(decorate::tool_counts, module)?)?;
    module.add_function(wrap_pyfunction!(decorate::count_tool_invalidation, module)?)?;
    module.add_function(wrap_pyfunction!(decorate::reset_tool_counts, module)?)?;
    module.add_function(wrap_pyfunction!(decorate::total_counts, module)?)?;
    module.add_function(wrap_pyfunction!(decorate::count_invalidation, module)?)?;
    module.add_function(wrap_pyfunction!(frame::current_frame, module)?)?;
    module.add_function(wrap_pyfunction!(frame::set_current_frame, module)?)?;
    module.add_function(wrap_pyfunction!(frame::enter_tool, module)?)
}
