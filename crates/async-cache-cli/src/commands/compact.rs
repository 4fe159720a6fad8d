//! `compact`: writes a file without expired entries and records that were taken back; folds a store
//! into its file.

use async_cache_disk::{Snapshot, Writer};
use serde_json::json;

use super::{CommandOutcome, LOCK_TIMEOUT, create_like, fact, file_like, line, options_like, store};
use crate::args::{Audience, Compact};
use crate::cache::Cache;
use crate::entries::{self, Lost};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human::{self, GOOD};
use crate::progress::Bar;

pub(crate) fn run(
    args: &Compact,
    audience: Audience,
    environment: &mut Environment<'_>,
) -> Result<CommandOutcome, Failure> {
    if args.out.is_none() && args.source.access.any_owner {
        let what = "--any-owner is for looking; give OUT, or compact as the user who owns the file";
        return Err(Failure::Other(what.to_owned()));
    }
    // Opened before the lock is taken: if there is no file, no lock and no folder for a lock is
    // created.
    match args.source.open(environment)? {
        Cache::File(snapshot) => compact_file(args, snapshot, audience, environment),
        Cache::Store(view) => store::compact::run(args, view, audience, environment),
    }
}

fn compact_file(
    args: &Compact,
    mut snapshot: Snapshot,
    audience: Audience,
    environment: &mut Environment<'_>,
) -> Result<CommandOutcome, Failure> {
    let target = args.out.as_ref().unwrap_or(&args.source.path);
    let mut lock = None;
    let mut to = if let Some(out) = &args.out {
        create_like(out, &snapshot, &args.source.access, environment)?
    } else {
        let file = file_like(target, &snapshot, &args.source.access, environment)?;
        let locked = lock.insert(file.lock(LOCK_TIMEOUT)?);
        // Another process may have saved meanwhile.
        snapshot = locked
            .open()?
            .ok_or_else(|| Failure::Other(format!("{}: the file was removed meanwhile", target.display())))?;
        locked.write(options_like(&snapshot))?
    };
    let (expired, lost) = copy_live(&snapshot, &mut to, environment)?;
    if let Some(lost) = lost.sentence() {
        // The lost data may still be recoverable; a compacted file would be without it for good.
        let file = args.source.path.display();
        return Err(Failure::Other(format!(
            "{file}: {lost}, and `async-cache repair` makes a sound file of it"
        )));
    }
    to.set_tombstones(snapshot.tombstones());
    let saved = to.finish()?;
    let taken_back = u64::from(snapshot.layout().records.saturating_sub(snapshot.len()));
    let (before, after) = (snapshot.file_bytes(), saved.bytes);
    match audience {
        Audience::Programs => line(
            environment.out,
            &json!({
                "out": target.display().to_string(),
                "entries": saved.entries,
                "eager": saved.eager,
                "expired": expired,
                "taken_back": taken_back,
                "bytes_before": before,
                "bytes_after": after,
            }),
        )?,
        Audience::People => {
            let out = &mut *environment.out;
            writeln!(out, "{GOOD}written{GOOD:#}  {}", target.display())?;
            let entries = u64::from(saved.entries) + u64::from(saved.eager);
            fact(out, "entries", &human::count(entries))?;
            let dropped =
                format!("{} expired, {} taken back before", human::count(expired), human::count(taken_back));
            fact(out, "dropped", &dropped)?;
            fact(out, "size", &format!("{} → {}", human::bytes(before), human::bytes(after)))?;
        }
    }
    Ok(CommandOutcome::Fine)
}

/// Copies the entries that have not expired. Returns the number of the others, and the losses.
fn copy_live(
    snapshot: &Snapshot,
    to: &mut Writer,
    environment: &Environment<'_>,
) -> Result<(u64, Lost), Failure> {
    let is_live = |deadline: Option<u64>| deadline.is_none_or(|deadline| deadline > environment.now);
    let (mut expired, mut lost) = (0u64, Lost::default());
    let mut bar = Bar::new(environment.progress, "compacting", snapshot.len().into());
    entries::each_of(&mut snapshot.records(), &mut bar, &mut lost, |record| {
        if is_live(record.deadline) {
            to.copy(&record)?;
        } else {
            expired += 1;
        }
        Ok(())
    })?;
    entries::each_of(&mut snapshot.eager(), &mut bar, &mut lost, |record| {
        if is_live(record.deadline) {
            to.copy_eager(&record)?;
        } else {
            expired += 1;
        }
        Ok(())
    })?;
    Ok((expired, lost))
}
