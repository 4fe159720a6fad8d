//! Real processes killed during a save: the file is always whole, and leftovers are removed.
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

use async_cache_disk::{RealDisk, Vfs};
use sample::{assert_holds, entries, open, options, random, save};

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

fn child(path: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_child_that_saves_until_it_is_killed", "--nocapture", "--test-threads=1"]);
    command.env(PATH_VARIABLE, path).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
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
        let mut child = child(&path);
        // The child is about to save. The sleep waits for no event: its length is the random moment
        // of the kill.
        let mut output = child.stdout.take().unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"ready") {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        std::thread::sleep(longest.mul_f64(random.f64()));
        child.kill().unwrap();
        child.wait().unwrap();

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
