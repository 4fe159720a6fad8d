//! Writes that are lost while the file is opened or loaded.

use std::collections::BTreeMap;
use std::time::Duration;

use async_cache::AsyncCache;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::backend;
use super::{Hook, Host};
use crate::stage::within_limit;

#[test]
fn a_write_or_a_delete_while_the_backup_is_loaded_is_not_undone() {
    let host = Host::new();
    let first = hooked(&host);
    (1..=4).for_each(|number| first.set(Hooked(number), number + 9));
    first.save_to_backup().unwrap();
    host.tick();
    let cache = hooked(&host);
    cache.clear();
    cache.set(Hooked(800), 50);
    let its = cache.clone();
    // Keys in memory are looked up in the file, and so written as bytes.
    let hook: Hook = Box::new(move || {
        its.set_with_ttl(Hooked(1), 11, Some(Duration::ZERO));
        its.delete(&Hooked(2));
        its.set(Hooked(3), 30);
    });
    KEY_HOOKS.lock().unwrap().insert(800, hook);
    cache.load_from_backup().unwrap();
    assert!(!KEY_HOOKS.lock().unwrap().contains_key(&800));
    let got = |cache: &AsyncCache<Hooked, u64>, key| cache.get(&Hooked(key));
    assert_eq!([1, 2, 3, 4].map(|key| got(&cache, key)), [None, None, Some(30), Some(13)]);
    cache.save_to_backup().unwrap();
    assert_eq!([1, 2, 3, 4].map(|key| got(&hooked(&host), key)), [None, None, Some(30), Some(13)]);
}

#[test]
fn a_load_from_the_backup_ends_though_writes_are_lost_all_the_time() {
    within_limit(|| {
        let host = Host::new();
        let first = hooked(&host);
        (1..=3).for_each(|number| first.set(Hooked(number), 10));
        first.save_to_backup().unwrap();
        host.tick();
        let cache = hooked(&host);
        cache.clear();
        cache.set(Hooked(5), 50); // so that the entries are read at once
        lose_and_go_on(&cache, 700);
        let opening = cache.load_from_backup().unwrap();
        KEY_HOOKS.lock().unwrap().retain(|number, _| !(700..800).contains(number));
        assert_eq!(opening.entries, 3);
    });
}

/// A write is lost; and whenever a lost write is noted, the next one is lost.
fn lose_and_go_on(cache: &AsyncCache<Hooked, u64>, number: u64) {
    let its = cache.clone();
    let next = 700 + (number + 1) % 2;
    cache.set_with_ttl(Hooked(number), 0, Some(Duration::ZERO));
    // Not before: under an opened snapshot a write looks its key up, too.
    KEY_HOOKS.lock().unwrap().insert(number, Box::new(move || lose_and_go_on(&its, next)));
}

#[test]
fn a_write_that_is_lost_while_other_lost_ones_are_noted_is_not_undone_by_an_opening() {
    let host = Host::new();
    let open = || hooked(&host);
    let first = open();
    (1..=3).for_each(|number| first.set(Hooked(number), 10));
    first.save_to_backup().unwrap();
    host.tick();
    let cache = open();
    cache.clear();
    cache.set_with_ttl(Hooked(900), 0, Some(Duration::ZERO));
    let its = cache.clone();
    // Noted before the file is opened, after it was opened, and when it is too late to note
    // anything.
    KEY_HOOKS.lock().unwrap().extend([(900, 901), (901, 1)].map(|(seen, lost)| -> (u64, Hook) {
        let its = its.clone();
        (seen, Box::new(move || its.set_with_ttl(Hooked(lost), 11, Some(Duration::ZERO))))
    }));
    cache.load_from_backup().unwrap();
    assert!(!KEY_HOOKS.lock().unwrap().keys().any(|number| *number > 899));
    assert_eq!([1, 2].map(|key| cache.get(&Hooked(key))), [None, Some(10)]);
    cache.save_to_backup().unwrap();
    assert_eq!([1, 2].map(|key| open().get(&Hooked(key))), [None, Some(10)]);
}

/// Runs a hook at the next write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Hooked(u64);

static KEY_HOOKS: std::sync::Mutex<BTreeMap<u64, Hook>> = std::sync::Mutex::new(BTreeMap::new());

impl Serialize for Hooked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hook = KEY_HOOKS.lock().unwrap().remove(&self.0);
        if let Some(hook) = hook {
            hook();
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Hooked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self)
    }
}

fn hooked(host: &Host) -> AsyncCache<Hooked, u64> {
    let builder = AsyncCache::builder().clock(host.clock.clone()).backup(backend(&host.disk));
    builder.maxsize(10).shards(1).build().unwrap()
}
