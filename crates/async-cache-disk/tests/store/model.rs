//! Random programs against a map.

use super::view::viewed;
use super::{KEYS, Op, State, brief, open, rounds, state, write_base};
use async_cache_disk::fake::FakeDisk;

fn random_op(random: &mut fastrand::Rng) -> Op {
    let i = random.u8(0..KEYS);
    match random.u8(0..100) {
        0..50 => {
            Op::Put(i, if random.u8(0..8) == 0 { random.usize(0..20_000) } else { random.usize(0..200) })
        }
        50..70 => Op::Delete(i),
        70..73 => Op::Clear,
        73..78 => Op::Flush,
        78..84 => Op::Maintain,
        84..90 => Op::Collect,
        90..93 => Op::Reopen,
        93..95 => Op::Fold,
        _ => Op::Drop,
    }
}

fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut disk = FakeDisk::new();
    let mut model = if random.bool() { write_base(&disk, 4) } else { State::new() };
    let bytes = [4200, 5000, 20_000, 1 << 20][random.usize(0..4)];
    let mut store = Some(open(&disk, bytes));
    let mut program = Vec::new();
    for number in 0..random.usize(10..150) {
        if random.u8(0..30) == 0 {
            drop(store.take());
            disk = disk.survivors().swap_remove(0).1; // The process died.
            store = Some(open(&disk, bytes));
        } else {
            let op = random_op(&mut random);
            program.push(op);
            op.run(number, &disk, &mut store, bytes).unwrap();
            op.apply(number, &mut model);
        }
        let found = state(store.as_ref().unwrap());
        assert!(found == model, "seed {seed}, {program:?}: {:?}, not {:?}", brief(&found), brief(&model));
        if number % 16 != 0 {
            continue;
        }
        // Before the first write, and before the first one after a fold, there is no store.
        let Some(viewed) = viewed(&disk, 0) else {
            let mut since = program.iter().rev().take_while(|op| **op != Op::Fold);
            assert!(since.all(|op| !op.is_write()), "seed {seed}, {program:?}");
            continue;
        };
        assert!(
            viewed == model,
            "seed {seed}, {program:?}: viewed {:?}, not {:?}",
            brief(&viewed),
            brief(&model)
        );
    }
}

#[test]
fn a_store_is_a_map_also_after_crashes_of_its_process() {
    let first = std::env::var("ASYNC_CACHE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    (first..first + rounds(300)).for_each(run);
}
