//! Times to live, as Python gives them: seconds.

use std::time::Duration;

use async_cache_core::time::{Deadline, Time};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt};

/// How long an entry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ttl {
    /// The cache's own time to live.
    Default,
    /// For ever.
    Never,
    /// This long; an entry with zero expires at once.
    For(Duration),
}

/// Raises the error of [`Ttl::new`] for an argument with another name than the cache's.
#[pyfunction]
pub(crate) fn check_ttl(seconds: &Bound<'_, PyAny>, name: &str) -> PyResult<()> {
    Ttl::new(seconds, name).map(drop)
}

impl Ttl {
    /// Seconds, an `int` or `float`; `None` never expires.
    pub(crate) fn new(seconds: &Bound<'_, PyAny>, name: &str) -> PyResult<Self> {
        if seconds.is_none() {
            return Ok(Self::Never);
        }
        let is_number = seconds.is_instance_of::<PyInt>() || seconds.is_instance_of::<PyFloat>();
        if !is_number || seconds.is_instance_of::<PyBool>() {
            let class = seconds.get_type().qualname()?;
            let message = format!("{name} is a number of seconds (int or float) or None, not {class}");
            return Err(PyTypeError::new_err(message));
        }
        // An `int` beyond the range of a `float` is a very long time, or a time in the past.
        let number = match seconds.extract::<f64>() {
            Ok(number) => number,
            Err(_) if seconds.gt(0)? => return Ok(Self::Never),
            Err(_) => return Ok(Self::For(Duration::ZERO)),
        };
        if !number.is_finite() {
            return Err(PyValueError::new_err(format!(
                "{name} is a finite number of seconds, not {number}; use None for an entry that never expires"
            )));
        }
        // A time beyond the range of the clock means for ever.
        Ok(Duration::try_from_secs_f64(number.max(0.0)).map_or(Self::Never, Self::For))
    }

    /// The deadline of a value stored now; `default` is the cache's own time to live.
    pub(crate) fn deadline(self, default: Self, now: impl FnOnce() -> Time) -> Deadline {
        match self {
            Self::Default if default == Self::Default => Deadline::NEVER,
            Self::Default => default.deadline(default, now),
            Self::Never => Deadline::NEVER,
            Self::For(ttl) => Deadline::after(now(), ttl),
        }
    }
}
