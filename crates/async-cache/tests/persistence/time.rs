//! Times to live across two lives of a cache, whatever happens to the wall clock.

use std::time::Duration;

use super::{at, life, seconds};
use async_cache::AsyncCache;
use async_cache_disk::fake::FakeDisk;

#[test]
fn ten_seconds_left_are_six_when_it_is_reopened_four_seconds_later() {
    let disk = FakeDisk::new();
    let (builder, _) = life(&disk, 0);
    let cache = builder.build().unwrap();
    cache.set_with_ttl("key".to_owned(), 1, Some(seconds(10)));
    cache.save_to_backup().unwrap();

    for touched_at_once in [true, false] {
        let (builder, hands) = life(&disk, 4);
        let cache: AsyncCache<String, u32> = builder.build().unwrap();
        if touched_at_once {
            assert_eq!(cache.get("key"), Some(1));
        }
        hands.advance(Duration::new(5, 999_999_999));
        assert_eq!((cache.get("key"), cache.contains("key")), (Some(1), true));
        hands.advance(Duration::from_nanos(1));
        assert_eq!((cache.get("key"), cache.contains("key")), (None, false));
        hands.advance(Duration::from_millis(2)); // sizes lag by a tick
        assert_eq!(cache.len(), 0);
    }
}

#[test]
fn what_expired_between_two_lives_is_gone_everywhere() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.build().unwrap();
    cache.set_with_ttl("short".to_owned(), 1, Some(seconds(10)));
    cache.set_with_ttl("long".to_owned(), 2, Some(seconds(20)));
    cache.save_to_backup().unwrap();

    let reopened = || life::<String, u32>(&disk, 10).0.build().unwrap();
    assert_eq!(reopened().get("short"), None);
    assert!(!reopened().contains("short"));
    assert_eq!(reopened().len(), 1);
    assert_eq!(reopened().metrics().size, 1);
    assert_eq!(reopened().save_to_backup().unwrap().entries, 1);
    assert_eq!(reopened().get("long"), Some(2));
}

#[test]
fn no_time_to_live_stays_none() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.default_ttl(seconds(1)).build().unwrap();
    cache.set_with_ttl(1_u64, 1_u64, None);
    cache.save_to_backup().unwrap();
    let (builder, hands) = life(&disk, 1_000_000_000);
    let cache: AsyncCache<u64, u64> = builder.default_ttl(seconds(1)).build().unwrap();
    hands.advance(seconds(1_000_000_000));
    assert_eq!((cache.get(&1), cache.len()), (Some(1), 1));
    hands.advance(seconds(1_000_000_000));
    cache.save_to_backup().unwrap();
    assert_eq!(life(&disk, 3_000_000_000).0.build().unwrap().get(&1_u64), Some(1_u64));
}

#[test]
fn a_wall_clock_that_was_set_back_lengthens_no_life() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 1000).0.build().unwrap();
    cache.set_with_ttl(1_u64, 1_u64, Some(seconds(10)));
    cache.save_to_backup().unwrap();
    let (builder, hands) = life(&disk, 0);
    let cache: AsyncCache<u64, u64> = builder.build().unwrap();
    hands.advance(seconds(9));
    assert_eq!(cache.get(&1), Some(1));
    hands.advance(seconds(1));
    assert_eq!(cache.get(&1), None);
}

/// The clock is set back before every life, and in the middle of it; the entry is never touched, so
/// it is copied as bytes.
#[test]
fn a_wall_clock_that_is_set_back_again_and_again_lengthens_no_life() {
    for touched in [false, true] {
        let disk = FakeDisk::new();
        let cache = life(&disk, 1000).0.build().unwrap();
        cache.set_with_ttl(1_u64, 1_u64, Some(seconds(10)));
        cache.save_to_backup().unwrap();
        for wall in [900, 800, 700] {
            let (builder, hands) = life(&disk, wall);
            let cache: AsyncCache<u64, u64> = builder.build().unwrap();
            if touched {
                assert_eq!(cache.get(&1), Some(1));
            }
            hands.advance(seconds(2));
            cache.save_to_backup().unwrap();
            hands.set_wall(at(wall - 50));
            hands.advance(seconds(1));
            cache.save_to_backup().unwrap();
        }
        // Nine seconds have passed.
        let (builder, hands) = life(&disk, 0);
        let cache: AsyncCache<u64, u64> = builder.build().unwrap();
        assert!(cache.contains(&1), "one second is left");
        hands.advance(seconds(1));
        assert_eq!((cache.get(&1), cache.len()), (None, 0));
    }
}

/// The second load reads the file beside the opened one; the clock of later saves must not be set
/// back to that file.
#[test]
fn loading_again_under_a_wall_clock_that_was_set_back_lengthens_no_life() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 1000).0.build().unwrap();
    cache.set_with_ttl(1_u64, 1_u64, Some(seconds(10)));
    cache.save_to_backup().unwrap();

    let (builder, hands) = life(&disk, 0);
    let cache: AsyncCache<u64, u64> = builder.build().unwrap();
    cache.set(2, 2);
    hands.advance(seconds(6));
    cache.load_from_backup().unwrap();
    cache.save_to_backup().unwrap();

    let (builder, hands) = life(&disk, 0);
    let cache: AsyncCache<u64, u64> = builder.build().unwrap();
    assert!(cache.contains(&1), "four seconds are left");
    hands.advance(seconds(4));
    assert_eq!(cache.get(&1), None);
}

#[test]
fn a_wall_clock_that_jumps_forward_shortens_only_what_is_reopened() {
    let disk = FakeDisk::new();
    let (builder, hands) = life(&disk, 0);
    let cache = builder.build().unwrap();
    cache.set_with_ttl(1_u64, 1_u64, Some(seconds(10)));
    hands.set_wall(at(5000));
    assert_eq!(cache.get(&1), Some(1), "in memory the monotonic clock counts");
    cache.save_to_backup().unwrap();
    assert_eq!(life(&disk, 5004).0.build().unwrap().get(&1_u64), Some(1_u64));
    assert_eq!(life::<u64, u64>(&disk, 5010).0.build().unwrap().get(&1), None);
}

#[test]
fn an_entry_that_is_set_anew_has_a_life_of_its_own() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.build().unwrap();
    cache.set_with_ttl(1_u64, 1_u64, Some(seconds(10)));
    cache.save_to_backup().unwrap();
    let (builder, hands) = life(&disk, 4);
    let cache: AsyncCache<u64, u64> = builder.build().unwrap();
    cache.set_with_ttl(1, 2, Some(seconds(100)));
    hands.advance(seconds(50));
    assert_eq!((cache.get(&1), cache.len()), (Some(2), 1));
}

/// No read and no `len` helps: with room for a hundred, expired entries make room before live
/// entries are evicted.
#[test]
fn expired_cold_entries_are_reclaimed_by_later_writes() {
    let disk = FakeDisk::new();
    let cache = life(&disk, 0).0.build().unwrap();
    (0..100_u64).for_each(|key| cache.set_with_ttl(key, key, Some(seconds(10))));
    cache.save_to_backup().unwrap();
    let cache: AsyncCache<u64, u64> = life(&disk, 20).0.maxsize(100).shards(1).build().unwrap();
    (1000..1050).for_each(|key| cache.set(key, key));
    let stats = cache.stats();
    assert!(stats.evictions <= 1, "only the first write came before any reclaiming: {stats:?}");
    assert_eq!((stats.size, stats.cold, stats.evictions + stats.expirations), (50, 0, 100));
}
