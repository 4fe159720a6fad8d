//! The transcripts in `docs/cli.md` are the tool's output. `ASYNC_CACHE_UPDATE_DOCS=1` writes them
//! anew.
#![allow(clippy::disallowed_methods)] // tests may read and make files

use std::fmt::Write as _;
use std::sync::Arc;

use async_cache_cli::from_json;
use async_cache_disk::store::{StoreOptions, StoreWrite};
use async_cache_disk::{CacheFile, RealDisk, Times, WriteOptions};
use serde_json::{Value, json};

use crate::tool::{Spoiled, golden, read, tool_at};

const DOCUMENT: &str = "../../docs/cli.md";
/// Two hours after the time of saving in `v1-python.acf`.
const NOW: u64 = 1_795_565_089_822_146_346;

/// The words of a command, with single quotes around words that contain blanks.
fn words(command: &str) -> Vec<String> {
    let parts = command.split('\'').enumerate();
    parts
        .flat_map(|(number, part)| match number % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

/// A store over a file, in use by a process that was killed.
fn put_store(path: &str) {
    let bytes = |value: Value| from_json(&value).unwrap();
    let file = CacheFile::new(Arc::new(RealDisk), path).version("v1").producer("async-cache 0.1.0 (Python)");
    let mut writer = file.write(WriteOptions::new(NOW - 3600 * 1_000_000_000)).unwrap();
    for i in 0..100 {
        let (key, value) = (bytes(json!(["user", i])), bytes(json!({ "name": format!("user {i}") })));
        writer
            .push(&key, &value, Times { deadline: None, written_at: Some(NOW - 7200 * 1_000_000_000) })
            .unwrap();
    }
    writer.finish().unwrap();
    let options = StoreOptions { segment_bytes: 4096 + 700, ..StoreOptions::default() };
    let store = file.store(options, NOW - 60 * 1_000_000_000).unwrap();
    for i in 90..150 {
        let (key, value) = (bytes(json!(["user", i])), bytes(json!({ "name": format!("new user {i}") })));
        let deadline = (i % 2 == 0).then_some(NOW + 600 * 1_000_000_000);
        store
            .put(&StoreWrite { key: &key, value: &value, deadline, replaces: None }, NOW - 30 * 1_000_000_000)
            .unwrap();
        if i == 120 {
            while store.maintain(NOW).unwrap() {}
        }
    }
    store.delete(&bytes(json!(["user", 7])), None, NOW - 20 * 1_000_000_000).unwrap();
}

#[test]
fn the_transcripts_in_the_document_are_what_the_tool_says() {
    let folder = Spoiled::new();
    let whole = read(golden("v1-python.acf"));
    folder.put("pages.cache", &whole);
    let mut damaged = whole;
    damaged[4300] ^= 1; // in a record
    folder.put("damaged.cache", &damaged);
    put_store(&folder.path("live.cache"));

    let document = String::from_utf8(read(DOCUMENT)).unwrap();
    let (mut fresh, mut commands, mut is_transcript) = (String::new(), 0, false);
    for line in document.lines() {
        if let Some(command) = line.strip_prefix("$ async-cache ").filter(|_| is_transcript) {
            commands += 1;
            let is_file = |word: &str| word.split('.').nth(1) == Some("cache");
            let in_folder = |word: String| if is_file(&word) { folder.path(&word) } else { word };
            let words: Vec<String> = words(command).into_iter().map(in_folder).collect();
            let ran = tool_at(NOW, &words.iter().map(String::as_str).collect::<Vec<_>>(), "");
            let said = folder.plain(&(ran.out + &ran.err)).replace("FOLDER/", "");
            writeln!(fresh, "{line}").unwrap();
            fresh.push_str(&said);
        } else if !is_transcript || line.starts_with("```") {
            writeln!(fresh, "{line}").unwrap();
            is_transcript = line == "```console";
        }
    }
    assert!(commands >= 10, "only {commands} commands were found");
    if std::env::var_os("ASYNC_CACHE_UPDATE_DOCS").is_some() {
        std::fs::write(DOCUMENT, &fresh).unwrap();
    }
    for (written, said) in document.lines().zip(fresh.lines()) {
        assert_eq!(written, said);
    }
    assert_eq!(document, fresh);
}
