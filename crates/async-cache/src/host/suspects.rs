//! Suspect records and messages from a tier beyond the host, through a journal and a snapshot.

use std::time::Duration;

use async_cache_core::remote::port::Name;
use async_cache_core::shard::FlightFate;
use async_cache_disk::fake::FakeDisk;
use async_cache_tier::cold::{self, ColdAnswer};
use async_cache_tier::journal::{self, DiskWait, Served};
use async_cache_tier::names::NameIndex;
use async_cache_tier::suspects::{self, Suspects};
use async_cache_tier::{Memory, Tiered};

use super::AskedKey;
use crate::{AsyncCache, Clock, DiskBackend, Eviction, Journal};

type Cache = AsyncCache<u64, u64>;

fn cache(disk: &FakeDisk, maxsize: usize, journal: Option<Journal>) -> Cache {
    let (clock, hands) = Clock::manual();
    hands.set_wall(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000));
    let backend = DiskBackend::new("/var/cache/app.cache").vfs(disk.as_vfs());
    let backend = match journal {
        Some(journal) => backend.journal(journal.flush_every(Duration::from_secs(3600))),
        None => backend,
    };
    let builder = AsyncCache::builder().clock(clock).shards(1).eviction(Eviction::Lru);
    builder.maxsize(maxsize).backup(backend).build().unwrap()
}

/// A journal that holds more than memory.
fn large() -> Journal {
    Journal::new().disk_bytes(1 << 20)
}

/// The disk after the process has been killed.
fn killed(disk: &FakeDisk, cache: Cache) -> FakeDisk {
    let survivor = disk.survivors().swap_remove(0).1;
    std::mem::forget(cache); // It would close its journal.
    survivor
}

fn from_journal(cache: &Cache, key: u64, suspects: Suspects) -> Served<u64> {
    let (inner, hash) = (&cache.inner, cache.inner.hash(&key));
    let (host, journal) = (inner.file_host().unwrap(), inner.tier.journal().unwrap());
    journal::serve(&host, journal, &AskedKey { hash, key: &key }, DiskWait::Allowed, suspects).unwrap()
}

fn from_snapshot(cache: &Cache, key: u64, suspects: Suspects) -> ColdAnswer<u64> {
    let (host, hash) = (cache.inner.file_host().unwrap(), cache.inner.hash(&key));
    let under = host.read(0, Tiered::under);
    cold::serve(&host, &AskedKey { hash, key: &key }, under, suspects).unwrap()
}

fn suspect_all(cache: &Cache) {
    suspects::suspect_all(&cache.inner.file_host().unwrap());
}

/// A message that another host has changed the key.
fn changed(cache: &Cache, key: u64) {
    let hash = cache.inner.hash(&key);
    suspects::forget_hash(&cache.inner.file_host().unwrap(), 0, hash, FlightFate::Fenced).unwrap();
}

fn suspects_in_memory(cache: &Cache) -> usize {
    cache.inner.file_host().unwrap().read(0, |tiered| tiered.shard.store().suspects())
}

#[test]
fn a_record_from_before_is_served_only_while_the_other_tier_cannot_be_asked() {
    let disk = FakeDisk::new();
    let first = cache(&disk, 10, Some(Journal::new()));
    (1..5).for_each(|key| first.set(key, 10 * key));
    let disk = killed(&disk, first);

    let cache = cache(&disk, 10, Some(Journal::new()));
    assert_eq!((cache.get(&1), suspects_in_memory(&cache)), (Some(10), 0), "no other tier is in use");
    suspect_all(&cache);
    assert_eq!(suspects_in_memory(&cache), 1);
    for key in [1, 2] {
        assert_eq!((cache.get(&key), cache.contains(&key)), (None, false));
        assert!(matches!(from_journal(&cache, key, Suspects::Withheld), Served::Suspect));
    }
    assert_eq!(cache.len(), 4, "nothing has left");
    assert!(matches!(from_journal(&cache, 1, Suspects::Served), Served::Hit(10)), "from memory");
    assert!(matches!(from_journal(&cache, 2, Suspects::Served), Served::Hit(20)), "from the disk");
    assert_eq!(suspects_in_memory(&cache), 2, "a record from before is suspect in memory as well");
    assert_eq!((cache.get(&2), cache.contains(&2)), (None, false));
    assert!(matches!(from_journal(&cache, 9, Suspects::Withheld), Served::Absent));

    cache.set(2, 21);
    cache.set(3, 31);
    assert_eq!((cache.get(&2), cache.get(&3), cache.contains(&3)), (Some(21), Some(31), true));
    assert_eq!(suspects_in_memory(&cache), 1);
}

#[test]
fn a_record_that_was_written_since_is_served_from_the_disk() {
    let disk = FakeDisk::new();
    let cache = cache(&disk, 1, Some(large()));
    cache.set(1, 10);
    suspect_all(&cache);
    cache.set(2, 20); // Evicts key 1.
    cache.set(3, 30); // Evicts key 2.
    assert!(matches!(from_journal(&cache, 1, Suspects::Withheld), Served::Suspect));
    assert!(cache.contains(&2) && !cache.contains(&1));
    assert_eq!((cache.get(&2), suspects_in_memory(&cache)), (Some(20), 0));
    suspect_all(&cache);
    assert_eq!([1, 2, 3].map(|key| cache.get(&key)), [None; 3]);
}

#[test]
fn a_message_removes_an_entry_from_memory_and_from_the_disk() {
    for journal in [Journal::new(), large()] {
        let disk = FakeDisk::new();
        let first = cache(&disk, 10, Some(journal.clone()));
        suspect_all(&first);
        (1..4).for_each(|key| first.set(key, 10 * key));
        changed(&first, 2);
        assert_eq!([1, 2, 3].map(|key| first.get(&key)), [Some(10), None, Some(30)]);
        assert_eq!(first.len(), 2);
        assert!(matches!(from_journal(&first, 2, Suspects::Served), Served::Absent));
        let disk = killed(&disk, first);
        let cache = cache(&disk, 10, Some(journal));
        assert_eq!([1, 2, 3].map(|key| cache.get(&key)), [Some(10), None, Some(30)], "after a crash");
        assert_eq!(cache.len(), 2);
    }
}

#[test]
fn a_message_about_a_key_that_is_on_the_disk_only_makes_its_record_suspect() {
    let disk = FakeDisk::new();
    let cache = cache(&disk, 1, Some(large()));
    suspect_all(&cache);
    cache.set(1, 10);
    cache.set(2, 20); // Evicts key 1.
    changed(&cache, 1);
    for suspects in [Suspects::Withheld, Suspects::Served] {
        assert!(matches!(from_journal(&cache, 1, suspects), Served::Suspect), "also during an outage");
    }
    assert_eq!((cache.get(&1), cache.contains(&1)), (None, false));
    cache.set(1, 11); // Evicts key 2.
    cache.set(3, 30); // Evicts key 1.
    assert_eq!((cache.get(&1), cache.get(&2)), (Some(11), Some(20)), "written since; another key");
}

#[test]
fn more_messages_than_are_noted_make_every_record_suspect() {
    let disk = FakeDisk::new();
    let cache = cache(&disk, 1, Some(large()));
    suspect_all(&cache);
    cache.set(1, 10);
    cache.set(2, 20); // Evicts key 1.
    let host = cache.inner.file_host().unwrap();
    let forget = |hash| suspects::forget_hash(&host, 0, hash, FlightFate::Kept).unwrap();
    // None of them is the hash of a key.
    (0..1 << 16).for_each(forget);
    assert_eq!(cache.get(&1), Some(10));
    cache.set(2, 20);
    forget(1 << 16);
    assert_eq!((cache.get(&1), cache.get(&2)), (None, Some(20)), "memory is as it was");
}

#[test]
fn every_record_of_a_snapshot_is_suspect_once_another_tier_is_in_use() {
    let disk = FakeDisk::new();
    let first = cache(&disk, 10, None);
    (1..4).for_each(|key| first.set(key, 10 * key));
    first.save_to_backup().unwrap();

    let cache = cache(&disk, 10, None);
    assert_eq!((cache.get(&1), suspects_in_memory(&cache)), (Some(10), 0));
    suspect_all(&cache);
    for key in [1, 2] {
        assert_eq!((cache.get(&key), cache.contains(&key)), (None, false));
    }
    assert!(matches!(from_snapshot(&cache, 2, Suspects::Withheld), ColdAnswer::Suspect(_)));
    assert!(matches!(from_snapshot(&cache, 1, Suspects::Withheld), ColdAnswer::Absent(_)), "not cold");
    assert!(matches!(from_snapshot(&cache, 9, Suspects::Withheld), ColdAnswer::Absent(_)));
    assert!(matches!(from_snapshot(&cache, 2, Suspects::Served), ColdAnswer::Served(20)));
    assert_eq!((cache.get(&2), suspects_in_memory(&cache)), (None, 2));
    cache.set(2, 21);
    cache.set(3, 31);
    assert_eq!((cache.get(&2), cache.get(&3), cache.len()), (Some(21), Some(31), 3));
}

#[test]
fn a_record_from_before_is_suspect_also_after_a_collection_has_moved_it() {
    let disk = FakeDisk::new();
    let cache = cache(&disk, 50, Some(large()));
    let host = cache.inner.file_host().unwrap();
    let place = |key: u64| {
        host.read(0, |tiered| {
            let slot = tiered.shard.find(cache.inner.hash(&key), |known| *known == key)?;
            Some(tiered.shard.store().entry(slot).meta.stamp)
        })
    };
    (0..20).for_each(|key| cache.set(key, 10 * key));
    suspect_all(&cache);
    let before: Vec<_> = (0..20).map(place).collect();
    let journal = cache.inner.tier.journal().unwrap();
    for round in 0..60_000 {
        cache.set(100, round);
        if round % 500 == 0 {
            journal::tend(&host, journal, Duration::ZERO).unwrap();
        }
    }
    let after: Vec<_> = (0..20).map(place).collect();
    assert!(before.iter().zip(&after).all(|(before, after)| before < after), "{before:?} {after:?}");
    (200..250).for_each(|key| cache.set(key, 0)); // Evicts the others.
    assert_eq!(place(1), None);
    let answers = (0..20).map(|key| from_journal(&cache, key, Suspects::Withheld));
    assert_eq!(answers.filter(|answer| matches!(answer, Served::Suspect)).count(), 20);
    assert!(matches!(from_journal(&cache, 1, Suspects::Served), Served::Hit(10)));
}

/// A name that is dropped is a message that finds no entry.
#[test]
fn names_of_entries_that_have_left_memory_stay_beside_a_journal() {
    for (journal, kept) in [(Some(large()), 5000), (None, 0)] {
        let cache = cache(&FakeDisk::new(), 1, journal);
        let names = NameIndex::new();
        (0..5000_u64).for_each(|key| names.insert(&Name::new(key.to_le_bytes().to_vec()), key));
        suspects::compact_names(&cache.inner.memory(), &names, |_| false);
        assert_eq!(names.len(), kept);
    }
}
