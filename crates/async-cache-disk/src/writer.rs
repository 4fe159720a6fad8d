//! Saving: records are written as they are pushed, then the index, the deadlines, the eager
//! records, and finally the header; then the temporary file replaces the target. The protocol is in
//! section 9 of the file format; `temp.rs` implements the protocol.
//!
//! Rules:
//! 1. Until [`Writer::finish`] has renamed the temporary file, the target is not touched, and only
//!    the writer knows the temporary file.
//! 2. After any error except [`Limit`](DiskErrorKind::Limit) the temporary file is removed and the
//!    writer is unusable; dropping the writer also removes the file.
//! 3. Memory: 16 bytes an entry, 16 a deadline, a buffer of 1 MiB, and while finishing the index
//!    (17 bytes an entry); also all eager records, of which few caches have many (`eager.rs`).
//! 4. The position of a record is not final before the first buffer is flushed: compression
//!    reassembles the buffered records (`pack.rs`).
// The writer reads no file. Its offsets and lengths are its own: `Writer::make_room` keeps them
// below the limits of the format.
#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod eager;
mod index;
mod options;
mod pack;
mod repack;
mod temp;

use std::fmt;
use std::path::PathBuf;

use crate::error::{DiskError, DiskErrorKind};
use crate::format::address::{KeyHasher, bucket_count};
use crate::format::checksum::{CHECKSUM_BYTES, Seal};
use crate::format::header::{Header, MAX_FILE_BYTES, MAX_RECORDS, Section};
use crate::format::header_page::{HEADER_BYTES, MAX_LABEL_BYTES};
use crate::format::page::{PAGE_BYTES, page_items, put_due};
use crate::format::record::{RecordForm, RecordHead, Times};
use crate::random::random;
use crate::secret::Secret;
use crate::settings::Settings;
use crate::snapshot::{Ranks, Record, Snapshot};
use crate::tombstones::Tombstones;
use crate::trust::Site;
use crate::vfs::write_all_at;
use eager::EagerBuffer;
use index::IndexNote;
pub use options::WriteOptions;
use pack::Packer;
pub(crate) use temp::sweep_leftovers;
use temp::{Installed, TempFile};

const BUFFER_BYTES: usize = 1 << 20;
const SECTION_ALIGNMENT: usize = 4096;
const FORGOTTEN: u64 = u64::MAX;

/// The result of a save.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedFile {
    /// The number of entries found by look-ups: the later [`Snapshot::len`](crate::Snapshot::len).
    pub entries: u32,
    /// The number of eager records, in addition to the entries.
    pub eager: u32,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// Distinguishes this file from all others: its
    /// [`Snapshot::file_id`](crate::Snapshot::file_id).
    pub file_id: [u8; 16],
    /// The new path of the former file at the target, if it was not a readable cache file of ours.
    pub set_aside: Option<PathBuf>,
    /// Why files cannot be locked in the folder of the path, in words, if locks fail. Then nothing
    /// separates the saves of several processes, and of two simultaneous saves one may overwrite
    /// the other.
    pub without_locks: Option<String>,
}

/// Identifies a pushed record to its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordNumber(u32);

/// Writes a snapshot beside its target, and replaces the target at the end. If dropped without
/// [`finish`](Writer::finish), the writer leaves everything unchanged.
pub struct Writer {
    /// `None` after an error.
    temp: Option<TempFile>,
    target: PathBuf,
    header: Header,
    seal: Seal,
    hasher: KeyHasher,
    first_buckets: Option<u32>,
    keep_target: bool,
    secret: Option<Secret>,
    packer: Packer,
    /// Whether any value was compressed, and whether any needs the dictionary.
    has_packed: bool,
    needs_dictionary: bool,
    buffer: Vec<u8>,
    /// The offset in the file of the buffer's first byte.
    flushed: u64,
    /// Hash and offset of every record, in the order of pushing; the offset is [`FORGOTTEN`] if the
    /// record was taken back.
    places: Vec<IndexNote>,
    /// Deadline and order of pushing.
    deadlines: Vec<(u64, u32)>,
    /// The records taken back, by order of pushing.
    forgotten: Vec<u32>,
    eager: EagerBuffer,
    tombstones: Tombstones,
    /// The records carried over: order of pushing, and rank. Consecutive records are combined, with
    /// their number.
    carried: Vec<(u32, u32, u32)>,
    /// The ranks of the snapshot from which records are carried over, without entries.
    carried_from: Ranks,
}

impl Writer {
    /// Begins a snapshot for a place: creates missing parent folders, removes the leftovers of
    /// crashed saves, and creates the temporary file. The file at the place is not touched.
    ///
    /// # Errors
    /// Those of [`CacheFile::write`](crate::CacheFile::write).
    pub(crate) fn create(site: &Site, settings: &Settings, options: WriteOptions) -> Result<Self, DiskError> {
        let path = &*site.path;
        let version = settings.version.clone().unwrap_or_default();
        for (name, label) in [("version tag", &version), ("producer", &settings.producer)] {
            if label.len() > MAX_LABEL_BYTES {
                let what = format!("the {name} has {} bytes and may have {MAX_LABEL_BYTES}", label.len());
                return Err(DiskError::new(DiskErrorKind::Limit, path, what));
            }
        }
        let (file_id, hash_seed) = match options.identity {
            Some(identity) => identity,
            None => (random(path)?, random(path)?),
        };
        let temp = TempFile::create(site)?;
        let packer = Packer::new(settings.compression, options.dictionary);
        Ok(Self {
            temp: Some(temp),
            target: path.to_owned(),
            seal: Seal::new(&file_id, settings.secret.as_ref()),
            hasher: KeyHasher::new(&hash_seed),
            header: Header {
                file_id,
                hash_seed,
                saved_at: options.saved_at,
                records: 0,
                entries: 0,
                deadlines: 0,
                buckets: 0,
                form: RecordForm { has_tag: settings.secret.is_some(), may_compress: !packer.is_off() },
                written_until: 0,
                version,
                producer: settings.producer.clone(),
                record_section: Section { offset: HEADER_BYTES as u64, bytes: 0 },
                index_section: Section::default(),
                deadline_section: Section::default(),
                eager_section: None,
                dictionary_section: None,
                tombstone_section: None,
                gaps: Vec::new(),
                end: 0,
            },
            first_buckets: options.buckets,
            keep_target: options.keep_target,
            secret: settings.secret,
            packer,
            has_packed: false,
            needs_dictionary: false,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            flushed: HEADER_BYTES as u64,
            places: Vec::new(),
            deadlines: Vec::new(),
            forgotten: Vec::new(),
            eager: EagerBuffer::default(),
            tombstones: Tombstones::default(),
            carried: Vec::new(),
            carried_from: Ranks::default(),
        })
    }

    /// Names the snapshot whose entries will be [carried](Self::carry) over. Without a snapshot,
    /// the result of [`finish_and_open`](Self::finish_and_open) has eager records only.
    pub fn carry_from(&mut self, snapshot: Option<&Snapshot>) {
        self.carried_from = snapshot.map(Snapshot::no_ranks).unwrap_or_default();
    }

    /// [`copy`](Self::copy), for an entry of the snapshot given to
    /// [`carry_from`](Self::carry_from). The entry keeps its rank.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn carry(&mut self, record: &Record<'_>) -> Result<RecordNumber, DiskError> {
        let pushed = self.copy(record)?;
        let Some(rank) = record.rank else { return Ok(pushed) };
        match self.carried.last_mut() {
            Some((ordinal, first, len)) if (*ordinal + *len, *first + *len) == (pushed.0, rank) => *len += 1,
            _ => self.carried.push((pushed.0, rank, 1)),
        }
        Ok(pushed)
    }

    /// The ranks in the file of the records carried over, after all records taken back are known
    /// and sorted.
    fn carried_ranks(&self) -> Ranks {
        let mut ranks = self.carried_from.clone();
        for &(ordinal, rank, len) in &self.carried {
            for place in 0..len {
                let ordinal = ordinal + place;
                if self.forgotten.is_empty() {
                    ranks.push(ordinal, rank + place);
                } else if self.forgotten.binary_search(&ordinal).is_err() {
                    ranks.push(self.rank(ordinal), rank + place);
                }
            }
        }
        ranks
    }

    /// Adds an entry. The order of pushing is the order of use, coldest first. `times` is the
    /// deadline, or [`Times`], in nanoseconds since the Unix epoch. The caller must not push a key
    /// twice, or must forget the earlier record.
    ///
    /// # Errors
    /// [`Limit`](DiskErrorKind::Limit) if the entry is too large or exceeds the maximum number; the
    /// entry is left out and the writer remains usable. After any other error the save is over.
    pub fn push(
        &mut self,
        key: &[u8],
        value: &[u8],
        times: impl Into<Times>,
    ) -> Result<RecordNumber, DiskError> {
        let times = times.into();
        self.end_sampling_before(key, value)?;
        let packed = self.packer.pack(value);
        let stored = packed.as_deref().unwrap_or(value);
        let mut head = self.head(key, stored, times)?;
        self.note(packed.as_deref(), &mut head);
        self.note_write(times.written_at);
        self.append([head.as_bytes(), key, stored], key, times.deadline)
    }

    /// Adds an entry of an opened snapshot as bytes, if this file is compressed in the same way.
    /// Only checksum and tag are made anew, for this file.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn copy(&mut self, record: &Record<'_>) -> Result<RecordNumber, DiskError> {
        self.end_sampling_before(record.key, record.value)?;
        let (head, value) = self.taken_over(&record.stored, record.key, record.value, Packer::pack)?;
        self.note_write(record.written_at);
        self.append([head.as_bytes(), record.key, &value], record.key, record.deadline)
    }

    /// Adds an entry that no look-up will find: a program that opens the file must read all eager
    /// entries, and decides about their keys. For keys of which equal ones may have different
    /// bytes. The order among eager entries is the order of use, coldest first; their order
    /// relative to the entries of [`push`](Self::push) is not kept. An eager entry stays in memory
    /// until [`finish`](Self::finish), and cannot be taken back.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_eager(&mut self, key: &[u8], value: &[u8], times: impl Into<Times>) -> Result<(), DiskError> {
        let times = times.into();
        let packed = self.packer.pack_eager(value);
        let stored = packed.as_deref().unwrap_or(value);
        let mut head = self.head(key, stored, times)?;
        self.note(packed.as_deref(), &mut head);
        self.note_write(times.written_at);
        self.append_eager([head.as_bytes(), key, stored])
    }

    /// Adds an eager record of an opened snapshot, like [`copy`](Self::copy).
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn copy_eager(&mut self, record: &Record<'_>) -> Result<(), DiskError> {
        let (head, value) = self.taken_over(&record.stored, record.key, record.value, Packer::pack_eager)?;
        self.note_write(record.written_at);
        self.append_eager([head.as_bytes(), record.key, &value])
    }

    /// Sets the deletes, so that other processes that save to the path do not restore deleted
    /// entries.
    pub fn set_tombstones(&mut self, tombstones: Tombstones) {
        self.note_write(Some(tombstones.latest()));
        self.tombstones = tombstones;
    }

    fn note_write(&mut self, time: Option<u64>) {
        self.header.written_until = self.header.written_until.max(time.unwrap_or(0));
    }

    /// Takes back a pushed entry that was replaced or deleted during the save. Its bytes stay in
    /// the file, but no look-up finds them.
    pub fn forget(&mut self, record: RecordNumber) {
        if let Some(place) = self.places.get_mut(record.0 as usize)
            && place.offset != FORGOTTEN
        {
            place.offset = FORGOTTEN;
            self.forgotten.push(record.0);
        }
    }

    /// Completes the file, makes it durable, and puts it in the place of the target. After `Ok`,
    /// the snapshot survives a power loss.
    ///
    /// If the target is not a readable cache file of this format, it is renamed to `<name>.aside`,
    /// not destroyed; [`SavedFile::set_aside`] has the new path. With
    /// [`WriteOptions::keep_target`] a readable file is renamed too.
    ///
    /// # Errors
    /// Any failure to complete, sync or install the file. The old file is unchanged, unless the
    /// sync of the directory failed, which is the last step: then the new file is in place, but may
    /// be lost by a power loss.
    pub fn finish(self) -> Result<SavedFile, DiskError> {
        self.finish_and_open().map(|(saved, _)| saved)
    }

    /// Like [`finish`](Self::finish), and opens the new file. In the new snapshot the entries
    /// [carried](Self::carry) over have the same ranks as in the snapshot of
    /// [`carry_from`](Self::carry_from), and other entries are not found; all eager records are
    /// included. So the old file need not stay open. `None` if a part of the old file could not be
    /// read in the meantime (rule 4 of `snapshot::moved`): then the old file must remain in use.
    ///
    /// # Errors
    /// Those of [`finish`](Self::finish).
    pub fn finish_and_open(mut self) -> Result<(SavedFile, Option<Snapshot>), DiskError> {
        let eager = u32::try_from(self.eager.len()).map_err(|_| self.abandoned())?;
        self.write_rest()?;
        let temp = self.temp.take().ok_or_else(|| self.abandoned())?;
        let (entries, bytes, file_id) = (self.header.entries, self.header.end, self.header.file_id);
        let without_locks = temp.without_locks().map(str::to_owned);
        let Installed { file, set_aside } = temp.install(self.keep_target, self.secret)?;
        let successor = file.filter(|_| !self.carried_from.has_new_dead_buckets()).map(|file| {
            let ranks = self.carried_ranks();
            Snapshot::written(file, self.target, self.header, self.seal, ranks)
        });
        Ok((SavedFile { entries, eager, bytes, file_id, set_aside, without_locks }, successor))
    }

    /// The number of entries so far, without records taken back and without eager records.
    pub fn len(&self) -> usize {
        self.places.len().saturating_sub(self.forgotten.len())
    }

    /// Whether there are no such entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of eager records so far.
    pub fn eager_len(&self) -> usize {
        self.eager.len()
    }

    /// The number of bytes of records so far, including eager records.
    pub fn bytes(&self) -> u64 {
        self.position() - HEADER_BYTES as u64 + self.eager.bytes()
    }

    fn head(&self, key: &[u8], value: &[u8], times: Times) -> Result<RecordHead, DiskError> {
        match (u32::try_from(key.len()), u32::try_from(value.len())) {
            (Ok(key_len), Ok(value_len)) => Ok(self.tagged(RecordHead::new(key_len, value_len, times))),
            _ => Err(self.limit(&format!("a key of {} bytes or a value of {}", key.len(), value.len()))),
        }
    }

    fn append_eager(&mut self, parts: [&[u8]; 3]) -> Result<(), DiskError> {
        self.make_room(&parts)?;
        self.eager.push(parts, self.seal.tag_bytes());
        Ok(())
    }

    /// Returns the length of a record with these parts, if there is room. Eager records count as
    /// well.
    fn make_room(&self, parts: &[&[u8]; 3]) -> Result<usize, DiskError> {
        if self.temp.is_none() {
            return Err(self.abandoned());
        }
        let body = parts.iter().map(|part| part.len()).sum::<usize>();
        let total = CHECKSUM_BYTES + body + self.seal.tag_bytes();
        if self.places.len() + self.eager.len() >= MAX_RECORDS as usize {
            return Err(self.limit("one more entry"));
        }
        // A sixteenth of the address space is reserved for index and deadlines, which need less.
        if self.position() + self.eager.bytes() + total as u64 > MAX_FILE_BYTES / 16 * 15 {
            return Err(self.limit("so many bytes"));
        }
        Ok(total)
    }

    fn append(
        &mut self,
        parts: [&[u8]; 3],
        key: &[u8],
        deadline: Option<u64>,
    ) -> Result<RecordNumber, DiskError> {
        let total = self.make_room(&parts)?;
        let ordinal = u32::try_from(self.places.len()).map_err(|_| self.limit("one more entry"))?;
        if self.buffer.len() + total > BUFFER_BYTES {
            self.flush()?;
        }
        let offset = self.position();
        if total <= BUFFER_BYTES {
            self.encode(offset, parts);
        } else {
            let (checksum, tag) = self.seal.close_parts(offset, &parts);
            self.put(&checksum.to_le_bytes())?;
            parts.iter().try_for_each(|part| self.put(part))?;
            tag.iter().try_for_each(|tag| self.put(tag))?;
        }
        self.places.push(IndexNote { hash: self.hasher.hash(key), offset });
        self.deadlines.extend(deadline.map(|deadline| (deadline, ordinal)));
        Ok(RecordNumber(ordinal))
    }

    fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    /// Adds a record that fits to the buffer.
    fn encode(&mut self, offset: u64, parts: [&[u8]; 3]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; CHECKSUM_BYTES]);
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        self.buffer.resize(self.buffer.len() + self.seal.tag_bytes(), 0);
        self.seal.close(offset, &mut self.buffer[start..]);
    }

    /// Writes bytes at the position, through the buffer if they fit.
    fn put(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() > BUFFER_BYTES {
            self.write(bytes, self.flushed)?;
            self.flushed += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        if self.packer.is_sampling() {
            self.end_sampling();
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.write(&buffer, self.flushed)?;
        self.flushed += buffer.len() as u64;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let Some(temp) = &self.temp else { return Err(self.abandoned()) };
        let result = temp.file().and_then(|file| write_all_at(file, bytes, offset));
        result.map_err(|error| {
            self.temp = None;
            DiskError::io("writing the temporary file", &self.target, error).at(offset)
        })
    }

    /// Writes index, deadlines, eager records and header. (Syncing the records in a second thread
    /// at the same time was tried: the gain was below the disk's own noise.)
    fn write_rest(&mut self) -> Result<(), DiskError> {
        self.flush()?;
        self.forgotten.sort_unstable();
        self.header.records = u32::try_from(self.places.len()).map_err(|_| self.abandoned())?;
        self.header.entries = self.header.records - u32::try_from(self.forgotten.len()).unwrap_or(0);
        self.header.record_section.bytes = self.flushed - self.header.record_section.offset;
        let gap = self.flushed.next_multiple_of(SECTION_ALIGNMENT as u64) - self.flushed;
        self.put(&[0; SECTION_ALIGNMENT][..usize::try_from(gap).unwrap_or(0)])?;

        let index = self.build_index()?;
        self.header.buckets = u32::try_from(index.len()).map_err(|_| self.abandoned())?;
        self.header.index_section = self.put_section(index.as_flattened())?;
        drop(index);
        let pages = self.deadline_pages();
        self.header.deadline_section = self.put_section(pages.as_flattened())?;
        if self.eager.len() > 0 {
            let eager = std::mem::take(&mut self.eager).into_section(self.seal, self.position());
            self.header.eager_section = Some(self.put_section(&eager)?);
        }
        if let Some(dictionary) = self.packer.dictionary().filter(|_| self.needs_dictionary) {
            let mut unit = vec![0; CHECKSUM_BYTES];
            unit.extend_from_slice(dictionary.as_bytes());
            unit.resize(unit.len() + self.seal.tag_bytes(), 0);
            self.seal.close(self.position(), &mut unit);
            self.header.dictionary_section = Some(self.put_section(&unit)?);
        }
        if !self.tombstones.is_empty() {
            let start = self.position().next_multiple_of(PAGE_BYTES as u64);
            let gap = usize::try_from(start - self.position()).unwrap_or(0);
            self.put(&[0; PAGE_BYTES][..gap])?;
            let section = std::mem::take(&mut self.tombstones).encode(self.seal, start);
            self.header.tombstone_section = Some(self.put_section(&section)?);
        }
        self.flush()?;
        self.header.form.may_compress = self.has_packed;
        self.header.end = self.flushed;
        let header = self.header.encode(self.seal);
        self.write(&header, 0)
    }

    fn put_section(&mut self, bytes: &[u8]) -> Result<Section, DiskError> {
        let section = Section { offset: self.position(), bytes: bytes.len() as u64 };
        self.put(bytes)?;
        Ok(section)
    }

    fn build_index(&self) -> Result<Vec<[u8; PAGE_BYTES]>, DiskError> {
        let first_buckets = self.first_buckets.unwrap_or_else(|| bucket_count(self.header.entries));
        let places = self.places.iter().filter(|place| place.offset != FORGOTTEN);
        let index = index::build(&places, self.header.entries, first_buckets, self.seal, self.position());
        index.ok_or_else(|| self.limit("the same key hundreds of times"))
    }

    fn deadline_pages(&mut self) -> Vec<[u8; PAGE_BYTES]> {
        let mut deadlines = std::mem::take(&mut self.deadlines);
        if !self.forgotten.is_empty() {
            deadlines.retain(|(_, ordinal)| self.forgotten.binary_search(ordinal).is_err());
            for (_, ordinal) in &mut deadlines {
                *ordinal = self.rank(*ordinal);
            }
        }
        deadlines.sort_unstable();
        self.header.deadlines = u32::try_from(deadlines.len()).unwrap_or(0);
        let start = self.position();
        let page_items = page_items(self.seal.has_mac());
        let chunks = deadlines.chunks(page_items as usize);
        let pages = chunks.zip(0u64..).map(|(chunk, number)| {
            let mut page = [0; PAGE_BYTES];
            for (deadline, rank) in chunk {
                put_due(&mut page, *deadline, *rank, page_items);
            }
            self.seal.close(start + number * PAGE_BYTES as u64, &mut page);
            page
        });
        pages.collect()
    }

    /// Ranks do not count records taken back.
    fn rank(&self, ordinal: u32) -> u32 {
        let before = self.forgotten.partition_point(|forgotten| *forgotten < ordinal);
        ordinal - u32::try_from(before).unwrap_or(0)
    }

    fn limit(&self, what: &str) -> DiskError {
        DiskError::new(DiskErrorKind::Limit, &self.target, format!("a cache file cannot hold {what}"))
    }

    fn abandoned(&self) -> DiskError {
        DiskError::new(DiskErrorKind::Abandoned, &self.target, "this save failed before and was undone")
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Writer");
        debug.field("target", &self.target).field("records", &self.places.len()).finish_non_exhaustive()
    }
}
