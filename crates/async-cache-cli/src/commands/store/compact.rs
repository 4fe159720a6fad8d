//! `compact` of a store: a new file with its entries; without OUT, the store is folded into its
//! file.

use std::ops::ControlFlow;
use std::path::Path;

use async_cache_disk::store::{Folded, StoreOptions, StoreView};
use async_cache_disk::{Compression, DiskErrorKind, LockHolder, Snapshot, Source};
use serde_json::json;

use super::{create_like, push, tombstones};
use crate::args::{Audience, Compact};
use crate::cache::Cache;
use crate::commands::{CommandOutcome, LOCK_TIMEOUT, fact, line, new_file};
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
    let compacted = match &args.out {
        Some(out) => copy(out, args, view, environment)?,
        None => fold(args, view, environment)?,
    };
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
    let damage = damage_of(&view);
    let (now, mut expired) = (environment.now, 0u64);
    let lost = entries::each(&Cache::Store(view), environment.progress, "compacting", |entry| {
        if entry.is_expired(now) {
            expired += 1;
        } else {
            push(&mut to, &entry)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    refuse_damage(&args.source.path, damage.or(lost.sentence()))?;
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

/// Folds the store into the file.
fn fold(args: &Compact, view: Box<StoreView>, environment: &Environment<'_>) -> Result<Compacted, Failure> {
    let path = &args.source.path;
    refuse_use(path, &view)?;
    let bytes_before = view.bytes() + view.base().map_or(0, Snapshot::file_bytes);
    let damage = damage_of(&view);
    let is_compressed = view.base().is_some_and(Snapshot::is_compressed);
    let compression = if is_compressed { Compression::ZSTD } else { Compression::OFF };
    let file = new_file(path, view.version()).compression(compression);
    let file = file.secret(args.source.access.secret(environment)?);
    let (now, mut expired) = (environment.now, 0u64);
    let lost = entries::each(&Cache::Store(view), environment.progress, "checking", |entry| {
        expired += u64::from(entry.is_expired(now));
        Ok(ControlFlow::Continue(()))
    })?;
    refuse_damage(path, damage.or(lost.sentence()))?;
    let store = match file.store(StoreOptions::default(), now) {
        // It was free before.
        Err(error) if error.kind() == &DiskErrorKind::Locked => {
            if let Some(view) = file.store_view(now)? {
                refuse_use(path, &view)?;
            }
            return Err(error.into());
        }
        opened => opened?,
    };
    match store.fold_always(LOCK_TIMEOUT, now)? {
        Folded::Whole { .. } => {}
        Folded::Closed(error) => return Err(error.into()),
        _ => {
            let what = "the store is too large for a file; give OUT";
            return Err(Failure::Other(format!("{}: {what}", path.display())));
        }
    }
    let Some(folded) = file.open()? else {
        return Ok(Compacted { entries: 0, eager: 0, expired, bytes_before, bytes_after: 0 });
    };
    let mut eager = 0;
    let mut records = folded.eager();
    while records.next().is_some() {
        eager += 1;
    }
    let (entries, bytes_after) = (folded.len().into(), folded.file_bytes());
    Ok(Compacted { entries, eager, expired, bytes_before, bytes_after })
}

/// Refuses a store that a process has open.
fn refuse_use(path: &Path, view: &StoreView) -> Result<(), Failure> {
    let process = match view.writer() {
        Some(LockHolder::Process(number)) => format!("process {number}"),
        Some(LockHolder::Unnamed) => "a process in another container".to_owned(),
        None => return Ok(()),
    };
    let what = format!("{process} has its store open; stop the process, or give OUT");
    Err(Failure::Other(format!("{}: {what}", path.display())))
}

fn damage_of(view: &StoreView) -> Option<String> {
    let is_segment_lost = view.segments().any(|segment| segment.is_lost);
    let lost_files = is_segment_lost.then(|| "segments of the store are lost".to_owned());
    view.base_error().map(ToString::to_string).or(lost_files)
}

/// The lost data may still be recoverable; a compacted file would be without it for good.
fn refuse_damage(path: &Path, damage: Option<String>) -> Result<(), Failure> {
    let Some(damage) = damage else { return Ok(()) };
    let what = format!("{damage}, and `async-cache repair` makes a sound file of the rest");
    Err(Failure::Other(format!("{}: {what}", path.display())))
}
