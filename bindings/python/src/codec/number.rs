//! Numbers. Python compares numbers across types, so the key of a number is the key of its value.
//!
//! The canonical form of a value is the first of these forms that represents it exactly: an
//! integer; an f64; a reduced fraction; a complex number. NaN equals nothing, not even itself, and
//! has no form.

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyComplex, PyComplexMethods, PyDict, PyFloat, PyInt, PyTuple};

use super::{atom, ext, types, write};
use crate::raw::calls::Invoke;

/// The maximum size of an integer, numerator or denominator in a key. Without a limit
/// `Decimal("1e999999999")`, which is equal to an integer, would be a key of half a gigabyte.
pub(super) const MAX_KEY_INT: usize = 4096;

/// A decimal with more digits, or an exponent further from zero, has a numerator or denominator
/// above [`MAX_KEY_INT`]: the least possible value for `d` digits and `e` more after the point is
/// 2^e, or 10^d / 5^e.
const MAX_KEY_DIGITS: i64 = 70_000;

/// Appends an `int` or an object of a subclass; false if it takes more than `max_len` bytes.
#[inline]
pub(super) fn write_int(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, max_len: usize) -> PyResult<bool> {
    match value.extract::<i64>() {
        Ok(value) => {
            write::signed(out, value);
            Ok(true)
        }
        Err(_) => write_big_int(value, out, max_len),
    }
}

#[cold]
fn write_big_int(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, max_len: usize) -> PyResult<bool> {
    let py = value.py();
    if let Ok(value) = value.extract::<u64>() {
        write::unsigned(out, value);
        return Ok(true);
    }
    // The methods of `int`, not those of a subclass. One bit is for the sign.
    let class = py.get_type::<PyInt>();
    let len = class.invoke_method("bit_length", (value,), None)?.extract::<usize>()? / 8 + 1;
    if len > max_len {
        return Ok(false);
    }
    let options = PyDict::new(py);
    options.set_item("signed", true)?;
    let bytes = class.invoke_method("to_bytes", (value, len, "big"), Some(&options))?;
    write::ext(out, ext::INT, bytes.cast::<PyBytes>()?.as_bytes())?;
    Ok(true)
}

pub(super) fn read_int<'py>(py: Python<'py>, body: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let options = PyDict::new(py);
    options.set_item("signed", true)?;
    py.get_type::<PyInt>().invoke_method("from_bytes", (PyBytes::new(py, body), "big"), Some(&options))
}

/// Appends the canonical form of a float's value; false if it is NaN.
pub(super) fn write_float_key(py: Python<'_>, value: f64, out: &mut Vec<u8>) -> PyResult<bool> {
    // 2^63 is the first float that an i64 cannot represent.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if value.is_nan() {
        return Ok(false);
    }
    if value.is_infinite() || value.fract() != 0.0 {
        write::float(out, value);
    } else if (-LIMIT..LIMIT).contains(&value) {
        #[allow(clippy::cast_possible_truncation)] // integral, and in range
        write::signed(out, value as i64);
    } else {
        let value = PyFloat::new(py, value).invoke_method0(intern!(py, "__int__"))?;
        return write_int(&value, out, MAX_KEY_INT);
    }
    Ok(true)
}

/// Appends the canonical form of a complex number; false if a part is NaN.
pub(super) fn write_complex_key(value: &Bound<'_, PyComplex>, out: &mut Vec<u8>) -> PyResult<bool> {
    // Adding zero turns minus zero into zero.
    let (real, imag) = (value.real() + 0.0, value.imag() + 0.0);
    if imag == 0.0 {
        return write_float_key(value.py(), real, out);
    }
    if real.is_nan() || imag.is_nan() {
        return Ok(false);
    }
    atom::write_complex(real, imag, out)?;
    Ok(true)
}

/// Appends the canonical form of a bool, complex number, `Decimal` or `Fraction`; false if the
/// value has another type or no canonical form.
pub(super) fn write_number_key(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    let py = value.py();
    if let Ok(value) = value.cast_exact::<PyBool>() {
        write::unsigned(out, u64::from(value.is_true()));
        Ok(true)
    } else if let Ok(value) = value.cast_exact::<PyComplex>() {
        write_complex_key(value, out)
    } else if types::is_exactly(value, types::decimal(py)?) {
        write_decimal_key(value, out)
    } else if types::is_exactly(value, types::fraction(py)?) {
        write_ratio(&value.getattr("numerator")?, &value.getattr("denominator")?, out)
    } else {
        Ok(false)
    }
}

fn write_decimal_key(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    let py = value.py();
    if value.invoke_method0(intern!(py, "is_nan"))?.is_truthy()? {
        return Ok(false);
    }
    if value.invoke_method0(intern!(py, "is_infinite"))?.is_truthy()? {
        let is_negative = value.invoke_method0(intern!(py, "is_signed"))?.is_truthy()?;
        write::float(out, if is_negative { f64::NEG_INFINITY } else { f64::INFINITY });
        return Ok(true);
    }
    if !value.invoke_is_true()? {
        write::unsigned(out, 0);
        return Ok(true);
    }
    let parts = value.invoke_method0(intern!(py, "as_tuple"))?.cast_into::<PyTuple>()?;
    let digits = parts.get_item(1)?.len()?;
    let exponent: i64 = parts.get_item(2)?.extract()?;
    if exponent.saturating_abs().saturating_add_unsigned(digits as u64) > MAX_KEY_DIGITS {
        return Ok(false);
    }
    let ratio = value.invoke_method0(intern!(py, "as_integer_ratio"))?.cast_into::<PyTuple>()?;
    write_ratio(&ratio.get_item(0)?, &ratio.get_item(1)?, out)
}

/// `numerator` and `denominator` have no common factor, and `denominator` is positive.
fn write_ratio(
    numerator: &Bound<'_, PyAny>,
    denominator: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
) -> PyResult<bool> {
    let py = numerator.py();
    if denominator.eq(1)? {
        return write_int(numerator, out, MAX_KEY_INT);
    }
    match numerator.div(denominator) {
        Ok(nearest) => {
            let nearest = nearest.cast_into::<PyFloat>()?;
            if nearest.invoke_method0(intern!(py, "as_integer_ratio"))?.eq((numerator, denominator))? {
                return write_float_key(py, nearest.value(), out);
            }
        }
        Err(error) if error.is_instance_of::<PyOverflowError>(py) => {}
        Err(error) => return Err(error),
    }
    let start = out.len();
    write::array(out, 2)?;
    if write_int(numerator, out, MAX_KEY_INT)? && write_int(denominator, out, MAX_KEY_INT)? {
        write::close_ext(out, ext::RATIONAL, start)?;
        return Ok(true);
    }
    out.truncate(start);
    Ok(false)
}

/// The fraction; its parts are integers within the size limit for keys.
pub(super) fn read_ratio<'py>(
    numerator: &Bound<'py, PyAny>,
    denominator: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = numerator.py();
    for part in [numerator, denominator] {
        let bits = part.cast_exact::<PyInt>()?.invoke_method0(intern!(py, "bit_length"))?;
        if bits.gt(MAX_KEY_INT * 8)? {
            return Err(PyValueError::new_err("a fraction of numbers that no key has"));
        }
    }
    if denominator.eq(0)? {
        return Err(PyValueError::new_err("a fraction with the denominator 0"));
    }
    types::fraction(py)?.invoke2(numerator, denominator)
}
