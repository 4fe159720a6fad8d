//! `ls`: entries, coldest first.

use std::ops::ControlFlow;

use serde_json::json;

use super::{CommandOutcome, line};
use crate::args::{Audience, Ls};
use crate::entries::{self, Entry};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human::{self, BAD, DIM, HEADING, KEY};
use crate::json;

pub(crate) fn run(
    args: &Ls,
    audience: Audience,
    environment: &mut Environment<'_>,
) -> Result<CommandOutcome, Failure> {
    let cache = args.source.open(environment)?;
    let limit = args.limit.unwrap_or(u64::MAX);
    let (now, mut listed) = (environment.now, 0u64);
    let out = &mut *environment.out;
    if audience == Audience::People {
        writeln!(out, "{HEADING}{:>10}  {:>12}  key{HEADING:#}", "value", "expires in")?;
    }
    let lost = entries::each(&cache, environment.progress, "listing", |entry| {
        if listed >= limit {
            return Ok(ControlFlow::Break(()));
        }
        if !is_wanted(args, &entry, now) {
            return Ok(ControlFlow::Continue(()));
        }
        listed += 1;
        match audience {
            Audience::Programs => line(
                out,
                &json!({
                    "key": json::exact(entry.key),
                    "value_bytes": entry.value.len(),
                    "deadline": entry.deadline,
                    "expires": entry.deadline.map(human::time),
                    "expired": entry.is_expired(now),
                    "rank": entry.rank,
                    "eager": entry.is_eager,
                }),
            )?,
            Audience::People => {
                let (size, due) = (human::bytes(entry.value.len() as u64), human::due(entry.deadline, now));
                let eager = if entry.is_eager { "  (eager)" } else { "" };
                let key = human::short_key(entry.key);
                writeln!(out, "{size:>10}  {due:>12}  {KEY}{key}{KEY:#}{DIM}{eager}{DIM:#}")?;
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if audience == Audience::People {
        writeln!(out, "{DIM}{} listed{DIM:#}", human::count(listed))?;
    }
    if let Some(lost) = lost.sentence() {
        environment.out.flush()?;
        writeln!(environment.err, "{BAD}async-cache:{BAD:#} {lost}")?;
        return Ok(CommandOutcome::Found);
    }
    Ok(CommandOutcome::Fine)
}

fn is_wanted(args: &Ls, entry: &Entry<'_>, now: u64) -> bool {
    let within = |within: std::time::Duration| {
        let nanos = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
        entry.deadline.is_some_and(|deadline| deadline <= now.saturating_add(nanos))
    };
    if (entry.value.len() as u64) < args.min_bytes || !args.expiring_within.is_none_or(within) {
        return false;
    }
    if args.pattern.is_none() && args.prefix.is_none() {
        return true;
    }
    let key = human::key(entry.key);
    args.pattern.as_ref().is_none_or(|pattern| pattern.matches(&key))
        && args.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix.as_str()))
}
