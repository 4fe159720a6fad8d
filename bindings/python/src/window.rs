//! The window of a batch, as Python gives it: milliseconds.

use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// Event loops count from their start, in a `float` or in whole milliseconds: the sum with a window
/// must not exceed the range. A hundred years.
const LONGEST_SECONDS: f64 = 3_155_760_000.0;

/// How long keys are gathered for a batch that is not full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BatchWindow {
    milliseconds: f64,
}

impl BatchWindow {
    /// The default window of a cache.
    pub(crate) const DEFAULT: Self = Self { milliseconds: 5.0 };

    /// Milliseconds, 0 or more. More than a hundred years is treated as for ever.
    pub(crate) fn new(milliseconds: &Bound<'_, PyAny>) -> PyResult<Self> {
        let window: f64 = milliseconds.extract().map_err(|error: PyErr| {
            let py = milliseconds.py();
            if !error.is_instance_of::<PyTypeError>(py) {
                return error;
            }
            let class = milliseconds.get_type().qualname().map(|name| name.to_string());
            let message = format!(
                "batch_window_ms is a number of milliseconds (int or float), not {}",
                class.unwrap_or_default()
            );
            PyTypeError::new_err(message)
        })?;
        if window.is_finite() && window >= 0.0 {
            return Ok(Self { milliseconds: window });
        }
        Err(PyValueError::new_err(format!("batch_window_ms is 0 or more milliseconds, not {window}")))
    }

    /// The value in milliseconds as given.
    pub(crate) fn milliseconds(self) -> f64 {
        self.milliseconds
    }

    /// For an event loop's timer.
    pub(crate) fn seconds(self) -> f64 {
        (self.milliseconds / 1000.0).min(LONGEST_SECONDS)
    }

    /// For the core's planner.
    pub(crate) fn duration(self) -> Duration {
        Duration::try_from_secs_f64(self.seconds()).unwrap_or(Duration::MAX)
    }
}
