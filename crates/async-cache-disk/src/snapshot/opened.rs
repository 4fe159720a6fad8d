//! An opened file, and reading bytes of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::damage::{Damage, DamageLog};
use super::moved::Ranks;
use crate::compress::Dictionary;
use crate::format::address::KeyHasher;
use crate::format::checksum::{CHECKSUM_BYTES, Seal, TAG_BYTES};
use crate::format::header::Header;
use crate::format::page::PAGE_BYTES;
use crate::tombstones::Tombstones;
use crate::vfs::{Patience, ReadFailure, VfsFile};

/// Units up to this length are read as a whole before they are checked.
const UNCHECKED_BYTES: usize = 16 << 20;
/// Longer units are checked first, in pieces of this length.
const PIECE_BYTES: usize = 1 << 20;

/// An opened cache file. Clones are cheap and share the file; all reads take `&self`. A snapshot
/// with ranks of its own contains the entries that have moved into this file from an earlier file
/// (`moved.rs`).
#[derive(Clone)]
pub struct Snapshot(Arc<OpenedFile>, Option<Arc<Ranks>>);

struct OpenedFile {
    file: Box<dyn VfsFile>,
    path: PathBuf,
    file_bytes: u64,
    header: Header,
    seal: Seal,
    hasher: KeyHasher,
    damage: Arc<DamageLog>,
    /// Read when the first value needs it; `None` inside if the file has no valid dictionary.
    dictionary: OnceLock<Option<Arc<Dictionary>>>,
}

impl Snapshot {
    /// A file whose header was read. `ranks` names the entries that have moved into the file.
    pub(super) fn new(
        file: Box<dyn VfsFile>,
        path: PathBuf,
        file_bytes: u64,
        header: Header,
        seal: Seal,
        ranks: Option<Ranks>,
    ) -> Self {
        let inner = OpenedFile {
            file,
            path,
            file_bytes,
            seal,
            hasher: KeyHasher::new(&header.hash_seed),
            damage: Arc::default(),
            dictionary: OnceLock::new(),
            header,
        };
        Self(Arc::new(inner), ranks.map(Arc::new))
    }

    /// The entries named by `ranks`, in a file just written by this program.
    pub(crate) fn written(
        file: Box<dyn VfsFile>,
        path: PathBuf,
        header: Header,
        seal: Seal,
        ranks: Ranks,
    ) -> Self {
        Self::new(file, path, header.end, header, seal, Some(ranks))
    }

    /// The ranks of a file into which no entry of this snapshot has moved yet.
    pub(crate) fn no_ranks(&self) -> Ranks {
        let damage = Arc::clone(self.damage_log());
        Ranks::none_of(damage, *self.hasher(), self.header().buckets, self.len())
    }

    /// The number of entries, including damaged entries; for a snapshot that has moved, the number
    /// when it was first opened. Ranks go from 0, the coldest, to one below this number.
    pub fn len(&self) -> u32 {
        self.1.as_ref().map_or(self.0.header.entries, |ranks| ranks.count())
    }

    /// The rank known to the user of the entry with the rank `here` in the file; `None` if the
    /// entry is not in this snapshot.
    pub(crate) fn known_rank(&self, here: u32) -> Option<u32> {
        match &self.1 {
            None => Some(here),
            Some(ranks) => ranks.old(here),
        }
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the snapshot was taken, in nanoseconds since the Unix epoch, by the clock of that time.
    pub fn saved_at(&self) -> u64 {
        self.0.header.saved_at
    }

    /// No write and no delete in the file has a later time, in nanoseconds since the Unix epoch;
    /// zero if the file has no times of writing.
    pub fn written_until(&self) -> u64 {
        self.0.header.written_until
    }

    /// The size of the file in bytes, when it was opened.
    pub fn file_bytes(&self) -> u64 {
        self.0.file_bytes
    }

    /// The tag that names the shape of the user's data.
    pub fn version(&self) -> &str {
        &self.0.header.version
    }

    /// A description of the writing program.
    pub fn producer(&self) -> &str {
        &self.0.header.producer
    }

    /// Distinguishes this file from every other file, including older and newer files at the same
    /// path.
    pub fn file_id(&self) -> [u8; 16] {
        self.0.header.file_id
    }

    /// Whether the file was written with a secret, so that every read part is checked against
    /// forgery.
    pub fn has_mac(&self) -> bool {
        self.seal().has_mac()
    }

    /// Whether values in the file may be compressed.
    pub fn is_compressed(&self) -> bool {
        self.header().form.may_compress
    }

    /// The size of the compression dictionary in bytes; 0 if there is none.
    pub fn dictionary_bytes(&self) -> u64 {
        self.header().dictionary_section.map_or(0, |section| section.bytes)
    }

    /// How many entries have a deadline.
    pub fn deadline_count(&self) -> u32 {
        self.0.header.deadlines
    }

    /// The path at which the file was opened.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The unreadable and invalid units so far.
    pub fn damage(&self) -> Damage {
        self.0.damage.so_far()
    }

    /// Whether there are eager records: entries outside look-ups, [`len`](Self::len) and
    /// [`records`](Self::records). Read all of them with [`eager`](Self::eager).
    pub fn has_eager(&self) -> bool {
        self.0.header.eager_section.is_some()
    }

    /// The size of the eager records in bytes. Their number is not in the file.
    pub fn eager_bytes(&self) -> u64 {
        self.0.header.eager_section.map_or(0, |section| section.bytes)
    }

    /// The tombstones. If they cannot be read or do not verify, everything written before the file
    /// may have been deleted.
    pub fn tombstones(&self) -> Tombstones {
        self.read_tombstones().unwrap_or_else(|| Tombstones::unknown(self.saved_at()))
    }

    /// `None` if they cannot be read.
    pub(crate) fn read_tombstones(&self) -> Option<Tombstones> {
        let Some(section) = self.0.header.tombstone_section else { return Some(Tombstones::default()) };
        let len = usize::try_from(section.bytes).ok()?;
        if !self.may_be_held(section.offset, len) {
            return None;
        }
        let mut bytes = vec![0; len];
        if !self.read(&mut bytes, section.offset) {
            return None;
        }
        Tombstones::decode(self.seal().open(section.offset, &bytes)?)
    }

    pub(super) fn damage_log(&self) -> &Arc<DamageLog> {
        &self.0.damage
    }

    /// The ranks of the entries that have moved into this file, if the snapshot has moved.
    pub(super) fn ranks(&self) -> Option<&Ranks> {
        self.1.as_deref()
    }

    /// Where the dictionary is kept once it was read.
    pub(super) fn dictionary_cell(&self) -> &OnceLock<Option<Arc<Dictionary>>> {
        &self.0.dictionary
    }

    pub(crate) fn header(&self) -> &Header {
        &self.0.header
    }

    pub(crate) fn seal(&self) -> Seal {
        self.0.seal
    }

    pub(crate) fn hasher(&self) -> &KeyHasher {
        &self.0.hasher
    }

    pub(crate) fn bucket_offset(&self, bucket: u32) -> u64 {
        page_offset(self.0.header.index_section.offset, bucket)
    }

    pub(crate) fn deadline_page_offset(&self, page: u32) -> u64 {
        page_offset(self.0.header.deadline_section.offset, page)
    }

    /// Whether a unit of this length may be read as a whole: it is short, or it was found to be
    /// valid piece by piece. A length that a file claims, and that its holes make room for, must
    /// not become memory (rule 4).
    pub(crate) fn may_be_held(&self, offset: u64, len: usize) -> bool {
        len <= UNCHECKED_BYTES || self.is_sound(offset, len).unwrap_or(false)
    }

    fn is_sound(&self, offset: u64, len: usize) -> Option<bool> {
        let tag_bytes = self.seal().tag_bytes();
        let end = offset.checked_add(len as u64)?;
        let tag_at = end.checked_sub(tag_bytes as u64)?;
        let mut place = offset.checked_add(CHECKSUM_BYTES as u64)?;
        let (mut checksum, mut tag) = ([0; CHECKSUM_BYTES], [0; TAG_BYTES]);
        let tag = tag.get_mut(..tag_bytes)?;
        if !self.read(&mut checksum, offset) || !self.read(tag, tag_at) {
            return None;
        }
        let (mut check, mut piece) = (self.seal().check(offset), vec![0; PIECE_BYTES]);
        while place < tag_at {
            let left = usize::try_from(tag_at.saturating_sub(place)).unwrap_or(PIECE_BYTES);
            let piece = piece.get_mut(..left.min(PIECE_BYTES))?;
            if !self.read(piece, place) {
                return None;
            }
            check.update(piece);
            place = place.saturating_add(piece.len() as u64);
        }
        Some(check.matches(checksum, tag))
    }

    /// The number of the first page of a section, from `page` on, that is not completely in a hole;
    /// `count` if there is none. Called after a page that does not verify, so that large holes cost
    /// no time.
    pub(crate) fn skip_hole(&self, section: u64, page: u32, count: u32) -> u32 {
        let Ok(data) = self.0.file.data_from(page_offset(section, page)) else { return page };
        let pages = data.saturating_sub(section).checked_div(PAGE_BYTES as u64).unwrap_or(0);
        u32::try_from(pages).unwrap_or(u32::MAX).clamp(page.min(count), count)
    }

    /// Fills the buffer from the file; `false`, and counted, if the system reports an error or the
    /// file is too short.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> bool {
        self.read_with(&Patience::unlimited(), buffer, offset)
    }

    /// The same; `false`, and not counted, also if the read would wait.
    pub(super) fn read_with(&self, patience: &Patience, buffer: &mut [u8], offset: u64) -> bool {
        match patience.read_exact_at(&*self.0.file, buffer, offset) {
            Ok(()) => true,
            Err(ReadFailure::Short) => false,
            Err(ReadFailure::Io(_)) => {
                self.0.damage.count_io_error();
                false
            }
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Snapshot");
        debug.field("path", &self.0.path).field("len", &self.len()).field("damage", &self.damage());
        debug.finish_non_exhaustive()
    }
}

/// The position of page number `page` of a section; both were checked against the file's length at
/// open.
fn page_offset(section: u64, page: u32) -> u64 {
    u64::from(page).saturating_mul(PAGE_BYTES as u64).saturating_add(section)
}
