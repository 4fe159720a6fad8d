//! The cache as seen by `async-cache-tier`: shards behind locks, and for some caches a file with a
//! codec.
//!
//! Rule: `Clone`, `Serialize` and `Deserialize` are the user's code. A panic in them is a fault of
//! a single entry, as if they had returned an error. It ends neither a save nor an opening.

#[cfg(test)]
mod suspects;

use std::hash::Hash;
use std::sync::Arc;

use async_cache_core::address::Address;
use async_cache_core::listing::Ticket;
use async_cache_core::probe::{Probed, Stale};
use async_cache_core::time::{Deadline, Time};
use async_cache_disk::{CacheFile, DiskError, KeyKind, Save};
use async_cache_tier::eager::PassOn;
use async_cache_tier::{Host, Memory, NamedKey, Refusal, Taken, Tier, Under};

use crate::backup::DiskBackend;
use crate::backup::codec::{Codec, or_panicked};
use crate::error::BackendError;
use crate::inner::Inner;
use crate::room::Room;

/// A cache in memory; with a [`BackupFile`], the whole cache.
pub(crate) struct CacheHost<'c, K, V, F> {
    pub(crate) inner: &'c Inner<K, V>,
    /// The user's `Clone`.
    pub(crate) clone_key: fn(&K) -> K,
    pub(crate) file: F,
}

/// The file of a cache.
pub(crate) struct BackupFile<'c, K, V> {
    pub(crate) disk: &'c DiskBackend,
    codec: Codec<K, V>,
}

/// A cache with a file.
pub(crate) type FileHost<'c, K, V> = CacheHost<'c, K, V, BackupFile<'c, K, V>>;

impl<'c, K, V> FileHost<'c, K, V> {
    pub(crate) fn new(inner: &'c Inner<K, V>, disk: &'c DiskBackend, codec: Codec<K, V>) -> Self {
        Self { inner, clone_key: codec.clone_key, file: BackupFile { disk, codec } }
    }
}

/// Runs the user's `Clone`; `Err` is the message of its panic.
fn cloned<T>(clone: impl FnOnce() -> T) -> Result<T, String> {
    or_panicked("Clone", || Ok::<_, BackendError>(clone())).map_err(|error| error.to_string())
}

impl<K: Hash + Eq, V: Clone, F> Memory for CacheHost<'_, K, V, F> {
    type Key = K;
    type Value = V;
    type Room = Arc<Room<V>>;

    fn tier(&self) -> &Tier {
        &self.inner.tier
    }

    fn maxsize(&self) -> Option<usize> {
        self.inner.maxsize
    }

    fn shards(&self) -> usize {
        self.inner.shards().len()
    }

    fn shard<R>(&self, number: usize, work: impl FnOnce(&mut Under<Self>) -> R) -> R {
        work(&mut self.inner.shards()[number].write())
    }

    fn read<R>(&self, number: usize, work: impl FnOnce(&Under<Self>) -> R) -> R {
        work(&self.inner.shards()[number].read())
    }

    fn all_shards<R>(&self, work: impl FnOnce(&mut [&mut Under<Self>]) -> R) -> R {
        let mut locked: Vec<_> = self.inner.shards().iter().map(|shard| shard.write()).collect();
        let mut shards: Vec<_> = locked.iter_mut().map(|shard| &mut **shard).collect();
        work(&mut shards)
    }

    /// Under a shared lock, so hits go on; some milliseconds for a hundred thousand entries.
    fn list(&self, number: usize) -> Vec<Ticket> {
        self.inner.shards()[number].read().shard.coldest_first()
    }

    fn take(&self, number: usize, tickets: &[Ticket], into: &mut Vec<Taken<K, V>>) {
        let tiered = self.inner.shards()[number].read();
        into.extend(tickets.iter().filter_map(|&ticket| {
            let entry = tiered.shard.store().redeem(ticket)?;
            Some(Taken {
                key: cloned(|| (self.clone_key)(entry.key)),
                value: cloned(|| entry.value.clone()),
                deadline: entry.meta.deadline,
                stamp: entry.meta.stamp,
            })
        }));
    }

    fn copy_key(&self, key: &K) -> Option<K> {
        cloned(|| (self.clone_key)(key)).ok()
    }

    fn copy_value(&self, value: &V) -> V {
        value.clone()
    }

    fn time(&self) -> Time {
        self.inner.clock.now()
    }

    fn has_passed(&self, deadline: Deadline) -> bool {
        self.inner.clock.has_passed(deadline)
    }

    fn wall(&self) -> u64 {
        self.inner.clock.wall()
    }
}

impl<K: Hash + Eq, V: Clone> Host for FileHost<'_, K, V> {
    type Error = DiskError;
    type Slice = ();
    type Eager = PassOn; // Only the program that wrote an eager record can read it.
    const UNDECODABLE: &'static str = "`stats().undecodable`";

    fn begin_slice(&self) {}

    fn blocking<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    fn file(&self) -> &CacheFile {
        self.file.disk.file()
    }

    fn begin_save(&self) -> Result<Save, DiskError> {
        self.file.disk.begin_save()
    }

    fn allows(&self) -> fn(&[u8]) -> bool {
        |_| true
    }

    fn canonical_key(&self, key: &K, out: &mut Vec<u8>) -> Result<bool, DiskError> {
        Ok((self.file.codec.encode_key)(key, out).is_ok())
    }

    fn is_key_of(&self, key: &K, bytes: &[u8]) -> bool {
        (self.file.codec.decode_key)(bytes).is_ok_and(|known| known == *key)
    }

    fn record_key(&self, key: &K, out: &mut Vec<u8>) -> Result<KeyKind, Refusal<DiskError>> {
        (self.file.codec.encode_key)(key, out).map_err(|error| refusal(&error))?;
        Ok(KeyKind::Canonical)
    }

    fn record_value(&self, value: &V, out: &mut Vec<u8>) -> Result<(), Refusal<DiskError>> {
        (self.file.codec.encode_value)(value, out).map_err(|error| refusal(&error))
    }

    fn decode_value(&self, bytes: &[u8]) -> Result<V, Refusal<DiskError>> {
        (self.file.codec.decode_value)(bytes).map_err(|error| refusal(&error))
    }

    fn error(&self, error: DiskError) -> DiskError {
        error
    }

    fn warn(&self, message: &str) {
        tracing::warn!("{message}");
    }

    fn name_of(&self, _: &[u8], rank: u32) -> String {
        format!("entry {rank}")
    }

    fn name_of_key(&self, key: &K) -> Option<String> {
        let mut bytes = Vec::new();
        (self.file.codec.encode_key)(key, &mut bytes).ok()?;
        let shown = &bytes[..bytes.len().min(64)];
        Some(format!("its key begins with the bytes {}", shown.escape_ascii()))
    }
}

fn refusal(error: &BackendError) -> Refusal<DiskError> {
    Refusal::Entry(error.to_string())
}

/// A key of a call that asks for it or deletes it.
pub(crate) struct AskedKey<'k, K> {
    pub(crate) hash: u64,
    pub(crate) key: &'k K,
}

impl<K: Hash + Eq, V: Clone> NamedKey<FileHost<'_, K, V>> for AskedKey<'_, K> {
    /// A key that cannot be encoded is in no file.
    fn encode(&self, host: &FileHost<'_, K, V>) -> Result<Option<Vec<u8>>, DiskError> {
        let mut bytes = Vec::with_capacity(64);
        Ok(host.canonical_key(self.key, &mut bytes)?.then_some(bytes))
    }

    fn is_key_of(&self, host: &FileHost<'_, K, V>, bytes: &[u8]) -> bool {
        Host::is_key_of(host, self.key, bytes)
    }

    fn to_key(&self, host: &FileHost<'_, K, V>) -> Result<K, DiskError> {
        Ok((host.clone_key)(self.key))
    }

    fn read<R>(&self, host: &FileHost<'_, K, V>, work: impl FnOnce(&Under<FileHost<'_, K, V>>) -> R) -> R {
        work(&host.inner.shard(self.hash).read())
    }

    fn address<R>(
        &self,
        host: &FileHost<'_, K, V>,
        probed: Probed,
        work: impl FnOnce(&mut Under<FileHost<'_, K, V>>, Address) -> R,
    ) -> Result<Result<R, Stale>, DiskError> {
        let mut tiered = host.inner.shard(self.hash).write();
        match tiered.shard.address(self.hash, probed, |known| known == self.key) {
            Ok(at) => Ok(Ok(work(&mut tiered, at))),
            Err(stale) => {
                // Dropped before `work` and the entry inside.
                drop(tiered);
                Ok(Err(stale))
            }
        }
    }

    fn serve_hot(&self, host: &FileHost<'_, K, V>) -> Result<Option<V>, DiskError> {
        Ok(host.inner.hot(self.hash, |known| known == self.key).ok())
    }
}
