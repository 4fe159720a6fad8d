//! Opening a file: reads and checks only its header page.

use std::path::Path;

use super::opened::Snapshot;
use crate::error::{DiskError, DiskErrorKind};
use crate::format::checksum::Seal;
use crate::format::header::Header;
use crate::format::header_page::{HEADER_BYTES, HeaderFault};
use crate::secret::Secret;
use crate::settings::Settings;
use crate::trust::{Owners, Site, Trusted};
use crate::vfs::{ReadFailure, VfsFile, read_exact_at};

impl Snapshot {
    /// Opens the snapshot at a place, if the settings accept the snapshot.
    ///
    /// # Errors
    /// Those of [`CacheFile::open`](crate::CacheFile::open).
    pub(crate) fn open_at(site: &Site, settings: &Settings) -> Result<Option<Self>, DiskError> {
        let (path, secret) = (&*site.path, settings.secret.as_ref());
        let owners = match settings.owners {
            // Without a tag made with this secret the header is refused, and so is every other
            // part.
            Owners::Trusted if secret.is_some() => Owners::TrustedOrGroup,
            owners => owners,
        };
        let Some(Trusted { file, bytes: file_bytes }) = site.open(owners)? else {
            return Ok(None);
        };
        let ends = if settings.may_be_cut { Ends::Anywhere } else { Ends::BehindAll };
        let header = read_header(&*file, file_bytes, ends, path, secret)?;
        if let Some(wanted) = settings.version.as_ref().filter(|wanted| **wanted != header.version) {
            let (found, wanted) = (header.version, wanted.clone());
            let what = format!("it holds data of version {found:?}, and {wanted:?} is wanted");
            return Err(DiskError::new(DiskErrorKind::OtherVersion { found, wanted }, path, what));
        }
        let seal = Seal::new(&header.file_id, secret);
        Ok(Some(Self::new(file, path.to_owned(), file_bytes, header, seal, None)))
    }
}

/// The permitted ends of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// After all sections named in the header.
    BehindAll,
    /// Anywhere after the header: the file may have been cut.
    Anywhere,
}

/// Reads and checks the header page of a file that is not empty.
pub(crate) fn read_header(
    file: &dyn VfsFile,
    file_bytes: u64,
    ends: Ends,
    path: &Path,
    secret: Option<&Secret>,
) -> Result<Header, DiskError> {
    let mut page = [0; HEADER_BYTES];
    let len = usize::try_from(file_bytes).unwrap_or(HEADER_BYTES).min(HEADER_BYTES);
    let page = page.get_mut(..len).unwrap_or_default();
    match read_exact_at(file, page, 0) {
        Ok(()) => {}
        Err(ReadFailure::Short) => {
            return Err(DiskError::new(DiskErrorKind::Damaged, path, "the file shrank while it was opened"));
        }
        Err(ReadFailure::Io(error)) => return Err(DiskError::io("reading the header", path, error).at(0)),
    }
    let room = if ends == Ends::Anywhere { u64::MAX } else { file_bytes };
    Header::decode(page, room, secret).map_err(|fault| header_error(fault, path))
}

/// The error for a header page that is refused.
pub(crate) fn header_error(fault: HeaderFault, path: &Path) -> DiskError {
    let (kind, what) = match fault {
        HeaderFault::Foreign => (DiskErrorKind::Foreign, "this is not a cache file".to_owned()),
        HeaderFault::Damaged(why) => (DiskErrorKind::Damaged, format!("the header is damaged: {why}")),
        HeaderFault::NewerVersion(version) => {
            (DiskErrorKind::Newer, format!("a newer program wrote it, in format version {version}"))
        }
        HeaderFault::UnknownFeatures(bits) => {
            (DiskErrorKind::Newer, format!("it needs features that this program lacks (bits {bits:#x})"))
        }
        HeaderFault::NoMac => (DiskErrorKind::Trust, WITHOUT_SECRET.to_owned()),
        HeaderFault::NeedsSecret => (DiskErrorKind::Trust, WITH_SECRET.to_owned()),
        HeaderFault::WrongTag => (DiskErrorKind::Trust, WITH_OTHER_SECRET.to_owned()),
    };
    DiskError::new(kind, path, what)
}

const WITHOUT_SECRET: &str = "it was written without a secret, and a secret was given: anybody who can write to the \
    folder may have made it; open it without the secret if you trust it, else the next save sets it aside";
const WITH_SECRET: &str = "it was written with a secret, and none was given: what is in it cannot be checked; give the \
    secret, else the next save sets it aside";
const WITH_OTHER_SECRET: &str = "it was written with another secret, or was changed by somebody who does not know the \
    secret; give the secret that it was written with, else the next save sets it aside";
