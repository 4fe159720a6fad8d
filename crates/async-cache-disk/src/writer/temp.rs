//! The temporary file's life, from its creation under a lock to the moment it takes the target's place
//! (file format, section 9).

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::random;
use crate::error::{DiskError, DiskErrorKind};
use crate::secret::Secret;
use crate::snapshot::{ReadOptions, Snapshot};
use crate::trust;
use crate::vfs::{FileKind, Vfs, VfsFile, not_a_file, parent_of};

/// A temporary file that is younger may belong to a save that has created it and not locked it yet.
const LEFTOVER_AGE: Duration = Duration::from_secs(10);
const MOST_ASIDE: u32 = 10_000;
const HEX_DIGITS: usize = 16;

/// A file beside its target, locked, and removed when dropped unless it took the target's place.
#[derive(Debug)]
pub(super) struct TempFile {
    vfs: Arc<dyn Vfs>,
    /// Where it is to be put: where the symlink leads, if one stands at the path that the user gave and is followed.
    target: PathBuf,
    path: PathBuf,
    file: Box<dyn VfsFile>,
    installed: bool,
}

impl TempFile {
    /// Makes the target's folder if need be, clears leftovers away, and creates the file.
    pub(super) fn create(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<Self, DiskError> {
        // A link that is not followed is what stands at the target, and so is set aside in the end.
        let target = &trust::follow(&**vfs, path)?.place;
        let Some(name) = target.file_name() else {
            return Err(DiskError::new(DiskErrorKind::NotAFile, target, "this path names no file"));
        };
        let folder = parent_of(target);
        create_folder(&**vfs, folder)?;
        refuse_what_cannot_be_replaced(&**vfs, target)?;
        sweep_leftovers(&**vfs, target);

        let random = u64::from_le_bytes(random(target)?);
        let mut temp_name = leftover_prefix(name);
        temp_name.push(format!("{random:016x}.tmp"));
        let path = folder.join(temp_name);
        let created = vfs.create_new(&path);
        let file =
            created.map_err(|error| DiskError::io("creating a temporary file beside it", target, error))?;
        let temp = Self { vfs: Arc::clone(vfs), target: target.clone(), path, file, installed: false };
        match temp.file.try_lock() {
            // Where files cannot be locked, nobody's sweep can take the lock either, so this file is safe without.
            Ok(_) => Ok(temp),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(temp),
            Err(error) => Err(DiskError::io("locking the temporary file", target, error)),
        }
    }

    pub(super) fn file(&self) -> &dyn VfsFile {
        &*self.file
    }

    /// Steps 3 to 5 of the protocol: sync, set aside, rename, sync the folder. Answers where a file was set aside;
    /// with `keep` that is done to whatever file stands there, else to what this program cannot read with the secret.
    pub(super) fn install(
        mut self,
        keep: bool,
        secret: Option<Secret>,
    ) -> Result<Option<PathBuf>, DiskError> {
        let target = &self.target;
        self.file.sync().map_err(|error| DiskError::io("syncing the temporary file", target, error))?;
        let aside = match standing(&self.vfs, target, keep, secret)? {
            Standing::Replaceable => None,
            Standing::Readable => Some(set_aside(&*self.vfs, target)?),
            Standing::Unreadable(why) => {
                Some(set_aside(&*self.vfs, target).map_err(|error| match why.kind() {
                    DiskErrorKind::Trust => cannot_set_aside(target, &why, &error),
                    _ => error,
                })?)
            }
        };
        if let Err(error) = self.vfs.rename(&self.path, target) {
            if let Some(aside) = &aside {
                // Best effort: the file is safe in either place.
                let _ = self.vfs.rename(aside, target);
            }
            return Err(DiskError::io("renaming the temporary file to it", target, error));
        }
        self.installed = true;
        sync_folder(&*self.vfs, &self.target)?;
        Ok(aside)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.installed {
            // Best effort: what cannot be removed is a leftover, and the next save tries again.
            let _ = self.vfs.remove(&self.path);
        }
    }
}

/// Removes what crashed saves of the same target left behind, never the file of a live one. Whatever fails, stays.
pub(crate) fn sweep_leftovers(vfs: &dyn Vfs, target: &Path) {
    let (Some(name), folder) = (target.file_name(), parent_of(target)) else { return };
    let prefix = leftover_prefix(name);
    for name in vfs.list(folder).unwrap_or_default() {
        let path = folder.join(&name);
        if is_leftover(&name, &prefix)
            && vfs.metadata(&path).is_ok_and(|it| it.kind == FileKind::File && it.age >= LEFTOVER_AGE)
            && let Ok(Some(file)) = vfs.open_no_follow(&path)
            && let Ok(true) = file.try_lock()
        {
            let _ = vfs.remove(&path);
        }
    }
}

fn leftover_prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    prefix
}

fn is_leftover(name: &OsStr, prefix: &OsStr) -> bool {
    let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
    let random = rest.and_then(|rest| rest.strip_suffix(b".tmp"));
    random.is_some_and(|random| random.len() == HEX_DIGITS && random.iter().all(u8::is_ascii_hexdigit))
}

/// Creates a folder and its parents, and makes each of them durable, or nothing in it would be.
pub(crate) fn create_folder(vfs: &dyn Vfs, folder: &Path) -> Result<(), DiskError> {
    match vfs.metadata(folder) {
        Ok(metadata) if metadata.kind == FileKind::Directory => return Ok(()),
        Ok(_) => return Err(DiskError::new(DiskErrorKind::NotAFile, folder, "this is not a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(DiskError::io("looking for the folder", folder, error)),
    }
    create_folder(vfs, parent_of(folder))?;
    match vfs.create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(DiskError::io("creating the folder", folder, error)),
    }
    sync_folder(vfs, folder)
}

fn sync_folder(vfs: &dyn Vfs, path: &Path) -> Result<(), DiskError> {
    vfs.sync_dir(parent_of(path)).map_err(|error| DiskError::io("syncing the folder it is in", path, error))
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

/// What is at the target.
enum Standing {
    /// Nothing, or a snapshot that this program could have read and need not keep.
    Replaceable,
    /// Such a snapshot, which is to be kept.
    Readable,
    /// A file that this program does not read, and why.
    Unreadable(DiskError),
}

fn standing(
    vfs: &Arc<dyn Vfs>,
    target: &Path,
    keep: bool,
    secret: Option<Secret>,
) -> Result<Standing, DiskError> {
    match Snapshot::open_with(vfs, target, &ReadOptions::new().secret(secret)) {
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

/// In a folder such as `/tmp` nobody can rename what another user has put there.
fn cannot_set_aside(target: &Path, why: &DiskError, error: &DiskError) -> DiskError {
    let what = format!(
        "nothing was saved, for what stands there is not replaced and could not be set aside ({error}); remove it, or \
         give the cache a path in a folder of its own. It is not replaced because: {why}"
    );
    DiskError::new(DiskErrorKind::Trust, target, what)
}

/// Renames what stands at the target to a name that nothing has. The name is claimed with an empty file first, so that
/// no other file can be overwritten; and made durable before the target's name is used anew.
fn set_aside(vfs: &dyn Vfs, target: &Path) -> Result<PathBuf, DiskError> {
    let doing = "setting aside what is not a cache file";
    for number in 1..=MOST_ASIDE {
        let mut name = target.as_os_str().to_owned();
        name.push(if number == 1 { ".aside".to_owned() } else { format!(".aside-{number}") });
        let aside = PathBuf::from(name);
        match vfs.create_new(&aside) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(DiskError::io(doing, target, error)),
        }
        if let Err(error) = vfs.rename(target, &aside) {
            let _ = vfs.remove(&aside);
            return Err(DiskError::io(doing, target, error));
        }
        return match sync_folder(vfs, target) {
            Ok(()) => Ok(aside),
            Err(error) => {
                let _ = vfs.rename(&aside, target);
                Err(error)
            }
        };
    }
    Err(DiskError::io(doing, target, io::ErrorKind::AlreadyExists.into()))
}
