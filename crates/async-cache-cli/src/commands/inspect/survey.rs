//! Facts about a file that can be collected without reading all of it: counts from the header,
//! sizes from the index (the distance from each record to the next), times from the pages of
//! deadlines, contents from a sample.
//!
//! Eager records are few and have no index; they are always read.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use async_cache_disk::{Item, RecordPlace, Scratch, Snapshot, Source};

use crate::args::Inspect;
use crate::cache::Cache;
use crate::chart::Histogram;
use crate::entries::{self, Entry};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human;

/// How many records are read for the facts about contents.
const SAMPLE: usize = 1000;
/// Larger records are not read for the sample: the file may be on a slow disk.
const MAX_SAMPLED_BYTES: u64 = 1 << 20;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

#[derive(Debug)]
pub(in crate::commands) struct Survey {
    /// Entries of a store without its eager ones.
    pub(in crate::commands) entries: u64,
    /// Ranked entries that have expired.
    pub(in crate::commands) expired: u64,
    /// Ranked entries that never expire.
    pub(in crate::commands) without_deadline: u64,
    pub(in crate::commands) eager: u64,
    /// Records that are not entries.
    pub(in crate::commands) taken_back: u64,
    /// Nanoseconds left of entries that have a deadline and have not expired.
    pub(in crate::commands) left: Histogram,
    /// Bytes of key and value; if not exact, including the record around them.
    pub(in crate::commands) sizes: Histogram,
    pub(in crate::commands) sizes_are_exact: bool,
    /// The largest entries, the largest first.
    pub(in crate::commands) largest: Vec<Large>,
    pub(in crate::commands) contents: Contents,
    /// A description of the damage found.
    pub(in crate::commands) damage: Option<String>,
}

#[derive(Debug)]
pub(in crate::commands) struct Large {
    pub(in crate::commands) key: Vec<u8>,
    pub(in crate::commands) bytes: u64,
    pub(in crate::commands) is_eager: bool,
}

/// The contents of keys and values.
#[derive(Debug, Default)]
pub(in crate::commands) struct Contents {
    /// How many entries were read.
    pub(in crate::commands) entries: u64,
    /// Whether there are entries that were not read.
    pub(in crate::commands) is_sample: bool,
    pub(in crate::commands) key_bytes: u64,
    pub(in crate::commands) value_bytes: u64,
    pub(in crate::commands) kinds: BTreeMap<&'static str, u64>,
}

impl Contents {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        self.key_bytes += key.len() as u64;
        self.value_bytes += value.len() as u64;
        *self.kinds.entry(human::kind(value)).or_default() += 1;
    }
}

impl Survey {
    fn new(sizes_are_exact: bool) -> Self {
        let spans =
            [SECOND, 60 * SECOND, 10 * 60 * SECOND, HOUR, 6 * HOUR, DAY, 7 * DAY, 30 * DAY, 365 * DAY];
        Self {
            entries: 0,
            expired: 0,
            without_deadline: 0,
            eager: 0,
            taken_back: 0,
            left: Histogram::new(spans),
            sizes: Histogram::new((4..=30).step_by(2).map(|power| 1 << power)),
            sizes_are_exact,
            largest: Vec::new(),
            contents: Contents::default(),
            damage: None,
        }
    }

    /// Reads every entry of a store.
    pub(in crate::commands) fn of_store(
        cache: &Cache,
        most_large: usize,
        environment: &Environment<'_>,
    ) -> Result<Self, Failure> {
        let mut survey = Self::new(true);
        let lost = entries::each(cache, environment.progress, "reading", |entry| {
            if entry.is_eager {
                survey.eager += 1;
            } else {
                survey.entries += 1;
                match entry.deadline.map(|deadline| deadline.checked_sub(environment.now)) {
                    None => survey.without_deadline += 1,
                    Some(None | Some(0)) => survey.expired += 1,
                    Some(Some(left)) => survey.left.add(left),
                }
            }
            survey.entry(&entry, most_large);
            Ok(ControlFlow::Continue(()))
        })?;
        survey.damage = lost.sentence();
        Ok(survey)
    }

    fn entry(&mut self, entry: &Entry<'_>, most_large: usize) {
        self.sizes.add((entry.key.len() + entry.value.len()) as u64);
        self.contents.add(entry.key, entry.value);
        self.large(most_large, entry.key, entry.value, entry.is_eager);
    }

    pub(in crate::commands) fn of(
        snapshot: &Snapshot,
        args: &Inspect,
        environment: &Environment<'_>,
    ) -> Result<Self, Failure> {
        let layout = snapshot.layout();
        let mut survey = Self {
            without_deadline: snapshot.len().saturating_sub(snapshot.deadline_count()).into(),
            taken_back: layout.records.saturating_sub(snapshot.len()).into(),
            ..Self::new(args.full)
        };
        survey.deadlines(snapshot, environment.now);
        let places = snapshot.places();
        if args.full {
            survey.full(snapshot, args.largest, environment)?;
        } else {
            survey.sample(snapshot, places, args.largest);
            survey.eager(snapshot, args.largest);
        }
        survey.damage = damage(snapshot);
        Ok(survey)
    }

    fn deadlines(&mut self, snapshot: &Snapshot, now: u64) {
        let mut deadlines = snapshot.deadlines();
        while !deadlines.is_finished() {
            // `None` means a damaged page; the reader continues after the page.
            let Some(due) = deadlines.next_due(u64::MAX) else { continue };
            match due.deadline.checked_sub(now) {
                None | Some(0) => self.expired += 1,
                Some(left) => self.left.add(left),
            }
        }
    }

    fn sample(&mut self, snapshot: &Snapshot, mut places: Vec<RecordPlace>, most_large: usize) {
        for place in &places {
            self.sizes.add(place.bytes);
        }
        let mut scratch = Scratch::new();
        for place in spread(&places, SAMPLE).filter(|place| place.bytes <= MAX_SAMPLED_BYTES) {
            if let Some(record) = snapshot.read_place(place, &mut scratch) {
                self.contents.add(record.key, record.value);
            }
        }
        self.contents.is_sample = self.contents.entries < u64::from(snapshot.len());
        // The largest by distance include the largest by content, so reading this many is enough.
        let most = most_large.min(places.len());
        if most > 0 {
            places.select_nth_unstable_by_key(most - 1, |place| std::cmp::Reverse(place.bytes));
            for place in places.iter().take(most) {
                if let Some(record) = snapshot.read_place(place, &mut scratch) {
                    self.large(most_large, record.key, record.value, false);
                }
            }
        }
    }

    fn eager(&mut self, snapshot: &Snapshot, most_large: usize) {
        let mut records = snapshot.eager();
        while let Some(Item::Entry(record)) = records.next() {
            self.eager += 1;
            self.sizes.add((record.key.len() + record.value.len()) as u64);
            self.contents.add(record.key, record.value);
            self.large(most_large, record.key, record.value, true);
        }
    }

    fn full(
        &mut self,
        snapshot: &Snapshot,
        most_large: usize,
        environment: &Environment<'_>,
    ) -> Result<(), Failure> {
        entries::each(&Cache::File(snapshot.clone()), environment.progress, "reading", |entry| {
            self.eager += u64::from(entry.is_eager);
            self.entry(&entry, most_large);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(())
    }

    fn large(&mut self, most: usize, key: &[u8], value: &[u8], is_eager: bool) {
        let bytes = (key.len() + value.len()) as u64;
        let place = self.largest.partition_point(|large| large.bytes >= bytes);
        if place < most {
            self.largest.insert(place, Large { key: key.to_vec(), bytes, is_eager });
            self.largest.truncate(most);
        }
    }
}

/// At most `most` of the places, evenly spread.
fn spread(places: &[RecordPlace], most: usize) -> impl Iterator<Item = &RecordPlace> {
    places.iter().step_by(places.len().div_ceil(most).max(1))
}

fn damage(snapshot: &Snapshot) -> Option<String> {
    let damage = snapshot.damage();
    let parts = [
        (damage.records, "records"),
        (damage.buckets, "buckets of the index"),
        (damage.deadline_pages, "pages of deadlines"),
        (damage.eager_bytes, "bytes of eager records"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, what)| format!("{} {what}", human::count(*count))).collect();
    (!parts.is_empty()).then(|| format!("{} could not be read", parts.join(", ")))
}
