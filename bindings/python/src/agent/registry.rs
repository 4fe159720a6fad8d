//! The registry of the process: sessions by id, tools by resource. The rules are the core's.

use std::sync::atomic::{AtomicBool, Ordering};

use async_cache_core::agent::{Resources, Sessions};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};

use super::session::Session;
use crate::raw::visit::{self, Visit, VisitStopped, Visitor};
use crate::raw::{GilCell, Ref};

/// Sessions and resources. `agent_cache` has one.
#[pyclass(frozen, module = "cache._native", name = "AgentRegistry")]
pub(crate) struct Registry {
    state: GilCell<RegistryState>,
}

#[derive(Default)]
struct RegistryState {
    sessions: Sessions<Ref<Session>>,
    /// Weak references to tools.
    resources: Resources<Ref<PyWeakrefReference>>,
}

impl Visit for RegistryState {
    fn visit(&self, visitor: Visitor<'_>) -> Result<(), VisitStopped> {
        self.sessions.iter().try_for_each(|session| session.visit(visitor))
    }
}

#[pymethods]
impl Registry {
    #[new]
    fn new() -> Self {
        Self { state: GilCell::new(RegistryState::default()) }
    }

    /// Enters a session, and opens the session if necessary.
    fn enter<'py>(&self, id: &Bound<'py, PyString>) -> PyResult<Bound<'py, Session>> {
        let py = id.py();
        let text = id.to_cow()?.into_owned();
        // Made before the borrow, though it may not be needed.
        let new = Bound::new(py, Session::new(id.clone().unbind()))?;
        let mut state = self.state.borrow(py);
        let session = state.sessions.enter(&text, || Ref::new(new.clone()));
        Ok(session.bind(py).clone())
    }

    /// Leaves a session. The last place to leave gets the session, in order to close it.
    fn leave<'py>(&self, id: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, Session>>> {
        let py = id.py();
        let text = id.to_cow()?.into_owned();
        let left = self.state.borrow(py).sessions.leave(&text);
        Ok(left.map(|session| session.into_bound(py)))
    }

    /// All open sessions.
    fn sessions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let sessions: Vec<_> =
            self.state.borrow(py).sessions.iter().map(|session| session.bind(py).clone()).collect();
        PyList::new(py, sessions)
    }

    /// Records that a tool reads a resource; returns whether the resource was written to before.
    /// The reference to the tool is weak.
    fn register(&self, resource: &Bound<'_, PyString>, tool: &Bound<'_, PyAny>) -> PyResult<bool> {
        let name = resource.to_cow()?.into_owned();
        let tool = Ref::new(PyWeakrefReference::new(tool)?);
        Ok(self.state.borrow(resource.py()).resources.register(&name, tool))
    }

    /// Records a write to a resource.
    fn write(&self, resource: &Bound<'_, PyString>) -> PyResult<()> {
        let name = resource.to_cow()?.into_owned();
        self.state.borrow(resource.py()).resources.write(&name);
        Ok(())
    }

    /// The tools that read a resource.
    fn tools<'py>(&self, resource: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyList>> {
        let py = resource.py();
        let resource = resource.to_cow()?.into_owned();
        let mut gone = Vec::new();
        let tools = self.state.borrow(py).resources.readers(&resource, |tool| {
            let upgraded = tool.bind(py).upgrade();
            if upgraded.is_none() {
                gone.push(tool.bind(py).clone());
            }
            upgraded
        });
        drop(gone);
        PyList::new(py, tools)
    }

    /// The names of all resources.
    fn resources(&self, py: Python<'_>) -> Vec<String> {
        self.state.borrow(py).resources.names().map(str::to_owned).collect()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit::traverse(&self.state, visit)
    }
}

/// One entry into a session. The session is left once, at the latest when this object is dropped:
/// an interrupt may come between any two lines of the code that enters and leaves.
#[pyclass(frozen, module = "cache._native", name = "AgentEntry")]
pub(crate) struct SessionEntry {
    registry: Py<Registry>,
    session_id: Py<PyString>,
    is_inside: AtomicBool,
}

#[pymethods]
impl SessionEntry {
    #[new]
    fn new(registry: Py<Registry>, session_id: Py<PyString>) -> Self {
        Self { registry, session_id, is_inside: AtomicBool::new(false) }
    }

    /// Enters the session, and opens the session if necessary.
    fn enter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Session>> {
        let session = self.registry.get().enter(self.session_id.bind(py))?;
        self.is_inside.store(true, Ordering::Relaxed);
        Ok(session)
    }

    /// Leaves the session if it was entered and not left. The last place to leave gets the session,
    /// in order to close it.
    fn leave<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, Session>>> {
        if !self.is_inside.swap(false, Ordering::Relaxed) {
            return Ok(None);
        }
        self.registry.get().leave(self.session_id.bind(py))
    }
}

impl Drop for SessionEntry {
    fn drop(&mut self) {
        if !*self.is_inside.get_mut() {
            return;
        }
        // An interpreter that shuts down refuses, and ends all sessions itself.
        let _ = Python::try_attach(|py| {
            if let Ok(Some(session)) = self.leave(py) {
                session.get().end(py);
            }
        });
    }
}
