//! `repair` of a store: writes what can be read of it to a new file.

use async_cache_disk::store::StoreView;
use serde_json::json;

use super::{create_like, push, tombstones};
use crate::args::{Audience, Repair};
use crate::commands::{CommandOutcome, fact, line};
use crate::entries::{self, Lost};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human::{self, BAD, GOOD};
use crate::progress::Bar;

pub(in crate::commands) fn run(
    args: &Repair,
    view: &StoreView,
    audience: Audience,
    environment: &mut Environment<'_>,
) -> Result<CommandOutcome, Failure> {
    let mut writer = create_like(&args.out, view, &args.source.access, environment)?;
    let mut lost = Lost::default();
    let mut bar = Bar::new(environment.progress, "repairing", view.most_entries());
    entries::each_recovered(view, &mut bar, &mut lost, |entry| push(&mut writer, &entry))?;
    drop(bar);
    writer.set_tombstones(tombstones(view));
    let saved = writer.finish()?;
    let lost_files = view.segments().filter(|segment| segment.is_lost).count() as u64;
    let base = view.base_error().map(ToString::to_string);
    let is_lost = !lost.is_nothing() || lost_files > 0 || base.is_some();
    match audience {
        Audience::Programs => line(
            environment.out,
            &json!({
                "out": args.out.display().to_string(),
                "entries": saved.entries,
                "eager": saved.eager,
                "lost_entries": lost.entries,
                "lost_bytes": lost.bytes,
                "lost_records": lost.records,
                "hidden_entries": lost.hidden,
                "lost_segments": lost_files,
                "floor": view.floor(),
                "base_error": base,
            }),
        )?,
        Audience::People => {
            let out = &mut *environment.out;
            writeln!(out, "{GOOD}written{GOOD:#}  {}", args.out.display())?;
            fact(out, "entries", &human::count(saved.entries.into()))?;
            if saved.eager > 0 {
                fact(out, "eager", &human::count(saved.eager.into()))?;
            }
            for what in losses(lost, lost_files) {
                fact(out, "lost", &format!("{BAD}{what}{BAD:#}"))?;
            }
            if let Some(base) = base {
                fact(out, "lost", &format!("{BAD}all of the file{BAD:#}: {}", human::plain(&base)))?;
            }
            if is_lost && view.floor() > 0 {
                let what = format!(
                    "entries until {}: records that cannot be read may have deleted them",
                    human::time(view.floor())
                );
                fact(out, "left out", &what)?;
            }
        }
    }
    Ok(CommandOutcome::found(is_lost))
}

fn losses(lost: Lost, files: u64) -> impl Iterator<Item = String> {
    let entries =
        (lost.entries > 0).then(|| human::things(lost.entries, "entry of the file", "entries of the file"));
    let bytes =
        (lost.bytes > 0).then(|| format!("{} of damaged records of the file", human::bytes(lost.bytes)));
    let records = (lost.records > 0).then(|| {
        human::things(lost.records, "record of the store", "records of the store, or ranges of them")
    });
    let hidden = (lost.hidden > 0).then(|| {
        let what = human::things(lost.hidden, "earlier entry", "earlier entries");
        format!("{what} that a lost record may have replaced")
    });
    let files = (files > 0).then(|| human::things(files, "segment", "segments"));
    [entries, bytes, records, hidden, files].into_iter().flatten()
}
