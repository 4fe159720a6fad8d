//! Digests that replace long encodings. BLAKE3: finding two encodings with the same digest is
//! infeasible.

use pyo3::prelude::*;

use super::{ext, write};

/// An argument with a longer encoding is represented by its length and digest.
pub(super) const LONG_ARGUMENT: usize = 4096;

/// The size of a digest.
pub(super) const DIGEST_BYTES: usize = 32;

/// Replaces the bytes appended since `start` by their length and digest.
pub(super) fn replace(out: &mut Vec<u8>, start: usize) -> PyResult<()> {
    let body = of(&out[start..]);
    out.truncate(start);
    write::ext(out, ext::DIGEST, &body)
}

/// Length and digest.
fn of(bytes: &[u8]) -> [u8; 8 + DIGEST_BYTES] {
    let mut body = [0; 8 + DIGEST_BYTES];
    body[..8].copy_from_slice(&(bytes.len() as u64).to_be_bytes());
    body[8..].copy_from_slice(blake3::hash(bytes).as_bytes());
    body
}

/// The digest alone.
pub(super) fn bare(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    *blake3::hash(bytes).as_bytes()
}
