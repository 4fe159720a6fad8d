//! Data that survives a process, seen through the public interface: each "life" is a cache with its
//! own clocks over the same disk. Most tests use the fake disk, whose files can be inspected,
//! damaged and filled up; some use the real disk.
#![allow(clippy::disallowed_methods)] // the test is the stranger that touches the file
#![allow(clippy::print_stdout)] // seeds

mod damage;
mod failures;
mod lives;
mod loading;
mod lost_writes;
mod saving;
mod size;
mod time;
mod types;
mod writes;

use std::cell::RefCell;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Once;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_cache::{AsyncCache, Builder, Clock, DiskBackend, Eviction, ManualClock};
use async_cache_disk::fake::FakeDisk;
use serde::{Deserialize, Serialize};

const PATH: &str = "/var/cache/app.cache";

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn at(wall_seconds: u64) -> SystemTime {
    UNIX_EPOCH + seconds(1_000_000 + wall_seconds)
}

fn backend(disk: &FakeDisk) -> DiskBackend {
    DiskBackend::new(PATH).vfs(disk.as_vfs())
}

/// A new process, whose wall clock shows `wall_seconds`.
fn life<K, V>(disk: &FakeDisk, wall_seconds: u64) -> (Builder<K, V>, ManualClock)
where
    K: Hash + Eq + Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
    V: Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
{
    let (clock, hands) = Clock::manual();
    hands.set_wall(at(wall_seconds));
    (AsyncCache::builder().clock(clock).backup(backend(disk)), hands)
}

/// A new process at an arbitrary time.
fn open<K, V>(disk: &FakeDisk) -> AsyncCache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
    V: Clone + Send + Sync + Serialize + for<'d> Deserialize<'d> + 'static,
{
    life(disk, 0).0.build().unwrap()
}

/// A disk with a saved cache of `0..count`, each value ten times its key, coldest first.
fn saved_numbers(count: u64) -> FakeDisk {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.shards(1).eviction(Eviction::Lru).build().unwrap();
    (0..count).for_each(|key| cache.set(key, key * 10));
    assert_eq!(cache.save_to_backup().unwrap().entries, count);
    disk
}

/// Which of the first `count` keys are present; does not touch the entries.
fn there(cache: &AsyncCache<u64, u64>, count: u64) -> Vec<u64> {
    (0..count).filter(|key| cache.contains(key)).collect()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    title: String,
    links: Vec<(u32, Option<String>)>,
    score: f64,
}

fn page() -> Page {
    Page { title: "t".into(), links: vec![(1, None), (2, Some("x".into()))], score: 0.5 }
}

/// Runs a function and returns the warnings logged in the meantime on this thread.
///
/// One subscriber for the whole process: with a subscriber for each test, `tracing` may record for
/// good that nothing listens to a warning that another thread logs for the first time.
fn warnings(work: impl FnOnce()) -> Vec<String> {
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    thread_local! {
        static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }
    struct Log;
    struct Message(String);
    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }
    }
    impl Subscriber for Log {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::WARN
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut message = Message(String::new());
            event.record(&mut message);
            LOGGED.with_borrow_mut(|logged| logged.push(message.0));
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
    LOGGED.take();
    work();
    LOGGED.take()
}
