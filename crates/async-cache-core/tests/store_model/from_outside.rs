//! The operations for a file and for a tier beyond one host.

use async_cache_core::removed::Cause;
use async_cache_core::shard::{FlightFate, Trust};
use async_cache_core::time::{Deadline, Now};

use super::{Pair, Resident};

impl Pair {
    pub(super) fn suspect_all(&mut self) {
        self.ledger.nothing_is_dropped_in(|| self.cache.suspect_all());
        self.residents.iter_mut().for_each(|resident| resident.is_suspect = true);
    }

    pub(super) fn take_in(&mut self, name: u32, trust: Trust) {
        let now = self.now;
        let at = self.at(name);
        let new = self.new_entry(name, None, now);
        let value = new.value.number;
        let write = || self.cache.take_in(at, new, trust, Now::without_wall(now));
        let taken_in = self.ledger.nothing_is_dropped_in(write);
        let is_there = self.residents.iter().any(|resident| resident.name == name);
        assert_eq!(taken_in.is_err(), is_there, "an entry comes in unless its key is there");
        let Ok(removed) = taken_in else { return };
        self.hits += 1;
        let stores = self.config.maxsize != Some(0);
        let refused = [(name, value, Cause::Refused)];
        self.account_for(removed, if stores { &[] } else { &refused }, now);
        if stores {
            self.stays += 1;
            let (deadline, is_suspect) = (Deadline::NEVER, trust == Trust::Suspect);
            self.residents.push(Resident { name, value, deadline, stay: self.stays, is_suspect });
        }
    }

    pub(super) fn forget_hash(&mut self, name: u32, dice: &mut fastrand::Rng) {
        let now = self.now_as_a_writer_knows_it(dice);
        let hash = self.hashing.hash(name);
        // The store keeps the lower half.
        let has_hash = |name| self.hashing.hash(name) & 0xFFFF_FFFF == hash & 0xFFFF_FFFF;
        let forgotten: Vec<Resident> =
            self.residents.iter().filter(|resident| has_hash(resident.name)).copied().collect();
        assert_eq!(self.cache.has_hash(hash), !forgotten.is_empty());
        let forget = || self.cache.forget_hash(hash, FlightFate::Fenced, Now::without_wall(now));
        let removed = self.ledger.nothing_is_dropped_in(forget);
        self.residents.retain(|resident| !has_hash(resident.name));
        // They leave in no order: the expected order is the real one, of the right entries.
        let deleted = removed.iter().take(forgotten.len());
        let expected: Vec<_> = deleted
            .map(|it| (it.key.as_ref().map_or(u32::MAX, |key| key.name), it.value.number, Cause::Deleted))
            .collect();
        let mut left: Vec<_> = expected.iter().map(|(name, value, _)| (*name, *value)).collect();
        let mut had_to: Vec<_> = forgotten.iter().map(|resident| (resident.name, resident.value)).collect();
        left.sort_unstable();
        had_to.sort_unstable();
        assert_eq!(left, had_to, "the entries with hash {hash:x}");
        assert_eq!(self.account_for(removed, &expected, now), 0, "a message evicts nothing");
        assert!(!self.cache.has_hash(hash));
    }
}
