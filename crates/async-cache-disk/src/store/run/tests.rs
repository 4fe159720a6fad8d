#![allow(clippy::arithmetic_side_effects)] // of tests

use std::collections::BTreeMap;

use super::*;
use crate::format::address::KeyHash;
use crate::format::header_page::HEADER_BYTES;
use crate::format::store::testing::seals;
use crate::store::segment::tests::MemoryFile;

const START: u64 = HEADER_BYTES as u64;

pub(in crate::store) fn slot(hash: u64, segment: u32, offset: u32) -> RunSlot {
    RunSlot { hash: Hash40::of(KeyHash(hash)), place: StorePlace { segment, offset } }
}

/// A generator of numbers, the same at each run (splitmix64).
pub(in crate::store) fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    (1..).map(move |step: u64| {
        let mut number = seed.wrapping_add(step.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    })
}

pub(in crate::store) fn sorted(mut slots: Vec<RunSlot>) -> Vec<RunSlot> {
    slots.sort_unstable_by(|a, b| a.hash.cmp(&b.hash).then(b.place.cmp(&a.place)));
    slots
}

/// A run of these slots, and its file; `None` if no number of buckets holds them.
pub(in crate::store) fn built(
    slots: &[RunSlot],
    seal: Seal,
    eager: &EagerPlaces,
) -> Option<(IndexRun, MemoryFile)> {
    let slots = sorted(slots.to_vec());
    let file = MemoryFile::holding(vec![0; HEADER_BYTES]);
    let count = u32::try_from(slots.len()).unwrap();
    let mut written = Vec::new();
    let buckets = write_buckets(
        count,
        seal,
        START,
        || slots.iter().copied(),
        |number, page| {
            written.push(number);
            file.write_at(page, START + u64::from(number) * PAGE_BYTES as u64).unwrap();
            Ok(())
        },
    );
    let buckets = buckets.unwrap()?;
    // The last attempt has written each bucket once.
    let mut last = written.split_off(written.len() - buckets as usize);
    last.sort_unstable();
    assert!(last.into_iter().eq(0..buckets));
    let eager_count = u32::try_from(eager.0.len()).unwrap();
    let counts = RunCounts { slots: count, buckets, eager: eager_count };
    if eager_count > 0 {
        let offset = counts.eager_section(seal.tag_bytes()).offset;
        file.write_at(&eager.encode(seal, offset), offset).unwrap();
    }
    Some((IndexRun::new(Box::new(file.clone()), 9, seal, counts), file))
}

fn check(slots: &[RunSlot], seal: Seal) {
    let (run, _) = built(slots, seal, &EagerPlaces::default()).unwrap();
    let mut naive = BTreeMap::<Hash40, Vec<StorePlace>>::new();
    for slot in sorted(slots.to_vec()) {
        naive.entry(slot.hash).or_default().push(slot.place);
    }
    for (hash, places) in &naive {
        assert_eq!(run.find(*hash), InRun::Places(places.clone()));
    }
    for hash in numbers(99).take(1000).map(|number| Hash40::of(KeyHash(number))) {
        assert_eq!(run.find(hash), InRun::Places(naive.get(&hash).cloned().unwrap_or_default()));
    }
    let (mut walk, mut all) = (run.slots(), Vec::new());
    while let Some(bucket) = walk.next_bucket() {
        all.extend(bucket);
    }
    assert_eq!((sorted(all), walk.invalid), (sorted(slots.to_vec()), 0));
}

#[test]
fn a_run_finds_what_a_map_finds() {
    for seal in seals() {
        for count in [0, 1, 29, 30, 31, 40, 41, 42, 43, 84, 300, 10_000] {
            let slots = numbers(count).take(usize::try_from(count).unwrap());
            let slots = slots.enumerate().map(|(number, hash)| {
                // Every tenth has the hash of another.
                let hash = if number % 10 == 9 { 7 } else { hash };
                slot(
                    (hash % (1 << 39)) << (number % 2),
                    u32::try_from(number % 5).unwrap() + 1,
                    u32::try_from(number).unwrap(),
                )
            });
            let slots: Vec<RunSlot> = slots.collect();
            // More records with one hash than a chain holds.
            if count < 3000 {
                check(&slots, seal);
            } else {
                assert!(built(&slots, seal, &EagerPlaces::default()).is_none());
            }
        }
        let slots = numbers(5).take(10_000).zip(0..).map(|(hash, offset)| slot(hash, 1 + offset % 9, offset));
        check(&slots.collect::<Vec<_>>(), seal);
    }
}

#[test]
fn equal_homes_fill_a_chain_also_across_the_end_and_no_more() {
    for seal in seals() {
        let room = u64::from(MAX_CHAIN * page_items(seal.has_mac()));
        for base in [0, 1 << 39, (1 << 40) - 400] {
            for count in [1, 42, 43, room - 1, room] {
                // Different hashes, one home; and all hashes equal.
                let different = (0..count).map(|n| slot(base + n, 1, u32::try_from(n).unwrap()));
                check(&different.collect::<Vec<_>>(), seal);
                let equal = (0..count).map(|n| slot(base, 1, u32::try_from(n).unwrap()));
                let equal: Vec<RunSlot> = equal.collect();
                check(&equal, seal);
                // Other slots that stand in the way.
                let others = numbers(count).take(500).map(|hash| slot(hash, 2, 5));
                check(&others.chain(equal.iter().copied().take(200)).collect::<Vec<_>>(), seal);
            }
            let more: Vec<RunSlot> = (0..=room).map(|n| slot(base, 1, u32::try_from(n).unwrap())).collect();
            assert!(built(&more, seal, &EagerPlaces::default()).is_none());
        }
    }
}

#[test]
fn an_invalid_bucket_hides_every_key_that_would_be_looked_up_in_it_for_good() {
    for seal in seals() {
        let slots: Vec<RunSlot> = numbers(3).take(1000).map(|hash| slot(hash, 1, 5)).collect();
        let (run, file) = built(&slots, seal, &EagerPlaces::default()).unwrap();
        let sound = file.content();
        for number in 0..run.counts.buckets {
            let (run, file) = built(&slots, seal, &EagerPlaces::default()).unwrap();
            let at = START + u64::from(number) * 512 + 100;
            file.write_at(&[sound[usize::try_from(at).unwrap()] ^ 4], at).unwrap();
            let mut hidden = 0;
            for slot in &slots {
                let is_hit = slot.hash.home(run.counts.buckets) == number;
                match run.find(slot.hash) {
                    InRun::Hidden => hidden += 1,
                    InRun::Places(places) => assert!(!is_hit && places == [slot.place]),
                }
            }
            assert!(hidden > 0);
            // Rule 1: also when the bucket can be read again.
            file.write_at(&sound, 0).unwrap();
            let again = slots.iter().filter(|slot| run.find(slot.hash) == InRun::Hidden).count();
            assert_eq!(again, hidden);
            let mut walk = run.slots();
            while walk.next_bucket().is_some() {}
            assert_eq!(walk.invalid, 1);
        }
        // A bucket that stands in another's place is invalid, and so is one that is cut off.
        let (run, file) = built(&slots, seal, &EagerPlaces::default()).unwrap();
        file.write_at(&sound[4096..4608], 4608).unwrap();
        assert!(run.bucket(1, &mut [0; PAGE_BYTES]).is_none());
        assert!(run.bucket(run.counts.buckets, &mut [0; PAGE_BYTES]).is_none());
    }
}

/// The run of these slots, with a filter that was made of its buckets.
fn filtered(slots: &[RunSlot], seal: Seal) -> (IndexRun, MemoryFile) {
    let (run, file) = built(slots, seal, &EagerPlaces::default()).unwrap();
    assert!(run.make_filter(&Arc::default()) || slots.is_empty());
    (run, file)
}

#[test]
fn with_a_filter_a_run_finds_the_same_and_reads_less() {
    for seal in seals() {
        let slots = numbers(5).take(10_000).zip(0..).map(|(hash, offset)| slot(hash, 1 + offset % 9, offset));
        let slots: Vec<RunSlot> = slots.chain((0..200).map(|n| slot(7, 1, n))).collect();
        let (run, file) = filtered(&slots, seal);
        let (naive, _) = built(&slots, seal, &EagerPlaces::default()).unwrap();
        for hash in slots.iter().map(|slot| slot.hash) {
            assert_eq!(run.find(hash), naive.find(hash));
        }
        file.write_at(&vec![0xAA; file.content().len()], 0).unwrap();
        let others = numbers(77).take(10_000).map(|number| Hash40::of(KeyHash(number)));
        let read = others.filter(|hash| run.find(*hash) == InRun::Hidden).count();
        assert!((100..400).contains(&read), "{read} of 10,000 look-ups in vain read a bucket");
    }
}

#[test]
fn a_filter_is_due_after_look_ups_in_vain_and_only_then() {
    let slots: Vec<RunSlot> = numbers(3).take(3000).map(|hash| slot(hash, 1, 5)).collect();
    let (run, _) = built(&slots, seals()[0], &EagerPlaces::default()).unwrap();
    for _ in 0..2 {
        for slot in &slots {
            run.find(slot.hash);
        }
    }
    assert!(!run.is_filter_due(), "every look-up found a slot");
    let mut others = numbers(77).map(|number| Hash40::of(KeyHash(number)));
    for hash in others.by_ref().take(run.counts.buckets as usize / 4) {
        run.find(hash);
        assert!(!run.is_filter_due());
    }
    run.find(others.next().unwrap());
    assert!(run.is_filter_due());
    assert!(run.make_filter(&Arc::default()));
    assert!(!run.is_filter_due());
}

#[test]
fn a_run_with_an_invalid_bucket_gets_no_filter() {
    let slots: Vec<RunSlot> = numbers(3).take(1000).map(|hash| slot(hash, 1, 5)).collect();
    for is_known in [false, true] {
        let (run, file) = built(&slots, seals()[0], &EagerPlaces::default()).unwrap();
        let (at, sound) = (START + 100, file.content());
        for number in numbers(77).take(1000) {
            run.find(Hash40::of(KeyHash(number)));
        }
        file.write_at(&[0xAA; 8], at).unwrap();
        if is_known {
            assert!(slots.iter().any(|slot| run.find(slot.hash) == InRun::Hidden));
            file.write_at(&sound, 0).unwrap();
        }
        let room = Arc::default();
        assert_eq!(run.is_filter_due(), !is_known);
        assert!(!run.make_filter(&room));
        assert!(!run.is_filter_due());
        assert_eq!(room.used(), 0);
    }
}

#[test]
fn the_list_of_eager_records_comes_back_and_is_invalid_for_good_once_it_was() {
    let list = EagerPlaces(vec![slot(0, 1, 5).place, slot(0, 2, 4).place, slot(0, 2, 9).place]);
    for seal in seals() {
        for slots in [&[][..], &[slot(1, 2, 3)]] {
            let (run, file) = built(slots, seal, &list).unwrap();
            assert_eq!(run.eager().as_ref(), Some(&list));
            let sound = file.content();
            let at = run.counts.eager_section(seal.tag_bytes()).offset + 6;
            file.write_at(&[0xAA], at).unwrap();
            assert_eq!(run.eager(), None);
            file.write_at(&sound, 0).unwrap();
            assert_eq!(run.eager(), None); // Rule 2.
            let (run, _) = built(slots, seal, &EagerPlaces::default()).unwrap();
            assert_eq!(run.eager(), Some(EagerPlaces::default()));
        }
    }
}

#[test]
fn an_error_of_the_disk_ends_the_writing() {
    let slots = [slot(1, 1, 1)];
    let fails = |_: u32, _: &[u8; PAGE_BYTES]| {
        Err(DiskError::new(crate::error::DiskErrorKind::Io, std::path::Path::new("/"), "no"))
    };
    assert!(write_buckets(1, seals()[0], START, || slots.iter().copied(), fails).is_err());
}
