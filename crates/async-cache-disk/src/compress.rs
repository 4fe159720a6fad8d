//! Compressed values: the only file that calls zstd.
//!
//! A compressed value is a single zstd frame that declares the size of its content (file format,
//! section 8). Bounds, kept here against any author of a file: a frame may declare at most
//! [`MAX_RATIO`] times its own length, so no reader allocates more than that multiple of the file's
//! size; and the decompressed value must be as long as declared.

use std::fmt;
use std::num::NonZeroU32;

use zstd_safe::{CCtx, CDict, DCtx, DDict};

/// How many times longer than its frame a value may be. A value that compresses better is stored
/// plain.
const MAX_RATIO: u64 = 256;
/// If a large value made a buffer larger than this, the buffer is freed at the next value.
const KEPT_BYTES: usize = 1 << 20;
/// Shorter values are stored plain: a frame's own head is nearly as long.
pub(crate) const MIN_BYTES: usize = 24;

/// Whether and how the values of a file are compressed.
///
/// ```
/// use async_cache_disk::Compression;
///
/// assert_eq!(Compression::zstd(3), Some(Compression::ZSTD));
/// assert_eq!(Compression::zstd(99), None);
/// assert_eq!(Compression::default(), Compression::OFF);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compression {
    level: Option<u8>,
}

impl Compression {
    /// Values are stored as they are.
    pub const OFF: Self = Self { level: None };
    /// With zstd at its default level, 3, and with a dictionary trained on the first values if the
    /// dictionary saves more than its size. A value that does not become shorter is stored
    /// uncompressed.
    pub const ZSTD: Self = Self { level: Some(3) };
    /// The highest level.
    pub const MAX_LEVEL: u8 = 22;

    /// With zstd at a level from 1, fast, to [`MAX_LEVEL`](Self::MAX_LEVEL), small; `None` for
    /// another level.
    pub fn zstd(level: u8) -> Option<Self> {
        (1..=Self::MAX_LEVEL).contains(&level).then_some(Self { level: Some(level) })
    }

    pub(crate) fn level(self) -> Option<u8> {
        self.level
    }
}

/// A dictionary in the form stored in a file.
pub(crate) struct Dictionary {
    bytes: Vec<u8>,
    id: NonZeroU32,
    prepared: DDict<'static>,
}

impl Dictionary {
    /// `None` if these bytes are no dictionary.
    pub(crate) fn new(bytes: Vec<u8>) -> Option<Self> {
        let id = zstd_safe::get_dict_id_from_dict(&bytes)?;
        let prepared = DDict::try_create(&bytes)?;
        Some(Self { bytes, id, prepared })
    }

    /// Trains a dictionary on consecutive samples, each of at least [`MIN_BYTES`]. `None` if they
    /// allow no dictionary.
    pub(crate) fn train(samples: &[u8], lens: &[usize], most_bytes: usize) -> Option<Self> {
        // zstd trains on the first three quarters of the samples, and reads beyond them if these
        // are next to empty.
        if lens.iter().any(|len| *len < MIN_BYTES) {
            return None;
        }
        if lens.iter().try_fold(0usize, |total, len| total.checked_add(*len)) != Some(samples.len()) {
            return None;
        }
        let mut bytes = Vec::with_capacity(most_bytes);
        zstd_safe::train_from_buffer(&mut bytes, samples, lens).ok()?;
        Self::new(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dictionary")
            .field("id", &self.id)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// The dictionary that a frame needs, by its id; `None` if the frame needs none.
pub(crate) fn dictionary_of(frame: &[u8]) -> Option<NonZeroU32> {
    zstd_safe::get_dict_id_from_frame(frame)
}

/// Compresses values. Made anew for another dictionary.
pub(crate) struct Compressor {
    context: CCtx<'static>,
    level: i32,
    dictionary: Option<CDict<'static>>,
}

impl Compressor {
    /// `None` for the want of memory.
    pub(crate) fn new(level: u8, dictionary: Option<&Dictionary>) -> Option<Self> {
        let level = i32::from(level);
        let dictionary = match dictionary {
            Some(dictionary) => Some(CDict::try_create(&dictionary.bytes, level)?),
            None => None,
        };
        Some(Self { context: CCtx::try_create()?, level, dictionary })
    }

    /// The value's frame, if the frame is shorter than the value and readers accept it.
    pub(crate) fn compress(&mut self, value: &[u8]) -> Option<Vec<u8>> {
        if value.len() < MIN_BYTES {
            return None;
        }
        let mut frame = Vec::with_capacity(zstd_safe::compress_bound(value.len()));
        let compressed = match &self.dictionary {
            Some(dictionary) => self.context.compress_using_cdict(&mut frame, value, dictionary),
            None => self.context.compress(&mut frame, value, self.level),
        };
        frame.truncate(compressed.ok()?);
        (frame.len() < value.len() && declared(&frame).is_some()).then_some(frame)
    }
}

/// The declared length of a frame's content; `None` if it is missing, or exceeds the limit for a
/// frame of this length.
fn declared(frame: &[u8]) -> Option<usize> {
    let len = zstd_safe::get_frame_content_size(frame).ok()??;
    if len > (frame.len() as u64).checked_mul(MAX_RATIO)? || len > u64::from(u32::MAX) {
        return None;
    }
    usize::try_from(len).ok()
}

/// Decompresses values. The first value allocates.
#[derive(Default)]
pub(crate) struct Decompressor {
    context: Option<DCtx<'static>>,
    value: Vec<u8>,
}

impl Decompressor {
    /// The content of a frame; `None` if the frame is invalid, or needs another dictionary.
    pub(crate) fn decompress(&mut self, frame: &[u8], dictionary: Option<&Dictionary>) -> Option<&[u8]> {
        let len = declared(frame)?;
        self.value.clear();
        if self.value.capacity() > KEPT_BYTES {
            self.value = Vec::new();
        }
        self.value.reserve_exact(len);
        if self.context.is_none() {
            self.context = DCtx::try_create();
        }
        let context = self.context.as_mut()?;
        let result = match dictionary_of(frame) {
            None => context.decompress(&mut self.value, frame),
            Some(id) => {
                let dictionary = dictionary.filter(|dictionary| dictionary.id == id)?;
                context.decompress_using_ddict(&mut self.value, frame, &dictionary.prepared)
            }
        };
        (result.ok()? == len).then_some(())?;
        self.value.get(..len)
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)] // of small numbers
mod tests {
    use super::*;

    fn page(i: usize) -> Vec<u8> {
        format!("<li class=\"product\"><a href=\"/products/{i}\">Product number {i}</a> {}</li>", i * 7919)
            .into_bytes()
    }

    fn trained() -> Dictionary {
        let pages: Vec<Vec<u8>> = (0..2000).map(page).collect();
        let lens: Vec<usize> = pages.iter().map(Vec::len).collect();
        Dictionary::train(&pages.concat(), &lens, 4096).unwrap()
    }

    #[test]
    fn a_value_comes_back_with_and_without_a_dictionary_and_only_with_the_right_one() {
        let dictionary = trained();
        let long = [page(1), page(2), page(3)].concat();
        for used in [None, Some(&dictionary)] {
            let mut compressor = Compressor::new(3, used).unwrap();
            let frame = compressor.compress(&long).unwrap();
            assert_eq!(dictionary_of(&frame), used.map(|used| used.id));
            assert_eq!(Decompressor::default().decompress(&frame, Some(&dictionary)), Some(&long[..]));
            let without = Decompressor::default().decompress(&frame, None).map(<[u8]>::to_vec);
            assert_eq!(without.is_some(), used.is_none());
        }
    }

    #[test]
    fn what_does_not_become_shorter_and_what_becomes_too_short_is_left_plain() {
        let mut compressor = Compressor::new(3, None).unwrap();
        assert!(compressor.compress(b"short").is_none());
        let noise: Vec<u8> = (0..1000u32).flat_map(|i| i.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
        assert!(compressor.compress(&noise[..97]).is_none());
        assert!(compressor.compress(&vec![0; 1 << 20]).is_none(), "a bomb, as far as a reader can tell");
        assert!(compressor.compress(&[b'x'; 1000]).is_some());
    }

    #[test]
    fn a_frame_that_is_cut_changed_or_claims_too_much_gives_nothing_or_something_of_its_length() {
        let long = [page(1), page(2), page(3)].concat();
        let mut compressor = Compressor::new(3, None).unwrap();
        let frame = compressor.compress(&long).unwrap();
        let mut decompressor = Decompressor::default();
        for cut in 0..frame.len() {
            assert_eq!(decompressor.decompress(&frame[..cut], None), None);
        }
        for place in 0..frame.len() {
            let mut frame = frame.clone();
            frame[place] ^= 0x41;
            let most = usize::try_from(MAX_RATIO).unwrap() * frame.len();
            assert!(decompressor.decompress(&frame, None).is_none_or(|value| value.len() <= most));
        }
        let bomb = zstd_safe_frame(&vec![0; 1 << 20]);
        assert_eq!(decompressor.decompress(&bomb, None), None);
        assert!(decompressor.value.capacity() < 1 << 20);
    }

    fn zstd_safe_frame(value: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(zstd_safe::compress_bound(value.len()));
        CCtx::create().compress(&mut frame, value, 3).unwrap();
        frame
    }
}
