//! Tools of agents: decorated functions that are called within sessions, and watched for loops.
//!
//! The decisions (what is a loop, when a session ends) are the core's, `async_cache_core::agent`; the Python package
//! `agent_cache` has what is called seldom. Here is what every call goes through.
//!
//! - `call`: the awaitable of a call; `tool`: what makes a decorated function a tool; `decorate`: makes tools
//! - `frame`: where a call is made: in which session, how deep, after which other calls
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

/// Adds what `agent_cache` needs to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<session::Session>()?;
    module.add_class::<frame::Guard>()?;
    module.add_class::<frame::Frame>()?;
    module.add_class::<registry::Registry>()?;
    module.add_class::<registry::Entry>()?;
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
