//! Whether what stands at a path may be read, by who owns it and who can write to it: for whoever writes a cache file
//! decides what a cache serves, and in Python what code runs. `docs/trust.md` has the reasons.
//!
//! Rules:
//! 1. A file is read if this user or root owns it and nobody else can write to it. That is asked of the opened file,
//!    not of its path, so that nothing can be exchanged in between.
//! 2. A symlink is followed if others cannot have put it there: in a folder of this user or root that not everybody
//!    can write to. Links are followed one by one, here, and what is opened in the end must be none.
//! 3. A file with several names is refused where others can give it names: one of this user's other files may have
//!    been put there.
//! 4. Where there are no owners (not on Unix) everything is let through.
//! 5. What a group can write to is read with a secret, and removed without: the tags prove who wrote what is in it, and
//!    what they cannot prove (that it is the newest file) the group could undo in the folder as well, which it is trusted
//!    with. Files that everybody can write to, and other users' files, are refused also then, as such folders are.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{DiskError, DiskErrorKind};
use crate::vfs::{FileKind, Metadata, Vfs, VfsFile, not_a_file, parent_of};

/// As many links as Linux follows.
const MOST_LINKS: usize = 40;
const ROOT: u32 = 0;

/// Whose files are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Owners {
    /// Those that rules 1 and 3 let through.
    #[default]
    Trusted,
    /// These, and those that their group can write to (rule 5): for files of which every part is checked with a secret,
    /// and for files of which nothing is used.
    TrustedOrGroup,
    /// Anybody's: for tools that look at files, serve nothing and run nothing.
    Anybody,
}

/// Where a path leads.
pub(crate) struct Followed {
    /// The place of the file itself, or of the link that is not followed.
    pub(crate) place: PathBuf,
    /// Why the link at the place is not followed, if one is there.
    pub(crate) refusal: Option<DiskError>,
}

/// A file that may be read.
pub(crate) struct Trusted {
    pub(crate) file: Box<dyn VfsFile>,
    /// Its length, at least 1.
    pub(crate) bytes: u64,
}

/// Follows the symlinks that a path ends with, as far as they can be trusted. Nothing need stand where they lead.
///
/// # Errors
/// What the system reports.
pub(crate) fn follow(vfs: &dyn Vfs, path: &Path) -> Result<Followed, DiskError> {
    let mut place = path.to_owned();
    for _ in 0..MOST_LINKS {
        let link = match vfs.read_link(&place) {
            Ok(Some(link)) => link,
            Ok(None) => return Ok(Followed { place, refusal: None }),
            Err(error) if is_nothing_there(&error) => return Ok(Followed { place, refusal: None }),
            // No file can ever have such a name: it is too long, or has a NUL in it.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput) =>
            {
                return Err(DiskError::new(DiskErrorKind::NotAFile, path, error.to_string()));
            }
            Err(error) => return Err(DiskError::io("looking for the file", path, error)),
        };
        let folder = parent_of(&place).to_owned();
        if let Some(who) = who_else_may_change(vfs, &folder) {
            let what = format!(
                "it is a symlink in the folder {}, which {who}, who can make it lead to any file: it is not followed; \
                 give the cache a path in a folder that only its user can write to",
                folder.display()
            );
            return Ok(Followed { place, refusal: Some(DiskError::new(DiskErrorKind::Trust, path, what)) });
        }
        place = folder.join(link);
    }
    let what = "it leads from symlink to symlink without end; give the cache another path";
    Ok(Followed { place, refusal: Some(DiskError::new(DiskErrorKind::Trust, path, what)) })
}

/// Opens the file at a path, if it can be trusted; `None` if there is none, or an empty one.
///
/// # Errors
/// [`Trust`](DiskErrorKind::Trust), [`NotAFile`](DiskErrorKind::NotAFile) and [`Io`](DiskErrorKind::Io).
pub(crate) fn open(vfs: &dyn Vfs, path: &Path, owners: Owners) -> Result<Option<Trusted>, DiskError> {
    let followed = follow(vfs, path)?;
    if let Some(refusal) = followed.refusal {
        return Err(refusal);
    }
    let place = &followed.place;
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
    let metadata = file.metadata().map_err(|error| DiskError::io("measuring the file", path, error))?;
    refuse_other_kinds(&metadata, path)?;
    if metadata.bytes == 0 {
        return Ok(None);
    }
    match distrust(vfs, place, &metadata, owners) {
        None => Ok(Some(Trusted { file, bytes: metadata.bytes })),
        Some(what) => Err(DiskError::new(DiskErrorKind::Trust, path, what)),
    }
}

fn refuse_other_kinds(metadata: &Metadata, path: &Path) -> Result<(), DiskError> {
    match metadata.kind {
        FileKind::File => Ok(()),
        kind => Err(DiskError::new(DiskErrorKind::NotAFile, path, not_a_file(kind))),
    }
}

/// Why a file is not to be trusted, and what to do about it.
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
    let who = if ownership.links > 1 { who_else_may_change(vfs, parent_of(place)) } else { None };
    who.map(|who| {
        format!(
            "it has {} names and is in a folder which {who}: it may be another file of yours that was put there; give \
             the cache a path in a folder that only its user can write to",
            ownership.links
        )
    })
}

/// Who but this user and root can put files into a folder: everybody, or its owner. A group is trusted, for many
/// systems give every user a group of their own.
fn who_else_may_change(vfs: &dyn Vfs, folder: &Path) -> Option<String> {
    // What cannot be looked at, nothing can be opened in either.
    let (ownership, user) = (vfs.metadata(folder).ok()?.ownership?, vfs.user()?);
    if ownership.mode & 0o002 != 0 {
        return Some("everybody can write to".to_owned());
    }
    let is_ours = ownership.owner == user || ownership.owner == ROOT;
    (!is_ours).then(|| format!("user {} owns", ownership.owner))
}

fn is_nothing_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
