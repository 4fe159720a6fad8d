//! The life of the temporary file, from its creation under a lock to the moment when it replaces
//! the target (file format, section 9).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{DiskError, DiskErrorKind};
use crate::folder::{create_folder, sync_parent};
use crate::format::header_page::MAGIC;
use crate::names::{aside_path, is_temp, temporary_beside};
use crate::random::random;
use crate::secret::Secret;
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::trust::Site;
use crate::vfs::{FileKind, Vfs, VfsFile, has_no_locks, not_a_file, parent_of, read_exact_at};

/// A younger temporary file may belong to a save that has created, but not yet locked the file.
const LEFTOVER_AGE: Duration = Duration::from_secs(10);
/// Where files cannot be locked, a temporary file that was not written to for this long belongs to
/// no save.
const UNLOCKED_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// The maximum number of files set aside that are not cache files.
const MOST_ASIDE: u32 = 16;

/// A file beside its target, locked, and removed when dropped unless it has replaced the target.
#[derive(Debug)]
pub(super) struct TempFile {
    /// The target.
    site: Site,
    path: PathBuf,
    /// `None` once the file was handed over.
    file: Option<Box<dyn VfsFile>>,
    installed: bool,
    /// Why the file could not be locked, if the file system has no locks.
    without_locks: Option<String>,
}

impl TempFile {
    /// Makes the target's folder if need be, clears leftovers away, and creates the file.
    pub(super) fn create(site: &Site) -> Result<Self, DiskError> {
        // A link that is not followed is the target itself, and so is set aside in the end.
        let Site { vfs, place: target, .. } = site;
        let path = temporary_beside(target, u64::from_le_bytes(random(target)?))?;
        create_folder(&**vfs, parent_of(target))?;
        refuse_what_cannot_be_replaced(&**vfs, target)?;
        sweep_leftovers(&**vfs, target);

        let created = vfs.create_new(&path);
        let file =
            created.map_err(|error| DiskError::io("creating a temporary file beside it", target, error))?;
        // Where files cannot be locked, no other process's sweep can take the lock either, so this
        // file is safe without.
        let without_locks = match file.try_lock() {
            Ok(_) => None,
            Err(error) if has_no_locks(&error) => Some(error.to_string()),
            Err(error) => {
                let _ = vfs.remove(&path);
                return Err(DiskError::io("locking the temporary file", target, error));
            }
        };
        Ok(Self { site: site.clone(), path, file: Some(file), installed: false, without_locks })
    }

    /// Why files cannot be locked in the target's folder, if they cannot.
    pub(super) fn without_locks(&self) -> Option<&str> {
        self.without_locks.as_deref()
    }

    pub(super) fn file(&self) -> io::Result<&dyn VfsFile> {
        self.file.as_deref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Steps 3 to 5 of the protocol: sync, set aside, rename, sync the folder. Returns the file,
    /// open and unlocked, and the path of the file that was set aside. With `keep`, any existing
    /// file is set aside, else only a file that this program cannot read with the secret.
    pub(super) fn install(mut self, keep: bool, secret: Option<Secret>) -> Result<Installed, DiskError> {
        let Site { vfs, place: target, .. } = &self.site;
        let synced = self.file().and_then(VfsFile::sync);
        synced.map_err(|error| DiskError::io("syncing the temporary file", target, error))?;
        let aside = match standing(&self.site, keep, secret)? {
            Standing::Replaceable => None,
            Standing::Readable => Some(set_aside(&**vfs, target)?),
            Standing::Unreadable(why) => {
                Some(set_aside(&**vfs, target).map_err(|error| match why.kind() {
                    DiskErrorKind::Trust => cannot_set_aside(target, &why, &error),
                    _ => error,
                })?)
            }
        };
        if let Err(error) = vfs.rename(&self.path, target) {
            if let Some(aside) = &aside {
                // Best effort: the file is safe in either place.
                let _ = vfs.rename(aside, target);
            }
            return Err(cannot_rename(target, error));
        }
        self.installed = true;
        sync_parent(&**vfs, target)?;
        let file = self.file.take();
        if let Some(file) = &file {
            // Best effort: the lock only keeps sweeps away, and this is not a temporary file any
            // more.
            let _ = file.unlock();
        }
        Ok(Installed { file, set_aside: aside })
    }
}

/// A file in the place of its target.
pub(super) struct Installed {
    pub(super) file: Option<Box<dyn VfsFile>>,
    /// The new path of the previous file, if it was set aside.
    pub(super) set_aside: Option<PathBuf>,
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.installed {
            // Best effort: a file that cannot be removed is a leftover, and the next save tries
            // again.
            let _ = self.site.vfs.remove(&self.path);
        }
    }
}

/// Removes the leftovers of crashed saves of the same target, never the file of a live save. Files
/// that cannot be removed stay.
pub(crate) fn sweep_leftovers(vfs: &dyn Vfs, target: &Path) {
    let (Some(name), folder) = (target.file_name(), parent_of(target)) else { return };
    for leftover in vfs.list(folder).unwrap_or_default() {
        if !is_temp(&leftover, name) {
            continue;
        }
        let path = folder.join(&leftover);
        let Ok(metadata) = vfs.metadata(&path) else { continue };
        if metadata.kind != FileKind::File || metadata.age < LEFTOVER_AGE {
            continue;
        }
        let Ok(Some(file)) = vfs.open_to_lock(&path) else { continue };
        let is_dead = match file.try_lock() {
            Ok(is_free) => is_free,
            Err(error) => has_no_locks(&error) && metadata.age >= UNLOCKED_AGE,
        };
        if is_dead {
            let _ = vfs.remove(&path);
        }
    }
}

fn refuse_what_cannot_be_replaced(vfs: &dyn Vfs, target: &Path) -> Result<(), DiskError> {
    match vfs.metadata(target) {
        Ok(metadata) if metadata.kind != FileKind::File => {
            Err(DiskError::new(DiskErrorKind::NotAFile, target, not_a_file(metadata.kind)))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(DiskError::io("looking for the file", target, error)),
    }
}

/// The state of the target.
enum Standing {
    /// No file, or a snapshot that this program could have read and need not keep.
    Replaceable,
    /// A readable snapshot that must be kept.
    Readable,
    /// A file unreadable for this program, and the reason.
    Unreadable(DiskError),
}

fn standing(site: &Site, keep: bool, secret: Option<Secret>) -> Result<Standing, DiskError> {
    match Snapshot::open_at(site, &Settings::with_secret(secret)) {
        Ok(Some(_)) if keep => Ok(Standing::Readable),
        Ok(_) => Ok(Standing::Replaceable),
        Err(error) => match error.kind() {
            DiskErrorKind::Foreign | DiskErrorKind::Damaged | DiskErrorKind::Newer | DiskErrorKind::Trust => {
                Ok(Standing::Unreadable(error))
            }
            _ => Err(error),
        },
    }
}

/// In a folder such as `/tmp`, nobody can rename another user's file.
fn cannot_set_aside(target: &Path, why: &DiskError, error: &DiskError) -> DiskError {
    let what = format!(
        "nothing was saved, for what stands there is not replaced and could not be set aside ({error}); remove it, or \
         give the cache a path in a folder of its own. It is not replaced because: {why}"
    );
    DiskError::new(DiskErrorKind::Trust, target, what)
}

/// The target could not be replaced.
fn cannot_rename(target: &Path, error: io::Error) -> DiskError {
    let doing = if is_busy(&error) {
        "renaming the temporary file to it: the file itself is a mount point, as a container has it that mounts a single \
         file, and a save replaces the file. Nothing was saved; mount the folder that the file is in instead"
    } else {
        "renaming the temporary file to it"
    };
    DiskError::io(doing, target, error)
}

/// Whether an error is EBUSY, the error of renaming or removing a mount point.
fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ResourceBusy
}

/// Renames the file at the target to a name beside it (file format, section 9, step 4), and makes
/// the rename durable before the target's name is used again.
///
/// Rules:
/// 1. The first name is taken that is free, or that belongs to a cache file set aside before: so of
///    the cache files of a path, at most a single copy is kept, however often a file is refused.
/// 2. Any other file keeps its name: it may be the only copy of its content. A free name is claimed
///    with an empty file first, so that a file created meanwhile cannot be overwritten.
/// 3. When [`MOST_ASIDE`] names are taken, the save fails.
fn set_aside(vfs: &dyn Vfs, target: &Path) -> Result<PathBuf, DiskError> {
    let doing = "setting aside what is not a cache file, or could not be read";
    for number in 1..=MOST_ASIDE {
        let aside = aside_path(target, number)?;
        let is_claimed = match vfs.create_new(&aside) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_cache_file(vfs, &aside) => false,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue, // Rule 2
            Err(error) => return Err(DiskError::io(doing, target, error)),
        };
        if let Err(error) = vfs.rename(target, &aside) {
            if is_claimed {
                let _ = vfs.remove(&aside);
            }
            return Err(if is_busy(&error) {
                cannot_rename(target, error)
            } else {
                DiskError::io(doing, target, error)
            });
        }
        return match sync_parent(vfs, target) {
            Ok(()) => Ok(aside),
            Err(error) => {
                let _ = vfs.rename(&aside, target);
                Err(error)
            }
        };
    }
    // Rule 3
    let doing = format!(
        "{doing}: {MOST_ASIDE} files that were set aside before, and are no cache files, have all its names; nothing was \
         saved; move them away, and find out what puts such files there"
    );
    Err(DiskError::io(&doing, target, io::ErrorKind::AlreadyExists.into()))
}

/// Whether the path is a file, and not a symlink, that begins as cache files do.
fn is_cache_file(vfs: &dyn Vfs, path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    vfs.metadata(path).is_ok_and(|metadata| metadata.kind == FileKind::File)
        && matches!(vfs.open_no_follow(path), Ok(Some(file)) if read_exact_at(&*file, &mut start, 0).is_ok())
        && start == MAGIC
}
