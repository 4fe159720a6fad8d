//! Files with a secret: data that was not written with the secret is refused, whatever its
//! checksums. The attacker here can write to the file, knows everything except the secret, and
//! corrects every checksum.

use std::path::Path;
use std::sync::Arc;

use crate::sample::{
    self, Entry, another_secret, assert_holds, assert_holds_as, deadlines, eager_entries, entries, file,
    options_of, random, read_all, save, save_to, secret, with_secret,
};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::{DiskErrorKind, FindingKind, Item, Scratch, Source, Vfs};

const COUNT: u32 = 90;
const EAGER: u32 = 5;
const HEADER: usize = 4096;
const PAGE: usize = 512;
const TAG: usize = 16;

fn path() -> &'static Path {
    Path::new("/cache/pages.cache")
}

fn saved(generation: u8) -> Vec<u8> {
    let disk = FakeDisk::new();
    let number = u32::from(generation);
    let (entries, eager) = (entries(COUNT, number), eager_entries(EAGER, number));
    save_to(&with_secret(&disk.as_vfs(), path()), &entries, &eager, options_of(generation)).unwrap();
    disk.bytes(path()).unwrap()
}

fn disk_with(bytes: &[u8]) -> (FakeDisk, Arc<dyn Vfs>) {
    let disk = FakeDisk::new();
    disk.put(path(), bytes);
    disk.keep_no_log();
    let vfs = disk.as_vfs();
    (disk, vfs)
}

/// The position of each unit of the file, the header first: offset and length.
fn units(entries: &[Entry], eager: &[Entry], bytes: &[u8]) -> Vec<(usize, usize)> {
    let record = |entry: &Entry| {
        let head = 7 + if entry.deadline.is_some() { 8 } else { 0 };
        head + entry.key.len() + entry.value.len() + TAG
    };
    let mut units = vec![(0, HEADER)];
    let mut at = HEADER;
    let mut push = |at: &mut usize, len| {
        units.push((*at, len));
        *at += len;
    };
    for entry in entries {
        push(&mut at, record(entry));
    }
    at = at.next_multiple_of(4096);
    let pages = COUNT.div_ceil(30)
        + u32::try_from(entries.iter().filter(|it| it.deadline.is_some()).count()).unwrap().div_ceil(40);
    (0..pages).for_each(|_| push(&mut at, PAGE));
    for entry in eager {
        push(&mut at, record(entry));
    }
    assert_eq!(at, bytes.len());
    units
}

/// Corrects the checksum of a unit.
fn reseal(bytes: &mut [u8], file_id: u8, (start, len): (usize, usize)) {
    if start == 0 {
        let checksum = crc32c::crc32c(&bytes[..4092]);
        bytes[4092..4096].copy_from_slice(&checksum.to_le_bytes());
    } else {
        let bound =
            [&[file_id; 16][..], &(start as u64).to_le_bytes(), &bytes[start + 4..start + len]].concat();
        bytes[start..start + 4].copy_from_slice(&crc32c::crc32c(&bound).to_le_bytes());
    }
}

/// Reads a file in every way: all data read is data that was saved.
fn assert_nothing_else_is_served(vfs: &Arc<dyn Vfs>, entries: &[Entry], eager: &[Entry]) -> usize {
    let snapshot = match with_secret(vfs, path()).open() {
        Ok(snapshot) => snapshot.expect("there is a file"),
        Err(error) => {
            assert!(
                matches!(
                    error.kind(),
                    DiskErrorKind::Trust
                        | DiskErrorKind::Damaged
                        | DiskErrorKind::Newer
                        | DiskErrorKind::Foreign
                ),
                "{error}"
            );
            return 0;
        }
    };
    let mut scratch = Scratch::new();
    let mut found = 0;
    for (entry, rank) in entries.iter().zip(0..) {
        if let Some(it) = snapshot.find(&entry.key, &mut scratch) {
            assert_eq!((it.value, it.deadline, it.rank), (&entry.value[..], entry.deadline, rank));
            found += 1;
        }
    }
    for (read, entry) in read_all(&snapshot).iter().zip(entries) {
        assert!(read.as_ref().is_none_or(|read| read == entry));
    }
    let (read, _) = sample::read_eager(&snapshot);
    assert_eq!(read, eager[..read.len()]);
    for (deadline, rank) in deadlines(&snapshot) {
        assert_eq!(entries[rank as usize].deadline, Some(deadline));
    }
    found + read.len()
}

#[test]
fn a_file_with_a_secret_comes_back_with_it_and_says_so() {
    let (disk, vfs) = disk_with(&saved(1));
    assert_holds_as(&with_secret(&vfs, path()), &entries(COUNT, 1), &eager_entries(EAGER, 1));
    let snapshot = with_secret(&vfs, path()).open().unwrap().unwrap();
    assert!(snapshot.has_mac());
    let error = with_secret(&vfs, path()).version("v2").open().unwrap_err();
    assert!(matches!(error.kind(), DiskErrorKind::OtherVersion { .. }));
    let saved = save_to(&with_secret(&vfs, path()), &entries(3, 2), &[], options_of(2)).unwrap();
    assert!(saved.set_aside.is_none());
    assert_eq!(disk.files(), [path()]);
}

#[test]
fn many_entries_with_a_secret_fill_their_smaller_buckets_and_pages() {
    let vfs = FakeDisk::new().as_vfs();
    let file = with_secret(&vfs, path());
    save_to(&file, &entries(5000, 1), &[], options_of(1).buckets(126)).unwrap();
    assert_holds_as(&file, &entries(5000, 1), &[]);
}

#[test]
fn another_secret_none_and_one_for_a_file_without_are_refused_set_aside_and_cleared() {
    for (written, read, words) in [
        (Some(secret()), Some(another_secret()), "another secret"),
        (Some(secret()), None, "none was given"),
        (None, Some(secret()), "without a secret"),
    ] {
        let disk = FakeDisk::new();
        let vfs = disk.as_vfs();
        save_to(&file(&vfs, path()).secret(written), &entries(COUNT, 1), &[], options_of(1)).unwrap();
        let bytes = disk.bytes(path()).unwrap();
        let file = file(&vfs, path()).secret(read);
        let error = file.open().unwrap_err();
        assert_eq!(error.kind(), &DiskErrorKind::Trust);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(file.verify().unwrap_err().kind(), &DiskErrorKind::Trust);

        let saved = save_to(&file, &entries(3, 2), &[], options_of(2)).unwrap();
        assert_eq!(disk.bytes(&saved.set_aside.unwrap()), Some(bytes.clone()));
        assert_holds_as(&file, &entries(3, 2), &[]);

        disk.put(path(), &bytes);
        assert!(file.secret(None).clear(None).unwrap(), "whoever clears the cache need not know the secret");
        assert_eq!(disk.bytes(path()), None);
    }
}

#[test]
fn every_flipped_byte_is_refused_or_a_miss_even_if_the_checksum_is_made_right() {
    let bytes = saved(1);
    let (all, eager) = (entries(COUNT, 1), eager_entries(EAGER, 1));
    let units = units(&all, &eager, &bytes);
    let mut random = random();
    let (disk, vfs) = disk_with(&bytes);
    for &(start, len) in &units {
        for place in start..start + len {
            let mut forged = bytes.clone();
            forged[place] ^= random.u8(1..);
            reseal(&mut forged, 1, (start, len));
            if forged == bytes {
                continue; // the change was to the checksum itself
            }
            disk.overwrite(path(), &forged);
            let served = assert_nothing_else_is_served(&vfs, &all, &eager);
            assert!(start != 0 || served == 0, "a header that was changed at {place} was believed");
            match with_secret(&vfs, path()).verify() {
                Ok(report) => assert!(start != 0 && !report.is_clean()),
                Err(_) => assert_eq!(start, 0),
            }
        }
    }
}

#[test]
fn records_that_are_swapped_copied_or_replayed_from_an_older_file_are_misses() {
    let (bytes, older) = (saved(2), saved(1));
    let (all, eager) = (entries(COUNT, 2), eager_entries(EAGER, 2));
    let units = units(&all, &eager, &bytes);
    assert_eq!(bytes.len(), older.len(), "generations differ in the values only, so what is where is alike");
    let (disk, vfs) = disk_with(&bytes);
    let complete = all.len() + eager.len();
    assert_eq!(assert_nothing_else_is_served(&vfs, &all, &eager), complete);
    for &(start, len) in &units[1..] {
        // Replayed: the same place in an older file with the same secret, with the checksum of the
        // new file.
        let mut forged = bytes.clone();
        forged[start..start + len].copy_from_slice(&older[start..start + len]);
        reseal(&mut forged, 2, (start, len));
        disk.overwrite(path(), &forged);
        assert_nothing_else_is_served(&vfs, &all, &eager);
        assert!(!with_secret(&vfs, path()).verify().unwrap().is_clean());
        // Swapped: every other unit of the same length.
        for &(other, _) in units[1..].iter().filter(|(other, of)| *of == len && *other > start) {
            let mut forged = bytes.clone();
            forged[start..start + len].copy_from_slice(&bytes[other..other + len]);
            forged[other..other + len].copy_from_slice(&bytes[start..start + len]);
            reseal(&mut forged, 2, (start, len));
            reseal(&mut forged, 2, (other, len));
            disk.overwrite(path(), &forged);
            assert!(assert_nothing_else_is_served(&vfs, &all, &eager) < complete || len == PAGE);
        }
    }
    // The header of the older file before the new file, and vice versa.
    for (front, behind) in [(&older, &bytes), (&bytes, &older)] {
        disk.overwrite(path(), &[&front[..HEADER], &behind[HEADER..]].concat());
        let snapshot = with_secret(&vfs, path()).open().unwrap().unwrap();
        assert!(read_all(&snapshot).iter().all(Option::is_none));
        assert_eq!(sample::read_eager(&snapshot).0, []);
    }
}

#[test]
fn a_record_of_a_file_without_a_secret_is_not_believed_in_one_with_it() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    save_to(&with_secret(&vfs, path()), &entries(COUNT, 1), &[], options_of(1)).unwrap();
    let bytes = disk.bytes(path()).unwrap();
    // The flag "there is a tag" is removed from the record, and the checksum corrected.
    let mut forged = bytes.clone();
    let len = units(&entries(COUNT, 1), &[], &bytes)[1].1;
    forged[HEADER + 4] &= !8;
    reseal(&mut forged, 1, (HEADER, len - TAG));
    disk.overwrite(path(), &forged);
    let snapshot = with_secret(&vfs, path()).open().unwrap().unwrap();
    assert_eq!(snapshot.find(b"key 0", &mut Scratch::new()), None);
    // The feature is removed from the header: the result is a file without a secret.
    let mut forged = bytes;
    forged[16] &= !1;
    reseal(&mut forged, 1, (0, HEADER));
    disk.overwrite(path(), &forged);
    assert_eq!(with_secret(&vfs, path()).open().unwrap_err().kind(), &DiskErrorKind::Trust);
    let report = file(&vfs, path()).any_version().verify().unwrap();
    assert_eq!(report.findings[0].kind, FindingKind::Record, "and nothing in it is a record of such a one");
}

#[test]
fn entries_are_copied_between_files_with_and_without_a_secret() {
    for (from, to) in
        [(None, Some(secret())), (Some(secret()), None), (Some(secret()), Some(another_secret()))]
    {
        let disk = FakeDisk::new();
        let vfs = disk.as_vfs();
        let (all, eager) = (entries(COUNT, 1), eager_entries(EAGER, 1));
        save_to(&file(&vfs, path()).secret(from), &all, &eager, options_of(1)).unwrap();
        let snapshot = file(&vfs, path()).secret(from).open().unwrap().unwrap();
        let copy = file(&vfs, Path::new("/cache/copy.cache")).secret(to);
        let mut writer = copy.write(options_of(2)).unwrap();
        let mut records = snapshot.records();
        while let Some(Item::Entry(record)) = records.next() {
            writer.copy(&record).unwrap();
        }
        let mut records = snapshot.eager();
        while let Some(Item::Entry(record)) = records.next() {
            writer.copy_eager(&record).unwrap();
        }
        writer.finish().unwrap();
        assert_holds_as(&copy, &all, &eager);
    }
    let vfs = FakeDisk::new().as_vfs();
    save(&vfs, path(), &entries(3, 1), options_of(1)).unwrap();
    assert_holds(&vfs, path(), &entries(3, 1));
}
