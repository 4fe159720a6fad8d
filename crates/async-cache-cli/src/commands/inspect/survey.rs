//! Facts about a file that can be collected without reading all of it: counts from the header,
//! sizes from the index (the distance from each record to the next), times from the pages of
//! deadlines, contents from a sample.
//!
//! Eager records are few and have no index; they are always read.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use async_cache_disk::{Item, RecordPlace, Scratch, Snapshot, Source};

use crate::args::Inspect;
use crate::chart::Histogram;
use crate::entries;
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
pub(super) struct Survey {
    /// Ranked entries that have expired.
    pub(super) expired: u64,
    /// Ranked entries that never expire.
    pub(super) without_deadline: u64,
    pub(super) eager: u64,
    /// Records that are not entries.
    pub(super) taken_back: u64,
    /// Nanoseconds left of entries that have a deadline and have not expired.
    pub(super) left: Histogram,
    /// Bytes of key and value; if not exact, including the record around them.
    pub(super) sizes: Histogram,
    pub(super) sizes_are_exact: bool,
    /// The largest entries, the largest first.
    pub(super) largest: Vec<Large>,
    pub(super) contents: Contents,
    /// A description of the damage found.
    pub(super) damage: Option<String>,
}

#[derive(Debug)]
pub(super) struct Large {
    pub(super) key: Vec<u8>,
    pub(super) bytes: u64,
    pub(super) is_eager: bool,
}

/// The contents of keys and values.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// How many entries were read.
    pub(super) entries: u64,
    /// Whether there are entries that were not read.
    pub(super) is_sample: bool,
    pub(super) key_bytes: u64,
    pub(super) value_bytes: u64,
    pub(super) kinds: BTreeMap<&'static str, u64>,
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
    pub(super) fn of(
        snapshot: &Snapshot,
        args: &Inspect,
        environment: &Environment<'_>,
    ) -> Result<Self, Failure> {
        let spans =
            [SECOND, 60 * SECOND, 10 * 60 * SECOND, HOUR, 6 * HOUR, DAY, 7 * DAY, 30 * DAY, 365 * DAY];
        let layout = snapshot.layout();
        let mut survey = Self {
            expired: 0,
            without_deadline: snapshot.len().saturating_sub(snapshot.deadline_count()).into(),
            eager: 0,
            taken_back: layout.records.saturating_sub(snapshot.len()).into(),
            left: Histogram::new(spans),
            sizes: Histogram::new((4..=30).step_by(2).map(|power| 1 << power)),
            sizes_are_exact: args.full,
            largest: Vec::new(),
            contents: Contents::default(),
            damage: None,
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
        entries::each(snapshot, environment.progress, "reading", |entry| {
            self.eager += u64::from(entry.rank.is_none());
            self.sizes.add((entry.key.len() + entry.value.len()) as u64);
            self.contents.add(entry.key, entry.value);
            self.large(most_large, entry.key, entry.value, entry.rank.is_none());
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
