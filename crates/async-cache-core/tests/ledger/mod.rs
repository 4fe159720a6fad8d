//! Keys and values that detect when the core loses them, or drops them instead of returning them.
//!
//! A [`Token`] is not `Clone`, so the core cannot duplicate it; the [`Ledger`] counts the live
//! tokens. After every operation a test compares the count with the contents of its model.

use std::cell::Cell;
use std::rc::Rc;

/// Counts the live tokens.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    made: Cell<u64>,
    alive: Cell<usize>,
}

impl Ledger {
    pub(crate) fn alive(&self) -> usize {
        self.alive.get()
    }

    /// Runs an operation of the core that must drop nothing.
    pub(crate) fn nothing_is_dropped_in<R>(&self, operation: impl FnOnce() -> R) -> R {
        let before = self.alive();
        let result = operation();
        assert_eq!(self.alive(), before, "the core dropped a key or a value itself");
        result
    }
}

/// A value, or the body of a key. Its number is unique within its ledger.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) number: u64,
    ledger: Rc<Ledger>,
}

impl Token {
    pub(crate) fn new(ledger: &Rc<Ledger>) -> Self {
        ledger.made.set(ledger.made.get() + 1);
        ledger.alive.set(ledger.alive.get() + 1);
        Self { number: ledger.made.get(), ledger: Rc::clone(ledger) }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.ledger.alive.set(self.ledger.alive.get() - 1);
    }
}

/// A key: equal by name, with its own body.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: u32,
    _body: Token,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Key {}

impl Key {
    pub(crate) fn new(name: u32, ledger: &Rc<Ledger>) -> Self {
        Self { name, _body: Token::new(ledger) }
    }
}

/// The behaviour of a test's hash function.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hashing {
    /// As in a front: well mixed.
    Mixed,
    /// All keys equal in the half used by the store.
    SameLowerHalf,
    /// A few hashes for all keys.
    Few,
    /// One hash for all keys.
    One,
}

impl Hashing {
    pub(crate) const ALL: [Self; 4] = [Self::Mixed, Self::SameLowerHalf, Self::Few, Self::One];

    pub(crate) fn hash(self, name: u32) -> u64 {
        let mixed = fastrand::Rng::with_seed(name.into()).u64(..);
        match self {
            Self::Mixed => mixed,
            Self::SameLowerHalf => mixed | 0xFFFF_FFFF,
            Self::Few => mixed & 0x8000_0000_8000_0001,
            Self::One => 0,
        }
    }
}
