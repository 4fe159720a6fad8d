//! A single key: asking the snapshot for it, serving it from there, and deleting it.
//!
//! Rules:
//! 1. every write of a key first asks the snapshot for the key's rank, with nothing locked. The
//!    shard then checks that the snapshot is still the same ([`Probed`]): so a key is never hot and
//!    cold at once;
//! 2. a key served from the snapshot is kept in memory from then on, unless a write
//!    overtook it;
//! 3. a snapshot without cold entries is closed, so that writes need not ask it;
//! 4. if a tier beyond one host is in use, every entry of a snapshot is suspect
//!    ([`crate::suspects`]).

use std::sync::Arc;

use async_cache_core::entry::{Meta, NewEntry};
use async_cache_core::probe::Probed;
use async_cache_core::shard::Trust;

use crate::host::{Host, Memory, NamedKey};
use crate::journal;
use crate::opened::Opened;
use crate::read::ColdEntry;
use crate::suspects::Suspects;
use crate::tier::{Tiered, UnderShard};
use crate::writes;

/// The snapshot's result for a key.
#[derive(Debug)]
pub enum ColdAnswer<V> {
    /// Its value. The hit is counted.
    Served(V),
    /// A value that may be out of date; it was not served. Only for [`Suspects::Withheld`]. For a
    /// write of the key, or a load.
    Suspect(Probed),
    /// No value. For a write of the key, or a load.
    Absent(Probed),
}

/// Rule 1: asks the snapshot for the facts that a write of the key needs.
///
/// # Errors
/// A fault that must end the operation, from the encoding of the key.
pub fn probe<H: Host>(host: &H, key: &impl NamedKey<H>) -> Result<Probed, H::Error> {
    let UnderShard { epoch, opened } = key.read(host, Tiered::under);
    let Some(opened) = opened else { return Ok(epoch.answered(None)) };
    // Expired entries leave before any other entry is evicted.
    opened.reclaim_some(host.time());
    let rank = key.encode(host)?.and_then(|bytes| {
        opened.rank(host, &bytes, |bytes| key.is_key_of(host, bytes)) //
    });
    close_if_spent(host, &opened);
    Ok(epoch.answered(rank))
}

/// Serves a key from the snapshot in `under`, counts the hit, and keeps the entry in memory. A
/// suspect entry stays suspect there.
///
/// # Errors
/// A fault that must end the operation, from the encoding of the key or the decoding of the value.
#[cold]
pub fn serve<H: Host>(
    host: &H,
    key: &impl NamedKey<H>,
    under: UnderShard,
    suspects: Suspects,
) -> Result<ColdAnswer<H::Value>, H::Error> {
    let UnderShard { epoch, opened } = under;
    let Some(opened) = opened else { return Ok(ColdAnswer::Absent(epoch.answered(None))) };
    let Some(bytes) = key.encode(host)? else { return Ok(ColdAnswer::Absent(epoch.answered(None))) };
    let trust = host.tier().suspects.trust_in_files();
    if (trust, suspects) == (Trust::Suspect, Suspects::Withheld) {
        let rank = opened.rank(host, &bytes, |bytes| key.is_key_of(host, bytes));
        let probed = epoch.answered(rank);
        let is_cold = rank.is_some_and(|rank| opened.cold().contains(rank));
        let answer = if is_cold { ColdAnswer::Suspect(probed) } else { ColdAnswer::Absent(probed) };
        close_if_spent(host, &opened);
        // Another caller may have made the key hot between the two looks.
        let served = if rank.is_some() { key.serve_hot(host)? } else { None };
        return Ok(served.map_or(answer, ColdAnswer::Served));
    }
    let (rank, value, deadline, stamp) = match opened.read(host, key, &bytes)? {
        ColdEntry::Found { rank, value, deadline, stamp } => (rank, value, deadline, stamp),
        ColdEntry::Absent(rank) => {
            close_if_spent(host, &opened);
            // Another caller may have made the key hot between the two looks.
            let served = if rank.is_some() { key.serve_hot(host)? } else { None };
            return Ok(served.map_or_else(|| ColdAnswer::Absent(epoch.answered(rank)), ColdAnswer::Served));
        }
    };
    let probed = epoch.answered(Some(rank));
    let served = host.copy_value(&value);
    let meta = Meta { deadline, stamp, origin: Some(rank) };
    let new = NewEntry { key: key.to_key(host)?, value, meta };
    let now = host.now();
    let promoted = key.address(host, probed, |tiered, at| {
        let promoted = tiered.shard.promote(at, new, trust, now);
        if promoted.is_err() && at.slot().is_some() {
            // An equal key without an encoding is in memory. It is newer, even if it has expired.
            opened.cold().take(rank);
        }
        promoted
    })?;
    match promoted {
        Ok(Ok(removed)) => {
            drop(removed);
            opened.reclaim_some(now.time);
            close_if_spent(host, &opened);
            Ok(ColdAnswer::Served(served))
        }
        // Rule 2: the entry left the cold set meanwhile: another reader made it hot, or a write
        // overtook it.
        _ => Ok(key.serve_hot(host)?.map_or(ColdAnswer::Absent(probed), ColdAnswer::Served)),
    }
}

/// Whether the snapshot `opened` has a live entry under the key that is not suspect.
///
/// # Errors
/// A fault that must end the operation, from the encoding of the key.
pub fn contains<H: Host>(host: &H, key: &impl NamedKey<H>, opened: &Opened) -> Result<bool, H::Error> {
    if host.tier().suspects.is_in_use() {
        return Ok(false); // Rule 4.
    }
    Ok(key.encode(host)?.is_some_and(|bytes| opened.contains(host, key, &bytes)))
}

/// Deletes a key.
///
/// # Errors
/// A fault that must end the operation, from encoding or comparing keys; nothing is deleted.
pub fn delete<H: Host>(host: &H, key: &impl NamedKey<H>) -> Result<(), H::Error> {
    if let Some(journal) = host.tier().journal().filter(|journal| !journal.is_closed()) {
        return journal::delete(host, journal, key);
    }
    let file_key = if host.tier().keeps_writes() { key.file_key(host)? } else { None };
    let now = host.now();
    loop {
        let probed = probe(host, key)?; // Rule 1.
        let deleted = key.address(host, probed, |tiered, at| {
            if let Some(file_key) = &file_key {
                writes::record_delete(host.tier(), &mut tiered.shard, file_key, now);
            }
            tiered.shard.delete(at, now)
        })?;
        if deleted.is_ok() {
            return Ok(());
        }
    }
}

/// Closes a snapshot with no cold entries left (rule 3), unless a save or an opening has the turn.
pub fn close_if_spent<M: Memory>(host: &M, opened: &Arc<Opened>) {
    if opened.cold().live() > 0 {
        return;
    }
    let Some(turn) = host.tier().try_turn() else { return };
    // Dropped after the turn has ended: a user's destructor may save.
    let mut closed = Vec::new();
    for number in 0..host.shards() {
        host.shard(number, |tiered| {
            if tiered.opened().is_some_and(|current| Arc::ptr_eq(current, opened)) {
                closed.push(tiered.close());
            }
        });
    }
    drop(turn);
    drop(closed);
}
