//! `inspect`: describes a file. `survey.rs` collects the facts, this file shows them.

pub(super) mod survey;

use std::io::Write;

use async_cache_disk::Snapshot;
use serde_json::{Value, json};

use self::survey::{Contents, Survey};
use super::{CommandOutcome, fact, line, store};
use crate::args::{Audience, Inspect};
use crate::cache::Cache;
use crate::chart;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human::{self, BAD, DIM, HEADING, KEY};
use crate::json;

pub(crate) fn run(
    args: &Inspect,
    audience: Audience,
    environment: &mut Environment<'_>,
) -> Result<CommandOutcome, Failure> {
    let cache = args.source.open(environment)?;
    let snapshot = match &cache {
        Cache::File(snapshot) => snapshot,
        Cache::Store(view) => return store::inspect::run(args, view, &cache, audience, environment),
    };
    let survey = Survey::of(snapshot, args, environment)?;
    match audience {
        Audience::Programs => print_json(snapshot, &survey, environment)?,
        Audience::People => print(snapshot, &survey, environment)?,
    }
    Ok(CommandOutcome::found(survey.damage.is_some()))
}

fn print(snapshot: &Snapshot, survey: &Survey, environment: &mut Environment<'_>) -> Result<(), Failure> {
    let (now, out) = (environment.now, &mut *environment.out);
    facts(out, snapshot, survey, now)?;
    if snapshot.is_empty() && !snapshot.has_eager() {
        return Ok(());
    }
    charts(out, survey)?;
    contents(out, &survey.contents)
}

fn facts(out: &mut dyn Write, snapshot: &Snapshot, survey: &Survey, now: u64) -> Result<(), Failure> {
    writeln!(out, "{HEADING}{}{HEADING:#}", snapshot.path().display())?;
    fact(out, "version", &format!("{:?}, format 1", snapshot.version()))?;
    fact(out, "written by", &human::plain(snapshot.producer()))?;
    match (snapshot.has_mac(), snapshot.is_compressed()) {
        (false, false) => {}
        (true, false) => fact(out, "has", "a secret")?,
        (false, true) => fact(out, "has", "compressed values")?,
        (true, true) => fact(out, "has", "a secret, compressed values")?,
    }
    let saved = snapshot.saved_at();
    let age =
        if saved > now { "in the future".to_owned() } else { format!("{} ago", human::span(now - saved)) };
    fact(out, "saved", &format!("{}, {age}", human::time(saved)))?;
    let mut entries = human::count(snapshot.len().into());
    if survey.expired > 0 {
        entries = format!("{entries}, {} of them expired", human::count(survey.expired));
    }
    if snapshot.has_eager() {
        entries = format!("{entries}, and {} eager", human::count(survey.eager));
    }
    fact(out, "entries", &entries)?;
    let written_until = snapshot.written_until();
    if written_until > 0 {
        fact(out, "written", &format!("until {}, by the entries' own times", human::time(written_until)))?;
    }
    let tombstones = snapshot.tombstones();
    if !tombstones.is_empty() {
        let keys = human::things(tombstones.len() as u64, "key is remembered", "keys are remembered");
        let all = match tombstones.cleared_at() {
            0 => String::new(),
            time => format!("; everything until {}", human::time(time)),
        };
        fact(out, "deleted", &format!("{keys}{all}"))?;
    }
    fact(out, "size", &size(snapshot))?;
    if survey.taken_back > 0 {
        let records = human::things(survey.taken_back, "record is no entry", "records are no entries");
        let what = format!("{records}; `async-cache compact` leaves that out");
        fact(out, "taken back", &what)?;
    }
    if let Some(damage) = &survey.damage {
        fact(out, "damage", &format!("{BAD}{damage}{BAD:#}; `async-cache verify` says where"))?;
    }
    Ok(())
}

/// The size of the file, and of its sections.
fn size(snapshot: &Snapshot) -> String {
    let layout = snapshot.layout();
    let parts = [
        ("records", layout.record_bytes),
        ("index", layout.index_bytes),
        ("deadlines", layout.deadline_bytes),
        ("eager", layout.eager_bytes),
        ("dictionary", layout.dictionary_bytes),
        ("tombstones", layout.tombstone_bytes),
    ];
    let parts = parts.into_iter().filter(|(_, bytes)| *bytes > 0);
    let parts: Vec<String> = parts.map(|(name, bytes)| format!("{name} {}", human::bytes(bytes))).collect();
    let parts = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
    format!("{}{parts}", human::bytes(snapshot.file_bytes()))
}

pub(super) fn charts(out: &mut dyn Write, survey: &Survey) -> Result<(), Failure> {
    writeln!(out, "\n{HEADING}Left to live{HEADING:#}")?;
    let mut rows = vec![("expired".to_owned(), survey.expired)];
    rows.extend(survey.left.rows(human::span));
    rows.push(("never expire".to_owned(), survey.without_deadline));
    rows.retain(|(_, count)| *count > 0);
    chart::draw(out, &rows)?;

    let what = if survey.sizes_are_exact { "Key and value" } else { "Size of a record" };
    writeln!(out, "\n{HEADING}{what}{HEADING:#}")?;
    chart::draw(out, &survey.sizes.rows(human::bytes))?;
    if !survey.largest.is_empty() {
        writeln!(out, "\n{HEADING}Largest{HEADING:#}  {DIM}(key and value){DIM:#}")?;
        for large in &survey.largest {
            let (size, key) = (human::bytes(large.bytes), human::short_key(&large.key));
            writeln!(out, "  {size:>16}  {KEY}{key}{KEY:#}")?;
        }
    }
    Ok(())
}

pub(super) fn contents(out: &mut dyn Write, contents: &Contents) -> Result<(), Failure> {
    if contents.entries == 0 {
        return Ok(());
    }
    let read = human::count(contents.entries);
    let how = if contents.is_sample {
        format!("a sample of {read}; --full reads all")
    } else {
        format!("all {read} read")
    };
    writeln!(out, "\n{HEADING}Values{HEADING:#}  {DIM}({how}){DIM:#}")?;
    let rows: Vec<(String, u64)> =
        contents.kinds.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
    chart::draw(out, &rows)?;
    let mean = |bytes: u64| human::bytes(bytes / contents.entries);
    let (keys, values) = (mean(contents.key_bytes), mean(contents.value_bytes));
    writeln!(out, "  {DIM}on average a key has {keys} and a value {values}{DIM:#}")?;
    Ok(())
}

fn print_json(
    snapshot: &Snapshot,
    survey: &Survey,
    environment: &mut Environment<'_>,
) -> Result<(), Failure> {
    let layout = snapshot.layout();
    let tombstones = snapshot.tombstones();
    let id = snapshot.file_id().iter().fold(String::new(), |id, byte| format!("{id}{byte:02x}"));
    let report = json!({
        "path": snapshot.path().display().to_string(),
        "format": 1,
        "version": snapshot.version(),
        "producer": snapshot.producer(),
        "file_id": id,
        "saved_at": snapshot.saved_at(),
        "written_until": snapshot.written_until(),
        "cleared_at": tombstones.cleared_at(),
        "tombstones": tombstones.len(),
        "age_ns": environment.now.saturating_sub(snapshot.saved_at()),
        "entries": snapshot.len(),
        "eager": survey.eager,
        "expired": survey.expired,
        "without_deadline": survey.without_deadline,
        "taken_back": survey.taken_back,
        "file_bytes": snapshot.file_bytes(),
        "record_bytes": layout.record_bytes,
        "index_bytes": layout.index_bytes,
        "deadline_bytes": layout.deadline_bytes,
        "eager_bytes": layout.eager_bytes,
        "dictionary_bytes": layout.dictionary_bytes,
        "tombstone_bytes": layout.tombstone_bytes,
        "buckets": layout.buckets,
        "has_secret": snapshot.has_mac(),
        "is_compressed": snapshot.is_compressed(),
        "left_to_live_ns": survey.left.to_json(),
        "entry_bytes": survey.sizes.to_json(),
        "largest": largest(survey),
        "contents": contents_json(&survey.contents),
        "damage": survey.damage,
    });
    line(environment.out, &report)
}

/// The largest entries, for programs.
pub(super) fn largest(survey: &Survey) -> Value {
    let largest = survey.largest.iter();
    largest
        .map(|it| json!({ "key": json::exact(&it.key), "bytes": it.bytes, "eager": it.is_eager }))
        .collect()
}

/// The contents of keys and values, for programs.
pub(super) fn contents_json(contents: &Contents) -> Value {
    let kinds: serde_json::Map<_, _> =
        contents.kinds.iter().map(|(kind, count)| ((*kind).to_owned(), json!(count))).collect();
    json!({
        "entries": contents.entries,
        "is_sample": contents.is_sample,
        "key_bytes": contents.key_bytes,
        "value_bytes": contents.value_bytes,
        "kinds": kinds,
    })
}
