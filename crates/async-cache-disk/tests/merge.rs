//! Saves of several processes to one path, against a naive map in which the last write wins; also
//! interrupted at any call.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::sample::{SAVED_AT, file, random};
use async_cache_disk::fake::{FakeDisk, Fault};
use async_cache_disk::{
    ColdEntries, DiskError, DiskErrorKind, Item, KeyKind, Known, Learned, Loss, Merged, Ours, Pushed,
    Scratch, Snapshot, Source, Times, Tombstones, Vfs, WriteOptions,
};

const PATH: &str = "/var/cache/pages.cache";
const NO_WAIT: Duration = Duration::ZERO;

/// The contents of a file, a process or the model: time of writing and value of each key.
type Map = BTreeMap<u32, (u64, u32)>;

fn path() -> &'static Path {
    Path::new(PATH)
}

fn bytes_of(key: u32) -> Vec<u8> {
    format!("key {key}").into_bytes()
}

/// A process with a cache, like those of the fronts: opened entries stay cold until they are
/// written or deleted.
#[derive(Default)]
struct Process {
    memory: Map,
    opened: Option<Snapshot>,
    cold: BTreeSet<u32>,
    tombstones: Tombstones,
    learned: Learned,
    /// Ranks of cold entries that could not be read.
    lost: BTreeSet<u32>,
    /// A value that the options do not allow.
    refuses: Option<u32>,
}

impl Process {
    fn open(vfs: &Arc<dyn Vfs>) -> Self {
        let opened = file(vfs, path()).open().unwrap();
        let cold = opened.as_ref().map_or(0, Snapshot::len);
        let mut learned = Learned::default();
        learned.opened(opened.as_ref().map(Snapshot::file_id));
        Self { opened, cold: (0..cold).collect(), learned, ..Self::default() }
    }

    fn leave_cold(&mut self, key: u32) {
        if let Some(opened) = &self.opened
            && let Some(rank) = opened.locate(&bytes_of(key), &mut Scratch::new())
        {
            self.cold.remove(&rank);
        }
    }

    fn set(&mut self, key: u32, time: u64, value: u32) {
        self.leave_cold(key);
        self.memory.insert(key, (time, value));
    }

    fn delete(&mut self, key: u32, time: u64) {
        self.leave_cold(key);
        self.memory.remove(&key);
        self.tombstones.record_delete(KeyKind::Canonical, &bytes_of(key), time);
    }

    fn clear(&mut self, time: u64) {
        self.memory.clear();
        self.cold.clear();
        self.tombstones.record_clear(time);
    }

    fn evict(&mut self, key: u32) {
        self.memory.remove(&key);
    }

    fn save(&mut self, vfs: &Arc<dyn Vfs>, now: u64, maxsize: Option<usize>) -> Result<Merged, DiskError> {
        let known = Known { tombstones: self.tombstones.clone(), learned: self.learned.clone() };
        let save = file(vfs, path()).begin(Some(NO_WAIT))?;
        let mut joining = save.write(WriteOptions::new(now), known, None)?;
        if joining.is_needed() {
            self.memory.iter().for_each(|(key, (time, _))| joining.note(&bytes_of(*key), *time));
        }
        let is_cold = |rank| self.cold.contains(&rank);
        let cold = self.opened.as_ref().map(|snapshot| ColdEntries { snapshot, contains: &is_cold });
        let refused = self.refuses.map(u32::to_le_bytes);
        let allows = |value: &[u8]| refused.is_none_or(|refused| value != refused);
        let mut output = joining.join(&Ours { maxsize, eager: None, cold, allows: &allows })?;
        if let Some(opened) = &self.opened {
            let mut records = opened.records();
            while let Some(item) = records.next_wanted(is_cold) {
                let record = match item {
                    Item::Entry(record) => record,
                    Item::Lost(Loss::Entry { rank }) => {
                        self.lost.insert(rank);
                        continue;
                    }
                    Item::Lost(lost) => panic!("{lost:?}"),
                };
                let (Pushed::Written | Pushed::Superseded) = output.carry(&record)? else {
                    panic!("it was in a file before")
                };
            }
        }
        for (key, (time, value)) in &self.memory {
            let times = Times { deadline: None, written_at: Some(*time) };
            let pushed = output.push(&bytes_of(*key), &value.to_le_bytes(), times)?;
            assert!(!matches!(pushed, Pushed::TooLarge(_)));
        }
        let merged = output.finish()?.merged.expect("it merges");
        self.tombstones.subtract(&merged.tombstones);
        self.learned = merged.learned.clone();
        Ok(merged)
    }
}

fn content(vfs: &Arc<dyn Vfs>) -> Map {
    let Some(snapshot) = file(vfs, path()).open().unwrap() else { return Map::new() };
    let report = file(vfs, path()).any_version().verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    let mut records = snapshot.records();
    let mut content = Map::new();
    while let Some(item) = records.next() {
        let Item::Entry(record) = item else { panic!("a record is lost") };
        let key = std::str::from_utf8(record.key).unwrap()["key ".len()..].parse().unwrap();
        let value = u32::from_le_bytes(record.value.try_into().unwrap());
        let before = content.insert(key, (record.written_at.unwrap(), value));
        assert_eq!(before, None, "a key is in the file twice");
    }
    content
}

/// The results of the rules, without files: for each process and for the file, the latest entry and
/// the latest delete of every key.
#[derive(Clone, Default)]
struct Model {
    entries: Map,
    deletes: BTreeMap<u32, u64>,
    cleared_at: u64,
}

impl Model {
    fn set(&mut self, key: u32, time: u64, value: u32) {
        self.entries.insert(key, (time, value));
    }

    fn delete(&mut self, key: u32, time: u64) {
        self.entries.remove(&key);
        self.deletes.insert(key, time);
    }

    fn clear(&mut self, time: u64) {
        self.entries.clear();
        self.cleared_at = time;
    }

    /// The state of the file after `process` has saved to it.
    fn joined(&self, process: &Self) -> Self {
        let mut joined = self.clone();
        joined.cleared_at = self.cleared_at.max(process.cleared_at);
        for (key, time) in &process.deletes {
            let known = joined.deletes.entry(*key).or_default();
            *known = (*known).max(*time);
        }
        for (key, entry) in &process.entries {
            let known = joined.entries.entry(*key).or_insert(*entry);
            *known = (*known).max(*entry);
        }
        let (deletes, cleared_at) = (&joined.deletes, joined.cleared_at);
        joined.entries.retain(|key, (time, _)| {
            *time > cleared_at && deletes.get(key).is_none_or(|deleted| deleted < time)
        });
        joined
    }
}

#[test]
fn the_last_write_of_every_key_is_in_the_file_whoever_saves_when() {
    let mut dice = random();
    for _ in 0..300 {
        let vfs = FakeDisk::new().as_vfs();
        let mut processes: Vec<_> = (0..4).map(|_| (Process::default(), Model::default())).collect();
        let mut file = Model::default();
        let mut now = SAVED_AT;
        for _ in 0..dice.usize(10..120) {
            now += 1;
            let (process, model) = &mut processes[dice.usize(..4)];
            let key = dice.u32(..12);
            match dice.u32(..100) {
                0..45 => {
                    let value = dice.u32(..);
                    process.set(key, now, value);
                    model.set(key, now, value);
                }
                45..65 => {
                    process.delete(key, now);
                    model.delete(key, now);
                }
                65..68 => {
                    process.clear(now);
                    model.clear(now);
                }
                68..76 => {
                    // The process is killed, and starts anew.
                    *process = Process::open(&vfs);
                    *model = Model { entries: file.entries.clone(), ..Model::default() };
                }
                _ => {
                    file = file.joined(model);
                    process.save(&vfs, now, None).unwrap();
                    assert_eq!(content(&vfs), file.entries);
                }
            }
        }
    }
}

#[test]
fn what_another_process_saved_survives_also_the_next_save_of_one_that_does_not_have_it() {
    let vfs = FakeDisk::new().as_vfs();
    let [mut a, mut b] = [(); 2].map(|()| Process::open(&vfs));
    a.set(1, 10, 1);
    a.save(&vfs, 11, None).unwrap();
    b.set(2, 12, 2);
    assert_eq!(b.save(&vfs, 13, None).unwrap().copied, 1);
    b.save(&vfs, 14, None).unwrap();
    assert_eq!(content(&vfs), Map::from([(1, (10, 1)), (2, (12, 2))]));
}

#[test]
fn a_process_that_is_alone_copies_nothing_and_what_it_evicts_is_gone() {
    let vfs = FakeDisk::new().as_vfs();
    let mut process = Process::open(&vfs);
    process.set(1, 10, 1);
    process.set(2, 11, 2);
    process.save(&vfs, 12, None).unwrap();
    process.evict(1);
    assert_eq!(process.save(&vfs, 13, None).unwrap().copied, 0);
    assert_eq!(content(&vfs), Map::from([(2, (11, 2))]));
}

#[test]
fn over_maxsize_theirs_go_first_and_of_them_the_coldest() {
    let vfs = FakeDisk::new().as_vfs();
    let [mut a, mut b] = [(); 2].map(|()| Process::open(&vfs));
    (1..=4).for_each(|key| a.set(key, u64::from(key), key));
    a.save(&vfs, 10, Some(4)).unwrap();
    b.set(7, 11, 7);
    b.set(4, 12, 40);
    b.save(&vfs, 13, Some(4)).unwrap();
    assert_eq!(content(&vfs), Map::from([(2, (2, 2)), (3, (3, 3)), (4, (12, 40)), (7, (11, 7))]));
}

#[test]
fn an_older_value_does_not_take_the_place_of_a_later_one_that_was_left_out() {
    for (refuses, maxsize) in [(None, Some(2)), (Some(70), None)] {
        let disk = FakeDisk::new();
        let vfs = &disk.as_vfs();
        let mut process = Process { refuses, ..Process::open(vfs) };
        process.set(1, SAVED_AT + 5, 50);
        process.set(2, SAVED_AT + 6, 60);
        let mut other = Process::open(vfs);
        other.set(1, SAVED_AT + 7, 70);
        other.set(3, SAVED_AT + 8, 80);
        other.save(vfs, SAVED_AT + 10, None).unwrap();
        for now in [SAVED_AT + 11, SAVED_AT + 12] {
            process.save(vfs, now, maxsize).unwrap();
            assert_eq!(content(vfs).get(&1), None, "{refuses:?}");
        }
        other.save(vfs, SAVED_AT + 13, None).unwrap();
        assert_eq!(content(vfs)[&1], (SAVED_AT + 7, 70), "who has it still saves it");
    }
}

#[test]
fn what_is_in_memory_and_was_deleted_by_another_one_long_ago_is_not_saved_again() {
    const WEEK: u64 = 7 * 24 * 3600 * 1_000_000_000;
    let vfs = FakeDisk::new().as_vfs();
    let mut a = Process::open(&vfs);
    a.set(1, 10, 1);
    a.set(2, 11, 2);
    a.save(&vfs, 12, None).unwrap();
    let mut b = Process::open(&vfs);
    b.delete(1, 13);
    b.save(&vfs, 14, None).unwrap();
    b.save(&vfs, 15 + WEEK, None).unwrap(); // forgets the tombstone
    assert_eq!(file(&vfs, path()).open().unwrap().unwrap().tombstones().len(), 0);
    a.save(&vfs, 16 + WEEK, None).unwrap();
    assert_eq!(content(&vfs), Map::from([(2, (11, 2))]));
}

#[test]
fn tombstones_that_are_damaged_hide_what_is_older_than_the_file() {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    let mut a = Process::open(&vfs);
    a.set(1, SAVED_AT - 3, 1);
    a.delete(2, SAVED_AT - 2);
    a.save(&vfs, SAVED_AT, None).unwrap();
    let mut bytes = disk.bytes(path()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    disk.overwrite(path(), &bytes);
    assert_eq!(file(&vfs, path()).any_version().verify().unwrap().finding_count, 1);
    let mut b = Process::default();
    b.set(2, SAVED_AT - 5, 2);
    b.set(3, SAVED_AT + 1, 3);
    b.save(&vfs, SAVED_AT + 2, None).unwrap();
    assert_eq!(content(&vfs).keys().copied().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn who_holds_the_lock_is_waited_for_and_then_named() {
    let vfs = FakeDisk::new().as_vfs();
    let lock = file(&vfs, path()).lock(NO_WAIT).unwrap();
    let error = Process::default().save(&vfs, 1, None).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Locked);
    assert!(error.to_string().contains(PATH) && error.to_string().contains("try again"), "{error}");
    drop(lock);
    Process::default().save(&vfs, 1, None).unwrap();
}

#[test]
fn a_real_lock_is_waited_for_and_a_released_one_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages.cache");
    let vfs: Arc<dyn Vfs> = Arc::new(async_cache_disk::RealDisk);
    let lock = file(&vfs, &path).lock(NO_WAIT).unwrap();
    let error = file(&vfs, &path).lock(Duration::from_millis(30)).unwrap_err();
    assert_eq!(error.kind(), &DiskErrorKind::Locked);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| file(&vfs, &path).lock(Duration::from_secs(60)).map(drop));
        drop(lock);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(vfs.list(folder.path()).unwrap(), ["pages.cache.lock"], "it stays");
}

/// Another process has saved; this process has entries, deletes and cold entries of its own.
fn prepared() -> (FakeDisk, Process) {
    let disk = FakeDisk::new();
    let vfs = disk.as_vfs();
    let mut other = Process::open(&vfs);
    (0..20).for_each(|key| other.set(key, 100 + u64::from(key), key));
    other.save(&vfs, 150, None).unwrap();
    let mut process = Process::open(&vfs);
    other.set(3, 160, 33);
    other.delete(4, 161);
    other.set(40, 162, 40);
    other.save(&vfs, 170, None).unwrap();
    process.delete(5, 180);
    process.set(50, 181, 50);
    disk.repair();
    (disk, process)
}

#[test]
fn a_crash_at_any_call_of_a_save_that_merges_leaves_the_old_or_the_joined_file_and_no_lock() {
    let (disk, mut process) = prepared();
    let vfs = disk.as_vfs();
    let old = content(&vfs);
    disk.repair();
    process.save(&vfs, 190, None).unwrap();
    let calls = disk.calls().len();
    let new = content(&vfs);
    assert!(old.len() == 20 && new.len() == 20 && new != old);
    let mut seen = BTreeSet::new();
    for (number, fault) in (0..=calls).flat_map(|n| [(n, Fault::Crash), (n, Fault::TornCrash)]) {
        let (disk, mut process) = prepared();
        disk.inject(number, fault);
        let durable = process.save(&disk.as_vfs(), 190, None).is_ok();
        assert_eq!(durable, number == calls, "an error was swallowed");
        for (name, survivor) in disk.survivors() {
            let vfs = survivor.as_vfs();
            let now = content(&vfs);
            assert!(now == new || (now == old && !durable), "{fault:?} at call {number}: {name}: {now:?}");
            seen.insert(now == new);
            // The next process gets the lock, and loses nothing.
            let mut next = Process::open(&vfs);
            next.set(60, 200, 60);
            next.save(&vfs, 210, None).unwrap();
            let mut expected = now;
            expected.insert(60, (200, 60));
            assert_eq!(content(&vfs), expected);
        }
    }
    assert_eq!(seen.len(), 2, "both outcomes were seen");
}

#[test]
fn an_error_at_any_call_of_a_save_that_merges_releases_the_lock_and_loses_nothing() {
    let (disk, mut process) = prepared();
    process.save(&disk.as_vfs(), 190, None).unwrap();
    let (calls, new) = (disk.calls().len(), content(&disk.as_vfs()));
    for number in 0..calls {
        let (disk, mut process) = prepared();
        disk.inject(number, Fault::Error(std::io::ErrorKind::Other));
        let _ = process.save(&disk.as_vfs(), 190, None);
        disk.repair();
        process.save(&disk.as_vfs(), 191, None).unwrap();
        // Cold entries that could not be read once may be lost to the process; their keys equal
        // their ranks.
        let now = content(&disk.as_vfs());
        let is_there = |key: &u32| now.get(key) == new.get(key) || process.lost.contains(key);
        assert!(new.keys().chain(now.keys()).all(is_there), "after an error at call {number}: {now:?}");
    }
}
