//! The folder of a store: the names of its files, opening and creating them, and the manifest.
//!
//! Rules:
//! 1. The folder and its parent have mode 0700. A folder that another user owns or can write to is
//!    refused, and so is a file (`crate::trust`).
//! 2. A file counts if the manifest names it: with its number, file id, store id, hash seed and
//!    version tag.
//! 3. A manifest is replaced by a rename, after the new one is durable. A file is removed after the
//!    manifest that does not name it is durable.
//! 4. A manifest that has replaced another one is durable in its folder as soon as possible, before
//!    the next record is written: a segment without a manifest makes the base invalid. The names
//!    of the folder and its parent are durable after the next flush: if a power loss takes the
//!    whole folder, the base is left, as before the first write.
//! 5. A folder that was removed or replaced while the store is open is not written to, because it
//!    may be the folder of another process's store by then: no file is created, no manifest
//!    replaced, no flush succeeds. The lock file at the path tells.
//! 6. A failed sync of the folder is not repeated, because a system may count a failed write as
//!    written: the next sync would succeed, and make nothing durable. The change is made anew: a
//!    segment or a run gets another number, and the manifest is renamed again.
//!    Two exceptions: a removal, and the names of the folder and its parent, cannot be made anew.
//!    If the names cannot be synced, the flush fails, and the next flush syncs again and is
//!    believed. If the system has dropped such a name, rule 5 notices.

mod manifest;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use super::run::IndexRun;
use super::segment::{FIRST_RECORD, SegmentFile};
use crate::error::{DiskError, DiskErrorKind};
use crate::folder::{create_folder, sync_parent};
use crate::format::checksum::Seal;
use crate::format::header_page::HEADER_BYTES;
use crate::format::record::RecordForm;
use crate::format::store::header::{KindFields, StoreFileKind, StoreHeader};
use crate::format::store::manifest::{ManifestBody, RunRow, SegmentRow};
use crate::names::store_folder;
use crate::random::random;
use crate::settings::Settings;
use crate::snapshot::header_error;
use crate::trust::{Owners, Site, Trusted, is_nothing_there, refuse_folder};
use crate::vfs::{FileIdentity, ReadFailure, Vfs, VfsFile, read_exact_at, write_all_at};

use manifest::Settled;

const MANIFEST: &str = "manifest";
const LOCK: &str = "lock";

/// What all files of a store have in common.
#[derive(Debug, Clone)]
pub(super) struct StoreIds {
    pub(super) store_id: [u8; 16],
    pub(super) hash_seed: [u8; 16],
    pub(super) form: RecordForm,
}

/// A file, its header, and its length.
type StoreFile = (Box<dyn VfsFile>, StoreHeader, u64);

/// A segment, the boot id in its header, and its length.
type OpenSegment = (SegmentFile, [u8; 16], u64);

/// The folder.
#[derive(Debug)]
pub(super) struct StoreFolder {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) path: PathBuf,
    pub(super) settings: Settings,
    /// Held while a manifest is renamed and synced.
    settled: Mutex<Settled>,
    /// Rule 5: the lock file; none in a view, and where files have no identity.
    lock_file: OnceLock<FileIdentity>,
}

impl StoreFolder {
    /// The folder of the store beside a file. Nothing is created.
    pub(super) fn beside(site: &Site, settings: &Settings) -> Result<Self, DiskError> {
        let path = store_folder(&site.place, settings)?;
        Ok(Self::at(&site.vfs, path, settings))
    }

    /// The folder at a path.
    pub(super) fn at(vfs: &Arc<dyn Vfs>, path: PathBuf, settings: &Settings) -> Self {
        let (vfs, settings) = (Arc::clone(vfs), settings.clone());
        Self { vfs, path, settings, settled: Mutex::default(), lock_file: OnceLock::new() }
    }

    /// Creates what is missing of the folder, and checks what was there before (rules 1 and 4).
    /// Returns whether the folder itself was missing.
    pub(super) fn create(&self) -> Result<bool, DiskError> {
        let outer = crate::vfs::parent_of(&self.path);
        create_folder(&*self.vfs, crate::vfs::parent_of(outer))?;
        let mut was_missing = false;
        for folder in [outer, &*self.path] {
            was_missing = match self.vfs.create_private_dir(folder) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(DiskError::io("creating the folder of the store", folder, error)),
            };
            if !was_missing {
                refuse_folder(&*self.vfs, folder)?;
            }
        }
        Ok(was_missing)
    }

    /// Whether the folder has nothing but its lock file. Call it with the lock.
    pub(super) fn is_empty(&self) -> bool {
        self.vfs.list(&self.path).is_ok_and(|names| names.iter().all(|name| name == LOCK))
    }

    /// Whether there is a folder. Rule 1, unless files of any owner are to be opened.
    pub(super) fn exists(&self) -> Result<bool, DiskError> {
        match self.vfs.metadata(&self.path) {
            Ok(_) => {}
            Err(error) if is_nothing_there(&error) => return Ok(false),
            Err(error) => return Err(DiskError::io("looking for the store", &self.path, error)),
        }
        if self.settings.owners != Owners::Anybody {
            for folder in [crate::vfs::parent_of(&self.path), &*self.path] {
                refuse_folder(&*self.vfs, folder)?;
            }
        }
        Ok(true)
    }

    pub(super) fn lock_path(&self) -> PathBuf {
        self.path.join(LOCK)
    }

    /// Notes the lock file of an open store (rule 5).
    pub(super) fn note_lock(&self, lock_file: Option<FileIdentity>) {
        if let Some(lock_file) = lock_file {
            let _ = self.lock_file.set(lock_file);
        }
    }

    /// Rule 5.
    ///
    /// # Errors
    /// [`Io`](DiskErrorKind::Io): the folder is another one. An error of the system is none here.
    pub(super) fn refuse_replaced(&self) -> Result<(), DiskError> {
        let Some(lock_file) = self.lock_file.get() else { return Ok(()) };
        let is_gone = match self.vfs.metadata(&self.lock_path()) {
            Ok(metadata) => metadata.identity.is_some_and(|identity| identity != *lock_file),
            Err(error) => is_nothing_there(&error),
        };
        if !is_gone {
            return Ok(());
        }
        let what = "the folder of the store was removed or replaced while it was in use: nothing that was written \
                    to it is on file any more, and nothing more will be; open the cache anew to begin a new store";
        Err(DiskError::new(DiskErrorKind::Io, &self.path, what))
    }

    fn segment_path(&self, number: u32) -> PathBuf {
        self.path.join(format!("s{number:06x}"))
    }

    fn run_path(&self, number: u32) -> PathBuf {
        self.path.join(format!("i{number:06x}"))
    }

    /// A new header page for a file of the store.
    pub(super) fn header(
        &self,
        ids: &StoreIds,
        number: u32,
        now: u64,
        fields: KindFields,
    ) -> Result<StoreHeader, DiskError> {
        Ok(StoreHeader {
            file_id: random(&self.path)?,
            hash_seed: ids.hash_seed,
            created_at: now,
            number,
            store_id: ids.store_id,
            boot_id: self.vfs.boot_id(),
            form: ids.form,
            version: self.settings.version.clone().unwrap_or_default(),
            producer: self.settings.producer.clone(),
            fields,
        })
    }

    /// Opens a file that the manifest names and checks its header.
    fn open(&self, path: PathBuf, owners: Owners) -> Result<Option<StoreFile>, DiskError> {
        let site = Site::at(&self.vfs, path);
        let Some(trusted) = site.open(owners)? else { return Ok(None) };
        self.read_header(trusted, &site.path).map(Some)
    }

    /// The same. `None` also if something else than a file is there, or the header is invalid.
    ///
    /// # Errors
    /// [`Io`](DiskErrorKind::Io), and [`Trust`](DiskErrorKind::Trust) because of its owner: the
    /// file may be sound.
    fn open_sound(&self, path: PathBuf) -> Result<Option<StoreFile>, DiskError> {
        let site = Site::at(&self.vfs, path);
        let trusted = match site.open(self.settings.owners) {
            Ok(Some(trusted)) => trusted,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == &DiskErrorKind::NotAFile => return Ok(None),
            Err(error) => return Err(error),
        };
        match self.read_header(trusted, &site.path) {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if error.kind() == &DiskErrorKind::Io => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn read_header(&self, trusted: Trusted, path: &Path) -> Result<StoreFile, DiskError> {
        let Trusted { file, bytes } = trusted;
        let mut page = [0; HEADER_BYTES];
        let room = usize::try_from(bytes).unwrap_or(usize::MAX).min(HEADER_BYTES);
        let start = page.get_mut(..room).unwrap_or_default();
        read_exact_at(&*file, start, 0).map_err(|failure| not_read(failure, path))?;
        let start = page.get(..room).unwrap_or_default();
        let header = StoreHeader::decode(start, self.settings.secret.as_ref())
            .map_err(|fault| header_error(fault, path))?;
        Ok((file, header, bytes))
    }

    /// Whether the folder has a run, or a segment with records. Both are written only after a
    /// manifest.
    pub(super) fn has_records(&self) -> Result<bool, DiskError> {
        let looking = |error| DiskError::io("looking for the files of the store", &self.path, error);
        for name in self.vfs.list(&self.path).map_err(looking)? {
            if numbered(&name, "i").is_some() {
                return Ok(true);
            }
            if numbered(&name, "s").is_some() {
                match self.vfs.metadata(&self.path.join(&name)) {
                    Ok(metadata) if metadata.bytes > u64::from(FIRST_RECORD) => return Ok(true),
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(looking(error)),
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    /// Refuses a folder without a manifest that has records.
    ///
    /// # Errors
    /// [`Damaged`](DiskErrorKind::Damaged), and [`Io`](DiskErrorKind::Io).
    pub(super) fn refuse_records(&self) -> Result<(), DiskError> {
        if !self.has_records()? {
            return Ok(());
        }
        let what = "its manifest was removed: its records cannot be read, and may have deleted entries of the cache file, \
                    so a cache starts empty";
        Err(DiskError::new(DiskErrorKind::Damaged, &self.path, what))
    }

    /// Creates a segment, with its header page, durably: the manifest that names it may be durable
    /// before anything else is synced.
    pub(super) fn create_segment(
        &self,
        ids: &StoreIds,
        number: u32,
        now: u64,
    ) -> Result<SegmentFile, DiskError> {
        let header = self.header(ids, number, now, KindFields::Segment)?;
        let seal = header.seal(self.settings.secret.as_ref());
        let file = self.create_file(&self.segment_path(number), &header.encode(seal))?;
        let synced = file.sync().map_err(|error| DiskError::io("syncing a segment", &self.path, error));
        if let Err(error) = synced.and_then(|()| self.sync()) {
            self.remove_segment(number);
            return Err(error);
        }
        Ok(SegmentFile::new(file, number, header.file_id, seal, ids.form, FIRST_RECORD))
    }

    fn create_file(&self, path: &Path, page: &[u8; HEADER_BYTES]) -> Result<Box<dyn VfsFile>, DiskError> {
        self.refuse_replaced()?;
        let failed = |error| DiskError::io("creating a file of the store", path, error);
        let created = match self.vfs.create_new(path) {
            // A crash has left it before a manifest named it: numbers are used once.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.vfs.remove(path).and_then(|()| self.vfs.create_new(path))
            }
            created => created,
        };
        let file = created.map_err(failed)?;
        write_all_at(&*file, page, 0).map_err(|error| {
            let _ = self.vfs.remove(path);
            failed(error)
        })?;
        Ok(file)
    }

    /// Opens a segment (rule 2): the segment, the boot id in its header, and its length. `None` if
    /// it is lost.
    ///
    /// # Errors
    /// [`Io`](DiskErrorKind::Io) and [`Trust`](DiskErrorKind::Trust): the segment may be sound.
    pub(super) fn open_segment(
        &self,
        ids: &StoreIds,
        row: &SegmentRow,
    ) -> Result<Option<OpenSegment>, DiskError> {
        let opened = self.open_sound(self.segment_path(row.number))?;
        let Some((file, header, bytes)) = opened else { return Ok(None) };
        let fits =
            header.kind() == StoreFileKind::Segment && self.is_ours(&header, ids, row.number, &row.file_id);
        let seal = header.seal(self.settings.secret.as_ref());
        Ok(fits.then(|| {
            (SegmentFile::new(file, row.number, row.file_id, seal, ids.form, row.end), header.boot_id, bytes)
        }))
    }

    /// Opens a run (rule 2). `None` if it is lost.
    ///
    /// # Errors
    /// As [`open_segment`](Self::open_segment).
    pub(super) fn open_run(&self, ids: &StoreIds, row: &RunRow) -> Result<Option<IndexRun>, DiskError> {
        let opened = self.open_sound(self.run_path(row.number))?;
        let Some((file, header, bytes)) = opened else { return Ok(None) };
        let KindFields::Run(counts) = header.fields else { return Ok(None) };
        let fits = self.is_ours(&header, ids, row.number, &row.file_id) && header.end() <= bytes;
        let seal = header.seal(self.settings.secret.as_ref());
        Ok(fits.then(|| IndexRun::new(file, row.number, seal, counts)))
    }

    fn is_ours(&self, header: &StoreHeader, ids: &StoreIds, number: u32, file_id: &[u8; 16]) -> bool {
        let version = self.settings.version.as_deref().unwrap_or_default();
        header.number == number
            && header.file_id == *file_id
            && header.store_id == ids.store_id
            && header.hash_seed == ids.hash_seed
            && header.form == ids.form
            && header.version == version
    }

    /// Creates a run without a valid header page: the writer adds it when it knows the counts.
    pub(super) fn create_run(&self, number: u32) -> Result<Box<dyn VfsFile>, DiskError> {
        self.create_file(&self.run_path(number), &[0; HEADER_BYTES])
    }

    /// Removes the store's files that a manifest does not name, and unfinished manifests. Failures
    /// are left to the next opening; other files are left alone.
    pub(super) fn remove_unnamed(&self, body: &ManifestBody) {
        let Ok(names) = self.vfs.list(&self.path) else { return };
        for name in names {
            let is_leftover = if let Some(number) = numbered(&name, "s") {
                body.segments.iter().all(|row| row.number != number)
            } else if let Some(number) = numbered(&name, "i") {
                body.runs.iter().all(|row| row.number != number)
            } else {
                crate::names::is_temp(&name, MANIFEST.as_ref())
            };
            if is_leftover {
                let _ = self.vfs.remove(&self.path.join(&name));
            }
        }
    }

    /// Removes a store whose durable manifest names no file. The manifest goes only after every
    /// segment and run is gone for good, because records without a manifest make the base invalid.
    /// Failures are left to the next opening.
    pub(super) fn remove_store(&self, body: &ManifestBody, with_lock: bool) {
        self.remove_unnamed(body);
        let is_empty = self.sync().is_ok() && matches!(self.has_records(), Ok(false));
        if !is_empty || self.remove_manifest().is_err() || !with_lock {
            return;
        }
        if self.remove_unused(true) {
            let _ = sync_parent(&*self.vfs, crate::vfs::parent_of(&self.path));
        }
    }

    /// Removes the lock file, if allowed, and the folders, as far as they are empty then. Returns
    /// whether both folders are gone.
    pub(super) fn remove_unused(&self, with_lock: bool) -> bool {
        let outer = crate::vfs::parent_of(&self.path);
        with_lock && {
            let removed = self.vfs.remove(&self.lock_path()).and_then(|()| self.vfs.remove_dir(&self.path));
            // Other versions and secrets may have stores there.
            removed.and_then(|()| self.vfs.remove_dir(outer)).is_ok()
        }
    }

    /// Makes the names of files durable.
    pub(super) fn sync(&self) -> Result<(), DiskError> {
        let synced = self.vfs.sync_dir(&self.path);
        synced.map_err(|error| DiskError::io("syncing the folder of the store", &self.path, error))
    }

    /// The seal of a file with this header.
    pub(super) fn seal(&self, header: &StoreHeader) -> Seal {
        header.seal(self.settings.secret.as_ref())
    }

    /// Removes a segment that no manifest names any more.
    pub(super) fn remove_segment(&self, number: u32) {
        let _ = self.vfs.remove(&self.segment_path(number));
    }

    /// Removes a run that no manifest names any more.
    pub(super) fn remove_run(&self, number: u32) {
        let _ = self.vfs.remove(&self.run_path(number));
    }
}

/// A file that the system cannot read now may be sound.
fn not_read(failure: ReadFailure, path: &Path) -> DiskError {
    match failure {
        ReadFailure::Io(error) => DiskError::io("reading a file of the store", path, error),
        ReadFailure::Short => DiskError::new(DiskErrorKind::Damaged, path, "it is cut off"),
    }
}

/// The number in the name of a file of a kind.
fn numbered(name: &OsStr, prefix: &str) -> Option<u32> {
    name.to_str()?.strip_prefix(prefix).and_then(file_number)
}

/// The number in a file's name: six hexadecimal digits, lower case.
fn file_number(digits: &str) -> Option<u32> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (digits.len() == 6 && digits.bytes().all(is_digit)).then(|| u32::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests;
