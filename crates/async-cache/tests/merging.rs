//! The entries that a merging save keeps and drops, and its reports: several caches and one path
//! (docs/semantics.md, "Several processes"). Random histories of the same are in
//! `merging_oracle.rs`.

use std::time::{Duration, SystemTime};

use async_cache::{AsyncCache, Clock, DiskBackend, Eviction, ManualClock, Saved};
use async_cache_disk::fake::{FakeDisk, keep_deletes};
use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::oneshot;

const PATH: &str = "/var/cache/numbers.cache";

type Numbers = AsyncCache<u64, u64>;

struct Host {
    disk: FakeDisk,
    clock: Clock,
    hands: ManualClock,
}

impl Host {
    fn new() -> Self {
        let (clock, hands) = Clock::manual();
        hands.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let disk = FakeDisk::new();
        disk.keep_no_log();
        Self { disk, clock, hands }
    }

    fn backend(&self) -> DiskBackend {
        DiskBackend::new(PATH).vfs(self.disk.as_vfs())
    }

    fn open(&self, maxsize: impl Into<Option<usize>>) -> Numbers {
        self.open_with(maxsize, self.backend())
    }

    fn open_with(&self, maxsize: impl Into<Option<usize>>, backend: DiskBackend) -> Numbers {
        let builder = AsyncCache::builder().clock(self.clock.clone()).backup(backend).shards(1);
        let builder = builder.eviction(Eviction::Lru);
        match maxsize.into() {
            Some(maxsize) => builder.maxsize(maxsize).build().unwrap(),
            None => builder.build().unwrap(),
        }
    }

    fn saved(&self, keys: std::ops::Range<u64>) -> Vec<u64> {
        self.tick();
        let cache = self.open(None);
        keys.filter(|key| cache.get(key).is_some()).collect()
    }

    fn tick(&self) {
        self.hands.advance(Duration::from_millis(1));
    }
}

fn save<V>(cache: &AsyncCache<u64, V>) -> Saved
where
    V: Clone + Send + Sync + 'static,
{
    cache.save_to_backup().unwrap()
}

/// Two full workers. The first clears, fills itself anew and saves; then the second saves. Its own
/// entries, which were deleted and not written, counted as written: there was no room for the first
/// worker's entries, and the file was empty.
#[test]
fn entries_that_were_deleted_elsewhere_take_no_room() {
    let deletes: [fn(&Numbers); 2] = [Numbers::clear, |cache| (0..100).for_each(|key| cache.delete(&key))];
    for delete in deletes {
        for is_cold in [false, true] {
            let host = Host::new();
            let first = host.open(100);
            (0..100).for_each(|key| first.set(key, 1));
            save(&first);
            host.tick();
            let (stays, deletes) = (if is_cold { host.open(100) } else { first }, host.open(100));
            delete(&deletes);
            (500..600).for_each(|key| deletes.set(key, 2));
            assert_eq!(save(&deletes).entries, 100);
            host.tick();
            drop(deletes);
            let saved = save(&stays);
            assert_eq!((saved.entries, saved.dropped), (100, 0));
            assert_eq!(host.saved(0..600), (500..600).collect::<Vec<_>>());
        }
    }
}

/// Likewise entries that cannot be written, and expired entries: cold ones, and ones that expire
/// while the save runs.
#[test]
fn entries_that_are_not_written_take_no_room() {
    let host = Host::new();
    let builder = AsyncCache::builder().clock(host.clock.clone()).backup(host.backend()).maxsize(10);
    let odd: AsyncCache<u64, Odd> = builder.build().unwrap();
    let other = host.open(10);
    (0..10).for_each(|key| other.set(key, 1));
    save(&other);
    (20..26).for_each(|key| odd.set(key, Odd(666)));
    (30..32).for_each(|key| odd.set(key, Odd(1)));
    let saved = save(&odd);
    assert_eq!((saved.left_out, saved.dropped, saved.entries), (6, 2, 10));
    let left: Vec<u64> = (2..10).chain(30..32).collect();
    assert_eq!(host.saved(0..40), left, "the coldest of the other one have gone");

    let host = Host::new();
    let first = host.open(10);
    (0..10).for_each(|key| first.set_with_ttl(key, 1, Some(Duration::from_secs(1))));
    save(&first);
    let (cold, other) = (host.open(10), host.open(10));
    host.hands.advance(Duration::from_secs(2));
    (20..30).for_each(|key| other.set(key, 2));
    save(&other);
    cold.set(40, 4);
    let saved = save(&cold);
    assert_eq!((saved.entries, saved.dropped), (10, 1));
}

/// The value 666 cannot be written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Odd(u64);

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            666 => Err(serde::ser::Error::custom("not this one")),
            value => serializer.serialize_newtype_struct("Odd", &value),
        }
    }
}

/// A cache deletes many keys while a load runs, and saves. The file then records that any entry
/// older than the deletes may have been deleted, and the cache attributed that record to another
/// process: no save kept the loaded entry.
#[tokio::test]
async fn the_deletes_of_a_process_do_not_count_against_its_own_entries() {
    keep_deletes(4);
    for (saves_between, deletes) in [(0, 9), (1, 3), (3, 9)] {
        let host = Host::new();
        let cache = host.open(None);
        let (go_on, wait) = oneshot::channel::<()>();
        let loading = cache.clone();
        let load = tokio::spawn(async move {
            loading.get_or_load(&1, || async { wait.await.map(|()| 11) }).await.unwrap()
        });
        while cache.stats().loads == 0 {
            tokio::task::yield_now().await;
        }
        for round in 0..=saves_between {
            for key in 0..deletes {
                host.tick();
                cache.delete(&(1000 + round * 100 + key));
            }
            save(&cache);
        }
        go_on.send(()).unwrap();
        load.await.unwrap();
        let saved = save(&cache);
        assert_eq!((saved.entries, saved.left_out), (1, 0), "{saves_between} {deletes}");
        assert_eq!(host.saved(0..9), [1]);
    }
}

/// Another process has deleted more keys than the file records, so it is unknown whether this entry
/// was deleted. No save kept the entry, and there was no report.
#[test]
fn an_entry_that_may_have_been_deleted_is_left_out_and_counted() {
    keep_deletes(4);
    let host = Host::new();
    let (busy, quiet) = (host.open(None), host.open(None));
    (0..100).for_each(|key| quiet.set(key, key));
    host.tick();
    (1000..1009).for_each(|key| busy.delete(&key));
    save(&busy);
    host.tick();
    quiet.set(200, 1);
    for _ in 0..2 {
        let saved = save(&quiet);
        assert_eq!((saved.entries, saved.left_out), (1, 100));
        host.tick();
    }
    assert_eq!(quiet.get(&7), Some(7), "it serves its own memory");
}

/// The same from the other side: entries of others are dropped because this process has forgotten
/// its deletes.
#[test]
fn entries_of_others_that_may_have_been_deleted_here_are_counted() {
    keep_deletes(4);
    let host = Host::new();
    let (busy, quiet) = (host.open(None), host.open(None));
    (0..100).for_each(|key| quiet.set(key, key));
    save(&quiet);
    host.tick();
    (1000..1009).for_each(|key| busy.delete(&key));
    assert_eq!(save(&busy).dropped, 100);
    assert_eq!(busy.stats().dropped, 100);
}

/// The file held the later of two writes when the process with the earlier write saved. Then the
/// later write left the file, and the next save of that process restored the earlier one.
#[test]
fn an_earlier_write_does_not_come_back_from_a_process_whose_save_has_met_the_later_one() {
    let leaves: [fn(&Host, &Numbers); 3] = [
        |_, later| later.set(2, 2), // it has room for a single entry
        |_, later| {
            later.delete(&1);
            save(later);
            later.clear();
        },
        |host, _| host.hands.advance(Duration::from_secs(9)),
    ];
    for (number, leave) in leaves.iter().enumerate() {
        for is_cold in [false, true] {
            let host = Host::new();
            let mut earlier = host.open(None);
            earlier.set(1, 10);
            if is_cold {
                save(&earlier);
                earlier = host.open(None);
            }
            host.tick();
            let later = host.open(1);
            later.set_with_ttl(1, 20, Some(Duration::from_secs(5)));
            save(&later);
            save(&earlier); // sees both writes
            leave(&host, &later);
            save(&later);
            for _ in 0..2 {
                host.tick();
                save(&earlier);
                assert_ne!(host.open(None).get(&1), Some(10), "{number} {is_cold}");
            }
            // The process serves its own memory. Cold entries come from the file of its last save,
            // which has the later write.
            assert_eq!(earlier.get(&1), (!is_cold).then_some(10));
            earlier.set(1, 30);
            save(&earlier);
            assert_eq!(host.open(None).get(&1), Some(30), "a later write is another one");
        }
    }
}

/// A cache with room for two opens a file of five. It assumed that it had all entries of the file,
/// so the next save kept only the entries in memory, though there was room.
#[test]
fn a_cache_that_opened_a_part_of_a_file_fills_up_from_it_when_it_saves() {
    let host = Host::new();
    let large = host.open(None);
    (0..5).for_each(|key| large.set(key, key));
    save(&large);
    host.tick();
    let small = host.open(2);
    small.delete(&4);
    let saved = save(&small);
    assert_eq!((saved.entries, saved.dropped), (2, 2));
    assert_eq!(host.saved(0..5), [2, 3], "the warmest ones that were not deleted");
    assert_eq!(small.stats().dropped, 2);
}

/// Entries vanished from a file because one of its users had a smaller `maxsize`, and there was no
/// report.
#[test]
fn a_save_that_shrinks_a_file_says_by_how_much_whether_it_merges_or_not() {
    for merges in [true, false] {
        let host = Host::new();
        let backend = || if merges { host.backend() } else { host.backend().without_merging() };
        let large = host.open_with(None, backend());
        (0..10).for_each(|key| large.set(key, key));
        save(&large);
        host.tick();
        let small = host.open_with(4, backend());
        small.set(3, 30);
        assert_eq!(save(&small).dropped, 6, "{merges}");
        assert_eq!(save(&small).dropped, 0, "{merges}");
        assert_eq!(small.stats().dropped, 6);
        assert_eq!(host.saved(0..10), [3, 7, 8, 9]);
    }
}

/// An expired cold entry must not affect other processes, whether or not a write has reclaimed it.
/// If the entry was not reclaimed before the save, it counted as the later write, and removed
/// another process's live entry from the file.
#[test]
fn a_cold_entry_that_has_expired_hides_nothing_of_others_when_the_cache_is_saved() {
    for is_reclaimed_by_a_write in [false, true] {
        let host = Host::new();
        let earlier = host.open(None);
        earlier.set(7, 1);
        host.tick();
        let later = host.open(None);
        later.set_with_ttl(7, 2, Some(Duration::from_secs(1)));
        save(&later);
        let has_it_cold = host.open(None);
        host.hands.advance(Duration::from_secs(2));
        // The file forgets the later write, and then a process that never saw the write saves an
        // earlier one.
        save(&host.open(None));
        save(&earlier);
        assert_eq!(host.saved(7..8), [7]);
        if is_reclaimed_by_a_write {
            has_it_cold.set(8, 8);
        }
        assert_eq!(save(&has_it_cold).entries, 1 + u64::from(is_reclaimed_by_a_write));
        assert_eq!(host.saved(7..8), [7], "reclaimed by a write: {is_reclaimed_by_a_write}");
    }
}

/// Writes that left a small cache before its save are needed until the other processes have saved,
/// regardless of the number of other keys in the meantime: limiting them in the file by `maxsize`
/// would let another process's older value in.
#[test]
fn what_a_small_cache_has_overwritten_is_remembered_until_others_have_saved() {
    let host = Host::new();
    let busy = host.open(16);
    let other = host.open(16);
    other.set(0, 1);
    host.tick();
    for round in 0..3 {
        for key in 0..4_000 {
            busy.set(round * 4_000 + key, 2);
        }
        save(&busy);
        host.tick();
    }
    assert_eq!(save(&other).left_out, 0);
    assert_eq!(host.saved(0..1), [0; 0], "its value is older than one that was written and has left");
    // From now on the process itself knows of the write, whatever the file has forgotten.
    host.disk.as_vfs().remove(PATH.as_ref()).unwrap();
    save(&other);
    assert_eq!(host.saved(0..1), [0; 0]);
}

/// Two programs, each with its own function, were given one path. The first save of each set the
/// other's file aside if the file existed when the program began; all later saves silently replaced
/// it.
#[test]
fn a_file_of_another_function_is_set_aside_whenever_it_comes() {
    let host = Host::new();
    let aside = std::path::PathBuf::from(format!("{PATH}.aside"));
    let open = |function: &str| {
        host.tick();
        host.open_with(None, host.backend().version(format!("1\u{1F}{function}")))
    };
    let (one, two) = (open("one"), open("two"));
    one.set(1, 1);
    assert_eq!(save(&one).set_aside, None);
    for value in 2..4 {
        two.set(1, value);
        assert_eq!(save(&two).set_aside.as_ref(), Some(&aside));
        assert_eq!(save(&two).set_aside, None, "its own file is joined");
        one.set(1, 1);
        assert_eq!(save(&one).set_aside.as_ref(), Some(&aside));
        assert_eq!(open("one").get(&1), Some(1));
    }
    // Another version of the same function's file is replaced, as always.
    let newer = host.open_with(None, host.backend().version("2\u{1F}one"));
    newer.set(1, 5);
    assert_eq!(save(&newer).set_aside, None);
}
