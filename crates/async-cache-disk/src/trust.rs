//! Decides whether the file at a path may be read, by its owner and by the users with write access.
//! The writer of a cache file decides which values a cache serves, and in Python which code runs.
//! `docs/trust.md` has the reasons.
//!
//! Rules:
//! 1. A file is read if this user or root owns it and no other user can write to it. The check is
//!    on the opened file, not on its path, so that nothing can be exchanged in between.
//! 2. A symlink is followed if other users cannot have put it there: its folder belongs to this
//!    user or root, and not everybody can write to the folder. Links are followed here, step by
//!    step, and the file opened in the end must not be a link.
//! 3. A file with several names is refused where others can give it names: another file of this
//!    user may have been put there.
//! 4. Where the system has no owners (not on Unix), every file is read.
//! 5. A file that its group can write to is read with a secret, and refused without a secret. The
//!    tags prove who wrote the contents. They do not prove that the file is the newest, but the
//!    group could put an old file into the folder just as well, and the folder's group is trusted.
//!    Files that everybody can write to, and other users' files, are refused even with a secret,
//!    because such folders are refused too.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{DiskError, DiskErrorKind};
use crate::vfs::{FileKind, Metadata, Vfs, VfsFile, not_a_file, parent_of};

/// As many links as Linux follows.
const MOST_LINKS: usize = 40;
const ROOT: u32 = 0;

/// The owners whose files are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Owners {
    /// Files accepted by rules 1 and 3.
    #[default]
    Trusted,
    /// The same, and files writable by their group (rule 5): for files checked with a secret in
    /// every part, and for files with unused contents.
    TrustedOrGroup,
    /// All files: for tools that inspect files, and serve and run nothing.
    Anybody,
}

/// A path and its target, with symlinks resolved once. Every step of an operation uses the same
/// place: the lock, the file that is read, the temporary file and the rename belong to the same
/// file.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) vfs: Arc<dyn Vfs>,
    /// The path as the user gave it. Errors name it.
    pub(crate) path: PathBuf,
    /// The place of the file itself, or of the link that is not followed.
    pub(crate) place: PathBuf,
    /// Why the link at the place is not followed, if there is a link.
    refusal: Option<String>,
}

/// A file that may be read.
pub(crate) struct Trusted {
    pub(crate) file: Box<dyn VfsFile>,
    /// Its length, at least 1.
    pub(crate) bytes: u64,
}

impl Site {
    /// Follows the symlinks at the end of a path, as far as they can be trusted. The place may be
    /// empty.
    ///
    /// # Errors
    /// [`NotAFile`](DiskErrorKind::NotAFile) if no file can have the path, and
    /// [`Io`](DiskErrorKind::Io).
    pub(crate) fn resolve(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<Self, DiskError> {
        let site = |place, refusal| Self { vfs: Arc::clone(vfs), path: path.to_owned(), place, refusal };
        let mut place = path.to_owned();
        for _ in 0..MOST_LINKS {
            let link = match vfs.read_link(&place) {
                Ok(Some(link)) => link,
                Ok(None) => return Ok(site(place, None)),
                Err(error) if is_nothing_there(&error) => return Ok(site(place, None)),
                // No file can ever have such a name: it is too long, or contains a NUL.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput
                    ) =>
                {
                    return Err(DiskError::new(DiskErrorKind::NotAFile, path, error.to_string()));
                }
                Err(error) => return Err(DiskError::io("looking for the file", path, error)),
            };
            let folder = parent_of(&place).to_owned();
            // Rule 2
            if let Some(reason) = why_others_may_change(&**vfs, &folder) {
                let what = format!(
                    "it is a symlink in the folder {}, which {reason}, who can make it lead to any file: it is not \
                     followed; give the cache a path in a folder that only its user can write to",
                    folder.display()
                );
                return Ok(site(place, Some(what)));
            }
            place = folder.join(link);
        }
        let what = "it leads from symlink to symlink without end; give the cache another path";
        Ok(site(place, Some(what.to_owned())))
    }

    /// A path that is not followed if it is a symlink: for files in a folder that only this user
    /// can change.
    pub(crate) fn at(vfs: &Arc<dyn Vfs>, path: PathBuf) -> Self {
        Self { vfs: Arc::clone(vfs), place: path.clone(), path, refusal: None }
    }

    /// Opens the file at the place, if it can be trusted; `None` if there is no file, or an empty
    /// file.
    ///
    /// # Errors
    /// [`Trust`](DiskErrorKind::Trust), [`NotAFile`](DiskErrorKind::NotAFile) and
    /// [`Io`](DiskErrorKind::Io).
    pub(crate) fn open(&self, owners: Owners) -> Result<Option<Trusted>, DiskError> {
        let Self { vfs, path, place, refusal } = self;
        if let Some(refusal) = refusal {
            return Err(DiskError::new(DiskErrorKind::Trust, path, refusal.clone()));
        }
        match vfs.metadata(place) {
            Ok(metadata) => refuse_other_kinds(&metadata, path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DiskError::io("looking for the file", path, error)),
        }
        let file = match vfs.open_no_follow(place) {
            Ok(Some(file)) => file,
            Ok(None) => {
                let what = "a symlink took its place while it was opened; open it again";
                return Err(DiskError::new(DiskErrorKind::Trust, path, what));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DiskError::io("opening the file", path, error)),
        };
        // Rule 1: the opened file is asked.
        let metadata = file.metadata().map_err(|error| DiskError::io("measuring the file", path, error))?;
        refuse_other_kinds(&metadata, path)?;
        if metadata.bytes == 0 {
            return Ok(None);
        }
        match distrust(&**vfs, place, &metadata, owners) {
            None => Ok(Some(Trusted { file, bytes: metadata.bytes })),
            Some(what) => Err(DiskError::new(DiskErrorKind::Trust, path, what)),
        }
    }
}

fn refuse_other_kinds(metadata: &Metadata, path: &Path) -> Result<(), DiskError> {
    match metadata.kind {
        FileKind::File => Ok(()),
        kind => Err(DiskError::new(DiskErrorKind::NotAFile, path, not_a_file(kind))),
    }
}

/// Refuses a folder that another user owns or can write to, and a symlink.
///
/// # Errors
/// [`Trust`](DiskErrorKind::Trust), [`NotAFile`](DiskErrorKind::NotAFile) and
/// [`Io`](DiskErrorKind::Io).
pub(crate) fn refuse_folder(vfs: &dyn Vfs, folder: &Path) -> Result<(), DiskError> {
    let looking = |error| DiskError::io("looking at the folder of the store", folder, error);
    if vfs.read_link(folder).map_err(looking)?.is_some() {
        let what = "it is a symlink where the folder of the store is to be; remove it";
        return Err(DiskError::new(DiskErrorKind::Trust, folder, what));
    }
    let metadata = vfs.metadata(folder).map_err(looking)?;
    if metadata.kind != FileKind::Directory {
        return Err(DiskError::new(DiskErrorKind::NotAFile, folder, "this is not a directory"));
    }
    let (Some(ownership), Some(user)) = (metadata.ownership, vfs.user()) else { return Ok(()) };
    if ownership.owner != user && ownership.owner != ROOT {
        let what = format!(
            "user {} owns it, and this program runs as user {user}: who owns a store decides what the cache serves; \
             remove it, or give the cache another path",
            ownership.owner
        );
        return Err(DiskError::new(DiskErrorKind::Trust, folder, what));
    }
    if ownership.mode & 0o022 != 0 {
        let what = format!(
            "others can write to it (mode {:04o}): who can write to a store decides what the cache serves; if nobody \
             did, `chmod 700` it",
            ownership.mode & 0o777
        );
        return Err(DiskError::new(DiskErrorKind::Trust, folder, what));
    }
    Ok(())
}

/// Why a file is not trusted, and the remedy.
fn distrust(vfs: &dyn Vfs, place: &Path, file: &Metadata, owners: Owners) -> Option<String> {
    let others_write = match owners {
        Owners::Trusted => 0o022,
        Owners::TrustedOrGroup => 0o002, // Rule 5
        Owners::Anybody => return None,
    };
    let (ownership, user) = (file.ownership?, vfs.user()?);
    let (owner, mode) = (ownership.owner, ownership.mode & 0o777);
    if owner != user && owner != ROOT {
        return Some(format!(
            "user {owner} owns it, and this program runs as user {user}: who owns a cache file decides what the cache \
             serves; if it is yours, `chown {user}` it, else the next save sets it aside"
        ));
    }
    if mode & others_write != 0 {
        let secret = if mode & 0o002 == 0 { ", or give the cache a secret" } else { "" };
        return Some(format!(
            "others can write to it (mode {mode:04o}): who can write to a cache file decides what the cache serves; \
             if nobody did, `chmod 600` it{secret}, else the next save sets it aside"
        ));
    }
    // Rule 3
    let reason = if ownership.links > 1 { why_others_may_change(vfs, parent_of(place)) } else { None };
    reason.map(|reason| {
        format!(
            "it has {} names and is in a folder which {reason}: it may be another file of yours that was put there; give \
             the cache a path in a folder that only its user can write to",
            ownership.links
        )
    })
}

/// The users besides this user and root that can put files into a folder: everybody, or the
/// folder's owner. A group is trusted, because many systems give every user a group of their own.
fn why_others_may_change(vfs: &dyn Vfs, folder: &Path) -> Option<String> {
    // In a folder without read access, nothing can be opened either.
    let (ownership, user) = (vfs.metadata(folder).ok()?.ownership?, vfs.user()?);
    if ownership.mode & 0o002 != 0 {
        return Some("everybody can write to".to_owned());
    }
    let is_ours = ownership.owner == user || ownership.owner == ROOT;
    (!is_ours).then(|| format!("user {} owns", ownership.owner))
}

/// Whether an error means that nothing has the path.
pub(crate) fn is_nothing_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
