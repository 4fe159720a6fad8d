//! The parts of a reply.

/// A complete message of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The answer to a command.
    Reply(Value),
    /// Sent unasked: its kind, then its arguments.
    Push(Vec<Value>),
}

/// A reply, or a part of one. Types with the same meaning to a cache are one variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// An integer, or a boolean as 0 or 1.
    Integer(i64),
    /// A string of any type, a double, or a big number as text.
    Text(Vec<u8>),
    /// A string longer than the limit; its bytes were skipped.
    Large,
    /// An error of the server.
    Error(Box<str>),
    /// An array, a set, or a map as keys and values in turn.
    List(Vec<Value>),
}

impl Value {
    /// The bytes of a text.
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The value of a key, in a map.
    pub fn field(&self, key: &str) -> Option<&Value> {
        let Self::List(items) = self else { return None };
        items.chunks_exact(2).find_map(|pair| match pair {
            [Self::Text(name), value] if name == key.as_bytes() => Some(value),
            _ => None,
        })
    }
}
