//! `import`: writes a new file from lines of JSON, in the form of `export`.

use std::collections::HashMap;

use async_cache_disk::{Compression, RecordNumber, Secret, Times, WriteOptions, Writer};
use serde_json::{Value, json};

use super::{CommandOutcome, create, export, fact, line, new_file};
use crate::args::{Audience, Import, ImportCompression};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::human::{self, GOOD};
use crate::json;

pub(crate) fn run(
    args: &Import,
    audience: Audience,
    environment: &mut Environment<'_>,
) -> Result<CommandOutcome, Failure> {
    let (now, secret) = (environment.now, args.access.secret(environment)?);
    let mut lines = Lines { input: &mut *environment.input, number: 0, text: String::new() };
    let mut to: Option<Importer> = None;
    while let Some(value) = lines.next()? {
        let number = lines.number;
        let wrong = |what: String| Failure::Other(format!("line {number} of the input: {what}"));
        if let Some(to) = &mut to {
            to.entry(&value).map_err(|error| match error {
                Wrong::Line(what) => wrong(what),
                Wrong::Writer(failure) => failure,
            })?;
            continue;
        }
        let head = ExportHead::read(&value, now);
        match head {
            Some(head) => to = Some(Importer::new(args, secret, &head)?),
            // A list of entries made by another program.
            None if value.get("key").is_some() => {
                let mut importer =
                    Importer::new(args, secret, &ExportHead { version: String::new(), saved_at: now })?;
                importer.entry(&value).map_err(|error| match error {
                    Wrong::Line(what) => wrong(what),
                    Wrong::Writer(failure) => failure,
                })?;
                to = Some(importer);
            }
            None => return Err(wrong("this is neither the head of an export nor an entry".to_owned())),
        }
    }
    let Some(to) = to else {
        let what = "standard input is empty; `async-cache export FILE` writes what belongs there";
        return Err(Failure::Other(what.to_owned()));
    };
    let saved = to.writer.finish()?;
    match audience {
        Audience::Programs => line(
            environment.out,
            &json!({
                "out": args.out.display().to_string(),
                "entries": saved.entries,
                "eager": saved.eager,
                "bytes": saved.bytes,
            }),
        )?,
        Audience::People => {
            let out = &mut *environment.out;
            writeln!(out, "{GOOD}written{GOOD:#}  {}", args.out.display())?;
            fact(out, "entries", &human::count(u64::from(saved.entries) + u64::from(saved.eager)))?;
            fact(out, "size", &human::bytes(saved.bytes))?;
        }
    }
    Ok(CommandOutcome::Fine)
}

struct ExportHead {
    version: String,
    saved_at: u64,
}

impl ExportHead {
    fn read(value: &Value, now: u64) -> Option<Self> {
        if value.get("async_cache_export")?.as_u64()? != export::FORM {
            return None;
        }
        let version = value.get("version").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self { version, saved_at: value.get("saved_at").and_then(Value::as_u64).unwrap_or(now) })
    }
}

enum Wrong {
    Line(String),
    Writer(Failure),
}

struct Importer {
    writer: Writer,
    /// For two lines with the same key the later line counts.
    pushed: HashMap<Vec<u8>, RecordNumber>,
}

impl Importer {
    fn new(args: &Import, secret: Option<Secret>, head: &ExportHead) -> Result<Self, Failure> {
        let version = args.data_version.as_ref().unwrap_or(&head.version);
        let compression = match args.compression {
            Some(ImportCompression::Zstd) => Compression::ZSTD,
            None => Compression::OFF,
        };
        let file = new_file(&args.out, version).secret(secret).compression(compression);
        let writer = create(&file, WriteOptions::new(head.saved_at))?;
        Ok(Self { writer, pushed: HashMap::new() })
    }

    fn entry(&mut self, line: &Value) -> Result<(), Wrong> {
        let part = |name: &str| {
            let value = line.get(name).ok_or_else(|| Wrong::Line(format!("there is no {name:?}")))?;
            json::from_json(value).map_err(|what| Wrong::Line(format!("{name}: {what}")))
        };
        let (key, value) = (part("key")?, part("value")?);
        let time = |name: &str, what: &str| match line.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(time) => time
                .as_u64()
                .map(Some)
                .ok_or_else(|| Wrong::Line(format!("{what} is a whole number of nanoseconds since 1970"))),
        };
        let times = Times {
            deadline: time("deadline", "a deadline")?,
            written_at: time("written_at", "a time of writing")?,
        };
        let writer = |error: async_cache_disk::DiskError| Wrong::Writer(error.into());
        if line.get("eager") == Some(&Value::Bool(true)) {
            return self.writer.push_eager(&key, &value, times).map_err(writer);
        }
        let pushed = self.writer.push(&key, &value, times).map_err(writer)?;
        if let Some(earlier) = self.pushed.insert(key, pushed) {
            self.writer.forget(earlier);
        }
        Ok(())
    }
}

struct Lines<'i> {
    input: &'i mut dyn std::io::BufRead,
    number: u64,
    text: String,
}

impl Lines<'_> {
    /// The next line that is not empty.
    fn next(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            self.text.clear();
            self.number += 1;
            let number = self.number;
            let wrong = |what: &dyn std::fmt::Display| {
                Failure::Other(format!("line {number} of the input is not JSON: {what}"))
            };
            if self.input.read_line(&mut self.text).map_err(|error| wrong(&error))? == 0 {
                return Ok(None);
            }
            if !self.text.trim().is_empty() {
                return serde_json::from_str(&self.text).map(Some).map_err(|error| wrong(&error));
            }
        }
    }
}
