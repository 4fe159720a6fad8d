//! `verify` of a store: lists everything wrong with it and its base.

use std::path::Path;

use async_cache_disk::store::{StoreFindingKind, StoreReport, StoreView};
use serde_json::{Value, json};

use crate::args::{Audience, Verify};
use crate::commands::verify::name as name_in_file;
use crate::commands::{CommandOutcome, fact, line};
use crate::entries::EagerEntries;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human::{self, BAD, DIM, GOOD};

pub(in crate::commands) fn run(
    args: &Verify,
    view: &StoreView,
    audience: Audience,
    environment: &mut Environment<'_>,
) -> Result<CommandOutcome, Failure> {
    let report = view.verify();
    let eager = EagerEntries::of(view).each().count();
    let is_clean = report.is_clean() && view.base_error().is_none();
    match audience {
        Audience::Programs => print_json(view, &report, eager, is_clean, environment)?,
        Audience::People => print(args, view, &report, eager, is_clean, environment)?,
    }
    Ok(CommandOutcome::found(!is_clean))
}

fn print(
    args: &Verify,
    view: &StoreView,
    report: &StoreReport,
    eager: usize,
    is_clean: bool,
    environment: &mut Environment<'_>,
) -> Result<(), Failure> {
    let path = args.source.path.display();
    let out = &mut *environment.out;
    let of_base = report.base.iter().flat_map(|base| &base.findings);
    for finding in of_base {
        let (offset, what) = (finding.offset, &finding.what);
        writeln!(out, "{DIM}byte {offset}{DIM:#}  {BAD}{}{BAD:#}  {what}", name_in_file(finding.kind))?;
    }
    for finding in &report.findings {
        let (file, offset, what) = (file_name(&finding.file), finding.offset, &finding.what);
        writeln!(out, "{DIM}{file} byte {offset}{DIM:#}  {BAD}{}{BAD:#}  {what}", name(finding.kind))?;
    }
    let count = finding_count(report);
    let listed = report.findings.len() + report.base.as_ref().map_or(0, |base| base.findings.len());
    let unlisted = count.saturating_sub(listed as u64);
    if unlisted > 0 {
        writeln!(out, "… and {} more", human::count(unlisted))?;
    }
    if let Some(error) = view.base_error() {
        writeln!(out, "{BAD}file{BAD:#}  {}", human::plain(&error.to_string()))?;
    }
    if is_clean {
        writeln!(out, "{GOOD}clean{GOOD:#}  {path}, and its store")?;
    } else {
        writeln!(out)?;
        let findings = human::things(count + u64::from(view.base_error().is_some()), "finding", "findings");
        writeln!(out, "{BAD}{findings}{BAD:#}  {path}, and its store")?;
    }
    let sound = format!(
        "{} of {} entries can be served",
        human::count(report.sound_entries),
        human::count(report.entries)
    );
    fact(out, "entries", &sound)?;
    if eager > 0 {
        fact(out, "eager", &format!("{} can be served", human::count(eager as u64)))?;
    }
    let base = report.base.as_ref().map_or(0, |base| base.file_bytes);
    fact(out, "read", &format!("{}, store {}", human::bytes(base), human::bytes(report.bytes)))?;
    if view.floor() > 0 {
        fact(out, "floor", &format!("entries until {} do not count", human::time(view.floor())))?;
    }
    if !is_clean {
        fact(out, "next", "`async-cache repair` writes what can be read to a new file")?;
    }
    Ok(())
}

fn finding_count(report: &StoreReport) -> u64 {
    report.finding_count + report.base.as_ref().map_or(0, |base| base.finding_count)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn print_json(
    view: &StoreView,
    report: &StoreReport,
    eager: usize,
    is_clean: bool,
    environment: &mut Environment<'_>,
) -> Result<(), Failure> {
    let of_base = report.base.iter().flat_map(|base| &base.findings);
    let of_base = of_base.map(
        |it| json!({ "kind": name_in_file(it.kind), "file": null, "offset": it.offset, "what": it.what }),
    );
    let of_store = report.findings.iter().map(|it| {
        json!({ "kind": name(it.kind), "file": file_name(&it.file), "offset": it.offset, "what": it.what })
    });
    let findings: Vec<Value> = of_base.chain(of_store).collect();
    let base = report.base.as_ref();
    let report = json!({
        "clean": is_clean,
        "file_bytes": base.map_or(0, |base| base.file_bytes),
        "store_bytes": report.bytes,
        "entries": report.entries,
        "sound_entries": report.sound_entries,
        "sound_eager": eager,
        "floor": view.floor(),
        "base_error": view.base_error().map(ToString::to_string),
        "finding_count": finding_count(report),
        "findings": findings,
    });
    line(environment.out, &report)
}

/// The name of a kind, the same for people and programs.
fn name(kind: StoreFindingKind) -> &'static str {
    match kind {
        StoreFindingKind::Segment => "segment",
        StoreFindingKind::Run => "run",
        StoreFindingKind::Record => "record",
        StoreFindingKind::Range => "range",
        StoreFindingKind::Digest => "digest",
        StoreFindingKind::Bucket => "bucket",
        StoreFindingKind::EagerList => "eager-list",
        StoreFindingKind::Unreachable => "unreachable",
        _ => "other",
    }
}
