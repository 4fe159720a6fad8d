//! Tools, and the counters of their calls: for each tool, for each session, and for the process.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::raw::visit::visits;
use crate::raw::{GilCell, Ref};

/// The part of a decorated function that makes it the tool of an agent.
pub(crate) struct Tool {
    /// Identifies the tool among all tools of the process.
    pub(super) number: u32,
    pub(super) scope: ToolScope,
    pub(super) counts: GilCell<ToolCounts>,
}

/// The place of a tool's results.
pub(super) enum ToolScope {
    /// In the cache of the decorated function.
    Global,
    /// In a decorated function for each session; the callable makes the function, and is called
    /// with the session.
    Session(Ref),
}

visits!(struct Tool { scope });
visits!(
    enum ToolScope {
        Session(make),
    }
);

/// The counters.
#[derive(Clone, Copy, Default)]
pub(super) struct ToolCounts {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) invalidations: u64,
    pub(super) loop_detections: u64,
}

impl ToolCounts {
    pub(super) const NONE: Self = Self { hits: 0, misses: 0, invalidations: 0, loop_detections: 0 };

    pub(super) fn to_dict(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("hits", self.hits)?;
        dict.set_item("misses", self.misses)?;
        dict.set_item("invalidations", self.invalidations)?;
        dict.set_item("loop_detections", self.loop_detections)?;
        Ok(dict)
    }
}

/// Over all tools and sessions of the process, including ended ones.
pub(super) static TOTAL: GilCell<ToolCounts> = GilCell::new(ToolCounts::NONE);
