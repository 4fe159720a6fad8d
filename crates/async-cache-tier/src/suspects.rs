//! Records and entries that may be out of date, for a cache with a tier beyond one host.
//!
//! Further hosts change keys in the tier, and the tier sends messages about the changes while it is
//! connected. After a gap, the front calls [`suspect_all`]; at a message about a key, the front
//! calls [`forget_hash`]. The shard marks the suspect entries in memory
//! ([`Shard::suspect_all`]); `suspect_records` has the same facts about records on the disk.
//!
//! Rules:
//! 1. A record of a journal is suspect if it was written before the last `suspect_all`. The *time*
//!    of the record decides, and not its place: a collection copies a record to a later place, and
//!    the copy keeps the time. Every later write has a later time than every earlier record.
//! 2. From the first `suspect_all` on, everything from a file is suspect: the records of every
//!    snapshot, also of a snapshot opened later; the records in a journal opened later; the entries
//!    of a backup.
//! 3. A message yields a hash and no key. The entries in memory with the hash are removed, and
//!    their records are deleted. The journal may hold further records of keys with the hash, which
//!    cannot be found without the keys. So the hash is noted with the present time, and a record of
//!    a key with the hash is suspect unless the record was written later.
//! 4. At most 65,536 hashes are noted. A further hash makes every record of the journal suspect,
//!    and no hash is noted any more.
//! 5. The facts change under the locks of the shards with the keys, and are read again under the
//!    same lock when an entry comes into memory. So a record that was read before a `suspect_all`
//!    or a message, and comes into memory afterwards, is suspect there.
//!
//! [`Shard::suspect_all`]: async_cache_core::shard::Shard::suspect_all

use async_cache_core::removed::Cause;
use async_cache_core::shard::FlightFate;
use async_cache_core::time::Stamp;

use crate::host::{Host, Memory};
use crate::journal_state::Journal;
use crate::names::NameIndex;

/// Whether a look-up serves an entry that may be out of date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspects {
    /// No: the tier beyond the host is asked instead.
    Withheld,
    /// Yes: the tier beyond the host cannot be asked now.
    Served,
}

/// Makes every present entry suspect, in memory and on the disk. Until an entry is written anew,
/// only [`Suspects::Served`] and [`Shard::live_or_suspect`] serve the entry.
///
/// [`Shard::live_or_suspect`]: async_cache_core::shard::Shard::live_or_suspect
pub fn suspect_all<M: Memory>(host: &M) {
    let tier = host.tier();
    host.all_shards(|shards| {
        tier.suspects.suspect_until(tier.journal().map_or(0, Journal::latest));
        for tiered in shards.iter_mut() {
            tiered.shard.suspect_all();
        }
    });
}

/// Drops the names of departed entries, if there are many more names than entries. With a journal,
/// a departed entry may be on the disk, where a message has to find the entry: names stay, up to
/// 4,194,304. Beyond, everything becomes suspect.
pub fn compact_names<M: Memory>(host: &M, names: &NameIndex, is_there: impl Fn(u64) -> bool) {
    let has_journal = host.tier().journal().is_some();
    if has_journal && names.len() < MOST_NAMES {
        return;
    }
    names.compact(host.hot(), is_there);
    if has_journal {
        suspect_all(host);
    }
}

/// The names kept beside a journal: 64 MiB.
const MOST_NAMES: usize = 4 << 20;

/// Removes the entries of the shard `number` whose keys have a hash, as deletes do, and the records
/// of the entries. Keys are not compared. No user code runs while the shard is locked. If a file
/// may have the removed keys, they are encoded afterwards.
///
/// # Errors
/// A fault that must end the operation, from the encoding of a key for merging saves. The
/// entries are removed.
pub fn forget_hash<H: Host>(host: &H, number: usize, hash: u64, flights: FlightFate) -> Result<(), H::Error> {
    let tier = host.tier();
    let journal = tier.journal().filter(|journal| !journal.is_closed());
    let now = host.now();
    let (removed, stamp) = host.shard(number, |tiered| {
        if let Some(journal) = journal {
            tier.suspects.note(hash, journal.latest());
        }
        let removed = tiered.shard.forget_hash(hash, flights, now);
        let has_deleted = removed.iter().any(|it| it.cause == Cause::Deleted);
        let stamp = if has_deleted { tiered.shard.stamp_delete(now) } else { None };
        (removed, stamp)
    });
    let deleted = removed.iter().filter(|it| it.cause == Cause::Deleted);
    if let Some(journal) = journal {
        for entry in deleted.filter(|it| it.stamp != Stamp::UNKNOWN) {
            if let Some(key) = &entry.key {
                journal.forget(host, key, entry.stamp);
            }
        }
        journal.after_write(host, &removed);
    } else if let Some(stamp) = stamp.filter(|_| tier.keeps_writes()) {
        for key in deleted.filter_map(|it| it.key.as_ref()) {
            if let Some(key) = host.file_key(key)? {
                tier.known.lock().tombstones.record_delete(key.kind, &key.bytes, stamp.as_nanos());
            }
        }
        // A save that began meanwhile lacks the deletes: the change asks for a further save.
        host.shard(number, |tiered| tiered.shard.stamp_delete(now));
    }
    Ok(())
}
