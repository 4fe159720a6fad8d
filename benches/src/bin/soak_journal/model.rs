//! The values that a cache may return.
//!
//! The model is an origin with a version for each key. A write increments the version; writers of a
//! key take turns. A value states its key, its version and its deadline.
//!
//! Rules:
//! 1. A read returns a version that is not older than the last write that had returned before the
//!    read began, and not newer than the last one that had begun when the read returned.
//! 2. A value belongs to its key, and is whole.
//! 3. A value is not served after its deadline.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_bytes::ByteBuf;

/// Key, version, deadline.
const HEAD: usize = 24;
const STRIPES: u64 = 1024;
/// A thread may rest between the decision on a deadline and its write.
const SLACK: Duration = Duration::from_secs(1);

/// The versions of all keys.
pub(crate) struct Model {
    /// The last write that has begun.
    begun: Vec<AtomicU64>,
    /// The last write that has returned.
    returned: Vec<AtomicU64>,
    turns: Vec<Mutex<()>>,
    started: Instant,
}

/// The right to write a key, with the version of the write.
pub(crate) struct Turn<'m> {
    pub(crate) version: u64,
    key: u64,
    model: &'m Model,
    _guard: MutexGuard<'m, ()>,
}

/// The oldest value that a read may return.
pub(crate) struct Look {
    key: u64,
    oldest: u64,
    began: u64,
}

impl Turn<'_> {
    /// The write has returned.
    pub(crate) fn end(self) {
        self.model.returned[self.key as usize].store(self.version, Ordering::SeqCst);
    }
}

impl Model {
    /// Versions begin at 1, so that all memory is there from the start.
    pub(crate) fn new(keys: u64) -> Self {
        let versions = || (0..keys).map(|_| AtomicU64::new(1)).collect();
        let turns = (0..STRIPES).map(|_| Mutex::default()).collect();
        Self { begun: versions(), returned: versions(), turns, started: Instant::now() }
    }

    pub(crate) fn keys(&self) -> u64 {
        self.begun.len() as u64
    }

    /// Begins a write.
    pub(crate) fn begin(&self, key: u64) -> Turn<'_> {
        let turn = self.turns[(key % STRIPES) as usize].lock().expect("no writer panicked");
        let version = self.begun[key as usize].load(Ordering::SeqCst) + 1;
        self.begun[key as usize].store(version, Ordering::SeqCst);
        Turn { version, key, model: self, _guard: turn }
    }

    /// The version that a load finds at the origin.
    pub(crate) fn at_origin(&self, key: u64) -> u64 {
        self.begun[key as usize].load(Ordering::SeqCst)
    }

    /// A value of a key, of `bytes` bytes.
    pub(crate) fn value(&self, key: u64, version: u64, ttl: Option<Duration>, bytes: usize) -> ByteBuf {
        let deadline = ttl.map_or(u64::MAX, |ttl| nanos(self.started.elapsed() + ttl));
        let mut value = Vec::with_capacity(bytes.max(HEAD));
        for number in [key, version, deadline] {
            value.extend_from_slice(&number.to_le_bytes());
        }
        value.resize(bytes.max(HEAD), filler(key, version));
        ByteBuf::from(value)
    }

    /// Call it before a read.
    pub(crate) fn look(&self, key: u64) -> Look {
        let oldest = self.returned[key as usize].load(Ordering::SeqCst);
        Look { key, oldest, began: nanos(self.started.elapsed()) }
    }

    /// Checks a value that was read, and returns it.
    pub(crate) fn check(&self, look: &Look, value: Option<ByteBuf>) -> Option<ByteBuf> {
        let Look { key, oldest, began } = *look;
        let value = value?;
        let newest = self.at_origin(key);
        let number = |at: usize| -> u64 {
            let bytes = value.get(at * 8..(at + 1) * 8).and_then(|bytes| bytes.try_into().ok());
            u64::from_le_bytes(bytes.unwrap_or_else(|| panic!("key {key}: a value of {} bytes", value.len())))
        };
        let (known, version, deadline) = (number(0), number(1), number(2));
        assert_eq!(known, key, "the value of another key"); // Rule 2.
        assert!(
            (oldest..=newest).contains(&version), // Rule 1.
            "key {key}: version {version}, where {oldest} had been written, and {newest} was the last"
        );
        let filler = filler(key, version);
        // Rule 2.
        assert!(value[HEAD..].iter().all(|byte| *byte == filler), "key {key}: a mixed value");
        let latest = deadline.saturating_add(nanos(SLACK));
        // Rule 3.
        assert!(began <= latest, "key {key}: served {} ns after its deadline", began - deadline);
        Some(value)
    }
}

fn filler(key: u64, version: u64) -> u8 {
    ((key ^ version.wrapping_mul(31)) % 251) as u8
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("less than 584 years")
}
