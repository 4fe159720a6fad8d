//! `diff`: how the entries of two caches differ. Walks through each cache and looks up every key in
//! the other cache, so no memory for the entries is needed. (Eager entries, which a look-up does
//! not find, are kept in memory.)

use std::collections::HashMap;
use std::io::Write;
use std::ops::ControlFlow;

use async_cache_disk::{Item, Source};
use serde_json::json;

use super::{CommandOutcome, line};
use crate::args::{Audience, Diff};
use crate::cache::{Cache, CacheScratch, FoundValue};
use crate::entries::{self, EagerEntries, Entry};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human::{self, BAD, CHANGED, DIM, GOOD, KEY};
use crate::json;

pub(crate) fn run(
    args: &Diff,
    audience: Audience,
    environment: &mut Environment<'_>,
) -> Result<CommandOutcome, Failure> {
    let version = args.data_version.as_deref();
    let old = args.access.open(&args.old, version, environment)?;
    let new = args.access.open(&args.new, version, environment)?;
    let (in_old, in_new) = (EntryFinder::new(&old), EntryFinder::new(&new));
    let limit = args.limit.unwrap_or(u64::MAX);
    let mut report = DiffReport {
        out: &mut *environment.out,
        audience,
        limit,
        added: 0,
        removed: 0,
        changed: 0,
        equal: 0,
    };

    let mut scratch = CacheScratch::default();
    let lost_old = entries::each(&old, environment.progress, "comparing", |entry| {
        if in_old.is_superseded(&entry) {
            return Ok(ControlFlow::Continue(()));
        }
        match in_new.find(&entry, &mut scratch) {
            None => report.removed(&entry)?,
            Some(FoundValue { value, deadline }) => {
                let same_value = value == entry.value;
                if same_value && (args.ignore_deadlines || deadline == entry.deadline) {
                    report.equal += 1;
                } else {
                    report.changed(&entry, value.len(), same_value, deadline)?;
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let lost_new = entries::each(&new, environment.progress, "comparing", |entry| {
        if !in_new.is_superseded(&entry) && in_old.find(&entry, &mut scratch).is_none() {
            report.added(&entry)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;

    let differ = report.finish()?;
    environment.out.flush()?;
    let mut is_damaged = false;
    for (path, lost) in [(&args.old, lost_old), (&args.new, lost_new)] {
        if let Some(lost) = lost.sentence() {
            is_damaged = true;
            writeln!(environment.err, "{BAD}async-cache:{BAD:#} {}: {lost}", path.display())?;
        }
    }
    Ok(CommandOutcome::found(differ || is_damaged))
}

/// Finds entries of the other cache in this cache.
struct EntryFinder<'s> {
    cache: &'s Cache,
    /// For equal keys the last entry counts.
    eager: HashMap<Vec<u8>, (Vec<u8>, Option<u64>)>,
}

impl<'s> EntryFinder<'s> {
    fn new(cache: &'s Cache) -> Self {
        let mut eager = HashMap::new();
        match cache {
            Cache::File(snapshot) => {
                let mut records = snapshot.eager();
                while let Some(Item::Entry(record)) = records.next() {
                    eager.insert(record.key.to_vec(), (record.value.to_vec(), record.deadline));
                }
            }
            Cache::Store(view) => {
                for entry in EagerEntries::of(view).each() {
                    eager.insert(entry.key.to_vec(), (entry.value.to_vec(), entry.deadline));
                }
            }
        }
        Self { cache, eager }
    }

    /// Whether an eager entry of this cache is superseded by a later entry with the same key.
    fn is_superseded(&self, entry: &Entry<'_>) -> bool {
        let last = entry.is_eager.then(|| self.eager.get(entry.key)).flatten();
        last.is_some_and(|(value, deadline)| (&value[..], *deadline) != (entry.value, entry.deadline))
    }

    fn find<'f>(&'f self, entry: &Entry<'_>, scratch: &'f mut CacheScratch) -> Option<FoundValue<'f>> {
        if !entry.is_eager {
            return self.cache.find(entry.key, scratch);
        }
        self.eager.get(entry.key).map(|(value, deadline)| FoundValue { value, deadline: *deadline })
    }
}

struct DiffReport<'o> {
    out: &'o mut dyn Write,
    audience: Audience,
    limit: u64,
    added: u64,
    removed: u64,
    changed: u64,
    equal: u64,
}

impl DiffReport<'_> {
    fn may_name(&self) -> bool {
        self.added + self.removed + self.changed <= self.limit
    }

    fn removed(&mut self, entry: &Entry<'_>) -> Result<(), Failure> {
        self.removed += 1;
        self.one_sided(entry, "removed", "-", BAD)
    }

    fn added(&mut self, entry: &Entry<'_>) -> Result<(), Failure> {
        self.added += 1;
        self.one_sided(entry, "added", "+", GOOD)
    }

    fn one_sided(
        &mut self,
        entry: &Entry<'_>,
        change: &str,
        sign: &str,
        style: anstyle::Style,
    ) -> Result<(), Failure> {
        if !self.may_name() {
            return Ok(());
        }
        if self.audience == Audience::Programs {
            let (key, bytes) = (json::exact(entry.key), entry.value.len());
            return line(self.out, &json!({ "change": change, "key": key, "value_bytes": bytes }));
        }
        let (key, size) = (human::short_key(entry.key), human::bytes(entry.value.len() as u64));
        Ok(writeln!(self.out, "{style}{sign}{style:#} {KEY}{key}{KEY:#}  {DIM}{size}{DIM:#}")?)
    }

    fn changed(
        &mut self,
        old: &Entry<'_>,
        new_bytes: usize,
        same_value: bool,
        new_deadline: Option<u64>,
    ) -> Result<(), Failure> {
        self.changed += 1;
        if !self.may_name() {
            return Ok(());
        }
        if self.audience == Audience::Programs {
            let change = json!({
                "change": "changed",
                "key": json::exact(old.key),
                "value_changed": !same_value,
                "value_bytes": [old.value.len(), new_bytes],
                "deadline": [old.deadline, new_deadline],
            });
            return line(self.out, &change);
        }
        let mut what = Vec::new();
        if !same_value {
            let sizes = [old.value.len(), new_bytes].map(|bytes| human::bytes(bytes as u64));
            what.push(format!("value {} → {}", sizes[0], sizes[1]));
        }
        if old.deadline != new_deadline {
            let times = [old.deadline, new_deadline].map(|it| it.map_or("never".to_owned(), human::time));
            what.push(format!("deadline {} → {}", times[0], times[1]));
        }
        let (key, what) = (human::short_key(old.key), what.join(", "));
        Ok(writeln!(self.out, "{CHANGED}~{CHANGED:#} {KEY}{key}{KEY:#}  {DIM}{what}{DIM:#}")?)
    }

    /// Writes the totals; returns whether there are differences.
    fn finish(self) -> Result<bool, Failure> {
        let Self { out, audience, added, removed, changed, equal, limit } = self;
        let total = added + removed + changed;
        if audience == Audience::Programs {
            let totals = json!({ "added": added, "removed": removed, "changed": changed, "equal": equal });
            line(out, &totals)?;
            return Ok(total > 0);
        }
        if total > limit {
            writeln!(out, "… and {} more", human::count(total - limit))?;
        }
        let [added, removed, changed, equal] = [added, removed, changed, equal].map(human::count);
        writeln!(out, "{added} added, {removed} removed, {changed} changed, {equal} equal")?;
        Ok(total > 0)
    }
}
