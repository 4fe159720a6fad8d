//! Every write is on file when its call returns.

use std::time::Duration;

use super::{after_power_loss, immortal, journal, killed, life, open, there};
use crate::stage::one_thread;
use async_cache::AsyncCache;
use async_cache_disk::fake::FakeDisk;

#[test]
fn what_was_set_loaded_deleted_and_cleared_survives_a_kill_without_a_save() {
    let disk = FakeDisk::new();
    let cache = immortal(open(&disk));
    (0..10).for_each(|key| cache.set(key, key));
    cache.delete(&3);
    cache.set(4, 44);
    let loaded = one_thread().block_on(cache.get_or_load(&20, || async { Ok::<_, ()>(200) }));
    assert_eq!(loaded.unwrap(), 200);
    let disk = killed(&disk);
    let cache = immortal(open(&disk));
    let expected = vec![(0, 0), (1, 1), (2, 2), (4, 44), (5, 5), (6, 6), (7, 7), (8, 8), (9, 9), (20, 200)];
    assert_eq!((cache.len(), there(&cache, 0..30)), (10, expected));
    assert_eq!((cache.stats().cold_hits, cache.stats().cold), (10, 0));
    assert_eq!(cache.opening().entries, 10);
    cache.clear();
    cache.set(1, 11);
    let disk = killed(&disk);
    let cache = open(&disk);
    assert_eq!((cache.len(), there(&cache, 0..30)), (1, vec![(1, 11)]));
}

#[test]
fn a_cold_entry_that_was_written_over_or_deleted_never_returns() {
    let disk = FakeDisk::new();
    let cache = immortal(open(&disk));
    (0..6).for_each(|key| cache.set(key, key));
    let mut disk = killed(&disk);
    for life in 0..3 {
        let cache = immortal(open(&disk));
        if life == 0 {
            cache.set(0, 100);
            cache.delete(&1);
            assert_eq!(cache.get(&2), Some(2));
            cache.delete(&2);
            let load = || async { Ok::<_, ()>(111) };
            assert_eq!(one_thread().block_on(cache.get_or_load(&1, load)).unwrap(), 111);
        }
        assert_eq!(cache.len(), 5);
        assert_eq!(there(&cache, 0..6), [(0, 100), (1, 111), (3, 3), (4, 4), (5, 5)]);
        assert_eq!((cache.len(), cache.contains(&2), cache.contains(&5)), (5, false, true));
        disk = killed(&disk);
    }
}

#[test]
fn a_power_loss_takes_at_most_what_was_written_after_the_flush() {
    let disk = FakeDisk::new();
    let cache = immortal(open(&disk));
    cache.set(0, 0);
    cache.set(1, 1);
    cache.delete(&0);
    cache.flush().unwrap();
    cache.set(1, 2);
    cache.set(2, 2);
    for (name, disk) in after_power_loss(&disk) {
        let found = there(&open(&disk), 0..3);
        let states = [vec![(1, 1)], vec![(1, 2)], vec![(1, 2), (2, 2)]];
        assert!(states.contains(&found), "{name}: {found:?}");
    }
    assert_eq!(cache.save_to_backup().unwrap().entries, 2);
    for (name, disk) in after_power_loss(&disk) {
        assert_eq!(there(&open(&disk), 0..3), [(1, 2), (2, 2)], "{name}");
    }
}

#[test]
fn time_runs_down_while_no_process_runs() {
    let disk = FakeDisk::new();
    let (builder, _) = life::<u64, u64>(&disk, journal());
    let cache = immortal(builder.build().unwrap());
    cache.set_with_ttl(1, 1, Some(Duration::from_secs(10)));
    cache.set_with_ttl(2, 2, Some(Duration::from_secs(20)));
    cache.set_with_ttl(3, 3, None);
    cache.set(4, 4);
    cache.set_with_ttl(4, 44, Some(Duration::ZERO));
    assert_eq!(cache.len(), 3);
    let disk = killed(&disk);
    let (builder, hands) = life::<u64, u64>(&disk, journal());
    hands.set_wall(hands.wall() + Duration::from_secs(15));
    let cache = builder.build().unwrap();
    assert_eq!(there(&cache, 0..5), [(2, 2), (3, 3)]);
    hands.advance(Duration::from_secs(5));
    assert_eq!((there(&cache, 0..5), cache.contains(&2)), (vec![(3, 3)], false));
}

#[test]
fn a_value_that_is_not_kept_leaves_no_older_value_behind() {
    let disk = FakeDisk::new();
    let cache = immortal(open(&disk));
    cache.set(1, 1);
    let again = cache.get_or_load_with_ttl(&2, Some(Duration::ZERO), || async { Ok::<_, ()>(2) });
    assert_eq!(one_thread().block_on(again).unwrap(), 2);
    cache.set_with_ttl(1, 2, Some(Duration::ZERO));
    assert_eq!((cache.get(&1), cache.get(&2)), (None, None));
    let cache = open(&killed(&disk));
    assert_eq!((there(&cache, 0..3), cache.len()), (vec![], 0));
}

#[test]
fn a_value_that_cannot_be_written_stays_in_memory_and_hides_the_older_one() {
    let disk = FakeDisk::new();
    let (builder, _) = life::<u64, Option<Option<u64>>>(&disk, journal());
    let cache = immortal(builder.build().unwrap());
    cache.set(1, Some(Some(1)));
    cache.set(1, Some(None)); // The format would read it as `None`.
    assert_eq!((cache.get(&1), cache.stats().unjournaled), (Some(Some(None)), 1));
    let (builder, _) = life::<u64, Option<Option<u64>>>(&killed(&disk), journal());
    let cache: AsyncCache<u64, Option<Option<u64>>> = builder.build().unwrap();
    assert_eq!((cache.get(&1), cache.len()), (None, 0));
}

#[test]
fn a_load_that_was_overtaken_is_in_no_file() {
    let disk = FakeDisk::new();
    let cache = immortal(open(&disk));
    let other = AsyncCache::clone(&cache);
    let load = cache.get_or_load(&1, || async move {
        other.set(1, 2);
        std::mem::forget(other);
        Ok::<_, ()>(1)
    });
    assert_eq!(one_thread().block_on(load).unwrap(), 1);
    assert_eq!(cache.get(&1), Some(2));
    assert_eq!(open(&killed(&disk)).get(&1), Some(2));
}
