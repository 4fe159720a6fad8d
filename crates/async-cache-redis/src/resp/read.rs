//! Bytes to messages.
//!
//! A message is a tree. The reader keeps the path to the part that is being read (`open`), and the
//! part itself (`state`); so it resumes at any byte, and reads no byte twice.
//!
//! Rules:
//! 1. A part is a line: a marker, a number or text, CR LF. After the line of a string, its bytes
//!    and CR LF follow; after the line of an aggregate, its parts.
//! 2. A string longer than the limit is skipped, and read as [`Value::Large`].
//! 3. Attributes are read and forgotten; they take no place in their aggregate.
//! 4. A push stands between replies, never inside of one.

use super::value::{Message, Value};

/// How deep aggregates may nest.
const MAX_DEPTH: usize = 16;

/// How many parts the aggregates of one message may announce.
const MAX_PARTS: u64 = 1 << 20;

/// The longest line. Errors and status lines are the longest in use.
const MAX_LINE: usize = 64 * 1024;

/// How much of a message is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest string, in bytes.
    pub string: usize,
    /// The longest total of the strings of a message, in bytes.
    pub message: usize,
}

/// Bytes that are not of this protocol, or exceed a limit. The rest of the stream is unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent {what}")]
pub struct Malformed {
    /// The fault.
    pub what: &'static str,
    /// The first byte of the faulty part.
    pub marker: u8,
}

/// Reads messages.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    /// The aggregates around the part that is being read, outermost first.
    open: Vec<Aggregate>,
    state: State,
    /// The arrived bytes of a line whose end has not arrived.
    line: Vec<u8>,
    /// The announced parts of the present message.
    parts: u64,
    /// The total of the strings of the present message, in bytes.
    kept: usize,
}

#[derive(Debug)]
struct Aggregate {
    kind: Kind,
    left: u64,
    items: Vec<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    List,
    Push,
    Attribute,
}

#[derive(Debug)]
enum State {
    Line,
    /// A string of `length` bytes; `arrived` has its bytes, then CR LF.
    String {
        marker: u8,
        length: usize,
        arrived: Vec<u8>,
    },
    /// A string that is not kept: `left` bytes, then CR LF.
    Skipped {
        left: u64,
    },
    SkippedEnd {
        half: bool,
    },
}

/// The result of reading on.
enum Step {
    /// A part without parts of its own.
    Whole(Value),
    /// The input ended inside of a part, or a part with parts began.
    Continue,
}

impl Reader {
    /// A reader at the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { limits, open: Vec::new(), state: State::Line, line: Vec::new(), parts: 0, kept: 0 }
    }

    /// Reads up to the end of the next message. `None`: the input is used up, and the message goes
    /// on.
    ///
    /// # Errors
    /// [`Malformed`] if the bytes are not of this protocol. The reader is of no more use.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Malformed> {
        while !input.is_empty() {
            if let Step::Whole(value) = self.step(input)?
                && let Some(message) = self.place(value)
            {
                (self.parts, self.kept) = (0, 0);
                return Ok(Some(message));
            }
            if let Some(message) = self.close_empty() {
                (self.parts, self.kept) = (0, 0);
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Step, Malformed> {
        match &mut self.state {
            State::Line => return self.line(input),
            State::String { marker, length, arrived } => {
                let whole = length.saturating_add(2);
                let (now, later) = input.split_at(input.len().min(whole.saturating_sub(arrived.len())));
                arrived.extend_from_slice(now);
                *input = later;
                if arrived.len() < whole {
                    return Ok(Step::Continue);
                }
                let (marker, length, arrived) = (*marker, *length, std::mem::take(arrived));
                self.state = State::Line;
                return string(marker, length, arrived).map(Step::Whole);
            }
            State::Skipped { left } => {
                let now = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *input = input.get(now..).unwrap_or_default();
                *left -= now as u64;
                if *left == 0 {
                    self.state = State::SkippedEnd { half: false };
                }
            }
            State::SkippedEnd { half } => {
                let expected = if *half { b'\n' } else { b'\r' };
                match input.split_first() {
                    Some((byte, rest)) if *byte == expected => *input = rest,
                    Some(_) => return Err(Malformed { what: "a string without an end", marker: b'$' }),
                    None => return Ok(Step::Continue),
                }
                if *half {
                    self.state = State::Line;
                    return Ok(Step::Whole(Value::Large));
                }
                *half = true;
            }
        }
        Ok(Step::Continue)
    }

    /// Reads a line, or the beginning of one.
    fn line(&mut self, input: &mut &[u8]) -> Result<Step, Malformed> {
        let marker = self.line.first().or(input.first()).copied().unwrap_or_default();
        if !b"+-:_#,($=!*~%>|".contains(&marker) {
            return Err(Malformed { what: "bytes that are not of the protocol", marker });
        }
        let end = input.iter().position(|byte| *byte == b'\n');
        let arrived = end.unwrap_or(input.len());
        if self.line.len() + arrived > MAX_LINE {
            return Err(Malformed { what: "a line that is too long", marker });
        }
        let (now, rest) = input.split_at(arrived);
        if end.is_none() {
            self.line.extend_from_slice(now);
            *input = rest;
            return Ok(Step::Continue);
        }
        *input = rest.get(1..).unwrap_or_default();
        if self.line.is_empty() {
            return self.part(now);
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(now);
        let part = self.part(&line);
        line.clear();
        self.line = line; // keeps its memory
        part
    }

    /// Interprets a line, without its LF.
    fn part(&mut self, line: &[u8]) -> Result<Step, Malformed> {
        let Some((&marker, rest)) = line.split_first() else {
            return Err(Malformed { what: "an empty line", marker: b'\n' });
        };
        let Some(rest) = rest.strip_suffix(b"\r") else {
            return Err(Malformed { what: "a line without a carriage return", marker });
        };
        let bad = |what| Err(Malformed { what, marker });
        let value = match (marker, rest) {
            (b'+' | b',' | b'(', text) => Value::Text(text.to_vec()),
            (b'-', text) => Value::Error(String::from_utf8_lossy(text).into()),
            (b'_', b"") | (b'$' | b'*', b"-1") => Value::Null,
            (b'#', b"t") => Value::Integer(1),
            (b'#', b"f") => Value::Integer(0),
            (b':', digits) => match integer(digits) {
                Some(number) => Value::Integer(number),
                None => return bad("an integer that is none"),
            },
            (b'$' | b'=' | b'!', digits) => match integer(digits).map(u64::try_from) {
                Some(Ok(length)) => {
                    self.begin_string(marker, length);
                    return Ok(Step::Continue);
                }
                _ => return bad("a string with an impossible length"),
            },
            (b'*' | b'~' | b'%' | b'>' | b'|', digits) => match integer(digits).map(u64::try_from) {
                Some(Ok(count)) => {
                    self.begin_aggregate(marker, count)?;
                    return Ok(Step::Continue);
                }
                _ => return bad("an aggregate with an impossible length"),
            },
            _ => return bad("a part with an impossible value"),
        };
        Ok(Step::Whole(value))
    }

    fn begin_string(&mut self, marker: u8, length: u64) {
        let kept = usize::try_from(length).ok().and_then(|length| {
            let total = self.kept.checked_add(length)?;
            (length <= self.limits.string && total <= self.limits.message).then_some((length, total))
        });
        self.state = match kept {
            Some((length, total)) => {
                self.kept = total;
                State::String { marker, length, arrived: Vec::new() }
            }
            // Rule 2.
            None if length > 0 => State::Skipped { left: length },
            None => State::SkippedEnd { half: false },
        };
    }

    fn begin_aggregate(&mut self, marker: u8, count: u64) -> Result<(), Malformed> {
        let (kind, each) = match marker {
            b'%' => (Kind::List, 2),
            b'|' => (Kind::Attribute, 2),
            b'>' => (Kind::Push, 1),
            _ => (Kind::List, 1),
        };
        // Rule 4.
        if kind == Kind::Push && !self.open.is_empty() {
            return Err(Malformed { what: "a push inside of a reply", marker });
        }
        let parts = count.checked_mul(each).filter(|parts| *parts <= MAX_PARTS);
        let total = parts.and_then(|parts| self.parts.checked_add(parts)).filter(|total| *total <= MAX_PARTS);
        let (Some(left), Some(total)) = (parts, total) else {
            return Err(Malformed { what: "a reply with too many parts", marker });
        };
        if self.open.len() >= MAX_DEPTH {
            return Err(Malformed { what: "a reply that is nested too deep", marker });
        }
        self.parts = total;
        self.open.push(Aggregate { kind, left, items: Vec::new() });
        Ok(())
    }

    /// Closes an innermost aggregate that was opened without parts.
    fn close_empty(&mut self) -> Option<Message> {
        let empty = self.open.pop_if(|aggregate| aggregate.left == 0)?;
        self.close(empty)
    }

    /// Puts a complete part into its aggregate, and closes all aggregates that it completes.
    fn place(&mut self, value: Value) -> Option<Message> {
        let Some(around) = self.open.last_mut() else {
            return Some(Message::Reply(value));
        };
        around.left -= 1; // an aggregate without missing parts is closed
        if around.kind != Kind::Attribute {
            around.items.push(value);
        }
        let complete = self.open.pop_if(|aggregate| aggregate.left == 0)?;
        self.close(complete)
    }

    /// Recursion: `place` closes the next aggregate outwards, so at most `MAX_DEPTH` deep.
    fn close(&mut self, complete: Aggregate) -> Option<Message> {
        match complete.kind {
            Kind::List => self.place(Value::List(complete.items)),
            Kind::Push => Some(Message::Push(complete.items)),
            Kind::Attribute => None, // rule 3
        }
    }
}

/// The value of a string's bytes, which CR LF follow.
fn string(marker: u8, length: usize, mut bytes: Vec<u8>) -> Result<Value, Malformed> {
    if bytes.get(length..) != Some(b"\r\n") {
        return Err(Malformed { what: "a string without an end", marker });
    }
    bytes.truncate(length);
    match marker {
        b'!' => Ok(Value::Error(String::from_utf8_lossy(&bytes).into())),
        b'=' if bytes.get(3) == Some(&b':') => Ok(Value::Text(bytes.split_off(4))),
        b'=' => Err(Malformed { what: "a verbatim string without a format", marker }),
        _ => Ok(Value::Text(bytes)),
    }
}

/// Decimal digits after an optional sign.
fn integer(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_i64, |number, &byte| {
        let digit = i64::from(byte.is_ascii_digit().then(|| byte - b'0')?);
        let number = number.checked_mul(10)?;
        if is_negative { number.checked_sub(digit) } else { number.checked_add(digit) }
    })
}

#[cfg(test)]
mod tests {
    use super::integer;

    #[test]
    fn integers_are_read_as_the_standard_library_reads_them() {
        let texts = [
            "0",
            "7",
            "-1",
            "+12",
            "-0",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "-9223372036854775809",
            "",
            "-",
            "+",
            "1 ",
            " 1",
            "--1",
            "1_0",
            "0x1",
            "99999999999999999999",
        ];
        for text in texts {
            assert_eq!(integer(text.as_bytes()), text.parse().ok(), "{text:?}");
        }
        assert_eq!(integer(b"1\xff"), None);
    }
}
