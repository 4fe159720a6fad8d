//! Addressing a key in one step, as a front does in two.

use async_cache_core::address::Address;
use async_cache_core::cold::Rank;
use async_cache_core::shard::Shard;

/// Where a key may be written. `rank` is its rank in the snapshot that is open.
pub(crate) fn at<K, V, T>(
    shard: &Shard<K, V, T>,
    hash: u64,
    rank: Option<Rank>,
    eq: impl FnMut(&K) -> bool,
) -> Address {
    shard.address(hash, shard.epoch().answered(rank), eq).expect("the snapshot was asked just now")
}
