//! The manifest of a store: reading and replacing it, and how durable it is.
//!
//! The rules are those of `folder`.

use std::io;
use std::path::PathBuf;

use super::super::guards::lock;
use super::{MANIFEST, StoreFile, StoreFolder, StoreIds, not_read};
use crate::error::{DiskError, DiskErrorKind};
use crate::folder::sync_parent;
use crate::format::header_page::HEADER_BYTES;
use crate::format::store::header::{KindFields, StoreHeader};
use crate::format::store::manifest::ManifestBody;
use crate::random::random;
use crate::trust::Site;
use crate::vfs::{read_exact_at, write_all_at};

/// A manifest is read into memory. With 2^20 segments it has 64 MiB.
const MOST_MANIFEST_BYTES: u64 = 1 << 28;

/// The texts in the header page of a manifest.
pub(crate) struct StoreLabels {
    pub(crate) version: String,
    pub(crate) producer: String,
}

/// How durable the latest manifest is (rule 4).
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// A manifest was replaced; the manifest, or a name, may not be durable.
    is_owed: bool,
    /// The latest manifest, if the folder could not be synced since the rename (rule 6).
    unsynced: Option<Vec<u8>>,
    /// The names of the folder and its parent are durable.
    is_name_durable: bool,
}

impl StoreFolder {
    /// The labels of the manifest; `None` if there is no manifest.
    ///
    /// # Errors
    /// Those of [`read_manifest`](Self::read_manifest).
    pub(crate) fn labels(&self) -> Result<Option<StoreLabels>, DiskError> {
        let opened = self.open_manifest()?;
        Ok(opened.map(|(_, StoreHeader { version, producer, .. }, _)| StoreLabels { version, producer }))
    }

    fn manifest_path(&self) -> PathBuf {
        self.path.join(MANIFEST)
    }

    fn open_manifest(&self) -> Result<Option<StoreFile>, DiskError> {
        let path = self.manifest_path();
        if let Some(opened) = self.open(path.clone(), self.settings.owners)? {
            return Ok(Some(opened));
        }
        match self.vfs.metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::io("looking for the manifest of the store", &path, error)),
            Ok(_) => Err(DiskError::new(DiskErrorKind::Damaged, &path, "it is empty")),
        }
    }

    /// Why the manifest is not trusted because of its owner, if it is not.
    ///
    /// # Errors
    /// The reason, and [`Io`](DiskErrorKind::Io).
    pub(crate) fn refuse_owner_of_manifest(&self) -> Result<(), DiskError> {
        Site::at(&self.vfs, self.manifest_path()).open(self.settings.owners).map(drop)
    }

    /// The manifest and what it says of all files; `None` if there is none.
    ///
    /// # Errors
    /// Those of [`CacheFile::open`](crate::CacheFile::open): then there is no store.
    pub(crate) fn read_manifest(&self) -> Result<Option<(StoreIds, ManifestBody)>, DiskError> {
        let path = self.manifest_path();
        let damaged = |what: &str| DiskError::new(DiskErrorKind::Damaged, &path, what);
        let Some((file, header, bytes)) = self.open_manifest()? else { return Ok(None) };
        let KindFields::Manifest { body_bytes } = header.fields else {
            return Err(damaged("it is another file of the store"));
        };
        if header.version != self.settings.version.as_deref().unwrap_or_default() {
            return Err(damaged("its version tag is not that of its folder"));
        }
        if header.end() > bytes || body_bytes > MOST_MANIFEST_BYTES {
            return Err(damaged("it is cut off"));
        }
        let mut unit = vec![0; usize::try_from(body_bytes).unwrap_or(0)];
        read_exact_at(&*file, &mut unit, HEADER_BYTES as u64).map_err(|failure| not_read(failure, &path))?;
        let seal = header.seal(self.settings.secret.as_ref());
        let body = ManifestBody::decode(seal, &unit).map_err(damaged)?;
        let StoreHeader { store_id, hash_seed, form, .. } = header;
        Ok(Some((StoreIds { store_id, hash_seed, form }, body)))
    }

    /// Replaces the manifest (rules 3 and 4). If the folder cannot be synced, the manifest counts
    /// all the same, and [`settle`](Self::settle) tries again to make it durable.
    ///
    /// # Errors
    /// The manifest was not replaced.
    pub(crate) fn replace_manifest(
        &self,
        ids: &StoreIds,
        body: &ManifestBody,
        now: u64,
    ) -> Result<(), DiskError> {
        self.refuse_replaced()?;
        let target = self.manifest_path();
        let mut header = self.header(ids, 0, now, KindFields::Manifest { body_bytes: 0 })?;
        let seal = header.seal(self.settings.secret.as_ref());
        let unit = body.encode(seal).map_err(|what| DiskError::new(DiskErrorKind::Limit, &target, what))?;
        header.fields = KindFields::Manifest { body_bytes: unit.len() as u64 };
        let bytes = [&header.encode(seal)[..], &unit].concat();
        let mut settled = lock(&self.settled);
        self.rename_to_manifest(&bytes)?;
        settled.is_owed = true;
        if self.sync().is_ok() {
            (settled.unsynced, settled.is_owed) = (None, !settled.is_name_durable);
        } else {
            settled.unsynced = Some(bytes);
        }
        Ok(())
    }

    /// Writes a manifest durably, and renames it. The rename is not durable.
    fn rename_to_manifest(&self, bytes: &[u8]) -> Result<(), DiskError> {
        let target = self.manifest_path();
        let temporary = crate::names::temporary_beside(&target, u64::from_le_bytes(random(&target)?))?;
        let written = self.vfs.create_new(&temporary).and_then(|file| {
            write_all_at(&*file, bytes, 0)?;
            file.sync()?;
            self.vfs.rename(&temporary, &target)
        });
        written.map_err(|error| {
            let _ = self.vfs.remove(&temporary);
            DiskError::io("replacing the manifest of the store", &target, error)
        })
    }

    /// Makes the latest manifest durable in its folder (rule 4), if it is not.
    ///
    /// # Errors
    /// The manifest is not known to be durable; the next call tries again.
    pub(crate) fn sync_manifest(&self) -> Result<(), DiskError> {
        self.sync_renamed(&mut lock(&self.settled))
    }

    /// Rule 6.
    fn sync_renamed(&self, settled: &mut Settled) -> Result<(), DiskError> {
        let Some(bytes) = &settled.unsynced else { return Ok(()) };
        self.refuse_replaced()?;
        self.rename_to_manifest(bytes)?;
        self.sync()?;
        settled.unsynced = None;
        Ok(())
    }

    /// Whether [`settle`](Self::settle) has something to do.
    pub(crate) fn is_unsettled(&self) -> bool {
        lock(&self.settled).is_owed
    }

    /// Makes the latest manifest durable, and the names of the folder and its parent, if they are
    /// not.
    ///
    /// # Errors
    /// The manifest or a name is not known to be durable; the next call tries again.
    pub(crate) fn settle(&self) -> Result<(), DiskError> {
        let mut settled = lock(&self.settled);
        if !settled.is_owed {
            return Ok(());
        }
        self.sync_renamed(&mut settled)?;
        if !settled.is_name_durable {
            sync_parent(&*self.vfs, &self.path)?;
            sync_parent(&*self.vfs, crate::vfs::parent_of(&self.path))?;
            settled.is_name_durable = true;
        }
        settled.is_owed = false;
        Ok(())
    }

    /// Removes the manifest: then there is no store.
    pub(crate) fn remove_manifest(&self) -> Result<(), DiskError> {
        lock(&self.settled).unsynced = None; // Nothing brings it back.
        let path = self.manifest_path();
        match self.vfs.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DiskError::io("removing the manifest of the store", &path, error))
            }
            _ => sync_parent(&*self.vfs, &path),
        }
    }
}
