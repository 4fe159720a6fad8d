//! A store that is read without its lock.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{
    KEYS, Op, PATH, State, base_value, cache, count, key, large_records, maintain, open, put, small_segments,
    state, store_files, value, write_base,
};
use crate::sample::{SAVED_AT, another_secret, file, options, with_secret};
use async_cache_disk::fake::FakeDisk;
use async_cache_disk::store::{StoreAnswer, StoreItem, StoreScratch, StoreView};
use async_cache_disk::{DiskErrorKind, RealDisk, Times, Vfs};

const MIB: u32 = 1 << 20;

fn view(disk: &FakeDisk) -> StoreView {
    cache(disk).store_view(SAVED_AT).unwrap().unwrap()
}

/// The entries of a view, by look-ups and by a walk, which must agree. `None`: there is no store.
pub(super) fn viewed(disk: &FakeDisk, now: u64) -> Option<State> {
    let calls = disk.calls().len();
    let view = cache(disk).store_view(now).ok()??;
    let mut scratch = StoreScratch::new();
    let found: State = (0..KEYS)
        .filter_map(|i| match view.find(&key(i), &mut scratch) {
            StoreAnswer::Entry(entry) => Some((i, entry.value.to_vec())),
            StoreAnswer::Absent | StoreAnswer::Hidden => None,
        })
        .collect();
    let walked = walked(&view);
    assert_eq!(walked.0, found, "a walk and look-ups");
    let recovered = recovered(&view);
    assert!(found.iter().all(|(i, value)| recovered.get(i) == Some(value)), "recovered and found");
    let changing = ["create", "write", "sync", "rename", "remove", "lock"];
    for call in disk.calls().iter().skip(calls) {
        let text = format!("{call:?}");
        assert!(changing.iter().all(|name| !text.contains(name)), "{text}");
    }
    Some(found)
}

/// The entries of a walk and what else it met, in order.
fn walked(view: &StoreView) -> (State, Vec<String>) {
    let (mut state, mut others, mut last) = (State::new(), Vec::new(), None);
    let _ = view.each(|item| {
        match item {
            StoreItem::Entry(entry) => {
                let i = (0..KEYS).find(|i| key(*i) == entry.key).unwrap();
                assert!(state.insert(i, entry.value.to_vec()).is_none(), "each key once");
                assert!(last.replace(entry.place).is_none_or(|last| last < entry.place), "in order");
            }
            other => others.push(format!("{other:?}")),
        }
        ControlFlow::Continue(())
    });
    (state, others)
}

fn recovered(view: &StoreView) -> State {
    let mut state = State::new();
    let _ = view.each_recovered(|item| {
        if let StoreItem::Entry(entry) = item {
            let i = (0..KEYS).find(|i| key(*i) == entry.key).unwrap();
            assert!(state.insert(i, entry.value.to_vec()).is_none(), "each key once");
        }
        ControlFlow::Continue(())
    });
    state
}

/// Whatever is lost, `verify` says; and what is recovered was there.
pub(super) fn check_verified(disk: &FakeDisk, sound: &State, at: usize) {
    let Ok(Some(view)) = cache(disk).store_view(SAVED_AT) else { return };
    let (found, report) = (walked(&view).0, view.verify());
    assert_eq!(report.sound_entries, found.len() as u64, "{report:?}");
    assert!(report.sound_entries <= report.entries);
    let is_base_lost = view.base().is_none();
    assert!(found == *sound || is_base_lost || !report.is_clean(), "byte {at}: {report:?}");
    for (i, value) in recovered(&view) {
        assert_eq!(sound.get(&i), Some(&value));
    }
}

#[test]
fn a_view_of_a_store_in_use_shows_what_the_store_holds() {
    for (program, bytes) in [small_segments(), large_records()] {
        let disk = FakeDisk::new();
        let mut model = write_base(&disk, 4);
        let mut store = Some(open(&disk, bytes));
        for (number, op) in program.iter().enumerate() {
            op.run(number, &disk, &mut store, bytes).unwrap();
            op.apply(number, &mut model);
            let Some(viewed) = viewed(&disk, 0) else {
                // A fold has removed the store, and nothing was written since.
                assert_eq!(*op, Op::Fold);
                continue;
            };
            assert_eq!(viewed, model, "{op:?}");
            let report = view(&disk).verify();
            assert!(report.is_clean(), "{op:?}: {report:?}");
            assert_eq!((report.entries, report.sound_entries), (model.len() as u64, model.len() as u64));
        }
    }
}

/// A view keeps its moment: the files that it has opened stay readable after they were removed.
#[test]
fn a_view_stays_what_it_was_while_the_store_goes_on() {
    let disk = FakeDisk::new();
    let store = open(&disk, 5000);
    for i in 0..40 {
        put(&store, &key(i % KEYS), &value(i.into(), 200), SAVED_AT).unwrap();
    }
    let (before, view) = (state(&store), view(&disk));
    for i in 0..200u8 {
        put(&store, &key(i % KEYS), b"later", SAVED_AT).unwrap();
        maintain(&store, SAVED_AT).unwrap();
    }
    store.close(SAVED_AT).unwrap();
    assert_eq!(walked(&view).0, before);
}

#[test]
fn a_store_says_what_it_consists_of() {
    let disk = FakeDisk::new();
    write_base(&disk, 2);
    assert!(cache(&disk).store_view(SAVED_AT).unwrap().is_none());
    assert!(cache(&disk).stores().unwrap().is_empty());
    let store = open(&disk, 5000);
    for i in 0..20 {
        put(&store, &key(i % 4), &value(i.into(), 200), SAVED_AT).unwrap();
    }
    maintain(&store, SAVED_AT).unwrap();
    put(&store, &key(0), b"in the tail", SAVED_AT).unwrap();
    let facts = view(&disk);
    assert!(!facts.is_clean() && facts.is_base_ours() && !facts.has_mac());
    assert_eq!((facts.base().unwrap().len(), facts.floor(), facts.cleared_at()), (2, 0, 0));
    let (segments, runs): (Vec<_>, Vec<_>) = (facts.segments().collect(), facts.runs().collect());
    assert_eq!((segments.len(), runs.len()), (count(&disk, "s"), count(&disk, "i")));
    let records: u32 = segments.iter().map(|segment| segment.entries).sum();
    assert_eq!((records, facts.most_entries()), (21, 23));
    let last = segments.last().unwrap();
    assert!(!last.is_sealed && !last.is_indexed && last.latest == facts.written_until());
    assert!(segments.iter().rev().skip(1).all(|segment| segment.is_sealed) && segments[0].is_indexed);
    assert_eq!(runs[0].first_segment, segments[0].number);
    let bytes = |path: &std::path::PathBuf| disk.bytes(path).unwrap().len() as u64;
    let files: u64 = store_files(&disk).iter().filter(|path| !path.ends_with("manifest")).map(bytes).sum();
    assert_eq!(facts.bytes(), files);
    store.close(SAVED_AT).unwrap();
    assert!(view(&disk).is_clean());
}

#[test]
fn every_store_beside_a_file_is_listed() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    for cache in [file(&vfs, PATH), file(&vfs, PATH).version("v2"), with_secret(&vfs, PATH)] {
        put(&cache.store(super::sized(MIB), SAVED_AT).unwrap(), &key(0), b"zero", SAVED_AT).unwrap();
    }
    disk.put(Path::new("/var/cache/pages.cache.d/notes.txt"), b"a user's file");
    disk.put(Path::new("/var/cache/pages.cache.d/0123456789abcdef/lock"), b"");
    let list = |cache: async_cache_disk::CacheFile| {
        let stores = cache.any_version().stores().unwrap();
        let mut names: Vec<String> = stores
            .into_iter()
            .map(|store| match store.version {
                Ok(version) => version,
                Err(error) => format!("{:?}", error.kind()),
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(list(file(&vfs, PATH)), ["Trust", "v1", "v2"]);
    assert_eq!(list(with_secret(&vfs, PATH)), ["Trust", "Trust", "v1"]);
    assert_eq!(list(file(&vfs, PATH).secret(another_secret())), ["Trust", "Trust", "Trust"]);
    // A store under the name of another is none.
    let manifest = |path: &&std::path::PathBuf| path.ends_with("manifest");
    let manifests: Vec<_> = store_files(&disk).iter().filter(manifest).cloned().collect();
    let copied = disk.bytes(&manifests[0]).unwrap();
    disk.put(Path::new("/var/cache/pages.cache.d/0123456789abcdef/manifest"), &copied);
    let damaged =
        |cache: async_cache_disk::CacheFile| list(cache).iter().filter(|name| *name == "Damaged").count();
    assert_eq!(damaged(file(&vfs, PATH)) + damaged(with_secret(&vfs, PATH)), 1);
}

#[test]
fn a_store_that_cannot_be_opened_says_why() {
    let disk = FakeDisk::new();
    put(&open(&disk, MIB), &key(0), b"zero", SAVED_AT).unwrap();
    let manifest = store_files(&disk).into_iter().find(|path| path.ends_with("manifest")).unwrap();
    let sound = disk.bytes(&manifest).unwrap();
    disk.put(&manifest, &sound[..sound.len() - 1]);
    let error = cache(&disk).store_view(SAVED_AT).unwrap_err();
    assert_eq!((error.kind(), error.path()), (&DiskErrorKind::Damaged, &*manifest));
    disk.put(&manifest, b"");
    assert_eq!(
        cache(&disk).stores().unwrap()[0].version.as_ref().unwrap_err().kind(),
        &DiskErrorKind::Damaged
    );
    assert_eq!(cache(&disk).store_view(SAVED_AT).unwrap_err().kind(), &DiskErrorKind::Damaged);
}

/// A record of a run's damaged bucket is hidden from look-ups, and in its segment all the same.
#[test]
fn what_a_damaged_run_hides_is_recovered_from_its_segments() {
    let disk = FakeDisk::new();
    let store = open(&disk, MIB);
    for i in 0..KEYS {
        put(&store, &key(i), b"old", SAVED_AT).unwrap();
        put(&store, &key(i), &value(i.into(), 30), SAVED_AT).unwrap();
    }
    store.delete(&key(0), None, SAVED_AT).unwrap();
    let sound = state(&store);
    store.close(SAVED_AT).unwrap();
    let run = store_files(&disk)
        .into_iter()
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with('i'));
    let (run, mut bytes) = (run.clone().unwrap(), disk.bytes(&run.unwrap()).unwrap());
    bytes[4096 + 20] ^= 1;
    disk.put(&run, &bytes);
    let view = view(&disk);
    let (found, others) = walked(&view);
    assert_eq!((found, others.len()), (State::new(), 2 * usize::from(KEYS)));
    assert_eq!(recovered(&view), sound);
    let report = view.verify();
    assert_eq!((report.entries, report.sound_entries, report.finding_count), (5, 0, 1));
}

#[test]
fn what_the_damaged_index_of_a_base_hides_is_recovered_if_the_store_has_nothing_later() {
    let disk = FakeDisk::new();
    write_base(&disk, KEYS);
    let store = open(&disk, MIB);
    store.delete(&key(0), None, SAVED_AT).unwrap();
    put(&store, &key(1), b"later", SAVED_AT).unwrap();
    let sound = state(&store);
    let mut bytes = disk.bytes(Path::new(PATH)).unwrap();
    bytes[8192 + 20] ^= 1;
    disk.put(Path::new(PATH), &bytes);
    let view = view(&disk);
    let (found, others) = walked(&view);
    assert_eq!(found.into_keys().collect::<Vec<u8>>(), [1]);
    assert_eq!(others, ["LostInBase { entries: 1, bytes: 0 }"; 6]);
    assert_eq!(recovered(&view), sound);
    let report = view.verify();
    assert!(report.finding_count == 0 && !report.is_clean());
}

/// The other way round: where nothing in a segment tells how long a damaged record is, its run
/// knows where the next record begins.
#[test]
fn records_behind_damage_of_a_whole_segment_are_found_by_its_run() {
    let disk = FakeDisk::new();
    let store = open(&disk, MIB);
    for i in 0..KEYS {
        put(&store, &key(i), &value(i.into(), 30), SAVED_AT).unwrap();
    }
    let mut sound = state(&store);
    store.close(SAVED_AT).unwrap();
    let segment = store_files(&disk)
        .into_iter()
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with('s'));
    let segment = segment.unwrap();
    let mut bytes = disk.bytes(&segment).unwrap();
    bytes[4096 + 4] ^= 0xFF; // the first record
    let end = bytes.len();
    bytes[end - 60..].fill(0); // the digest
    disk.put(&segment, &bytes);
    sound.remove(&0);
    let view = view(&disk);
    assert_eq!(walked(&view).0, sound);
    assert_eq!(recovered(&view), sound);
    assert_eq!(viewed(&disk, SAVED_AT), Some(sound));
    assert!(!view.verify().is_clean());
}

#[test]
fn times_decide_in_a_view_too_if_another_program_has_replaced_the_base() {
    let disk = FakeDisk::new();
    write_base(&disk, 2);
    let store = open(&disk, MIB);
    let time = put(&store, &key(0), b"store 0", SAVED_AT + 100).unwrap();
    put(&store, &key(1), b"store 1", SAVED_AT + 100).unwrap();
    let mut writer = cache(&disk).write(options()).unwrap();
    for (i, written_at) in (0..).zip([Some(time - 1), Some(time + 50), None]) {
        writer.push(&key(i), &base_value(i), Times { deadline: None, written_at }).unwrap();
    }
    writer.finish().unwrap();
    let expected: BTreeMap<u8, Vec<u8>> =
        [(0, b"store 0".to_vec()), (1, b"base 1".to_vec()), (2, b"base 2".to_vec())].into();
    assert_eq!(viewed(&disk, 0), Some(expected));
    assert!(!view(&disk).is_base_ours() && view(&disk).verify().is_clean());
    store.clear(SAVED_AT + 1000).unwrap();
    assert_eq!(viewed(&disk, 0), Some(State::new()));
}

/// The writer never stops; a view is of some moment since it was asked for, and undamaged.
#[test]
fn views_while_a_thread_writes_show_what_was_acknowledged_before() {
    const ROUNDS: u64 = 300;
    // A view opens every segment: the writer waits for the views, for the sake of the open files.
    const WRITES_OF_ROUND: u64 = 8;
    let folder = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let cache = file(&vfs, folder.path().join("pages.cache"));
    let store = cache.store(super::sized(6000), SAVED_AT).unwrap();
    put(&store, b"the first", b"write", SAVED_AT).unwrap();
    let (acknowledged, viewed) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    let key = |number: u64| (number % 7).to_be_bytes();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1u64.. {
                let value = [&number.to_be_bytes()[..], &[7; 900]].concat();
                put(
                    &store,
                    &key(number),
                    &value[..value.len() - usize::try_from(number % 256).unwrap()],
                    SAVED_AT,
                )
                .unwrap();
                acknowledged.store(number, Ordering::SeqCst);
                if number % 16 == 0 {
                    store.maintain(SAVED_AT).unwrap();
                }
                while number / WRITES_OF_ROUND > viewed.load(Ordering::SeqCst)
                    && !is_over.load(Ordering::SeqCst)
                {
                    std::thread::yield_now();
                }
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        let _over = OverAtEnd(&is_over);
        for _ in 0..ROUNDS {
            let before = acknowledged.load(Ordering::SeqCst);
            let view = cache.store_view(SAVED_AT).unwrap().unwrap();
            let after = acknowledged.load(Ordering::SeqCst);
            let (mut scratch, mut latest) = (StoreScratch::new(), 0);
            for i in 0..7.min(before) {
                let StoreAnswer::Entry(entry) = view.find(&key(before - i), &mut scratch) else { panic!() };
                let number = u64::from_be_bytes(entry.value[..8].try_into().unwrap());
                assert!(number + 7 > before && number <= after + 1, "{before} {number} {after}");
                latest = latest.max(number);
            }
            assert!(latest >= before);
            let report = view.verify();
            assert!(report.is_clean(), "{report:?}");
            viewed.fetch_add(1, Ordering::SeqCst);
        }
    });
}

/// Ends the writer, also after a panic.
struct OverAtEnd<'o>(&'o AtomicBool);

impl Drop for OverAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
