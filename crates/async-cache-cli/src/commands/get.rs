//! `get`: one value.

use std::fmt::Write as _;

use async_cache_disk::{Item, Source};
use serde_json::Value;

use super::CommandOutcome;
use crate::args::{Get, KeyForm};
use crate::cache::{Cache, CacheScratch};
use crate::entries::EagerEntries;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human::{self, BAD};
use crate::json;

pub(crate) fn run(args: &Get, environment: &mut Environment<'_>) -> Result<CommandOutcome, Failure> {
    let unpickle = match (args.allow_pickle, environment.unpickle) {
        (true, None) => {
            let what = "--allow-pickle works in the tool that comes with the Python package: \
                        `pip install async-cache`, then run its `async-cache`";
            return Err(Failure::Other(what.to_owned()));
        }
        (true, unpickle) => unpickle,
        (false, _) => None,
    };
    if unpickle.is_some() && args.source.access.any_owner {
        let what = "--allow-pickle runs what is in the file, so it must be yours: leave --any-owner out";
        return Err(Failure::Other(what.to_owned()));
    }
    let keys = keys(args)?;
    let cache = args.source.open(environment)?;
    let mut is_blind = false;
    for key in &keys {
        let (found, blind) = find(&cache, key);
        is_blind |= blind;
        let Some((value, deadline)) = found else { continue };
        if deadline.is_some_and(|deadline| deadline <= environment.now) {
            writeln!(environment.err, "async-cache: this entry has expired, no cache serves it any more")?;
        }
        match unpickle.filter(|_| json::is_pickle(&value)) {
            Some(unpickle) => match unpickle(&value) {
                Ok(repr) => writeln!(environment.out, "{}", human::plain(&repr))?,
                Err(what) => return Err(Failure::Other(format!("the pickled value: {what}"))),
            },
            None => writeln!(environment.out, "{}", pretty(&json::show(&value)))?,
        }
        return Ok(CommandOutcome::Fine);
    }
    environment.out.flush()?;
    let why = if is_blind { ", or it is damaged" } else { "" };
    let (file, key) = (args.source.path.display(), human::plain(&args.key));
    writeln!(environment.err, "{BAD}async-cache:{BAD:#} {file}: there is no key {key:?}{why}")?;
    Ok(CommandOutcome::Found)
}

/// The possible bytes of the key, the most likely first.
fn keys(args: &Get) -> Result<Vec<Vec<u8>>, Failure> {
    let text = json::from_json(&Value::String(args.key.clone()));
    let typed = serde_json::from_str::<Value>(&args.key).map_err(|error| error.to_string());
    let typed = typed.and_then(|value| json::from_json(&value));
    let keys: Vec<_> = match args.key_as {
        KeyForm::Text => vec![text],
        KeyForm::Json => vec![typed],
        KeyForm::Auto if typed.is_err() => vec![text],
        KeyForm::Auto => vec![text, typed],
    };
    let wrong = |error| Failure::Other(format!("the key is not JSON that stands for a key: {error}"));
    keys.into_iter().collect::<Result<_, _>>().map_err(wrong)
}

type OwnedValue = (Vec<u8>, Option<u64>);

/// The value and deadline of a key, and whether damage may hide the key. Eager entries are found by
/// their bytes; of several entries the last counts.
fn find(cache: &Cache, key: &[u8]) -> (Option<OwnedValue>, bool) {
    let mut scratch = CacheScratch::default();
    if let Some(found) = cache.find(key, &mut scratch) {
        return (Some((found.value.to_vec(), found.deadline)), false);
    }
    let mut is_blind = cache.may_hide(key, &mut scratch);
    let mut last = None;
    match cache {
        Cache::File(snapshot) => {
            let mut eager = snapshot.eager();
            while let Some(item) = eager.next() {
                match item {
                    Item::Entry(record) if record.key == key => {
                        last = Some((record.value.to_vec(), record.deadline));
                    }
                    Item::Entry(_) => {}
                    Item::Lost(_) => is_blind = true,
                }
            }
        }
        Cache::Store(view) => {
            let eager = EagerEntries::of(view);
            is_blind |= eager.is_damaged();
            let found = eager.each().find(|entry| entry.key == key);
            last = found.map(|entry| (entry.value.to_vec(), entry.deadline));
        }
    }
    (last, is_blind)
}

/// The JSON on several lines. Characters that a terminal would obey are escaped as in JSON.
fn pretty(value: &Value) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            // Characters below 32 were escaped before.
            let _ = write!(escaped, "\\u{:04x}", u32::from(character)); // into memory
        } else {
            escaped.push(character);
        }
    }
    escaped
}
