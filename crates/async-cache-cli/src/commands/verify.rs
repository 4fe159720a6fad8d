//! `verify`: lists everything wrong with a file.

use async_cache_disk::{FindingKind, Report};
use serde_json::json;

use super::{CommandOutcome, fact, line, store};
use crate::args::{Audience, Verify};
use crate::cache::Cache;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human::{self, BAD, DIM, GOOD};
use crate::open::InspectedFile;

pub(crate) fn run(
    args: &Verify,
    audience: Audience,
    environment: &mut Environment<'_>,
) -> Result<CommandOutcome, Failure> {
    // Opened first for the error messages about a missing or empty file.
    if let Cache::Store(view) = args.source.open(environment)? {
        return store::verify::run(args, &view, audience, environment);
    }
    let InspectedFile { path, data_version, access } = &args.source;
    let report = access.verify(path, data_version.as_deref(), environment)?;
    match audience {
        Audience::Programs => print_json(&report, environment)?,
        Audience::People => print(args, &report, environment)?,
    }
    Ok(CommandOutcome::found(!report.is_clean()))
}

fn print(args: &Verify, report: &Report, environment: &mut Environment<'_>) -> Result<(), Failure> {
    let path = args.source.path.display();
    let out = &mut *environment.out;
    for finding in &report.findings {
        let (offset, what) = (finding.offset, &finding.what);
        writeln!(out, "{DIM}byte {offset}{DIM:#}  {BAD}{}{BAD:#}  {what}", name(finding.kind))?;
    }
    let unlisted = report.finding_count.saturating_sub(report.findings.len() as u64);
    if unlisted > 0 {
        writeln!(out, "… and {} more", human::count(unlisted))?;
    }
    if report.is_clean() {
        writeln!(out, "{GOOD}clean{GOOD:#}  {path}")?;
    } else {
        writeln!(out)?;
        let findings = human::things(report.finding_count, "finding", "findings");
        writeln!(out, "{BAD}{findings}{BAD:#}  {path}")?;
    }
    let sound = format!(
        "{} of {} entries can be served",
        human::count(report.sound_entries.into()),
        human::count(report.entries.into())
    );
    fact(out, "entries", &sound)?;
    if report.sound_eager > 0 || report.findings.iter().any(|it| it.kind == FindingKind::Eager) {
        fact(out, "eager", &format!("{} can be served", human::count(report.sound_eager)))?;
    }
    fact(out, "read", &human::bytes(report.file_bytes))?;
    if u64::from(report.sound_entries) < u64::from(report.entries) {
        fact(out, "next", "`async-cache repair` writes what is intact to a new file")?;
    }
    Ok(())
}

fn print_json(report: &Report, environment: &mut Environment<'_>) -> Result<(), Failure> {
    let findings = report.findings.iter();
    let findings: Vec<_> =
        findings.map(|it| json!({ "kind": name(it.kind), "offset": it.offset, "what": it.what })).collect();
    let report = json!({
        "clean": report.is_clean(),
        "file_bytes": report.file_bytes,
        "entries": report.entries,
        "sound_entries": report.sound_entries,
        "sound_eager": report.sound_eager,
        "finding_count": report.finding_count,
        "findings": findings,
    });
    line(environment.out, &report)
}

/// The name of a kind, the same for people and programs.
pub(super) fn name(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Record => "record",
        FindingKind::Unreachable => "unreachable",
        FindingKind::Bucket => "bucket",
        FindingKind::DeadlinePage => "deadline-page",
        FindingKind::Eager => "eager",
        FindingKind::Tombstones => "tombstones",
        FindingKind::Deadline => "deadline",
        FindingKind::Count => "count",
        FindingKind::Gap => "gap",
        FindingKind::Trailing => "trailing",
        _ => "other",
    }
}
