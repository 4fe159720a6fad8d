//! Compression during the writing of a file: the choice of the dictionary, and of the values.
//!
//! States:
//! 1. **Off**: values are stored uncompressed.
//! 2. **Sampling**: so far all records are in the writer's first buffer, plain. When the buffer is
//!    full, or the save ends, a dictionary is trained on their values, and kept if it saves more
//!    than its size; then the records are built again, compressed. Eager records do not wait: they
//!    use no dictionary.
//! 3. **Ready**: each value is compressed when it is pushed. A save that takes its dictionary from
//!    an opened snapshot begins here, so that cold entries of the snapshot are copied unchanged.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::compress::{Compression, Compressor, Dictionary, MIN_BYTES};

/// The largest trained dictionary. The samples, a mebibyte at most, could not fill a larger
/// dictionary well.
const MOST_DICTIONARY_BYTES: usize = 16 << 10;
/// Fewer values teach nothing.
const FEWEST_SAMPLES: usize = 64;
/// The length of samples. Shorter values are not compressed; longer values have enough repetition
/// of their own, and would crowd out the others.
const SAMPLES: RangeInclusive<usize> = MIN_BYTES..=16 << 10;

/// Compresses the values of a file.
#[derive(Default)]
pub(super) enum Packer {
    #[default]
    Off,
    Sampling {
        level: u8,
        /// Without a dictionary.
        compressor: Compressor,
    },
    Ready {
        compressor: Compressor,
        dictionary: Option<Arc<Dictionary>>,
    },
}

impl Packer {
    /// Compresses with a given dictionary, or with a new dictionary. Off if there is not enough
    /// memory.
    pub(super) fn new(compression: Compression, dictionary: Option<Arc<Dictionary>>) -> Self {
        let Some(level) = compression.level() else { return Self::Off };
        match (Compressor::new(level, dictionary.as_deref()), dictionary) {
            (Some(compressor), None) => Self::Sampling { level, compressor },
            (Some(compressor), dictionary) => Self::Ready { compressor, dictionary },
            (None, _) => Self::Off,
        }
    }

    pub(super) fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    pub(super) fn is_sampling(&self) -> bool {
        matches!(self, Self::Sampling { .. })
    }

    pub(super) fn dictionary(&self) -> Option<&Arc<Dictionary>> {
        match self {
            Self::Ready { dictionary, .. } => dictionary.as_ref(),
            Self::Off | Self::Sampling { .. } => None,
        }
    }

    /// Whether a value that was compressed with this dictionary, or without a dictionary, can stay
    /// unchanged.
    pub(super) fn takes(&self, dictionary: Option<&Dictionary>) -> bool {
        match dictionary {
            None => !self.is_off(),
            Some(needed) => self.dictionary().is_some_and(|own| own.as_bytes() == needed.as_bytes()),
        }
    }

    /// The compressed value, if compression is ready and makes it shorter.
    pub(super) fn pack(&mut self, value: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Off | Self::Sampling { .. } => None,
            Self::Ready { compressor, .. } => compressor.compress(value),
        }
    }

    /// The same for the value of an eager record.
    pub(super) fn pack_eager(&mut self, value: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Off => None,
            Self::Sampling { compressor, .. } | Self::Ready { compressor, .. } => compressor.compress(value),
        }
    }

    /// Ends the sampling: with a dictionary, if a dictionary trained on these values saves more
    /// than its size.
    pub(super) fn train<'v>(&mut self, values: impl Iterator<Item = &'v [u8]>) {
        let Self::Sampling { level, mut compressor } = std::mem::take(self) else { return };
        let values: Vec<&[u8]> = values.filter(|value| SAMPLES.contains(&value.len())).collect();
        let trained = learn(&values).and_then(|dictionary| {
            let mut with_dictionary = Compressor::new(level, Some(&dictionary))?;
            let pays = total(&mut with_dictionary, &values) + dictionary.as_bytes().len()
                < total(&mut compressor, &values);
            pays.then_some((with_dictionary, dictionary))
        });
        *self = match trained {
            Some((compressor, dictionary)) => {
                Self::Ready { compressor, dictionary: Some(Arc::new(dictionary)) }
            }
            None => Self::Ready { compressor, dictionary: None },
        };
    }
}

fn learn(values: &[&[u8]]) -> Option<Dictionary> {
    if values.len() < FEWEST_SAMPLES {
        return None;
    }
    let lens: Vec<usize> = values.iter().map(|value| value.len()).collect();
    Dictionary::train(&values.concat(), &lens, MOST_DICTIONARY_BYTES)
}

/// The size of the stored values.
fn total(compressor: &mut Compressor, values: &[&[u8]]) -> usize {
    values.iter().map(|value| compressor.compress(value).map_or(value.len(), |frame| frame.len())).sum()
}
