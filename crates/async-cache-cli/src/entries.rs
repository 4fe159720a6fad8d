//! All entries of a cache, one after another: first those that look-ups find, coldest first, then
//! the eager entries.

use std::collections::HashMap;
use std::ops::ControlFlow;

use async_cache_disk::store::{EagerWrite, StoreItem, StoreView, StoredEntry};
use async_cache_disk::{Item, Loss, Record, Source};

use crate::cache::Cache;
use crate::environment::Progress;
use crate::failure::Failure;
use crate::human;
use crate::progress::Bar;

/// An entry of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'e> {
    pub(crate) key: &'e [u8],
    pub(crate) value: &'e [u8],
    pub(crate) deadline: Option<u64>,
    pub(crate) written_at: Option<u64>,
    /// The place in the order of use of the file.
    pub(crate) rank: Option<u32>,
    pub(crate) is_eager: bool,
}

impl Entry<'_> {
    /// Whether the deadline has passed.
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

impl<'e> From<Record<'e>> for Entry<'e> {
    fn from(record: Record<'e>) -> Self {
        let Record { key, value, deadline, written_at, rank, .. } = record;
        Self { key, value, deadline, written_at, rank, is_eager: rank.is_none() }
    }
}

impl<'e> From<StoredEntry<'e>> for Entry<'e> {
    fn from(entry: StoredEntry<'e>) -> Self {
        let StoredEntry { key, value, deadline, written_at, rank, .. } = entry;
        Self { key, value, deadline, written_at, rank, is_eager: false }
    }
}

/// The data that could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Damaged entries in the index.
    pub(crate) entries: u64,
    /// Bytes of damaged records whose number is unknown: eager records, and in a repair all
    /// records.
    pub(crate) bytes: u64,
    /// Damaged records, or ranges of records, of a store.
    pub(crate) records: u64,
    /// Entries of a store of which damage may hide a later write.
    pub(crate) hidden: u64,
    /// There may be further eager entries of a store.
    pub(crate) hides_eager: bool,
}

impl Lost {
    /// A sentence, or `None` if nothing is lost.
    pub(crate) fn sentence(self) -> Option<String> {
        let entries = (self.entries > 0)
            .then(|| human::things(self.entries, "entry is damaged", "entries are damaged"));
        let eager =
            (self.bytes > 0).then(|| format!("{} of eager records are damaged", human::bytes(self.bytes)));
        let records = (self.records > 0).then(|| {
            human::things(self.records, "record of the store is damaged", "records of the store are damaged")
        });
        let hidden = (self.hidden > 0)
            .then(|| human::things(self.hidden, "entry is hidden by damage", "entries are hidden by damage"));
        let hides_eager = self.hides_eager.then(|| "eager entries are hidden by damage".to_owned());
        let parts: Vec<String> =
            [entries, eager, records, hidden, hides_eager].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("{}; `async-cache verify` says where", parts.join(", and ")))
    }

    /// Whether nothing is lost.
    pub(crate) fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// Visits all readable entries, until the last entry or until the visitor stops.
pub(crate) fn each(
    cache: &Cache,
    progress: Progress,
    doing: &'static str,
    mut visit: impl FnMut(Entry<'_>) -> Result<ControlFlow<()>, Failure>,
) -> Result<Lost, Failure> {
    let mut lost = Lost::default();
    let mut bar = Bar::new(progress, doing, cache.most_entries());
    match cache {
        Cache::File(snapshot) => {
            let mut visit = |record: Record<'_>| visit(record.into());
            if walk(&mut snapshot.records(), &mut bar, &mut lost, &mut visit)?.is_continue() {
                let _stopped = walk(&mut snapshot.eager(), &mut bar, &mut lost, &mut visit)?;
            }
        }
        Cache::Store(view) => {
            let mut visiting = Visiting { bar: &mut bar, lost: &mut lost, visit, failure: None };
            let flow = view.each(|item| visiting.step(item));
            visiting.finish(flow, || EagerEntries::of(view))?;
        }
    }
    Ok(lost)
}

/// Visits all entries of a store that can be recovered, and counts the losses.
pub(crate) fn each_recovered(
    view: &StoreView,
    bar: &mut Bar,
    lost: &mut Lost,
    mut visit: impl FnMut(Entry<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let visit = |entry: Entry<'_>| visit(entry).map(ControlFlow::Continue);
    let mut visiting = Visiting { bar, lost, visit, failure: None };
    let flow = view.each_recovered(|item| visiting.step(item));
    visiting.finish(flow, || EagerEntries::recovered(view))?;
    lost.bytes = lost.bytes.saturating_add(view.base().map_or(0, |base| base.damage().eager_bytes));
    Ok(())
}

/// A walk over a store.
struct Visiting<'v, F> {
    bar: &'v mut Bar,
    lost: &'v mut Lost,
    visit: F,
    failure: Option<Failure>,
}

impl<F: FnMut(Entry<'_>) -> Result<ControlFlow<()>, Failure>> Visiting<'_, F> {
    fn step(&mut self, item: StoreItem<'_>) -> ControlFlow<()> {
        self.bar.step();
        match item {
            StoreItem::Entry(entry) => match (self.visit)(entry.into()) {
                Ok(flow) => return flow,
                Err(failure) => {
                    self.failure = Some(failure);
                    return ControlFlow::Break(());
                }
            },
            StoreItem::Hidden => self.lost.hidden += 1,
            StoreItem::Damaged => self.lost.records += 1,
            StoreItem::LostInBase { entries, bytes } => {
                self.lost.entries += entries;
                self.lost.bytes += bytes;
            }
        }
        ControlFlow::Continue(())
    }

    /// Visits the eager entries, unless the visitor has stopped.
    fn finish(mut self, flow: ControlFlow<()>, eager: impl FnOnce() -> EagerEntries) -> Result<(), Failure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if flow.is_break() {
            return Ok(());
        }
        let eager = eager();
        self.lost.hides_eager |= eager.is_damaged;
        for entry in eager.each() {
            self.bar.step();
            if (self.visit)(entry)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The eager entries of a store, in memory. Of several with the same bytes of the key, the last.
pub(crate) struct EagerEntries {
    entries: Vec<EagerEntry>,
    is_damaged: bool,
}

struct EagerEntry {
    key: Vec<u8>,
    value: Vec<u8>,
    deadline: Option<u64>,
    written_at: Option<u64>,
}

impl EagerEntries {
    pub(crate) fn of(view: &StoreView) -> Self {
        let entries = entries_of(view.eager(), Deletes::OfEqualBytes);
        Self { entries, is_damaged: view.hides_eager() }
    }

    fn recovered(view: &StoreView) -> Self {
        Self { entries: entries_of(view.recovered_eager(), Deletes::OfAnyKey), is_damaged: false }
    }

    /// Whether there may be more, which cannot be read.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries.iter().map(|EagerEntry { key, value, deadline, written_at }| Entry {
            key,
            value,
            deadline: *deadline,
            written_at: *written_at,
            rank: None,
            is_eager: true,
        })
    }
}

/// Visits all entries of a source, and counts its losses.
pub(crate) fn each_of(
    source: &mut impl Source,
    bar: &mut Bar,
    lost: &mut Lost,
    mut visit: impl FnMut(Record<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    walk(source, bar, lost, |record| visit(record).map(ControlFlow::Continue)).map(drop)
}

/// [`each_of`], until the visitor stops.
fn walk(
    source: &mut impl Source,
    bar: &mut Bar,
    lost: &mut Lost,
    mut visit: impl FnMut(Record<'_>) -> Result<ControlFlow<()>, Failure>,
) -> Result<ControlFlow<()>, Failure> {
    while let Some(item) = source.next() {
        bar.step();
        match item {
            Item::Entry(record) => {
                if visit(record)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Item::Lost(Loss::Entry { .. }) => lost.entries += 1 + u64::from(source.skip_lost()),
            Item::Lost(Loss::Bytes { bytes, .. }) => lost.bytes += bytes,
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The earlier eager entries that an eager delete deletes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deletes {
    /// Those with the same bytes of the key.
    OfEqualBytes,
    /// All: keys with other bytes may be equal, and only their front knows.
    OfAnyKey,
}

/// Applies writes one after the other.
fn entries_of(writes: Vec<EagerWrite>, deletes: Deletes) -> Vec<EagerEntry> {
    let mut latest = HashMap::new();
    for (number, write) in writes.into_iter().enumerate() {
        match write {
            EagerWrite::Entry { key, value, deadline, written_at, .. } => {
                let entry = EagerEntry { key, value, deadline, written_at };
                latest.insert(entry.key.clone(), (number, entry));
            }
            EagerWrite::Delete { .. } if deletes == Deletes::OfAnyKey => latest.clear(),
            EagerWrite::Delete { key } => drop(latest.remove(&key)),
        }
    }
    let mut latest: Vec<(usize, EagerEntry)> = latest.into_values().collect();
    latest.sort_by_key(|(number, _)| *number);
    latest.into_iter().map(|(_, entry)| entry).collect()
}
