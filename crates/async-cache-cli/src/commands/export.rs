//! `export`: all entries as lines of JSON. The first line describes the file, each further line an
//! entry, in the order of use, coldest first, eager entries last. `import` reads the lines;
//! `docs/cli.md` describes them.

use std::ops::ControlFlow;

use serde_json::json;

use super::{CommandOutcome, line};
use crate::args::Export;
use crate::cache::Cache;
use crate::entries;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human::BAD;
use crate::json;

/// The version number of the line format.
pub(super) const FORM: u64 = 1;

pub(crate) fn run(args: &Export, environment: &mut Environment<'_>) -> Result<CommandOutcome, Failure> {
    let cache = args.source.open(environment)?;
    // The first line has the number, so the entries of a store are counted first.
    let entries = match &cache {
        Cache::File(snapshot) => u64::from(snapshot.len()),
        Cache::Store(_) => {
            let mut count = 0u64;
            entries::each(&cache, environment.progress, "counting", |entry| {
                count += u64::from(!entry.is_eager);
                Ok(ControlFlow::Continue(()))
            })?;
            count
        }
    };
    let out = &mut *environment.out;
    let head = json!({
        "async_cache_export": FORM,
        "version": cache.version(),
        "saved_at": cache.saved_at(),
        "producer": cache.producer(),
        "entries": entries,
    });
    line(out, &head)?;
    let lost = entries::each(&cache, environment.progress, "exporting", |entry| {
        let mut object = json!({ "key": json::exact(entry.key), "value": json::exact(entry.value) });
        if let Some(object) = object.as_object_mut() {
            object.extend(entry.deadline.map(|deadline| ("deadline".to_owned(), json!(deadline))));
            object.extend(entry.written_at.map(|written_at| ("written_at".to_owned(), json!(written_at))));
            object.extend(entry.is_eager.then(|| ("eager".to_owned(), json!(true))));
        }
        line(out, &object)?;
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(lost) = lost.sentence() {
        environment.out.flush()?;
        writeln!(environment.err, "{BAD}async-cache:{BAD:#} {lost}")?;
        return Ok(CommandOutcome::Found);
    }
    Ok(CommandOutcome::Fine)
}
