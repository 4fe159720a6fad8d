//! Compressed files: saved entries come back, useless compression is not done, and no file makes a
//! reader allocate more than 256 times its own size.

use std::path::Path;
use std::sync::Arc;

use crate::sample::{
    self, Entry, SAVED_AT, assert_holds, assert_holds_as, assert_holds_with_eager, file, open, options,
    options_of, random, read_all, save, save_to, secret,
};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{
    CacheFile, Compression, Damage, FindingKind, Item, SavedFile, Scratch, Snapshot, Source, Vfs,
    WriteOptions,
};

const MEBIBYTE: usize = 1 << 20;

fn path() -> &'static Path {
    Path::new("/cache/pages.cache")
}

/// Small similar records, like those of an API.
fn records(count: u32) -> Vec<Entry> {
    let entry = |i: u32| {
        Entry {
        key: format!("product:{i}").into_bytes(),
        value: format!(
            "{{\"id\": {i}, \"name\": \"product number {i}\", \"price\": {}, \"currency\": \"EUR\", \"in_stock\": {}, \
             \"description\": \"one of the finest products with number {}\"}}",
            i.wrapping_mul(7919) % 10_000,
            i.is_multiple_of(3),
            i.wrapping_mul(0x9E37_79B9)
        )
        .into_bytes(),
        deadline: i.is_multiple_of(2).then(|| SAVED_AT + u64::from(i)),
    }
    };
    (0..count).map(entry).collect()
}

/// A page of about 12 KB.
fn page(i: u32) -> Vec<u8> {
    let line = |line: u32| {
        let number = (line * 31 + i).wrapping_mul(0x9E37_79B9);
        format!("<li class=\"item\"><a href=\"/p/{i}/{line}\">Item {number}</a></li>\n").into_bytes()
    };
    (0..200).flat_map(line).collect()
}

fn eager(count: u32) -> Vec<Entry> {
    records(count + 1000).split_off(1000)
}

fn zstd(vfs: &Arc<dyn Vfs>, path: &Path) -> CacheFile {
    file(vfs, path).compression(Compression::ZSTD)
}

fn save_zstd(vfs: &Arc<dyn Vfs>, entries: &[Entry]) -> SavedFile {
    save_to(&zstd(vfs, path()), entries, &[], options_of(1)).unwrap()
}

#[test]
fn small_records_share_a_dictionary_and_come_back() {
    for count in [1, 50, 500, 20_000] {
        let disk = FakeDisk::new();
        let vfs = disk.as_vfs();
        let (all, eager) = (records(count), eager(5));
        let saved = save_to(&zstd(&vfs, path()), &all, &eager, options_of(1)).unwrap();
        assert_holds_with_eager(&vfs, path(), &all, &eager);
        let snapshot = open(&vfs, path());
        assert_eq!((snapshot.is_compressed(), snapshot.dictionary_bytes() > 0), (true, count >= 500));
        if count >= 500 {
            let plain = save(&FakeDisk::new().as_vfs(), path(), &all, options_of(1)).unwrap().bytes;
            assert!(saved.bytes * 3 < plain * 2, "{count}: {} of {plain}", saved.bytes);
        }
    }
}

#[test]
fn pages_compress_by_themselves_and_a_value_larger_than_the_buffer_too() {
    let mut all: Vec<Entry> = (0..100u32)
        .map(|i| Entry { key: i.to_le_bytes().to_vec(), value: page(i), deadline: None })
        .collect();
    all.insert(
        0,
        Entry { key: b"first".to_vec(), value: (0..120).flat_map(page).collect(), deadline: Some(1) },
    );
    all.push(Entry { key: b"last".to_vec(), value: (100..220).flat_map(page).collect(), deadline: None });
    assert!(all[0].value.len() > MEBIBYTE);
    for secret in [None, Some(secret())] {
        let vfs = FakeDisk::new().as_vfs();
        let saved = save_to(&zstd(&vfs, path()).secret(secret), &all, &[], options_of(1)).unwrap();
        assert_holds_as(&file(&vfs, path()).secret(secret), &all, &[]);
        let plain: usize = all.iter().map(|entry| entry.value.len()).sum();
        assert!(saved.bytes * 3 < plain as u64, "{} of {plain}", saved.bytes);
    }
}

#[test]
fn what_does_not_become_shorter_is_stored_as_it_is_and_asks_nothing_of_readers() {
    let mut random = random();
    let noise = |_| Entry {
        key: random.u64(..).to_le_bytes().to_vec(),
        value: (0..300).map(|_| random.u8(..)).collect(),
        deadline: None,
    };
    let all: Vec<Entry> = (0..500).map(noise).collect();
    let disk = FakeDisk::new();
    save_zstd(&disk.as_vfs(), &all);
    assert_holds(&disk.as_vfs(), path(), &all);
    assert!(!open(&disk.as_vfs(), path()).is_compressed());
    let compressed = disk.bytes(path());
    save(&disk.as_vfs(), path(), &all, options_of(1)).unwrap();
    assert_eq!(disk.bytes(path()), compressed, "the very file that is written without compression");
}

#[test]
fn a_value_that_would_be_a_bomb_is_stored_as_it_is() {
    let vfs = FakeDisk::new().as_vfs();
    let zeros = Entry { key: b"zeros".to_vec(), value: vec![0; 3 * MEBIBYTE], deadline: None };
    let all = [records(3), vec![zeros]].concat();
    assert!(save_zstd(&vfs, &all).bytes > 3 << 20);
    assert_holds(&vfs, path(), &all);
}

#[test]
fn what_was_taken_back_while_values_were_sampled_is_gone() {
    let vfs = FakeDisk::new().as_vfs();
    let mut all = records(2000);
    let mut writer = zstd(&vfs, path()).write(options_of(1)).unwrap();
    let pushed: Vec<_> =
        all.iter().map(|entry| writer.push(&entry.key, &entry.value, entry.deadline).unwrap()).collect();
    for at in (0..2000).rev().step_by(7) {
        writer.forget(pushed[at]);
        all.remove(at);
    }
    writer.finish().unwrap();
    assert_holds(&vfs, path(), &all);
}

/// Copies the whole content of a snapshot.
fn copy(snapshot: &Snapshot, to: &CacheFile, options: WriteOptions) {
    let mut writer = to.write(options).unwrap();
    let mut all = snapshot.records();
    while let Some(Item::Entry(record)) = all.next() {
        writer.copy(&record).unwrap();
    }
    let mut all = snapshot.eager();
    while let Some(Item::Entry(record)) = all.next() {
        writer.copy_eager(&record).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn entries_are_copied_between_files_however_they_are_compressed() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    let (all, eager) = (records(3000), eager(9));
    let to = Path::new("/cache/copy.cache");
    let other_dictionary = Path::new("/cache/other.cache");
    save_to(&zstd(&vfs, other_dictionary), &sample::entries(3000, 1), &[], options_of(1)).unwrap();
    let other_dictionary = open(&vfs, other_dictionary);
    assert!(other_dictionary.dictionary_bytes() > 0);
    for from in [file(&vfs, path()), zstd(&vfs, path())] {
        save_to(&from, &all, &eager, options_of(1)).unwrap();
        let snapshot = open(&vfs, path());
        let (plain, zstd, options) = (file(&vfs, to), zstd(&vfs, to), options_of(2));
        for (to, options, is_small) in [
            (plain.clone(), options.clone(), Some(false)),
            (plain.secret(secret()), options.clone(), Some(false)),
            (zstd.clone(), options.clone(), Some(true)),
            (zstd.clone().secret(secret()), options.clone(), Some(true)),
            (zstd.clone(), options.clone().dictionary_of(&snapshot), Some(true)),
            // A dictionary unrelated to these values: whether they become shorter is a matter of
            // chance.
            (zstd, options.dictionary_of(&other_dictionary), None),
        ] {
            let name = format!("{to:?} {options:?}");
            copy(&snapshot, &to, options);
            assert_holds_as(&to, &all, &eager);
            let copied = to.open().unwrap().unwrap();
            assert!(is_small.is_none_or(|it| it == copied.is_compressed()), "{name}");
        }
    }
}

#[test]
fn what_is_copied_with_its_dictionary_keeps_its_bytes() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    let all = records(3000);
    save_zstd(&vfs, &all);
    let first = disk.bytes(path()).unwrap();
    let snapshot = open(&vfs, path());
    copy(&snapshot, &zstd(&vfs, path()), options_of(1).dictionary_of(&snapshot));
    assert!(disk.bytes(path()).unwrap() == first, "the same file id, so the same file");
}

#[test]
fn a_dictionary_that_is_damaged_costs_the_values_that_need_it_for_the_life_of_the_snapshot() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    let mut all = records(1000);
    all.push(Entry { key: b"short".to_vec(), value: b"plain".to_vec(), deadline: None });
    save_zstd(&vfs, &all);
    let sound = disk.bytes(path()).unwrap();
    let mut bytes = sound.clone();
    let dictionary = bytes.len() - usize::try_from(open(&vfs, path()).dictionary_bytes()).unwrap();
    bytes[dictionary + 50] ^= 1;
    disk.overwrite(path(), &bytes);
    let snapshot = open(&vfs, path());
    let mut scratch = Scratch::new();
    assert_eq!(snapshot.find(&all[5].key, &mut scratch), None);
    assert_eq!((scratch.lost(), snapshot.damage().records), (&[5][..], 1));
    assert_eq!(snapshot.find(b"short", &mut scratch).unwrap().value, b"plain");
    disk.overwrite(path(), &sound);
    assert_eq!(snapshot.find(&all[6].key, &mut scratch), None, "what was not there does not come back");
    assert_eq!(read_all(&snapshot).iter().flatten().count(), 1);
    assert_ne!(snapshot.damage(), Damage::default());
    disk.overwrite(path(), &bytes);
    let report = file(&vfs, path()).any_version().verify().unwrap();
    assert_eq!(report.sound_entries, 1);
    let kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert!(kinds.contains(&FindingKind::Record) && kinds.contains(&FindingKind::Dictionary));
}

#[test]
fn frames_that_were_tampered_with_are_misses_or_other_values_within_the_bound() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    let all = records(150);
    for is_secret in [false, true] {
        let file = zstd(&vfs, path()).secret(is_secret.then(secret));
        save_to(&file, &all, &[], options_of(1)).unwrap();
        disk.keep_no_log();
        let sound = disk.bytes(path()).unwrap();
        let end = records_end(&sound);
        for place in 4096..end {
            let mut bytes = sound.clone();
            bytes[place] ^= 0x55;
            // Corrects every record's checksum if its lengths still give its end.
            reseal_records(&mut bytes, end, if is_secret { 16 } else { 0 });
            disk.overwrite(path(), &bytes);
            let snapshot = file.open().unwrap().unwrap();
            for (found, entry) in read_all(&snapshot).into_iter().zip(&all) {
                let Some(found) = found else { continue };
                assert!(found.value.len() <= 256 * sound.len());
                assert!(!is_secret || &found == entry, "a forged record was served");
            }
        }
    }
}

fn records_end(bytes: &[u8]) -> usize {
    let row: [u8; 8] = bytes[784..792].try_into().unwrap();
    4096 + usize::try_from(u64::from_le_bytes(row)).unwrap()
}

fn reseal_records(bytes: &mut [u8], end: usize, tag: usize) {
    let mut at = 4096;
    while at + 7 < end {
        let (flags, key) = (bytes[at + 4], usize::from(bytes[at + 5]));
        let (value, lens) = match (bytes[at + 6], bytes[at + 7]) {
            (low @ 0x80.., high @ ..0x80) => (usize::from(low & 0x7F) + usize::from(high) * 128, 3),
            (low, _) => (usize::from(low), 2),
        };
        let stamps = usize::from(flags & 1) * 8 + usize::from(flags >> 1 & 1) * 8;
        let len = 5 + lens + stamps + key + value + tag;
        if at + len > end {
            return;
        }
        let bound = [&[1; 16][..], &(at as u64).to_le_bytes(), &bytes[at + 4..at + len]].concat();
        bytes[at..at + 4].copy_from_slice(&crc32c::crc32c(&bound).to_le_bytes());
        at += len;
    }
}

#[test]
fn the_level_changes_the_size_and_nothing_else() {
    let all: Vec<Entry> = (0..100u32)
        .map(|i| Entry { key: i.to_le_bytes().to_vec(), value: page(i), deadline: None })
        .collect();
    let sizes = [1, 3, 19].map(|level| {
        let vfs = FakeDisk::new().as_vfs();
        let file = file(&vfs, path()).compression(Compression::zstd(level).unwrap());
        let saved = save_to(&file, &all, &[], options()).unwrap();
        assert_holds(&vfs, path(), &all);
        saved.bytes
    });
    assert!(sizes[2] < sizes[0], "{sizes:?}");
}

/// Found by a fuzzer: zstd's trainer takes the first three quarters of its samples. If they
/// contained fewer than eight bytes, the trainer read beyond its buffer, and the process died.
#[test]
fn values_of_next_to_nothing_teach_no_dictionary_and_come_back() {
    let entry = |i: u32, value: Vec<u8>| Entry { key: i.to_le_bytes().to_vec(), value, deadline: None };
    for few_bytes in 0..9 {
        let mut all: Vec<Entry> =
            (0..200).map(|i| entry(i, vec![b'v'; usize::from(i < few_bytes)])).collect();
        all.extend((200..240).map(|i| entry(i, page(i))));
        let disk = FakeDisk::new();
        save_zstd(&disk.as_vfs(), &all);
        assert_holds(&disk.as_vfs(), path(), &all);
    }
}
