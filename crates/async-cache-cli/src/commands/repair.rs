//! `repair`: writes the intact entries to a new file.

use async_cache_disk::Snapshot;
use serde_json::json;

use super::{CommandOutcome, create_like, fact, line, store};
use crate::args::{Audience, Repair};
use crate::cache::Cache;
use crate::entries::{self, Lost};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human::{self, BAD, GOOD};
use crate::progress::Bar;

pub(crate) fn run(
    args: &Repair,
    audience: Audience,
    environment: &mut Environment<'_>,
) -> Result<CommandOutcome, Failure> {
    match args.source.open_to_repair(environment)? {
        Cache::File(snapshot) => repair_file(args, &snapshot, audience, environment),
        Cache::Store(view) => store::repair::run(args, &view, audience, environment),
    }
}

fn repair_file(
    args: &Repair,
    snapshot: &Snapshot,
    audience: Audience,
    environment: &mut Environment<'_>,
) -> Result<CommandOutcome, Failure> {
    let mut writer = create_like(&args.out, snapshot, &args.source.access, environment)?;
    let mut unreached = 0u64;
    let mut bar = Bar::new(environment.progress, "repairing", snapshot.len().into());
    let mut lost = Lost::default();
    entries::each_of(&mut snapshot.salvage(), &mut bar, &mut lost, |record| {
        unreached += u64::from(record.rank.is_none());
        writer.copy(&record)?;
        Ok(())
    })?;
    entries::each_of(&mut snapshot.eager(), &mut bar, &mut lost, |record| {
        writer.copy_eager(&record)?;
        Ok(())
    })?;
    let lost_bytes = lost.bytes;
    drop(bar);
    writer.set_tombstones(snapshot.tombstones());
    let saved = writer.finish()?;
    let lost_entries = u64::from(snapshot.len()).saturating_sub(saved.entries.into());
    match audience {
        Audience::Programs => line(
            environment.out,
            &json!({
                "out": args.out.display().to_string(),
                "entries": saved.entries,
                "eager": saved.eager,
                "recovered": unreached,
                "lost_entries": lost_entries,
                "lost_bytes": lost_bytes,
            }),
        )?,
        Audience::People => {
            let out = &mut *environment.out;
            writeln!(out, "{GOOD}written{GOOD:#}  {}", args.out.display())?;
            let of = human::count(snapshot.len().into());
            fact(out, "entries", &format!("{} of {of}", human::count(saved.entries.into())))?;
            if unreached > 0 {
                let what = format!("{} that the damaged index did not lead to", human::count(unreached));
                fact(out, "recovered", &what)?;
            }
            if snapshot.has_eager() {
                fact(out, "eager", &human::count(saved.eager.into()))?;
            }
            if lost_entries > 0 || lost_bytes > 0 {
                let (entries, bytes) =
                    (human::things(lost_entries, "entry", "entries"), human::bytes(lost_bytes));
                fact(out, "lost", &format!("{BAD}{entries}{BAD:#}, {bytes} of damaged records"))?;
            }
        }
    }
    Ok(CommandOutcome::found(lost_entries > 0 || lost_bytes > 0))
}
