//! The stories of `crates/async-cache-tier/tests/scenarios.txt`, which the Python front runs too:
//! the promises of a cache and its file are the same in both languages. The head of that file
//! explains the words.

#![allow(clippy::print_stdout)] // the line that failed
#![allow(clippy::disallowed_methods)] // a foreign file, on the real disk

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_cache::{AsyncCache, DiskBackend, Eviction, Journal};

use crate::stage::{one_thread, within_limit};

const STORIES: &str = include_str!("../../async-cache-tier/tests/scenarios.txt");

type Cache = AsyncCache<u64, u64>;

/// Name and lines, each with its number in the file.
fn stories() -> Vec<(&'static str, Vec<(usize, &'static str)>)> {
    let mut stories: Vec<(&str, Vec<(usize, &str)>)> = Vec::new();
    for (number, line) in STORIES.lines().enumerate() {
        if let Some(name) = line.strip_prefix("== ") {
            stories.push((name, Vec::new()));
        } else if !line.is_empty() && !line.starts_with('#') {
            let (_, lines) = stories.last_mut().expect("a line belongs to a story");
            lines.push((number + 1, line));
        }
    }
    stories
}

#[test]
fn every_story_of_a_cache_and_its_file_holds() {
    let stories = stories();
    assert!(stories.len() > 20, "{} stories were found", stories.len());
    for (name, lines) in stories {
        println!("{name}");
        within_limit(move || tell(&lines));
    }
}

fn tell(lines: &[(usize, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("story.cache");
    let mut caches = BTreeMap::new();
    for (number, line) in lines {
        println!("{number}: {line}");
        let (told, expected) = line.split_once(" -> ").map_or((*line, None), |(told, it)| (told, Some(it)));
        let words: Vec<&str> = told.split_whitespace().collect();
        assert_eq!(step(&mut caches, &path, &words).as_deref(), expected, "line {number}: {line}");
    }
}

/// Does one line; returns what it asks for.
fn step<'l>(caches: &mut BTreeMap<&'l str, Cache>, path: &Path, words: &[&'l str]) -> Option<String> {
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let yes = |holds: bool| Some(if holds { "yes" } else { "no" }.to_owned());
    match *words {
        ["file", "junk"] => std::fs::write(path, b"no cache, but forty bytes of something else").unwrap(),
        ["aside"] => return yes(path.with_extension("cache.aside").exists()),
        [name, "cache", ref options @ ..] => drop(caches.insert(name, build(path, options))),
        [name, "end"] => drop(caches.remove(name).expect("there is such a cache")),
        [name, ref rest @ ..] => {
            let cache = &caches[name];
            match *rest {
                ["set", key, value] => cache.set(number(key), number(value)),
                ["set", key, value, "expired"] => {
                    cache.set_with_ttl(number(key), number(value), Some(Duration::ZERO));
                }
                ["delete", key] => cache.delete(&number(key)),
                ["clear"] => cache.clear(),
                ["load", key, value] => {
                    let (key, value) = (number(key), number(value));
                    let loading = cache.get_or_load(&key, move || async move { Ok::<_, ()>(value) });
                    return Some(one_thread().block_on(loading).unwrap().to_string());
                }
                ["get", key] => {
                    let value = cache.get(&number(key));
                    return Some(value.map_or("none".to_owned(), |value| value.to_string()));
                }
                ["in", key] => return yes(cache.contains(&number(key))),
                ["size"] => return Some(cache.len().to_string()),
                ["cold"] => return Some(cache.stats().cold.to_string()),
                ["save"] => return Some(cache.save_to_backup().unwrap().entries.to_string()),
                ["drops"] => return Some(cache.stats().dropped.to_string()),
                ["open"] => drop(cache.load_from_backup().unwrap()),
                _ => panic!("no such line: {words:?}"),
            }
        }
        [] => panic!("an empty line"),
    }
    None
}

/// One shard in strict order of use, as in Python: the order of several shards is not promised.
fn build(path: &Path, options: &[&str]) -> Cache {
    let backend = DiskBackend::new(path);
    let builder = AsyncCache::builder().shards(1).eviction(Eviction::Lru);
    let builder = match *options {
        ["maxsize", size] => builder.maxsize(size.parse().expect("a number")).backup(backend),
        ["replacing"] => builder.backup(backend.without_merging()),
        ["journal"] => builder.backup(backend.journal(Journal::new())),
        ["journal", "maxsize", size] => {
            builder.maxsize(size.parse().expect("a number")).backup(backend.journal(Journal::new()))
        }
        ["disk", "maxsize", size] => {
            let journal = Journal::new().disk_bytes(1 << 30);
            builder.maxsize(size.parse().expect("a number")).backup(backend.journal(journal))
        }
        [] => builder.backup(backend),
        _ => panic!("no such options: {options:?}"),
    };
    builder.build().unwrap()
}
