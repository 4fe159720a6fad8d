//! The encoding of an object, with places for the encodings of its parts.

use pyo3::prelude::*;

use super::references::{Reference, References};
use super::{ext, write};

/// The encoding of an object, with places for the encodings of its parts.
pub(super) enum ObjectShape {
    Bytes(Vec<u8>),
    Child(usize),
    /// An array with the given number of items. Consecutive items without parts are combined in one
    /// shape.
    Array(usize, Vec<ObjectShape>),
    Set(Vec<ObjectShape>),
    Map(Vec<(ObjectShape, ObjectShape)>),
    Object(Box<(Reference, ObjectShape, ObjectShape)>),
}

/// Appends an encoding; `child` writes the parts.
pub(super) fn fill(
    shape: &ObjectShape,
    out: &mut Vec<u8>,
    references: &References,
    child: &dyn Fn(usize, &mut Vec<u8>) -> PyResult<()>,
) -> PyResult<()> {
    match shape {
        ObjectShape::Bytes(bytes) => out.extend_from_slice(bytes),
        ObjectShape::Child(index) => child(*index, out)?,
        ObjectShape::Array(count, parts) => {
            write::array(out, *count)?;
            for part in parts {
                fill(part, out, references, child)?;
            }
        }
        ObjectShape::Set(items) => {
            let start = out.len();
            write::array(out, items.len())?;
            write::sorted(
                items.iter().map(|item| filled(&[item], references, child)).collect::<PyResult<_>>()?,
                out,
            );
            write::close_ext(out, ext::FROZENSET, start)?;
        }
        ObjectShape::Map(pairs) => {
            write::map(out, pairs.len())?;
            let pairs = pairs.iter().map(|(key, value)| filled(&[key, value], references, child));
            write::sorted(pairs.collect::<PyResult<_>>()?, out);
        }
        ObjectShape::Object(object) => {
            let (class, content, state) = &**object;
            let start = out.len();
            write::array(out, class.width() + 2)?;
            references.write(*class, out)?;
            fill(content, out, references, child)?;
            fill(state, out, references, child)?;
            write::close_ext(out, ext::OBJECT, start)?;
        }
    }
    Ok(())
}

/// The encoding of an item of a set, or of an entry of a map.
pub(super) fn filled(
    shapes: &[&ObjectShape],
    references: &References,
    child: &dyn Fn(usize, &mut Vec<u8>) -> PyResult<()>,
) -> PyResult<Vec<u8>> {
    let mut bytes = Vec::new();
    for shape in shapes {
        fill(shape, &mut bytes, references, child)?;
    }
    Ok(bytes)
}
