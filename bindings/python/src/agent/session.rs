//! Sessions: the caches of a session, one for each tool called in the session.
//!
//! Invariant: every entry in a session's caches was loaded in the session, and only this object
//! leads to the caches. A closed session has no caches and makes none, so a late call finds no
//! entry and leaves none.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use pyo3::{PyTraverseError, PyVisit};

use super::tool::ToolCounts;
use crate::raw::calls::Invoke;
use crate::raw::visit::{self, visits};
use crate::raw::{GilCell, Ref};

/// One session.
#[pyclass(frozen, weakref, module = "cache._native", name = "AgentSession")]
pub(crate) struct Session {
    /// Its id.
    #[pyo3(get)]
    session_id: Py<PyString>,
    pub(super) state: GilCell<SessionState>,
}

pub(super) struct SessionState {
    is_open: bool,
    /// The function that keeps the results, by the number of the tool.
    functions: BTreeMap<u32, Ref>,
    pub(super) counts: ToolCounts,
}

visits!(struct SessionState { functions });

#[pymethods]
impl Session {
    #[new]
    pub(super) fn new(session_id: Py<PyString>) -> Self {
        let state = SessionState { is_open: true, functions: BTreeMap::new(), counts: ToolCounts::default() };
        Self { session_id, state: GilCell::new(state) }
    }

    /// Ends the session. Returns the functions that kept its results, so that their running loads
    /// can be fenced.
    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let functions = self.end(py);
        PyList::new(py, functions.into_values().map(|function| function.into_bound(py)))
    }

    #[getter]
    fn is_open(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).is_open
    }

    /// The functions that keep the session's results, or the function of a single tool.
    #[pyo3(signature = (number=None))]
    fn functions<'py>(&self, py: Python<'py>, number: Option<u32>) -> PyResult<Bound<'py, PyList>> {
        let functions: Vec<_> = {
            let state = self.state.borrow(py);
            let functions = state.functions.iter();
            let asked = functions.filter(|(at, _)| number.is_none_or(|number| number == **at));
            asked.map(|(_, function)| function.bind(py).clone()).collect()
        };
        PyList::new(py, functions)
    }

    /// Counts an invalidation.
    fn count_invalidation(&self, py: Python<'_>) {
        self.state.borrow(py).counts.invalidations += 1;
    }

    /// The counters.
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = self.state.borrow(py).counts;
        counts.to_dict(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(&self.state, visit)
    }

    fn __clear__(&self) {
        drop(self.state.take_with(|state| {
            state.is_open = false;
            std::mem::take(&mut state.functions)
        }));
    }
}

impl Session {
    /// Ends the session. Drop the returned functions, which kept its results, when nothing is
    /// borrowed.
    pub(super) fn end(&self, py: Python<'_>) -> BTreeMap<u32, Ref> {
        let mut state = self.state.borrow(py);
        state.is_open = false;
        std::mem::take(&mut state.functions)
    }

    /// The function that keeps the results of a tool, if the tool was called in this session.
    #[inline]
    pub(super) fn function<'py>(&self, py: Python<'py>, number: u32) -> Option<Bound<'py, PyAny>> {
        self.state.borrow(py).functions.get(&number).map(|function| function.bind(py).clone())
    }

    /// [`Session::function`], made by `make` if necessary; `None` after the session has ended.
    pub(super) fn function_or_make<'py>(
        slf: &Bound<'py, Self>,
        number: u32,
        make: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, this) = (slf.py(), slf.get());
        if let Some(function) = this.function(py, number) {
            return Ok(Some(function));
        }
        if !this.is_open(py) {
            return Ok(None);
        }
        // Python code: in the meantime another thread may have made the function, or ended the
        // session.
        let made = make.invoke1(slf.as_any())?;
        let mut state = this.state.borrow(py);
        if !state.is_open {
            return Ok(None);
        }
        let function = state.functions.entry(number).or_insert_with(|| Ref::new(made.clone()));
        Ok(Some(function.bind(py).clone()))
    }
}
