//! The marks of a segment: a set of numbers.
//!
//! A bit for each possible number would take 1/128 of the bytes on the disk, because a record may
//! have 32 bytes. Most records are larger, and few are marked.
//!
//! Rule: the numbers are in chunks of 2^16. A chunk lists its numbers, in ascending order and with
//! two bytes each, while the list is smaller than a bit for each possible number.

/// A list of more numbers is larger than the bits.
const MOST_LISTED: usize = 1 << 12;
/// The words of a chunk.
const WORDS: usize = 1 << 10;

/// The set.
#[derive(Debug, Default)]
pub(super) struct Marks(Vec<Chunk>);

#[derive(Debug)]
enum Chunk {
    Listed(Vec<u16>),
    Bits(Box<[u64]>),
}

impl Marks {
    pub(super) fn contains(&self, number: u32) -> bool {
        let (chunk, low) = split(number);
        match self.0.get(chunk) {
            None => false,
            Some(Chunk::Listed(listed)) => listed.binary_search(&low).is_ok(),
            Some(Chunk::Bits(words)) => {
                let (word, bit) = word_and_bit(low);
                words.get(word).is_some_and(|word| word & bit != 0)
            }
        }
    }

    pub(super) fn set(&mut self, number: u32, is_in: bool) {
        let (chunk, low) = split(number);
        if is_in && self.0.len() <= chunk {
            self.0.resize_with(chunk.saturating_add(1), || Chunk::Listed(Vec::new()));
        }
        match self.0.get_mut(chunk) {
            None => {}
            Some(Chunk::Bits(words)) => set_bit(words, low, is_in),
            Some(chunk @ Chunk::Listed(_)) => chunk.set_listed(low, is_in),
        }
    }
}

impl Chunk {
    fn set_listed(&mut self, low: u16, is_in: bool) {
        let Self::Listed(listed) = self else { return };
        match (listed.binary_search(&low), is_in) {
            (Ok(at), false) => drop(listed.remove(at)),
            (Err(_), true) if listed.len() >= MOST_LISTED => {
                let mut words = vec![0; WORDS].into_boxed_slice();
                for low in listed.iter().chain([&low]) {
                    set_bit(&mut words, *low, true);
                }
                *self = Self::Bits(words);
            }
            (Err(at), true) => listed.insert(at, low),
            _ => {}
        }
    }
}

/// The chunk of a number, and the number within the chunk.
fn split(number: u32) -> (usize, u16) {
    let [low, high] = [number & u32::from(u16::MAX), number >> 16];
    (usize::try_from(high).unwrap_or(usize::MAX), u16::try_from(low).unwrap_or(u16::MAX))
}

fn word_and_bit(low: u16) -> (usize, u64) {
    (usize::from(low >> 6), 1 << (low & 63))
}

fn set_bit(words: &mut [u64], low: u16, is_in: bool) {
    let (word, bit) = word_and_bit(low);
    if let Some(word) = words.get_mut(word) {
        *word = if is_in { *word | bit } else { *word & !bit };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    impl Marks {
        fn bytes(&self) -> usize {
            let bytes = self.0.iter().map(|chunk| match chunk {
                Chunk::Listed(listed) => listed.len().saturating_mul(2),
                Chunk::Bits(words) => words.len().saturating_mul(8),
            });
            bytes.sum()
        }
    }

    #[test]
    fn it_is_a_set() {
        let mut state = 7_u64;
        for among in [300, 1 << 14, 1 << 18] {
            let (mut marks, mut set) = (Marks::default(), BTreeSet::new());
            let mut random = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % among
            };
            for _ in 0..60_000 {
                let number = u32::try_from(random()).unwrap();
                if random() % 3 == 0 {
                    marks.set(number, false);
                    set.remove(&number);
                } else {
                    marks.set(number, true);
                    set.insert(number);
                }
            }
            let all = 0..u32::try_from(among).unwrap() + 70_000;
            assert!(all.filter(|number| marks.contains(*number)).eq(set.iter().copied()), "of {among}");
        }
    }

    #[test]
    fn a_mark_takes_two_bytes_and_a_chunk_eight_kibibytes_at_most() {
        let mut marks = Marks::default();
        (0..4096).for_each(|number| marks.set((1 << 16) + number * 16, true));
        assert_eq!(marks.bytes(), 8192);
        marks.set((1 << 16) + 1, true);
        assert_eq!(marks.bytes(), 8192);
        (0..1 << 17).for_each(|number| marks.set(number, true));
        assert_eq!(marks.bytes(), 2 * 8192);
        marks.set(5, false);
        assert_eq!([4, 5, 6, 1 << 17].map(|number| marks.contains(number)), [true, false, true, false]);
    }
}
