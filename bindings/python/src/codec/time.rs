//! Dates and times, and offsets from UTC.
//!
//! | type | body, big endian |
//! |---|---|
//! | date | year u16, month u8, day u8 |
//! | time | hour u8, minute u8, second u8, flags u8, microsecond u32, then the zone |
//! | datetime | as date, then as time |
//! | timezone | flags u8, then the zone |
//! | timedelta | days i32, seconds u32, microseconds u32 |
//!
//! Flags: bit 0 `fold`; bit 1 there is a zone; bit 2 it has a name. The zone: its offset from UTC
//! in microseconds, i64, then its name, if any, in UTF-8 to the end.
//!
//! Only fixed offsets (`datetime.timezone`) have a form: the meaning of other zones is defined by
//! their class.

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyDate, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyDict, PyString, PyTime, PyTimeAccess,
    PyTuple, PyTzInfo, PyTzInfoAccess,
};

use super::{ext, types, write};
use crate::raw::calls::Invoke;

const FOLD: u8 = 1;
const ZONED: u8 = 2;
const NAMED: u8 = 4;

const DAY_MICROSECONDS: i64 = 86_400_000_000;

/// Appends a date, time, zone or span; returns whether the object is one of them.
pub(super) fn write(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    let mut body = Vec::with_capacity(32);
    let kind = if let Ok(value) = value.cast_exact::<PyDateTime>() {
        push_date(value, &mut body);
        if !push_time(value, value.get_tzinfo(), &mut body)? {
            return Ok(false);
        }
        ext::DATETIME
    } else if let Ok(value) = value.cast_exact::<PyDate>() {
        push_date(value, &mut body);
        ext::DATE
    } else if let Ok(value) = value.cast_exact::<PyTime>() {
        if !push_time(value, value.get_tzinfo(), &mut body)? {
            return Ok(false);
        }
        ext::TIME
    } else if let Ok(value) = value.cast_exact::<PyDelta>() {
        body.extend_from_slice(&value.get_days().to_be_bytes());
        body.extend_from_slice(&value.get_seconds().to_be_bytes());
        body.extend_from_slice(&value.get_microseconds().to_be_bytes());
        ext::TIMEDELTA
    } else if types::is_exactly(value, types::timezone(value.py())?) {
        body.push(0);
        match push_zone(value, &mut body)? {
            Some(flags) => body[0] = flags,
            None => return Ok(false),
        }
        ext::TIMEZONE
    } else {
        return Ok(false);
    };
    write::ext(out, kind, &body)?;
    Ok(true)
}

fn push_date(value: &impl PyDateAccess, body: &mut Vec<u8>) {
    // Python's years are 1 to 9999.
    let year = u16::try_from(value.get_year()).unwrap_or_default();
    body.extend_from_slice(&year.to_be_bytes());
    body.extend_from_slice(&[value.get_month(), value.get_day()]);
}

/// False if the zone has no form.
fn push_time(
    value: &impl PyTimeAccess,
    zone: Option<Bound<'_, PyTzInfo>>,
    body: &mut Vec<u8>,
) -> PyResult<bool> {
    let flags = body.len() + 3;
    body.extend_from_slice(&[value.get_hour(), value.get_minute(), value.get_second()]);
    body.push(if value.get_fold() { FOLD } else { 0 });
    body.extend_from_slice(&value.get_microsecond().to_be_bytes());
    if let Some(zone) = zone {
        let Some(zone) = push_zone(&zone, body)? else { return Ok(false) };
        body[flags] |= zone;
    }
    Ok(true)
}

/// The flags of the zone; `None` if it has no form.
fn push_zone(zone: &Bound<'_, PyAny>, body: &mut Vec<u8>) -> PyResult<Option<u8>> {
    let py = zone.py();
    if !types::is_exactly(zone, types::timezone(py)?) {
        return Ok(None);
    }
    if zone.is(PyTzInfo::utc(py)?) {
        body.extend_from_slice(&0_i64.to_be_bytes());
        return Ok(Some(ZONED));
    }
    let parts = zone.invoke_method0(intern!(py, "__getinitargs__"))?.cast_into::<PyTuple>()?;
    let offset = parts.get_item(0)?.cast_into::<PyDelta>()?;
    body.extend_from_slice(&microseconds(&offset).to_be_bytes());
    if parts.len() < 2 {
        return Ok(Some(ZONED));
    }
    let name = parts.get_item(1)?;
    // A name that is not text is pickled with the rest.
    let Ok(name) = name.cast_exact::<PyString>() else { return Ok(None) };
    let Ok(name) = name.to_str() else { return Ok(None) };
    body.extend_from_slice(name.as_bytes());
    Ok(Some(ZONED | NAMED))
}

fn microseconds(delta: &Bound<'_, PyDelta>) -> i64 {
    // At most 999,999,999 days, which fit.
    i64::from(delta.get_days()) * DAY_MICROSECONDS
        + i64::from(delta.get_seconds()) * 1_000_000
        + i64::from(delta.get_microseconds())
}

/// The object encoded in `body`. A field out of Python's range is Python's error.
pub(super) fn read<'py>(py: Python<'py>, kind: i8, body: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let mut body = BodyFields(body);
    let value = match kind {
        ext::DATE => {
            let (year, month, day) = body.date()?;
            PyDate::new(py, year, month, day)?.into_any()
        }
        ext::TIMEDELTA => {
            let days = i32::from_be_bytes(body.take()?);
            let seconds = i32::from_be_bytes(body.take()?);
            let microseconds = i32::from_be_bytes(body.take()?);
            PyDelta::new(py, days, seconds, microseconds, true)?.into_any()
        }
        ext::TIMEZONE => {
            let [flags] = body.take()?;
            body.zone(py, flags)?.ok_or_else(malformed)?.into_any()
        }
        ext::TIME => {
            let (hour, minute, second, flags, microsecond) = body.time()?;
            let (zone, fold) = (body.zone(py, flags)?, flags & FOLD != 0);
            PyTime::new_with_fold(py, hour, minute, second, microsecond, zone.as_ref(), fold)?.into_any()
        }
        _ => {
            let (year, month, day) = body.date()?;
            let (hour, minute, second, flags, microsecond) = body.time()?;
            let (zone, fold) = (body.zone(py, flags)?, flags & FOLD != 0);
            let zone = zone.as_ref();
            PyDateTime::new_with_fold(py, year, month, day, hour, minute, second, microsecond, zone, fold)?
                .into_any()
        }
    };
    if body.0.is_empty() { Ok(value) } else { Err(malformed()) }
}

fn malformed() -> PyErr {
    PyValueError::new_err("malformed")
}

/// The unread rest of a body.
struct BodyFields<'a>(&'a [u8]);

impl BodyFields<'_> {
    fn take<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or_else(malformed)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn date(&mut self) -> PyResult<(i32, u8, u8)> {
        let year = u16::from_be_bytes(self.take()?);
        let [month, day] = self.take()?;
        Ok((i32::from(year), month, day))
    }

    /// Hour, minute, second, flags, microsecond.
    fn time(&mut self) -> PyResult<(u8, u8, u8, u8, u32)> {
        let [hour, minute, second, flags] = self.take()?;
        Ok((hour, minute, second, flags, u32::from_be_bytes(self.take()?)))
    }

    fn zone<'py>(&mut self, py: Python<'py>, flags: u8) -> PyResult<Option<Bound<'py, PyTzInfo>>> {
        if flags & !(FOLD | ZONED | NAMED) != 0 {
            return Err(malformed());
        }
        if flags & ZONED == 0 {
            return Ok(None);
        }
        let offset = i64::from_be_bytes(self.take()?);
        if offset.abs_diff(0) >= DAY_MICROSECONDS.unsigned_abs() {
            return Err(malformed());
        }
        if flags & NAMED == 0 && offset == 0 {
            return Ok(Some(PyTzInfo::utc(py)?.to_owned()));
        }
        let microseconds = i32::try_from(offset % 1_000_000)?;
        let offset = PyDelta::new(py, 0, i32::try_from(offset / 1_000_000)?, microseconds, true)?;
        let timezone = types::timezone(py)?;
        let zone = if flags & NAMED == 0 {
            timezone.invoke_with((offset,))?
        } else {
            let name = String::from_utf8(std::mem::take(&mut self.0).to_vec())?;
            timezone.invoke_with((offset, name))?
        };
        Ok(Some(zone.cast_into()?))
    }
}

/// For a point in time or an offset: appends the object of the same kind that represents all equal
/// objects. False for other objects, or if the equality has no canonical form.
pub(super) fn write_canonical(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    let py = value.py();
    if let Ok(value) = value.cast_exact::<PyDateTime>() {
        let Some(value) = canonical_datetime(value)? else { return Ok(false) };
        return write(value.as_any(), out);
    }
    if let Ok(value) = value.cast_exact::<PyTime>() {
        if value.get_tzinfo().is_some() {
            return Ok(false);
        }
        let (hour, minute, second) = (value.get_hour(), value.get_minute(), value.get_second());
        // Equality ignores `fold`.
        let value = PyTime::new(py, hour, minute, second, value.get_microsecond(), None)?;
        return write(value.as_any(), out);
    }
    if types::is_exactly(value, types::timezone(py)?) {
        // Equality also ignores the name of a zone.
        let offset = value.invoke_method1(intern!(py, "utcoffset"), py.None().bind(py))?;
        return write(&types::timezone(py)?.invoke1(&offset)?, out);
    }
    write(value, out)
}

/// Naive: without `fold`. Aware: in UTC, if the zone's offset does not depend on `fold`. (If it
/// does, the time equals others in its own zone, and none in any other zone.)
fn canonical_datetime<'py>(value: &Bound<'py, PyDateTime>) -> PyResult<Option<Bound<'py, PyDateTime>>> {
    let py = value.py();
    let mut value = value.clone();
    let zone = value.get_tzinfo();
    if let Some(zone) = &zone
        && !types::is_exactly(zone, types::timezone(py)?)
    {
        if !types::is_exactly(zone, types::zone_info(py)?) {
            return Ok(None);
        }
        let options = PyDict::new(py);
        options.set_item("fold", u8::from(!value.get_fold()))?;
        let utcoffset = intern!(py, "utcoffset");
        let other = value.invoke_method("replace", PyTuple::empty(py), Some(&options))?;
        if !value.invoke_method0(utcoffset)?.eq(other.invoke_method0(utcoffset)?)? {
            return Ok(None);
        }
    }
    let utc = PyTzInfo::utc(py)?;
    if zone.is_some() {
        match value.invoke_method1(intern!(py, "astimezone"), utc.as_any()) {
            Ok(moved) => value = moved.cast_into()?,
            // Before the year 1 or after 9999 when converted to UTC.
            Err(error) if error.is_instance_of::<PyOverflowError>(py) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    PyDateTime::new(
        py,
        value.get_year(),
        value.get_month(),
        value.get_day(),
        value.get_hour(),
        value.get_minute(),
        value.get_second(),
        value.get_microsecond(),
        zone.is_some().then_some(&*utc),
    )
    .map(Some)
}
