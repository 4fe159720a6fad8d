//! Damaged, foreign and replaced files: misses and a warning, never a wrong value.

use std::path::Path;

use super::{PATH, Page, backend, life, open, page, saved_numbers, warnings};
use crate::stage::one_thread;
use async_cache::{AsyncCache, BackupError, DiskErrorKind};
use async_cache_disk::fake::FakeDisk;

#[test]
fn values_that_no_longer_decode_are_misses_counted_and_reported_once() {
    let disk = saved_numbers(3);
    let logged = warnings(|| {
        let cache: AsyncCache<u64, Page> = open(&disk);
        assert_eq!(cache.len(), 3);
        for key in 0..3 {
            assert_eq!((cache.get(&key), cache.contains(&key)), (None, false));
        }
        assert_eq!((cache.stats().undecodable, cache.stats().misses, cache.len()), (3, 3, 0));
        assert_eq!(cache.get(&1), None);
        assert_eq!(cache.stats().undecodable, 3, "each once");
        let loaded = one_thread().block_on(cache.get_or_load(&1, || async { Ok::<_, ()>(page()) }));
        assert_eq!(loaded.unwrap(), page());
        assert_eq!(cache.save_to_backup().unwrap().entries, 1);
    });
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(logged[0].contains(PATH) && logged[0].contains("undecodable"), "{logged:?}");
}

/// Replaces the single occurrence of `what` in the file.
fn damage(disk: &FakeDisk, what: &[u8]) {
    let mut bytes = disk.bytes(Path::new(PATH)).unwrap();
    let places: Vec<_> = (0..bytes.len() - what.len()).filter(|&at| bytes[at..].starts_with(what)).collect();
    assert_eq!(places.len(), 1);
    bytes[places[0]] ^= 0x40;
    disk.overwrite(Path::new(PATH), &bytes);
}

fn saved_texts() -> FakeDisk {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.shards(1).build().unwrap();
    (0..20_u64).for_each(|key| cache.set(key, format!("the text of {key}.")));
    cache.save_to_backup().unwrap();
    disk
}

#[test]
fn a_damaged_record_is_a_miss_and_the_rest_is_served() {
    for opened_before in [true, false] {
        let disk = saved_texts();
        let early = opened_before.then(|| open::<u64, String>(&disk));
        damage(&disk, b"the text of 7.");
        damage(&disk, b"the text of 12.");
        let cache = early.unwrap_or_else(|| open(&disk));
        for key in 0..20 {
            let expected = (![7, 12].contains(&key)).then(|| format!("the text of {key}."));
            assert_eq!(cache.get(&key), expected);
        }
        assert_eq!((cache.stats().undecodable, cache.len()), (2, 18));
        assert_eq!(cache.save_to_backup().unwrap().entries, 18);
        assert_eq!(open::<u64, String>(&disk).len(), 18);
    }
}

#[test]
fn a_save_leaves_out_what_is_damaged_and_counts_it() {
    let disk = saved_texts();
    damage(&disk, b"the text of 7.");
    let cache: AsyncCache<u64, String> = open(&disk);
    assert_eq!(cache.save_to_backup().unwrap().entries, 19);
    assert_eq!((cache.stats().undecodable, cache.len()), (1, 19));
    let cache: AsyncCache<u64, String> = open(&disk);
    assert_eq!((cache.get(&7), cache.get(&8).as_deref()), (None, Some("the text of 8.")));
}

#[test]
fn a_damaged_entry_that_is_set_anew_is_there_once() {
    let disk = saved_texts();
    damage(&disk, b"the text of 7.");
    let cache: AsyncCache<u64, String> = open(&disk);
    cache.set(7, "new".into());
    assert_eq!((cache.get(&7).as_deref(), cache.len()), (Some("new"), 20));
    assert_eq!(cache.save_to_backup().unwrap().entries, 20);
    assert_eq!(open::<u64, String>(&disk).get(&7).as_deref(), Some("new"));
}

#[test]
fn a_file_that_is_cut_while_open_is_misses() {
    for kept in [0, 1, 4096, 4200] {
        let disk = saved_texts();
        let cache: AsyncCache<u64, String> = open(&disk);
        assert_eq!(cache.get(&3).as_deref(), Some("the text of 3."));
        let bytes = disk.bytes(Path::new(PATH)).unwrap();
        disk.overwrite(Path::new(PATH), &bytes[..kept]);
        let found = (0..20).filter_map(|key| cache.get(&key)).collect::<Vec<_>>();
        assert_eq!(found, ["the text of 3."], "what is in memory stays");
        cache.save_to_backup().unwrap();
        assert_eq!(open::<u64, String>(&disk).get(&3).as_deref(), Some("the text of 3."));
    }
}

#[test]
fn a_file_that_is_overwritten_while_open_is_misses_and_never_the_others_values() {
    let (disk, other) = (saved_texts(), FakeDisk::new());
    let writer = life(&other, 0).0.shards(1).build().unwrap();
    (0..20_u64).for_each(|key| writer.set(key, format!("one other of {key}.")));
    writer.save_to_backup().unwrap();
    let cache: AsyncCache<u64, String> = open(&disk);
    assert_eq!(cache.get(&3).as_deref(), Some("the text of 3."));
    disk.overwrite(Path::new(PATH), &other.bytes(Path::new(PATH)).unwrap());
    let found = (0..20).filter_map(|key| cache.get(&key)).collect::<Vec<_>>();
    assert_eq!(found, ["the text of 3."]);
}

#[test]
fn a_file_that_is_replaced_while_open_serves_on() {
    let disk = saved_texts();
    let cache: AsyncCache<u64, String> = open(&disk);
    let other: AsyncCache<u64, String> = open(&disk);
    other.set(3, "new".into());
    other.save_to_backup().unwrap();
    assert_eq!(cache.get(&3).as_deref(), Some("the text of 3."));
    // The later write wins, in either order of saves.
    cache.save_to_backup().unwrap();
    assert_eq!(open::<u64, String>(&disk).get(&3).as_deref(), Some("new"));
}

#[test]
fn a_foreign_file_is_an_empty_cache_and_a_warning_and_is_set_aside_not_destroyed() {
    let foreign = b"a diary that somebody keeps there";
    let disk = FakeDisk::new();
    disk.put(Path::new(PATH), foreign);
    let logged = warnings(|| {
        let cache: AsyncCache<u64, u64> = open(&disk);
        let warning = cache.opening().warning.as_ref().unwrap();
        assert!(matches!(warning, BackupError::Disk(error) if *error.kind() == DiskErrorKind::Foreign));
        assert!(warning.to_string().contains(PATH), "{warning}");
        assert_eq!((cache.len(), cache.opening().entries), (0, 0));
        assert_eq!(disk.bytes(Path::new(PATH)).unwrap(), foreign, "opening leaves it alone");
        cache.set(1, 1);
        let aside = cache.save_to_backup().unwrap().set_aside.unwrap();
        assert_eq!(disk.bytes(&aside).unwrap(), foreign);
        assert_eq!(cache.save_to_backup().unwrap().set_aside, None);
    });
    assert_eq!(logged.len(), 2, "at the opening and at the save: {logged:?}");
    assert_eq!(open::<u64, u64>(&disk).get(&1), Some(1));
}

#[test]
fn a_damaged_header_is_an_empty_cache_and_the_file_is_set_aside() {
    let disk = saved_numbers(3);
    let mut bytes = disk.bytes(Path::new(PATH)).unwrap();
    bytes[70] ^= 1;
    disk.overwrite(Path::new(PATH), &bytes);
    let cache: AsyncCache<u64, u64> = open(&disk);
    let warning = cache.opening().warning.as_ref().unwrap();
    assert!(
        matches!(warning, BackupError::Disk(error) if *error.kind() == DiskErrorKind::Damaged),
        "{warning}"
    );
    assert_eq!(cache.len(), 0);
    let aside = cache.save_to_backup().unwrap().set_aside.unwrap();
    assert_eq!(disk.bytes(&aside).unwrap(), bytes);
}

#[test]
fn a_file_of_another_version_is_an_empty_cache_and_is_replaced() {
    let disk = FakeDisk::new();
    let of_version = |version: &str| -> AsyncCache<u64, u64> {
        AsyncCache::builder().backup(backend(&disk).version(version)).build().unwrap()
    };
    let cache = of_version("v1");
    cache.set(1, 1);
    cache.save_to_backup().unwrap();
    assert_eq!(of_version("v1").get(&1), Some(1));

    let cache = of_version("v2");
    let warning = cache.opening().warning.as_ref().unwrap().to_string();
    assert!(warning.contains("v1") && warning.contains("v2"), "{warning}");
    assert_eq!((cache.get(&1), cache.len()), (None, 0));
    assert_eq!(of_version("v1").get(&1), Some(1), "opening leaves it alone");
    cache.set(2, 2);
    assert_eq!(cache.save_to_backup().unwrap().set_aside, None);
    assert_eq!((of_version("v2").get(&2), of_version("v1").len(), disk.files().len()), (Some(2), 0, 2));
}
