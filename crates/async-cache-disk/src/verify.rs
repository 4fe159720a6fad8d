//! Walks a whole file and lists every fault.
//!
//! The walk reads more strictly than a [`Snapshot`] does and also finds harmless deviations, such
//! as gaps that are not zero: in a file without findings, every byte is as a writer wrote it.
//! Memory: 40 bytes for each existing entry; the counts of the header cost nothing (rule 4 of
//! `snapshot`). Holes are passed quickly, and large gaps are not read.

use std::path::Path;

use crate::error::{DiskError, DiskErrorKind};
use crate::format::header::Section;
use crate::format::page::{PAGE_BYTES, Page, page_items};
use crate::snapshot::{Item, Loss, Reader, Scratch, Snapshot, Source};

/// Further findings are counted and not listed, so that a file full of nonsense does not fill the
/// memory.
const MOST_LISTED: usize = 1000;
/// A writer leaves less than a page of the file system between two sections. Larger gaps are
/// findings without being read.
const MOST_GAP_BYTES: u64 = 1 << 16;

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A record does not verify: its entry is lost.
    Record,
    /// A record is valid, but a look-up does not reach it: its entry is lost.
    Unreachable,
    /// A bucket of the index does not verify or contradicts itself: the entries named in it are
    /// lost.
    Bucket,
    /// A page of deadlines does not verify: its entries are reclaimed late.
    DeadlinePage,
    /// An eager record does not verify: its entry is lost, and so are the entries behind it.
    Eager,
    /// The tombstones do not verify: the next save that merges leaves out more than it must.
    Tombstones,
    /// A deadline does not fit its record, or is out of order: an entry may be reclaimed early or
    /// late.
    Deadline,
    /// The header's counts differ from the content of the file.
    Count,
    /// The compression dictionary does not verify: the entries that need it are lost.
    Dictionary,
    /// Bytes between the sections are not zero. Costs nothing.
    Gap,
    /// There are bytes behind the last section. Costs nothing.
    Trailing,
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The kind of the fault.
    pub kind: FindingKind,
    /// Where in the file, in bytes from its start.
    pub offset: u64,
    /// A description of the fault.
    pub what: String,
}

/// The result of [`CacheFile::verify`](crate::CacheFile::verify).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The size of the file in bytes.
    pub file_bytes: u64,
    /// How many entries the header counts.
    pub entries: u32,
    /// How many of them a look-up finds.
    pub sound_entries: u32,
    /// How many eager records, which the header does not count, verify.
    pub sound_eager: u64,
    /// The faults, in the order of the walk: dictionary, index, records, deadlines, eager records,
    /// the rest. At most the first thousand.
    pub findings: Vec<Finding>,
    /// The number of faults, including those not listed.
    pub finding_count: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.finding_count == 0
    }

    fn add(&mut self, kind: FindingKind, offset: u64, what: impl Into<String>) {
        self.add_all(kind, offset, 1, || what.into());
    }

    /// Adds `count` things of a kind, of which the first is listed.
    fn add_all(&mut self, kind: FindingKind, offset: u64, count: u32, what: impl FnOnce() -> String) {
        self.finding_count = self.finding_count.saturating_add(count.into());
        if self.findings.len() < MOST_LISTED {
            self.findings.push(Finding { kind, offset, what: what() });
        }
    }
}

/// There is nothing to walk.
pub(crate) fn missing(path: &Path) -> DiskError {
    DiskError::new(DiskErrorKind::Missing, path, "there is no snapshot")
}

/// Reads a whole file and lists its faults.
pub(crate) fn walk(snapshot: &Snapshot) -> Report {
    let mut walk = VerifyWalk {
        report: Report {
            file_bytes: snapshot.file_bytes(),
            entries: snapshot.len(),
            sound_entries: 0,
            sound_eager: 0,
            findings: Vec::new(),
            finding_count: 0,
        },
        named: Vec::new(),
        seen: Vec::new(),
        snapshot,
    };
    walk.dictionary();
    walk.index();
    walk.records();
    walk.deadline_pages();
    walk.eager();
    walk.tombstones();
    walk.gaps();
    walk.report
}

struct VerifyWalk<'s> {
    snapshot: &'s Snapshot,
    report: Report,
    /// Offset and rank of the records named by the index, ascending once the index was walked.
    named: Vec<(u64, u32)>,
    /// The entries whose records verify. Ascending by rank, each once, once the records were
    /// walked.
    seen: Vec<Seen>,
}

/// An entry whose record verifies.
struct Seen {
    rank: u32,
    /// Whether a look-up reaches the record.
    is_reached: bool,
    deadline: Option<u64>,
}

impl VerifyWalk<'_> {
    fn index(&mut self) {
        self.snapshot.each_bucket(|bucket, page| {
            let offset = self.snapshot.bucket_offset(bucket);
            match page {
                Ok(page) => self.bucket(bucket, offset, page),
                Err(count) => self.report.add_all(FindingKind::Bucket, offset, count, || match count {
                    1 => format!("bucket {bucket} does not verify"),
                    _ => format!(
                        "bucket {bucket} and all to the end of a hole in the file, {count}, do not verify"
                    ),
                }),
            }
        });
        self.named.sort_unstable();
        for (left, right) in self.named.iter().zip(self.named.iter().skip(1)) {
            if left.0 == right.0 || left.1 >= right.1 {
                let what = format!("the index names rank {} before rank {}", left.1, right.1);
                self.report.add(FindingKind::Bucket, right.0, what);
            }
        }
        if self.named.len() != self.snapshot.len() as usize {
            let what = format!("the index names {} of {} entries", self.named.len(), self.snapshot.len());
            self.report.add(FindingKind::Count, self.snapshot.header().index_section.offset, what);
        }
    }

    fn bucket(&mut self, bucket: u32, offset: u64, page: Page<'_>) {
        if page.flags() & !1 != 0 || (page.overflowed() && page.len() < self.page_items()) {
            self.report.add(
                FindingKind::Bucket,
                offset,
                format!("bucket {bucket} has flags that do not fit it"),
            );
        }
        for slot in page.slots() {
            if slot.rank >= self.snapshot.len() || self.snapshot.left_in_records(slot.offset).is_none() {
                let what = format!("bucket {bucket} names rank {} at byte {}", slot.rank, slot.offset);
                self.report.add(FindingKind::Bucket, offset, what);
            } else {
                self.named.push((slot.offset, slot.rank));
            }
        }
    }

    /// Walks the section from record to record. Behind a record that does not verify, the walk
    /// continues where the index says.
    fn records(&mut self) {
        let section = self.snapshot.header().record_section;
        let named = std::mem::take(&mut self.named);
        let mut named = named.iter().copied().peekable();
        let (mut reader, mut scratch) = (Reader::new(self.snapshot.clone()), Scratch::new());
        let (mut offset, mut records, mut damaged) = (section.offset, 0u64, false);
        while offset < section.end() {
            while let Some(missed) = named.next_if(|(named, _)| *named < offset) {
                self.inside(missed);
            }
            let rank = named.next_if(|(named, _)| *named == offset).map(|(_, rank)| rank);
            if let Some(loaded) = reader.load(section, offset) {
                match (reader.record(rank, &loaded), rank) {
                    (None, _) => {
                        self.report.add(
                            FindingKind::Record,
                            offset,
                            "the record's value does not decompress",
                        );
                    }
                    (Some(record), Some(rank)) => {
                        self.entry(offset, rank, record.key, record.deadline, &mut scratch);
                    }
                    (Some(_), None) => {}
                }
                records = records.saturating_add(1);
                offset = offset.saturating_add(loaded.total());
            } else {
                let whose = rank.map_or("that is no entry".to_owned(), |rank| format!("of rank {rank}"));
                self.report.add(FindingKind::Record, offset, format!("the record {whose} does not verify"));
                damaged = true;
                offset = named.peek().map_or(section.end(), |(next, _)| *next);
            }
        }
        named.for_each(|missed| self.inside(missed));
        // A broken index may give the same rank to two records: then they are a single entry, with
        // the deadline of the latter.
        self.seen.sort_by_key(|seen| seen.rank);
        self.seen.dedup_by(|later, seen| {
            let is_same = later.rank == seen.rank;
            if is_same {
                seen.is_reached |= later.is_reached;
                seen.deadline = later.deadline;
            }
            is_same
        });
        let reached = self.seen.iter().filter(|seen| seen.is_reached).count();
        self.report.sound_entries = u32::try_from(reached).unwrap_or(u32::MAX);
        if !damaged && records != u64::from(self.snapshot.header().records) {
            let what = format!("there are {records} records, not {}", self.snapshot.header().records);
            self.report.add(FindingKind::Count, section.offset, what);
        }
    }

    /// The index names bytes inside a record that was walked.
    fn inside(&mut self, (offset, rank): (u64, u32)) {
        self.report.add(FindingKind::Record, offset, format!("rank {rank} lies inside another record"));
    }

    fn entry(&mut self, offset: u64, rank: u32, key: &[u8], deadline: Option<u64>, scratch: &mut Scratch) {
        let is_reached = self.snapshot.locate(key, scratch) == Some(rank);
        self.seen.push(Seen { rank, is_reached, deadline });
        if !is_reached {
            self.report.add(
                FindingKind::Unreachable,
                offset,
                format!("a look-up does not reach rank {rank}"),
            );
        }
    }

    fn deadline_pages(&mut self) {
        let mut page = [0; PAGE_BYTES];
        let mut last = None;
        let page_items = page_items(self.snapshot.has_mac());
        let section = self.snapshot.header().deadline_section.offset;
        let pages = self.snapshot.deadline_count().div_ceil(page_items);
        let mut number = 0;
        while number < pages {
            let offset = self.snapshot.deadline_page_offset(number);
            let read = self.snapshot.read(&mut page, offset);
            let opened = if read { Page::open(self.snapshot.seal(), offset, &page) } else { None };
            let before = number.saturating_mul(page_items);
            let items = self.snapshot.deadline_count().saturating_sub(before).min(page_items);
            let Some(page) = opened.filter(|page| page.len() == items as usize && page.flags() == 0) else {
                let next = self.snapshot.skip_hole(section, number.saturating_add(1), pages);
                let count = next.saturating_sub(number);
                self.report.add_all(FindingKind::DeadlinePage, offset, count, || match count {
                    1 => format!("page {number} of the deadlines does not verify"),
                    _ => format!(
                        "page {number} of the deadlines and all to the end of a hole in the file, {count}, do not \
                         verify"
                    ),
                });
                number = next;
                continue;
            };
            for item in (0..page.len()).filter_map(|index| page.due(index)) {
                self.deadline(offset, item, last);
                last = Some(item);
            }
            number = number.saturating_add(1);
        }
        let listed = u64::from(self.snapshot.deadline_count());
        let held = self.seen.iter().filter(|seen| seen.deadline.is_some()).count() as u64;
        if held > listed {
            let what = format!("{held} records have a deadline, and {listed} are listed");
            self.report.add(FindingKind::Count, self.snapshot.header().deadline_section.offset, what);
        }
    }

    fn deadline(&mut self, offset: u64, item: (u64, u32), last: Option<(u64, u32)>) {
        let (deadline, rank) = item;
        if last >= Some(item) {
            self.report.add(
                FindingKind::Deadline,
                offset,
                format!("the deadline of rank {rank} is out of order"),
            );
        }
        let place = self.seen.binary_search_by_key(&rank, |seen| seen.rank);
        let own = place.ok().and_then(|place| self.seen.get(place)).and_then(|seen| seen.deadline);
        match own {
            Some(own) if own == deadline => {}
            // A record that is lost, or a rank without a record; the former was reported with the
            // record.
            None if rank < self.snapshot.len() && self.report.finding_count > 0 => {}
            _ => {
                let what = format!("the deadline listed for rank {rank} is not the one in its record");
                self.report.add(FindingKind::Deadline, offset, what);
            }
        }
    }

    fn eager(&mut self) {
        let mut records = self.snapshot.eager();
        while let Some(item) = records.next() {
            match item {
                Item::Lost(Loss::Bytes { offset, bytes }) => {
                    let what = format!("an eager record does not verify, and {bytes} bytes are lost with it");
                    self.report.add(FindingKind::Eager, offset, what);
                }
                _ => self.report.sound_eager = self.report.sound_eager.saturating_add(1),
            }
        }
    }

    fn dictionary(&mut self) {
        let section = self.snapshot.header().dictionary_section;
        if let Some(section) = section.filter(|_| self.snapshot.dictionary().is_none()) {
            self.report.add(FindingKind::Dictionary, section.offset, "the dictionary does not verify");
        }
    }

    fn page_items(&self) -> usize {
        page_items(self.snapshot.has_mac()) as usize
    }

    fn tombstones(&mut self) {
        if let Some(section) = self.snapshot.header().tombstone_section
            && self.snapshot.read_tombstones().is_none()
        {
            self.report.add(FindingKind::Tombstones, section.offset, "the tombstones do not verify");
        }
    }

    fn gaps(&mut self) {
        let header = self.snapshot.header();
        for gap in &header.gaps {
            if gap.bytes > MOST_GAP_BYTES {
                let what = format!("there are {} bytes between sections", gap.bytes);
                self.report.add(FindingKind::Gap, gap.offset, what);
            } else if !self.is_zero(*gap) {
                self.report.add(FindingKind::Gap, gap.offset, "there are bytes between sections");
            }
        }
        let trailing = self.report.file_bytes.saturating_sub(header.end);
        if trailing > 0 {
            self.report.add(
                FindingKind::Trailing,
                header.end,
                format!("{trailing} bytes follow the last section"),
            );
        }
    }

    fn is_zero(&self, gap: Section) -> bool {
        let mut buffer = [0; PAGE_BYTES];
        let mut offset = gap.offset;
        while offset < gap.end() {
            let left = usize::try_from(gap.end().saturating_sub(offset)).unwrap_or(PAGE_BYTES);
            let chunk = buffer.get_mut(..left.min(PAGE_BYTES)).unwrap_or_default();
            if !self.snapshot.read(chunk, offset) || chunk.iter().any(|byte| *byte != 0) {
                return false;
            }
            offset = offset.saturating_add(PAGE_BYTES as u64);
        }
        true
    }
}
