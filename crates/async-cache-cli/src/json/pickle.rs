//! The names that a pickle would import, found without running it: a walk over its opcodes that
//! follows only text.
//!
//! For people to read, not a security check: a pickle can build a name in ways that the walk does
//! not follow.

use serde_json::{Value, json};

/// How many names are listed.
const MOST_NAMES: usize = 20;

/// Size and names, for the body of extension type 15; `None` if the body is malformed.
pub(super) fn describe(body: &[u8]) -> Option<Value> {
    let mut rest = body;
    let rmpv::ValueRef::Binary(pickle) = rmpv::decode::read_value_ref_with_max_depth(&mut rest, 4).ok()?
    else {
        return None;
    };
    Some(json!({ "bytes": body.len(), "names": names(pickle) }))
}

/// `module.name` of each import, in order, without duplicates. Ends at the first unknown opcode.
fn names(pickle: &[u8]) -> Vec<String> {
    let mut walk = PickleWalk { rest: pickle, last: [None, None], memo: Vec::new(), names: Vec::new() };
    while walk.names.len() < MOST_NAMES && walk.step().is_some() {}
    walk.names
}

struct PickleWalk<'p> {
    rest: &'p [u8],
    /// The last two objects pushed on the stack, the later one last; `None` for an object that is
    /// not text.
    last: [Option<&'p str>; 2],
    memo: Vec<Option<&'p str>>,
    names: Vec<String>,
}

impl<'p> PickleWalk<'p> {
    /// One opcode. `None` at the end.
    fn step(&mut self) -> Option<()> {
        let [opcode] = self.take_array()?;
        match opcode {
            b'.' => return None,
            // Text: one, four or eight bytes of length.
            0x8c => self.text(1)?,
            b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            // Bytes and long integers, with the same lengths.
            b'C' | b'U' | 0x8a => self.counted(1)?,
            b'B' | b'T' | 0x8b => self.counted(4)?,
            0x8e | 0x96 => self.counted(8)?,
            // Numbers and frames of a fixed size.
            b'K' | 0x80 => self.fixed(1)?,
            b'M' => self.fixed(2)?,
            b'J' => self.fixed(4)?,
            b'G' => self.fixed(8)?,
            0x95 => {
                self.take(8)?;
            }
            // The memo: MEMOIZE, BINPUT, LONG_BINPUT; BINGET, LONG_BINGET.
            0x94 => self.memo.push(self.last[1]),
            b'q' => self.put(1)?,
            b'r' => self.put(4)?,
            b'h' => self.get(1)?,
            b'j' => self.get(4)?,
            0x93 => {
                let [module, name] = self.last;
                self.found(module.unwrap_or("?"), name.unwrap_or("?"));
                self.push(None);
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.found(module, name);
                self.push(None);
            }
            // Opcodes of the old text protocol with an argument up to the end of the line.
            b'I' | b'L' | b'F' | b'S' | b'V' | b'i' | b'p' | b'g' | b'P' => {
                self.line()?;
                self.push(None);
            }
            // All other opcodes have no argument.
            _ => self.push(None),
        }
        Some(())
    }

    fn found(&mut self, module: &str, name: &str) {
        let name = format!("{module}.{name}");
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    fn push(&mut self, text: Option<&'p str>) {
        self.last = [self.last[1], text];
    }

    fn take(&mut self, count: usize) -> Option<&'p [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// A little-endian number of one, four or eight bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        let number = self.take(bytes)?.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).ok()
    }

    fn text(&mut self, length_bytes: usize) -> Option<()> {
        let length = self.number(length_bytes)?;
        let text = str::from_utf8(self.take(length)?).ok();
        self.push(text);
        Some(())
    }

    fn counted(&mut self, length_bytes: usize) -> Option<()> {
        let length = self.number(length_bytes)?;
        self.fixed(length)
    }

    fn fixed(&mut self, count: usize) -> Option<()> {
        self.take(count)?;
        self.push(None);
        Some(())
    }

    fn put(&mut self, bytes: usize) -> Option<()> {
        // In order, as every pickler numbers them; other orders are not followed.
        if self.number(bytes)? == self.memo.len() {
            self.memo.push(self.last[1]);
        }
        Some(())
    }

    fn get(&mut self, bytes: usize) -> Option<()> {
        let place = self.number(bytes)?;
        let text = self.memo.get(place).copied().flatten();
        self.push(text);
        Some(())
    }

    fn line(&mut self) -> Option<&'p str> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let line = str::from_utf8(self.take(end)?).ok()?;
        self.take(1)?;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_a_pickle_would_import_are_found_without_running_it() {
        let fractions = b"\x80\x05\x95\x1a\0\0\0\0\0\0\0\x8c\x09fractions\x94\x8c\x08Fraction\x94\x93\x94.";
        assert_eq!(names(fractions), ["fractions.Fraction"]);
        assert_eq!(names(b"cos\nsystem\n(S'ls'\ntR."), ["os.system"]);
        // The module comes from the memo.
        assert_eq!(names(b"\x80\x04\x8c\x01m\x94\x8c\x01a\x94\x93h\0\x8c\x01b\x93."), ["m.a", "m.b"]);
    }

    #[test]
    fn a_pickle_that_is_cut_or_lies_about_its_lengths_ends_the_walk() {
        assert!(names(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc").is_empty());
        assert!(names(b"").is_empty());
        assert!(names(b"cos").is_empty());
    }
}
