//! `MessagePack` markers in their shortest form, appended to a vector: the only place that writes
//! them.

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use rmp::Marker;

/// Writing to a vector fails only for lack of memory.
pub(crate) fn out_of_memory<E>(_: E) -> PyErr {
    PyMemoryError::new_err("no memory left to encode")
}

fn length(len: usize) -> PyResult<u32> {
    u32::try_from(len)
        .map_err(|_| PyValueError::new_err("a part of the value is longer than MessagePack can say"))
}

/// A marker and the big-endian bytes after it, in one append.
#[inline]
fn tagged<const N: usize>(out: &mut Vec<u8>, marker: Marker, bytes: [u8; N]) {
    out.reserve(N + 1);
    out.push(marker.to_u8());
    out.extend_from_slice(&bytes);
}

/// A marker for a length: the 8-bit marker if there is one, otherwise the 16-bit or the 32-bit
/// marker.
#[inline]
#[allow(clippy::cast_possible_truncation)] // each cast follows its range check
fn sized(out: &mut Vec<u8>, len: u32, markers: (Option<Marker>, Marker, Marker)) {
    match (len, markers) {
        (0..=0xff, (Some(short), ..)) => tagged(out, short, [len as u8]),
        (0..=0xffff, (_, middle, _)) => tagged(out, middle, (len as u16).to_be_bytes()),
        (_, (.., long)) => tagged(out, long, len.to_be_bytes()),
    }
}

#[inline]
pub(super) fn nil(out: &mut Vec<u8>) {
    out.push(Marker::Null.to_u8());
}

#[inline]
pub(super) fn bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { Marker::True } else { Marker::False }.to_u8());
}

#[inline]
pub(super) fn float(out: &mut Vec<u8>, value: f64) {
    tagged(out, Marker::F64, value.to_be_bytes());
}

#[inline]
#[allow(clippy::cast_possible_truncation)] // as above
pub(super) fn unsigned(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7f => out.push(Marker::FixPos(value as u8).to_u8()),
        0x80..=0xff => tagged(out, Marker::U8, [value as u8]),
        0x100..=0xffff => tagged(out, Marker::U16, (value as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => tagged(out, Marker::U32, (value as u32).to_be_bytes()),
        _ => tagged(out, Marker::U64, value.to_be_bytes()),
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation)] // as above
pub(super) fn signed(out: &mut Vec<u8>, value: i64) {
    match value {
        0.. => unsigned(out, value.cast_unsigned()),
        -32..=-1 => out.push(Marker::FixNeg(value as i8).to_u8()),
        -0x80..=-33 => tagged(out, Marker::I8, (value as i8).to_be_bytes()),
        -0x8000..=-0x81 => tagged(out, Marker::I16, (value as i16).to_be_bytes()),
        -0x8000_0000..=-0x8001 => tagged(out, Marker::I32, (value as i32).to_be_bytes()),
        _ => tagged(out, Marker::I64, value.to_be_bytes()),
    }
}

#[inline]
pub(super) fn text(out: &mut Vec<u8>, value: &str) -> PyResult<()> {
    text_bytes(out, value.as_bytes())
}

/// Text that is UTF-8 already.
#[inline]
#[allow(clippy::cast_possible_truncation)] // as above
pub(super) fn text_bytes(out: &mut Vec<u8>, value: &[u8]) -> PyResult<()> {
    let len = length(value.len())?;
    if len < 32 {
        out.push(Marker::FixStr(len as u8).to_u8());
    } else {
        sized(out, len, (Some(Marker::Str8), Marker::Str16, Marker::Str32));
    }
    out.extend_from_slice(value);
    Ok(())
}

#[inline]
pub(super) fn binary_length(out: &mut Vec<u8>, len: usize) -> PyResult<()> {
    sized(out, length(len)?, (Some(Marker::Bin8), Marker::Bin16, Marker::Bin32));
    Ok(())
}

#[inline]
pub(super) fn binary(out: &mut Vec<u8>, value: &[u8]) -> PyResult<()> {
    binary_length(out, value.len())?;
    out.extend_from_slice(value);
    Ok(())
}

#[inline]
#[allow(clippy::cast_possible_truncation)] // as above
pub(super) fn array(out: &mut Vec<u8>, count: usize) -> PyResult<()> {
    let count = length(count)?;
    if count < 16 {
        out.push(Marker::FixArray(count as u8).to_u8());
    } else {
        sized(out, count, (None, Marker::Array16, Marker::Array32));
    }
    Ok(())
}

#[inline]
#[allow(clippy::cast_possible_truncation)] // as above
pub(super) fn map(out: &mut Vec<u8>, count: usize) -> PyResult<()> {
    let count = length(count)?;
    if count < 16 {
        out.push(Marker::FixMap(count as u8).to_u8());
    } else {
        sized(out, count, (None, Marker::Map16, Marker::Map32));
    }
    Ok(())
}

/// How many bytes [`binary`] writes for `len` bytes.
pub(super) fn binary_size(len: usize) -> usize {
    let header = match len {
        0..=0xff => 2,
        0x100..=0xffff => 3,
        _ => 5,
    };
    header + len
}

/// The start of an extension type whose body of `len` bytes follows.
pub(super) fn ext_header(out: &mut Vec<u8>, kind: i8, len: usize) -> PyResult<()> {
    let len = length(len)?;
    match len {
        1 => out.push(Marker::FixExt1.to_u8()),
        2 => out.push(Marker::FixExt2.to_u8()),
        4 => out.push(Marker::FixExt4.to_u8()),
        8 => out.push(Marker::FixExt8.to_u8()),
        16 => out.push(Marker::FixExt16.to_u8()),
        _ => sized(out, len, (Some(Marker::Ext8), Marker::Ext16, Marker::Ext32)),
    }
    out.push(kind.cast_unsigned());
    Ok(())
}

pub(super) fn ext(out: &mut Vec<u8>, kind: i8, body: &[u8]) -> PyResult<()> {
    ext_header(out, kind, body.len())?;
    out.extend_from_slice(body);
    Ok(())
}

/// Turns the bytes appended since `start` into the body of an extension type. (Only now its length
/// is known, and so the length of its header.)
pub(super) fn close_ext(out: &mut Vec<u8>, kind: i8, start: usize) -> PyResult<()> {
    let body = out.len();
    ext_header(out, kind, body - start)?;
    let header = out.len() - body;
    out[start..].rotate_right(header);
    Ok(())
}

/// Appends parts in the order of their bytes.
pub(super) fn sorted(mut parts: Vec<Vec<u8>>, out: &mut Vec<u8>) {
    parts.sort();
    for part in parts {
        out.extend_from_slice(&part);
    }
}
