//! The set of cold ranks against a model, operation by operation. Most ranks are close to the
//! borders of words and chunks.
//!
//! How to replay and soak: see `replay/mod.rs`.

use std::collections::BTreeSet;

use async_cache_core::cold::{ColdSet, Rank};

use crate::replay::every_seed;

/// Ranks near the borders of words and chunks, where faults of a bit set are most likely.
fn random_rank(dice: &mut fastrand::Rng) -> Rank {
    let border = dice.choice([0, 64, 128, 32_768, 65_536, 98_304]).unwrap();
    (border + dice.u32(..6)).saturating_sub(3)
}

#[test]
fn a_cold_set_of_several_chunks_does_what_a_set_of_ranks_does() {
    every_seed(200, |run| {
        let records = random_rank(&mut run.dice);
        let room = run.dice.bool().then(|| run.dice.usize(..2 * records as usize + 2));
        run.set_up(&(records, room));
        let cold = ColdSet::new(records, room);
        let mut model: BTreeSet<Rank> = (0..records).rev().take(room.unwrap_or(usize::MAX)).collect();
        for _ in 0..300 {
            let rank = random_rank(&mut run.dice);
            let operation = run.dice.u32(..8);
            run.note((operation, rank));
            match operation {
                0..4 => assert_eq!(cold.take(rank), model.remove(&rank)),
                4..7 => assert_eq!(cold.take_coldest(), model.pop_first()),
                _ => {
                    let mut copy = cold.freeze();
                    copy.remove(rank);
                    assert!(!copy.contains(rank));
                    assert_eq!(copy.contains(rank + 1), model.contains(&(rank + 1)));
                    assert_eq!(cold.contains(rank), model.contains(&rank), "a copy is a copy");
                }
            }
            assert_eq!(cold.live(), model.len());
            let rank = random_rank(&mut run.dice);
            assert_eq!(cold.contains(rank), model.contains(&rank), "rank {rank}");
        }
        assert_eq!(cold.take_all(), model.len());
        assert_eq!((cold.live(), cold.take_coldest()), (0, None));
    });
}
