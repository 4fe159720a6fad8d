//! Random operations in many lives of a cache, against a naive model.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{life, seconds};
use crate::stage::{number_from_env, within_limit};
use async_cache::{AsyncCache, ManualClock};
use async_cache_disk::fake::FakeDisk;
use fastrand::Rng;

/// The expected entries: the value, and its deadline on a clock that never stops.
type Model = BTreeMap<u64, (u64, Option<u64>)>;

struct World {
    disk: FakeDisk,
    cache: AsyncCache<u64, u64>,
    hands: ManualClock,
    now: u64,
    model: Model,
    saved: Model,
    shards: usize,
}

impl World {
    fn reopen(&mut self, later: u64) {
        let wall = self.hands.wall() + seconds(later);
        let (builder, hands) = life(&self.disk, 0);
        hands.set_wall(wall);
        self.now += later;
        (self.cache, self.hands) = (builder.shards(self.shards).build().unwrap(), hands);
        self.model = self.saved.clone();
    }

    fn live(&self) -> Model {
        let live = self.model.iter().filter(|(_, (_, until))| until.is_none_or(|until| until > self.now));
        live.map(|(key, entry)| (*key, *entry)).collect()
    }

    fn step(&mut self, rng: &mut Rng) {
        let (key, value) = (rng.u64(..40), rng.u64(..1000));
        let expected = self.live().get(&key).map(|(value, _)| *value);
        match rng.u32(..100) {
            0..25 => assert_eq!(self.cache.get(&key), expected, "key {key}"),
            25..35 => assert_eq!(self.cache.contains(&key), expected.is_some(), "key {key}"),
            35..55 => {
                let ttl = rng.bool().then(|| rng.u64(..30));
                self.cache.set_with_ttl(key, value, ttl.map(seconds));
                self.model.insert(key, (value, ttl.map(|ttl| self.now + ttl)));
            }
            55..65 => {
                self.cache.delete(&key);
                self.model.remove(&key);
            }
            65..75 => {
                let by = rng.u64(..6);
                self.now += by;
                // And a tick, by which sizes lag; there are too few ticks to add up to a second.
                self.hands.advance(seconds(by) + Duration::from_millis(2));
            }
            75..85 => assert_eq!(self.cache.len(), self.live().len()),
            85..91 => {
                let saved = self.cache.save_to_backup().unwrap();
                assert_eq!((saved.entries, saved.left_out), (self.live().len() as u64, 0));
                self.saved = self.live();
            }
            91..97 => self.reopen(rng.u64(..3)),
            97 => {
                self.cache.clear();
                self.model.clear();
            }
            _ => {
                self.cache.load_from_backup().unwrap();
                let live = self.live();
                self.model = self.saved.clone();
                self.model.extend(live);
            }
        }
    }
}

#[test]
fn many_lives_go_as_a_naive_model_says() {
    within_limit(|| {
        let first = number_from_env("ASYNC_CACHE_SEED", fastrand::u64(..1 << 32));
        for seed in first..first + number_from_env("ASYNC_CACHE_ROUNDS", 60) {
            println!("ASYNC_CACHE_SEED={seed}");
            let (mut rng, disk) = (Rng::with_seed(seed), FakeDisk::new());
            disk.keep_no_log();
            let shards = [1, 4][rng.usize(..2)];
            let (builder, hands) = life(&disk, 0);
            let cache = builder.shards(shards).build().unwrap();
            let (model, saved) = (Model::new(), Model::new());
            let mut world = World { disk, cache, hands, now: 0, model, saved, shards };
            for _ in 0..400 {
                world.step(&mut rng);
            }
        }
    });
}
