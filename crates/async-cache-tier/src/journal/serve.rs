//! Reading single entries of the store.

use async_cache_core::entry::{Meta, NewEntry};
use async_cache_core::shard::Trust;
use async_cache_core::time::Deadline;
use async_cache_disk::store::{Sighting, StoreAnswer};

use crate::host::{Host, NamedKey, Refusal};
use crate::journal_state::{Journal, stamp_of, with_scratch};
use crate::suspects::Suspects;

/// How often a look-up that was overtaken is repeated before the key counts as a miss.
const MOST_LOOKS: usize = 16;

/// Whether a look-up may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskWait {
    /// For a thread on which nothing else runs.
    Allowed,
    /// For the thread of an event loop: what is not in the system's page cache is not read.
    Refused,
}

/// The store's answer for a key.
#[derive(Debug)]
pub enum Served<V> {
    /// The value. The hit is counted.
    Hit(V),
    /// An entry that may be out of date; it was not served. Only for [`Suspects::Withheld`].
    Suspect,
    /// Nothing that can be served.
    Absent,
    /// The disk would have to be waited for. Ask again where that is allowed.
    WouldWait,
}

impl<V> Served<V> {
    fn hit_or(value: Option<V>, otherwise: Self) -> Self {
        value.map_or(otherwise, Self::Hit)
    }
}

/// An entry as it was read.
struct Read<V> {
    value: V,
    deadline: Deadline,
    sighting: Sighting,
    written_at: Option<u64>,
}

/// How an entry that was read came into memory.
enum TakenIn<R, V> {
    Done(R),
    /// Rule 3: the key was written since, or records moved.
    Overtaken,
    /// The key is in memory.
    Hot,
    /// The key is in memory, in a suspect entry with this value.
    HotSuspect(V),
    /// Rule 9: the entry was not taken in.
    Withheld,
}

/// The outcome of a look-up.
enum Looked<V> {
    Found(Read<V>),
    Suspect,
    Absent,
    WouldWait,
}

/// Serves a key from the store, counts the hit, and keeps the entry in memory. A suspect entry
/// stays suspect there.
///
/// # Errors
/// A fault that must end the operation, from the encoding of the key or the decoding of the value.
#[cold]
pub fn serve<H: Host>(
    host: &H,
    journal: &Journal,
    key: &impl NamedKey<H>,
    wait: DiskWait,
    suspects: Suspects,
) -> Result<Served<H::Value>, H::Error> {
    let Some(bytes) = key.encode(host)? else { return Ok(Served::Absent) };
    for _ in 0..MOST_LOOKS {
        let read = match journal.read(host, key, &bytes, wait, suspects)? {
            Looked::Found(read) => read,
            // Another caller may have made the key hot between the two looks.
            Looked::Suspect => return Ok(Served::hit_or(key.serve_hot(host)?, Served::Suspect)),
            Looked::Absent => return Ok(Served::hit_or(key.serve_hot(host)?, Served::Absent)),
            Looked::WouldWait => return Ok(Served::WouldWait),
        };
        let Read { value, deadline, sighting, written_at } = read;
        let served = host.copy_value(&value);
        let meta = Meta { deadline, stamp: stamp_of(sighting.place), origin: None };
        let new = NewEntry { key: key.to_key(host)?, value, meta };
        let now = host.now();
        let probed = key.read(host, |tiered| tiered.shard.epoch().answered(None));
        let taken_in = key.address(host, probed, |tiered, at| {
            if !journal.with_store(|store| store.is_current(&sighting)).unwrap_or(false) {
                return (TakenIn::Overtaken, Some(new)); // Rule 3.
            }
            if let Some(slot) = at.slot().filter(|slot| tiered.shard.is_suspect(*slot)) {
                let has_passed = |deadline| host.has_passed(deadline);
                let taken_in = match suspects {
                    Suspects::Withheld => TakenIn::Withheld,
                    Suspects::Served => tiered
                        .shard
                        .hit_or_suspect(slot, has_passed)
                        .map_or(TakenIn::Hot, |value| TakenIn::HotSuspect(host.copy_value(value))),
                };
                return (taken_in, Some(new));
            }
            let trust = host.tier().suspects.trust(written_at, at.hash());
            if host.tier().suspects.is_outdated(written_at, at.hash()) {
                return (TakenIn::Withheld, Some(new)); // A message about the key was heard.
            }
            if (trust, suspects) == (Trust::Suspect, Suspects::Withheld) && at.slot().is_none() {
                return (TakenIn::Withheld, Some(new)); // Rule 9.
            }
            match tiered.shard.take_in(at, new, trust, now) {
                Ok(removed) => {
                    journal.with_store(|store| store.promoted(sighting.place));
                    (TakenIn::Done(removed), None)
                }
                Err(new) => (TakenIn::Hot, Some(new)),
            }
        })?;
        match taken_in {
            Ok((TakenIn::Done(removed), _)) => {
                journal.after_write(host, &removed);
                return Ok(Served::Hit(served));
            }
            Ok((TakenIn::Hot, refused)) => {
                drop(refused);
                if let Some(value) = key.serve_hot(host)? {
                    return Ok(Served::Hit(value));
                }
                // It has expired there.
            }
            Ok((TakenIn::HotSuspect(value), refused)) => {
                drop(refused);
                return Ok(Served::Hit(value));
            }
            Ok((TakenIn::Withheld, refused)) => {
                drop(refused);
                return Ok(Served::Suspect);
            }
            Ok((TakenIn::Overtaken, refused)) => drop(refused),
            Err(_stale) => {}
        }
    }
    Ok(Served::Absent)
}

/// Whether the store has a live entry under the key that is not suspect. The value is not decoded.
///
/// # Errors
/// A fault that must end the operation, from encoding or comparing keys.
pub fn contains<H: Host>(host: &H, journal: &Journal, key: &impl NamedKey<H>) -> Result<bool, H::Error> {
    let Some(bytes) = key.encode(host)? else { return Ok(false) };
    let live = with_scratch(|scratch| {
        let found = journal.with_own_store(|store| match store.find(&bytes, scratch) {
            StoreAnswer::Entry(entry) => Some((entry.deadline, entry.written_at)),
            StoreAnswer::Absent | StoreAnswer::Hidden => None,
        });
        found.flatten().filter(|(deadline, _)| {
            key.is_key_of(host, &bytes) && !host.has_passed(journal.clock.deadline_from_file(*deadline))
        })
    });
    let records = &host.tier().suspects;
    match live {
        None => Ok(false),
        Some((_, written_at)) if records.is_in_use() => {
            let probed = key.read(host, |tiered| tiered.shard.epoch().answered(None));
            let trust = key.address(host, probed, |_, at| records.trust(written_at, at.hash()))?;
            Ok(trust == Ok(Trust::Covered))
        }
        Some(_) => Ok(true),
    }
}

impl Journal {
    /// Reads the record of a key from the disk, and drops it: a look-up that follows does not wait.
    pub fn read_ahead(&self, key: &[u8]) {
        with_scratch(|scratch| {
            self.with_own_store(|store| {
                store.find(key, scratch);
            });
        });
    }

    /// Reads and decodes the entry of a key, unless it has expired.
    fn read<H: Host>(
        &self,
        host: &H,
        key: &impl NamedKey<H>,
        bytes: &[u8],
        wait: DiskWait,
        suspects: Suspects,
    ) -> Result<Looked<H::Value>, H::Error> {
        with_scratch(|scratch| {
            // The answer borrows the buffers only: the store may be closed while a user's code
            // decodes.
            let found = self.with_own_store(|store| match wait {
                DiskWait::Allowed => Some(store.find(bytes, scratch)),
                DiskWait::Refused => store.find_now(bytes, scratch),
            });
            let entry = match found {
                Some(Some(StoreAnswer::Entry(entry))) => entry,
                Some(None) => return Ok(Looked::WouldWait),
                Some(Some(StoreAnswer::Absent | StoreAnswer::Hidden)) | None => return Ok(Looked::Absent),
            };
            let deadline = self.clock.deadline_from_file(entry.deadline);
            if !key.is_key_of(host, bytes) || host.has_passed(deadline) {
                return Ok(Looked::Absent);
            }
            let is_suspect = host.tier().suspects.is_of_old(entry.written_at);
            if is_suspect && suspects == Suspects::Withheld {
                return Ok(Looked::Suspect);
            }
            let (sighting, written_at) = (entry.sighting, entry.written_at);
            match host.decode_value(entry.value) {
                Ok(value) => Ok(Looked::Found(Read { value, deadline, sighting, written_at })),
                Err(Refusal::End(error)) => Err(error),
                Err(Refusal::Entry(why)) => {
                    self.undecodable(host, &host.name_of(bytes, 0), &why);
                    Ok(Looked::Absent)
                }
            }
        })
    }
}
