//! Arguments by value, written directly: each part is written in place, every time it occurs.
//!
//! Nearly all arguments are encoded in this way, which is the fast one. It stops, and `graph` takes
//! over, when an argument
//! 1. leads back to itself;
//! 2. nests deeper than [`MAX_DEPTH`];
//! 3. has more than [`MAX_PARTS`] containers and objects, each counted every time it occurs: a few
//!    shared lists can multiply without bound;
//! 4. has several long parts with more than [`MAX_BYTES`] in total.
//!
//! Whether it stops depends on nothing but the value: neither on sharing nor on the order of a set.
//! So two equal values are written in the same way.

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::builtin::write_plain;
use super::look::look_at_parts;
use super::plan::{ObjectPlan, Plan};
use super::references::References;
use super::{ext, write};

const MAX_DEPTH: usize = 64;
const MAX_PARTS: u32 = 1 << 14;
/// The least number of bytes of a long part. (Only parts without parts of their own count.)
const LONG: usize = 4096;
const MAX_BYTES: usize = 1 << 24;

/// The reason why the encoding stopped early.
pub(super) enum NotFlat {
    /// The argument needs the other way of writing.
    TooMuch,
    Raised(PyErr),
}

impl From<PyErr> for NotFlat {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

/// The counts during the walk.
#[derive(Default)]
struct PartCounts {
    parts: u32,
    long_bytes: usize,
}

/// The objects that contain the present one.
struct Above<'a> {
    address: usize,
    above: Option<&'a Above<'a>>,
}

/// Appends an argument.
pub(super) fn write_flat(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    references: &mut References,
) -> Result<(), NotFlat> {
    Flat { references, counts: PartCounts::default() }.write(value, out, None, 0)
}

struct Flat<'a> {
    references: &'a mut References,
    counts: PartCounts,
}

impl Flat<'_> {
    fn write(
        &mut self,
        value: &Bound<'_, PyAny>,
        out: &mut Vec<u8>,
        above: Option<&Above<'_>>,
        depth: usize,
    ) -> Result<(), NotFlat> {
        let start = out.len();
        if write_plain(value, out)? {
            return self.count_bytes(out.len() - start);
        }
        let address = value.as_ptr().addr();
        if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.count_part(address, above, depth)?;
            write::array(out, tuple.len())?;
            let above = Some(&Above { address, above });
            return tuple.iter_borrowed().try_for_each(|item| self.write(&item, out, above, depth + 1));
        }
        if let Ok(list) = value.cast_exact::<PyList>()
            && write_plain_items(list, out)?
        {
            return self.count_part(address, above, depth);
        }
        let Some(plan) = look_at_parts(value, out, self.references)? else {
            return self.count_bytes(out.len() - start);
        };
        self.count_part(address, above, depth)?;
        self.write_plan(plan, out, Some(&Above { address, above }), depth)
    }

    /// Stops at a container or object that is inside itself, too deep, or beyond the limit.
    fn count_part(&mut self, address: usize, above: Option<&Above<'_>>, depth: usize) -> Result<(), NotFlat> {
        let mut ancestor = above;
        while let Some(one) = ancestor {
            if one.address == address {
                return Err(NotFlat::TooMuch);
            }
            ancestor = one.above;
        }
        self.counts.parts += 1;
        if depth > MAX_DEPTH || self.counts.parts > MAX_PARTS { Err(NotFlat::TooMuch) } else { Ok(()) }
    }

    fn count_bytes(&mut self, bytes: usize) -> Result<(), NotFlat> {
        if bytes < LONG {
            return Ok(());
        }
        self.counts.long_bytes += bytes;
        // A single long part is written in any case.
        if self.counts.long_bytes > MAX_BYTES && self.counts.long_bytes > bytes {
            return Err(NotFlat::TooMuch);
        }
        Ok(())
    }

    fn write_plan(
        &mut self,
        plan: Plan<'_>,
        out: &mut Vec<u8>,
        above: Option<&Above<'_>>,
        depth: usize,
    ) -> Result<(), NotFlat> {
        match plan {
            Plan::Bytes(bytes) => {
                out.extend_from_slice(&bytes);
                self.count_bytes(bytes.len())
            }
            Plan::Value(value) => self.write(&value, out, above, depth + 1),
            Plan::Array(plans) => {
                write::array(out, plans.len())?;
                plans.into_iter().try_for_each(|plan| self.write_plan(plan, out, above, depth))
            }
            Plan::Items(items) => {
                write::array(out, items.len())?;
                items.iter().try_for_each(|item| self.write(item, out, above, depth + 1))
            }
            Plan::Set(items) => {
                let mut parts = Vec::with_capacity(items.len());
                for item in items {
                    let mut bytes = Vec::new();
                    self.write(&item, &mut bytes, above, depth + 1)?;
                    parts.push(bytes);
                }
                let start = out.len();
                write::array(out, parts.len())?;
                write::sorted(parts, out);
                Ok(write::close_ext(out, ext::FROZENSET, start)?)
            }
            Plan::Pairs(pairs) => {
                write::map(out, pairs.len())?;
                self.write_pairs(&pairs, out, above, depth)
            }
            Plan::Object(object) => {
                let ObjectPlan { class, content, state } = *object;
                let start = out.len();
                write::array(out, class.width() + 2)?;
                self.references.write(class, out)?;
                self.write_plan(content, out, above, depth)?;
                self.write_plan(state, out, above, depth)?;
                Ok(write::close_ext(out, ext::OBJECT, start)?)
            }
        }
    }

    fn write_pairs(
        &mut self,
        pairs: &[(Bound<'_, PyAny>, Bound<'_, PyAny>)],
        out: &mut Vec<u8>,
        above: Option<&Above<'_>>,
        depth: usize,
    ) -> Result<(), NotFlat> {
        // All in a single vector, with the end of each: maps of many small entries are common.
        let mut bytes = Vec::with_capacity(16 * pairs.len());
        let mut ends = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let start = bytes.len();
            self.write(key, &mut bytes, above, depth + 1)?;
            self.write(value, &mut bytes, above, depth + 1)?;
            ends.push((start, bytes.len()));
        }
        ends.sort_by(|a, b| bytes[a.0..a.1].cmp(&bytes[b.0..b.1]));
        out.reserve(bytes.len());
        for (start, end) in ends {
            out.extend_from_slice(&bytes[start..end]);
        }
        Ok(())
    }
}

/// Appends a list of short parts without parts of their own; no code runs during the walk. For
/// other lists `out` is unchanged, and the result is false.
fn write_plain_items(list: &Bound<'_, PyList>, out: &mut Vec<u8>) -> PyResult<bool> {
    let start = out.len();
    write::array(out, list.len())?;
    for index in 0..list.len() {
        let item_start = out.len();
        let is_short = write_plain(&list.get_item(index)?, out)? && out.len() - item_start < LONG;
        if !is_short {
            out.truncate(start);
            return Ok(false);
        }
    }
    Ok(true)
}
