//! `inspect` of a store: the file at the path and the store beside it.

use std::io::Write;

use async_cache_disk::store::{RunFacts, SegmentFacts, StoreView};
use async_cache_disk::{LockHolder, Snapshot};
use serde_json::{Value, json};

use crate::args::{Audience, Inspect};
use crate::cache::Cache;
use crate::commands::inspect::survey::Survey;
use crate::commands::inspect::{charts, contents, contents_json, largest};
use crate::commands::{CommandOutcome, fact, line};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human::{self, BAD, DIM, HEADING};

/// A store up to this size is read whole: which of its records count, only look-ups tell.
const MOST_READ_BYTES: u64 = 64 << 20;
/// More segments or runs are not listed for people.
const MOST_LISTED: usize = 20;

pub(in crate::commands) fn run(
    args: &Inspect,
    view: &StoreView,
    cache: &Cache,
    audience: Audience,
    environment: &mut Environment<'_>,
) -> Result<CommandOutcome, Failure> {
    let bytes = view.bytes().saturating_add(view.base().map_or(0, Snapshot::file_bytes));
    let survey = if args.full || bytes <= MOST_READ_BYTES {
        Some(Survey::of_store(cache, args.largest, environment)?)
    } else {
        None
    };
    match audience {
        Audience::Programs => print_json(args, view, survey.as_ref(), environment)?,
        Audience::People => print(args, view, survey.as_ref(), environment)?,
    }
    Ok(CommandOutcome::found(damage(view, survey.as_ref()).is_some()))
}

/// The damage that was found.
fn damage(view: &StoreView, survey: Option<&Survey>) -> Option<String> {
    let lost = view.segments().filter(|it| it.is_lost).count() as u64;
    let runs = view.runs().filter(|it| it.is_lost).count() as u64;
    let parts = [
        (lost > 0).then(|| human::things(lost, "segment is lost", "segments are lost")),
        (runs > 0).then(|| human::things(runs, "run is lost", "runs are lost")),
        view.base_error()
            .map(|error| format!("the file cannot be read: {}", human::plain(&error.to_string()))),
        survey.and_then(|survey| survey.damage.clone()).or_else(|| {
            let damaged = u64::from(view.damaged_tails());
            (damaged > 0).then(|| human::things(damaged, "record is damaged", "records are damaged"))
        }),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn print(
    args: &Inspect,
    view: &StoreView,
    survey: Option<&Survey>,
    environment: &mut Environment<'_>,
) -> Result<(), Failure> {
    let (now, out) = (environment.now, &mut *environment.out);
    writeln!(out, "{HEADING}{}{HEADING:#}", args.source.path.display())?;
    fact(out, "version", &format!("{:?}, format 2: a file and a store", view.version()))?;
    fact(out, "written by", &human::plain(view.producer()))?;
    if view.has_mac() {
        fact(out, "has", "a secret")?;
    }
    fact(out, "file", &base_in_words(view))?;
    fact(out, "store", &view.folder().display().to_string())?;
    let state = match view.writer() {
        Some(LockHolder::Process(number)) => format!("in use by process {number}"),
        Some(LockHolder::Unnamed) => "in use by a process in another container".to_owned(),
        None if view.is_clean() => "closed".to_owned(),
        None => "not closed".to_owned(),
    };
    fact(out, "state", &format!("{state}; manifest {}", human::count(view.sequence())))?;
    fact(out, "entries", &entries(view, survey))?;
    let written_until = view.written_until();
    if written_until > 0 {
        let age = match now.checked_sub(written_until) {
            Some(age) => format!("{} ago", human::span(age)),
            None => "in the future".to_owned(),
        };
        fact(out, "written", &format!("until {}, {age}", human::time(written_until)))?;
    }
    if view.floor() > 0 {
        let what = "what damage hides, or could not be deleted, does not count";
        fact(out, "floor", &format!("entries until {}: {what}", human::time(view.floor())))?;
    }
    if view.cleared_at() > view.floor() {
        fact(out, "deleted", &format!("everything until {}", human::time(view.cleared_at())))?;
    }
    fact(out, "size", &size(view))?;
    if let Some(damage) = damage(view, survey) {
        fact(out, "damage", &format!("{BAD}{damage}{BAD:#}; `async-cache verify` says where"))?;
    }
    files(out, view)?;
    if let Some(survey) = survey.filter(|survey| survey.entries + survey.eager > 0) {
        charts(out, survey)?;
        contents(out, &survey.contents)?;
    }
    Ok(())
}

fn base_in_words(view: &StoreView) -> String {
    match (view.base(), view.is_base_ours()) {
        (Some(base), is_ours) => {
            let entries = human::things(base.len().into(), "entry", "entries");
            let eager = if base.has_eager() { ", and eager ones" } else { "" };
            let saved = human::time(base.saved_at());
            let other = if is_ours { "" } else { ", by a program without the store: the later write counts" };
            format!("{entries}{eager}, saved {saved}{other}")
        }
        (None, true) => "none yet".to_owned(),
        (None, false) => "gone, or it cannot be read".to_owned(),
    }
}

fn entries(view: &StoreView, survey: Option<&Survey>) -> String {
    let Some(survey) = survey else {
        let most = human::count(view.most_entries());
        return format!("{most} at most, with replaced and deleted ones; --full counts");
    };
    let mut entries = human::count(survey.entries);
    if survey.expired > 0 {
        entries = format!("{entries}, {} of them expired", human::count(survey.expired));
    }
    if survey.eager > 0 {
        entries = format!("{entries}, and {} eager", human::count(survey.eager));
    }
    entries
}

fn size(view: &StoreView) -> String {
    let base = view.base().map_or(0, Snapshot::file_bytes);
    let segments: u64 = view.segments().map(|it| u64::from(it.bytes)).sum();
    let runs: u64 = view.runs().map(|it| it.bytes).sum();
    let parts = [("file", base), ("segments", segments), ("runs", runs)];
    let parts: Vec<String> =
        parts.iter().map(|(name, bytes)| format!("{name} {}", human::bytes(*bytes))).collect();
    format!("{} ({})", human::bytes(base + segments + runs), parts.join(", "))
}

fn files(out: &mut dyn Write, view: &StoreView) -> Result<(), Failure> {
    let (segments, runs): (Vec<_>, Vec<_>) = (view.segments().collect(), view.runs().collect());
    if !segments.is_empty() {
        writeln!(
            out,
            "\n{HEADING}Segments{HEADING:#}  {DIM}({}){DIM:#}",
            human::count(segments.len() as u64)
        )?;
        for it in segments.iter().take(MOST_LISTED) {
            let (records, bytes) =
                (human::things(it.entries.into(), "entry", "entries"), human::bytes(it.bytes.into()));
            let state = match it {
                SegmentFacts { is_lost: true, .. } => "lost",
                SegmentFacts { is_indexed: true, .. } => "sealed, indexed",
                SegmentFacts { is_sealed: true, .. } => "sealed",
                _ => "open",
            };
            let until =
                if it.latest == 0 { String::new() } else { format!(", until {}", human::time(it.latest)) };
            writeln!(
                out,
                "  {:>10}  {bytes:>10}  {records:>18}  {DIM}{state}{until}{DIM:#}",
                format!("s{:06x}", it.number)
            )?;
        }
        more(out, segments.len())?;
    }
    if !runs.is_empty() {
        writeln!(out, "\n{HEADING}Runs{HEADING:#}  {DIM}({}){DIM:#}", human::count(runs.len() as u64))?;
        for it in runs.iter().take(MOST_LISTED) {
            let (records, bytes) =
                (human::things(it.slots.into(), "record", "records"), human::bytes(it.bytes));
            let lost = if it.is_lost { "lost, " } else { "" };
            let range =
                format!("{lost}level {}, s{:06x} to s{:06x}", it.level, it.first_segment, it.last_segment);
            writeln!(
                out,
                "  {:>10}  {bytes:>10}  {records:>18}  {DIM}{range}{DIM:#}",
                format!("i{:06x}", it.number)
            )?;
        }
        more(out, runs.len())?;
    }
    Ok(())
}

fn more(out: &mut dyn Write, count: usize) -> Result<(), Failure> {
    let more = count.saturating_sub(MOST_LISTED);
    if more > 0 {
        writeln!(out, "  … and {} more; --json lists all", human::count(more as u64))?;
    }
    Ok(())
}

fn print_json(
    args: &Inspect,
    view: &StoreView,
    survey: Option<&Survey>,
    environment: &mut Environment<'_>,
) -> Result<(), Failure> {
    let base = view.base().map(|base| {
        json!({
            "file_id": hex(base.file_id()),
            "saved_at": base.saved_at(),
            "written_until": base.written_until(),
            "entries": base.len(),
            "file_bytes": base.file_bytes(),
            "is_ours": view.is_base_ours(),
        })
    });
    let segments: Vec<Value> = view.segments().map(segment_json).collect();
    let runs: Vec<Value> = view.runs().map(run_json).collect();
    let report = json!({
        "path": args.source.path.display().to_string(),
        "format": 2,
        "version": view.version(),
        "producer": view.producer(),
        "has_secret": view.has_mac(),
        "folder": view.folder().display().to_string(),
        "is_closed": view.is_clean(),
        "is_in_use": view.writer().is_some(),
        "process": match view.writer() {
            Some(LockHolder::Process(number)) => Some(number),
            _ => None,
        },
        "sequence": view.sequence(),
        "written_until": view.written_until(),
        "cleared_at": view.cleared_at(),
        "floor": view.floor(),
        "age_ns": environment.now.saturating_sub(view.written_until()),
        "entries": survey.map(|survey| survey.entries),
        "most_entries": view.most_entries(),
        "eager": survey.map(|survey| survey.eager),
        "expired": survey.map(|survey| survey.expired),
        "without_deadline": survey.map(|survey| survey.without_deadline),
        "store_bytes": view.bytes(),
        "file_bytes": view.base().map_or(0, Snapshot::file_bytes),
        "base": base,
        "segments": segments,
        "runs": runs,
        "left_to_live_ns": survey.map(|survey| survey.left.to_json()),
        "entry_bytes": survey.map(|survey| survey.sizes.to_json()),
        "largest": survey.map(largest),
        "contents": survey.map(|survey| contents_json(&survey.contents)),
        "damage": damage(view, survey),
    });
    line(environment.out, &report)
}

fn segment_json(it: SegmentFacts) -> Value {
    json!({
        "number": it.number,
        "bytes": it.bytes,
        "entries": it.entries,
        "earliest": it.earliest,
        "latest": it.latest,
        "dead_bytes": it.dead_bytes,
        "is_sealed": it.is_sealed,
        "is_indexed": it.is_indexed,
        "is_lost": it.is_lost,
    })
}

fn run_json(it: RunFacts) -> Value {
    json!({
        "number": it.number,
        "level": it.level,
        "bytes": it.bytes,
        "records": it.slots,
        "first_segment": it.first_segment,
        "last_segment": it.last_segment,
        "is_lost": it.is_lost,
    })
}

fn hex(id: [u8; 16]) -> String {
    id.iter().fold(String::new(), |id, byte| format!("{id}{byte:02x}"))
}
