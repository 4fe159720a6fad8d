//! Real processes killed during a save: the file is always whole, and leftovers are removed. And
//! processes that have a store open.
//!
//! A separate program: for a moment, between fork and exec, each child has a copy of every
//! descriptor of its parent, and so keeps locks that other tests have just released.
#![cfg(unix)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // ages leftovers, reads the clock

mod sample;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_cache_disk::store::{StoreAnswer, StoreOptions, StoreScratch, StoreWrite};
use async_cache_disk::{DiskErrorKind, RealDisk, Vfs};
use sample::{SAVED_AT, assert_holds, entries, file, open, options, random, save};

const PATH_VARIABLE: &str = "ASYNC_CACHE_KILL_PATH";
const KILLS: u32 = 220;
const COUNT: u32 = 400;

/// Not a test of its own: run and killed by the other test.
#[test]
#[allow(clippy::print_stdout)]
fn a_child_that_saves_until_it_is_killed() {
    let Some(path) = std::env::var_os(PATH_VARIABLE).map(PathBuf::from) else { return };
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    println!("ready");
    for generation in std::process::id().. {
        save(&vfs, &path, &entries(COUNT, generation % 9), options()).unwrap();
    }
}

/// Runs one of the tests that do something only in a child, and waits until the child is ready.
fn child(test: &str, path: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(PATH_VARIABLE, path).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"ready") {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_process_killed_at_random_moments_never_leaves_an_unreadable_file() {
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages.cache");
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let start = Instant::now();
    save(&vfs, &path, &entries(COUNT, 0), options()).unwrap();
    // As long as a few saves on any disk: some children are killed in their first save and some in
    // a later one.
    let longest = start.elapsed() * 4 + Duration::from_millis(1);
    let mut generations = std::collections::BTreeSet::new();
    let mut most_leftovers = 0;
    for _ in 0..KILLS {
        let child = child("a_child_that_saves_until_it_is_killed", &path);
        // The child is about to save. The sleep waits for no event: its length is the random moment
        // of the kill.
        std::thread::sleep(longest.mul_f64(random.f64()));
        kill(child);

        let snapshot = open(&vfs, &path);
        let value = snapshot.find(b"key 0", &mut async_cache_disk::Scratch::new()).unwrap().value.to_vec();
        let generation = value["generation ".len()] - b'0';
        assert_holds(&vfs, &path, &entries(COUNT, u32::from(generation)));
        generations.insert(generation);
        most_leftovers = most_leftovers.max(age_leftovers(folder.path()));
    }
    assert!(generations.len() > 3, "the children got to save: {generations:?}");
    assert!(most_leftovers > 0, "at least one was killed in the middle");
    assert!(most_leftovers <= 2, "leftovers pile up: {most_leftovers}");
    save(&vfs, &path, &entries(COUNT, 0), options()).unwrap();
    assert_eq!(vfs.list(folder.path()).unwrap(), ["pages.cache"]);
}

/// Not a test of its own, as the other one.
#[test]
#[allow(clippy::print_stdout)]
fn a_child_that_has_a_store_open_until_it_is_killed() {
    let Some(path) = std::env::var_os(PATH_VARIABLE).map(PathBuf::from) else { return };
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let store = file(&vfs, &path).store(StoreOptions::default(), SAVED_AT).unwrap();
    for number in 0..1000u32 {
        let write =
            StoreWrite { key: &number.to_be_bytes(), value: b"value", deadline: None, replaces: None };
        store.put(&write, SAVED_AT).unwrap();
    }
    println!("ready");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_store_is_open_in_a_single_process_and_free_when_that_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages.cache");
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk);
    let open = || file(&vfs, &path).store(StoreOptions::default(), SAVED_AT);
    for _ in 0..10 {
        let child = child("a_child_that_has_a_store_open_until_it_is_killed", &path);
        for _ in 0..3 {
            assert_eq!(open().unwrap_err().kind(), &DiskErrorKind::Locked);
        }
        kill(child);
        let store = open().unwrap();
        let mut scratch = StoreScratch::new();
        for number in 0..1000u32 {
            let answer = store.find(&number.to_be_bytes(), &mut scratch);
            assert!(matches!(answer, StoreAnswer::Entry(_)), "{number}: {answer:?}");
        }
    }
}

/// Makes the leftovers of the last child look a minute old, so that the next child may remove them;
/// returns their number.
fn age_leftovers(folder: &Path) -> usize {
    let names = RealDisk.list(folder).unwrap();
    let leftovers: Vec<_> = names.into_iter().filter(|name| name != "pages.cache").collect();
    for name in &leftovers {
        let file = std::fs::OpenOptions::new().write(true).open(folder.join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
    }
    leftovers.len()
}
