//! The promises of docs/semantics.md, "Several processes", as naively as possible: one map per
//! process, one list for the file, and all deletes ever made. The model shares no code with the
//! tested crate.
//!
//! Times count operations. A value is the time of its write, so it identifies the write.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Key = u64;
pub(crate) type Time = u64;

/// A write in memory or in the file. Its value is the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) time: Time,
    /// In milliseconds of the host.
    pub(crate) deadline: Option<u64>,
}

impl Write {
    pub(crate) fn is_live(&self, now_ms: u64) -> bool {
        self.deadline.is_none_or(|deadline| deadline > now_ms)
    }
}

/// Deletes recorded in the file, or to be recorded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletes {
    listed: BTreeMap<Key, Time>,
    cleared: Time,
    /// The latest forgotten delete.
    floor: Time,
}

impl Deletes {
    fn delete(&mut self, key: Key, time: Time, most: usize) {
        raise(&mut self.listed, key, time);
        self.forget(most);
    }

    fn clear(&mut self, time: Time) {
        self.cleared = time;
        self.listed.clear();
    }

    fn join(&mut self, other: &Self, most: usize) {
        self.floor = self.floor.max(other.floor);
        self.cleared = self.cleared.max(other.cleared);
        other.listed.iter().for_each(|(key, time)| raise(&mut self.listed, *key, *time));
        let cleared = self.cleared;
        self.listed.retain(|_, time| *time > cleared);
        self.forget(most);
    }

    /// Forgets the earlier half, or more, if there are more than `most`.
    fn forget(&mut self, most: usize) {
        if self.listed.len() <= most {
            return;
        }
        let mut times: Vec<Time> = self.listed.values().copied().collect();
        times.sort_unstable();
        let until = times[times.len() / 2];
        self.listed.retain(|_, time| *time > until);
        self.floor = self.floor.max(until);
    }

    fn of(&self, key: Key) -> Time {
        self.listed.get(&key).copied().unwrap_or(0).max(self.cleared)
    }
}

fn raise(times: &mut BTreeMap<Key, Time>, key: Key, time: Time) {
    let known = times.entry(key).or_default();
    *known = time.max(*known);
}

impl Process {
    pub(crate) fn set(&mut self, key: Key, time: Time) {
        self.owed.insert(key, time);
    }

    /// The entry of a key has left memory.
    pub(crate) fn lose(&mut self, key: Key) {
        self.memory.remove(&key);
        if let Some(time) = self.owed.remove(&key) {
            raise(&mut self.lost, key, time);
        }
    }

    /// Whether the process's entry for a key has expired.
    pub(crate) fn has_expired(&self, key: Key, now_ms: u64) -> bool {
        self.memory.get(&key).is_some_and(|write| !write.is_live(now_ms))
    }

    pub(crate) fn delete(&mut self, key: Key, time: Time, most: usize) {
        self.memory.remove(&key);
        self.owed.remove(&key);
        self.deletes.delete(key, time, most);
        self.every_delete.delete(key, time, usize::MAX);
    }

    pub(crate) fn clear(&mut self, time: Time) {
        self.memory.clear();
        self.owed.clear();
        self.lost.clear();
        self.noted.clear();
        self.deletes.clear(time);
        self.every_delete.clear(time);
    }

    /// A save begins. A write that left memory hides older values, unless the key was deleted
    /// since: then the delete covers the write, and when the delete is forgotten, so is the write.
    pub(crate) fn note_lost(&mut self, now_ms: u64) {
        let expired: Vec<Key> =
            self.owed.keys().copied().filter(|key| self.has_expired(*key, now_ms)).collect();
        for key in expired {
            self.lose(key);
        }
        for (key, time) in std::mem::take(&mut self.lost) {
            if time > self.deletes.of(key) {
                raise(&mut self.noted, key, time - 1);
            }
        }
    }

    /// A file was taken in: unsaved deletes are forgotten, and so are writes that have left memory.
    pub(crate) fn reloads(&mut self, now_ms: u64) {
        self.deletes = Deletes::default();
        self.every_delete = Deletes::default();
        let gone: Vec<Key> =
            self.memory.keys().copied().filter(|key| self.has_expired(*key, now_ms)).collect();
        for key in gone {
            self.lose(key);
        }
        self.lost.clear();
        self.noted.clear();
    }
}

/// A process: the entries that it serves, and the facts to record in the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    pub(crate) memory: BTreeMap<Key, Write>,
    /// Writes in memory that must be recorded for others, and that no save of the process has
    /// recorded yet.
    pub(crate) owed: BTreeMap<Key, Time>,
    /// Unrecorded writes that have left memory.
    pub(crate) lost: BTreeMap<Key, Time>,
    /// For each key the time of the latest lost write: noted by a save, to be recorded in the file.
    pub(crate) noted: BTreeMap<Key, Time>,
    pub(crate) deletes: Deletes,
    /// The same deletes, without ever forgetting any.
    pub(crate) every_delete: Deletes,
    /// Entries refused by a save, while they are in memory.
    pub(crate) refused: BTreeSet<(Key, Time)>,
    /// The number of the file, if the process had all entries of the file.
    pub(crate) holds: Option<u64>,
    /// Distinguishes the process from all others, including earlier ones in its place.
    pub(crate) life: u64,
}

/// The file at the path.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    pub(crate) number: u64,
    /// The coldest first.
    pub(crate) entries: Vec<(Key, Write)>,
    deletes: Deletes,
    /// The time until which each key was overwritten by a write that is in no file.
    hidden: BTreeMap<Key, Time>,
    /// Every saved delete, forgotten or not.
    all_deletes: Deletes,
    writers: BTreeSet<u64>,
}

/// The expected result of a save.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) entries: BTreeMap<Key, Write>,
    /// Kept entries of others, the coldest first.
    pub(crate) theirs: Vec<Key>,
    pub(crate) dropped: usize,
    pub(crate) left_out: usize,
}

impl File {
    pub(crate) fn get(&self, key: Key) -> Option<Write> {
        self.entries.iter().find(|(known, _)| *known == key).map(|(_, write)| *write)
    }

    pub(crate) fn floor(&self) -> Time {
        self.deletes.floor
    }

    /// The process saves. `found`: the entries now in the file, which show whether an entry that
    /// others may have deleted was written. `unsavable`: which values cannot be written. `Err`: a
    /// promise is broken.
    pub(crate) fn save(
        &mut self,
        process: &mut Process,
        limits: (Option<usize>, usize),
        now_ms: u64,
        found: &[(Key, Write)],
        unsavable: impl Fn(&Write) -> bool,
    ) -> Result<Expected, String> {
        let (maxsize, most_deletes) = limits;
        let before = self.clone();
        let found: BTreeMap<Key, Write> = found.iter().copied().collect();

        // "The write counts": a write that left memory before it was saved hides older values.
        process.note_lost(now_ms);
        process.owed.clear();
        for (key, until) in std::mem::take(&mut process.noted) {
            raise(&mut self.hidden, key, until);
        }
        self.all_deletes.join(&std::mem::take(&mut process.every_delete), usize::MAX);
        let own = std::mem::take(&mut process.deletes);

        let ours: BTreeMap<Key, Write> =
            process.memory.iter().filter(|(_, write)| write.is_live(now_ms)).map(|(k, w)| (*k, *w)).collect();
        let is_gone = |file: &Self, key: Key, write: &Write| {
            write.time <= file.deletes.of(key).max(own.of(key))
                || file.hidden.get(&key).is_some_and(|hidden| write.time <= *hidden)
        };
        let mut refused = BTreeSet::new();
        let mut theirs = Vec::new();
        let mut dropped = 0;
        let is_theirs = process.holds != Some(before.number);
        for (key, their) in before.entries.iter().filter(|_| is_theirs) {
            let our = ours.get(key);
            if is_gone(self, *key, their) {
                continue;
            }
            match our {
                Some(our)
                    if our.time > their.time
                        && (process.refused.contains(&(*key, our.time)) || is_gone(self, *key, our)) =>
                {
                    raise(&mut self.hidden, *key, our.time - 1);
                }
                Some(our) if our.time >= their.time => {}
                Some(our) => {
                    // The save sees both writes.
                    refused.insert((*key, our.time));
                    if their.is_live(now_ms) {
                        theirs.push((*key, *their));
                    } else {
                        raise(&mut self.hidden, *key, their.time);
                    }
                }
                None if their.time <= own.floor => dropped += 1,
                None if their.is_live(now_ms) => theirs.push((*key, *their)),
                None => {}
            }
        }

        let (mut written, mut left_out) = (BTreeMap::new(), 0);
        for (key, our) in &ours {
            if refused.contains(&(*key, our.time)) {
                continue;
            }
            if process.refused.contains(&(*key, our.time)) || is_gone(self, *key, our) {
                refused.insert((*key, our.time));
                continue;
            }
            let may_be_deleted = our.time <= before.floor()
                && before.get(*key).is_none()
                && before.writers.iter().any(|writer| *writer != process.life);
            if unsavable(our) || may_be_deleted && found.get(key) != Some(our) {
                left_out += 1;
                raise(&mut self.hidden, *key, our.time - 1);
            } else {
                written.insert(*key, *our);
            }
        }

        let room = maxsize.map_or(usize::MAX, |maxsize| maxsize.saturating_sub(written.len()));
        let too_many = theirs.len().saturating_sub(room);
        for (key, their) in theirs.drain(..too_many) {
            dropped += 1;
            if ours.contains_key(&key) {
                raise(&mut self.hidden, key, their.time - 1);
            }
        }
        let mut entries = written;
        entries.extend(theirs.iter().copied());
        for (key, write) in &entries {
            if write.time <= self.all_deletes.of(*key) {
                return Err(format!("{key} of {} was deleted at {}", write.time, self.all_deletes.of(*key)));
            }
        }

        self.deletes.join(&own, most_deletes);
        process.refused = refused;
        self.number += 1;
        process.holds = theirs.is_empty().then_some(self.number);
        self.writers.insert(process.life);
        Ok(Expected { entries, theirs: theirs.iter().map(|(key, _)| *key).collect(), dropped, left_out })
    }
}
