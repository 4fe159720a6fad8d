//! `compact` of a store: a new file with its entries; without OUT, the store is folded into its
//! file.

use std::ops::ControlFlow;
use std::path::Path;

use async_cache_disk::Snapshot;
use async_cache_disk::store::StoreView;
use serde_json::json;

use super::{create_like, push, tombstones};
use crate::args::{Audience, Compact};
use crate::cache::Cache;
use crate::commands::{CommandOutcome, fact, line};
use crate::entries;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human::{self, GOOD};

/// The sizes before and after.
struct Compacted {
    entries: u64,
    eager: u64,
    expired: u64,
    bytes_before: u64,
    bytes_after: u64,
}

pub(in crate::commands) fn run(
    args: &Compact,
    view: Box<StoreView>,
    audience: Audience,
    environment: &mut Environment<'_>,
) -> Result<CommandOutcome, Failure> {
    let Some(out) = &args.out else {
        let path = args.source.path.display();
        let what = format!("{path}: it has a store; give OUT, and all of it is written there");
        return Err(Failure::Other(what));
    };
    let compacted = copy(out, args, view, environment)?;
    let target = args.out.as_ref().unwrap_or(&args.source.path).display();
    let Compacted { entries, eager, expired, bytes_before, bytes_after } = compacted;
    match audience {
        Audience::Programs => line(
            environment.out,
            &json!({
                "out": target.to_string(),
                "entries": entries,
                "eager": eager,
                "expired": expired,
                "taken_back": 0,
                "bytes_before": bytes_before,
                "bytes_after": bytes_after,
            }),
        )?,
        Audience::People => {
            let out = &mut *environment.out;
            writeln!(out, "{GOOD}written{GOOD:#}  {target}")?;
            fact(out, "entries", &human::count(entries + eager))?;
            fact(out, "dropped", &format!("{} expired", human::count(expired)))?;
            let sizes = format!("{} → {}", human::bytes(bytes_before), human::bytes(bytes_after));
            fact(out, "size", &sizes)?;
        }
    }
    Ok(CommandOutcome::Fine)
}

/// Writes the entries that have not expired to a new file.
fn copy(
    out: &Path,
    args: &Compact,
    view: Box<StoreView>,
    environment: &Environment<'_>,
) -> Result<Compacted, Failure> {
    let mut to = create_like(out, &view, &args.source.access, environment)?;
    let deletes = tombstones(&view);
    let bytes_before = view.bytes() + view.base().map_or(0, Snapshot::file_bytes);
    let base_error = view.base_error().map(ToString::to_string);
    let is_segment_lost = view.segments().any(|segment| segment.is_lost);
    let lost_files = is_segment_lost.then(|| "segments of the store are lost".to_owned());
    let (now, mut expired) = (environment.now, 0u64);
    let lost = entries::each(&Cache::Store(view), environment.progress, "compacting", |entry| {
        if entry.is_expired(now) {
            expired += 1;
        } else {
            push(&mut to, &entry)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(lost) = base_error.or(lost_files).or(lost.sentence()) {
        // The lost data may still be recoverable; a compacted file would be without it for good.
        let path = args.source.path.display();
        let what = format!("{path}: {lost}, and `async-cache repair` makes a sound file of the rest");
        return Err(Failure::Other(what));
    }
    to.set_tombstones(deletes);
    let saved = to.finish()?;
    Ok(Compacted {
        entries: saved.entries.into(),
        eager: saved.eager.into(),
        expired,
        bytes_before,
        bytes_after: saved.bytes,
    })
}
