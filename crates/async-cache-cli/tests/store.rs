//! The commands on a cache with a store.
#![allow(clippy::disallowed_methods)] // tests may read and make files

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_cache_cli::from_json;
use async_cache_disk::store::{DiskStore, StoreOptions, StoreWrite};
use async_cache_disk::{CacheFile, RealDisk, Secret, Times, WriteOptions};
use serde_json::{Value, json};

use crate::tool::{NOW, Ran, Spoiled, tool, tool_reading};

const SECOND: u64 = 1_000_000_000;

/// A cache beside which there is a store.
pub(crate) struct Stored {
    pub(crate) folder: Spoiled,
    pub(crate) file: CacheFile,
}

fn bytes(value: &Value) -> Vec<u8> {
    from_json(value).unwrap()
}

fn put(store: &DiskStore, key: &str, value: &Value, deadline: Option<u64>) {
    let (key, value) = (bytes(&json!(key)), bytes(value));
    store.put(&StoreWrite { key: &key, value: &value, deadline, replaces: None }, NOW - 30 * SECOND).unwrap();
}

fn delete(store: &DiskStore, key: &str) {
    store.delete(&bytes(&json!(key)), None, NOW - 20 * SECOND).unwrap();
}

fn options(segment_bytes: u32) -> StoreOptions {
    StoreOptions { segment_bytes, ..StoreOptions::default() }
}

impl Stored {
    /// Five entries in the file; and an empty store.
    pub(crate) fn new(secret: Option<Secret>) -> Self {
        let folder = Spoiled::new();
        let path = folder.path("pages.cache");
        let file = CacheFile::new(Arc::new(RealDisk), path).version("v1").producer("a test").secret(secret);
        let mut writer = file.write(WriteOptions::new(NOW - 60 * SECOND)).unwrap();
        for i in 0..5 {
            let (key, value) = (bytes(&json!(format!("page {i}"))), bytes(&json!(format!("saved {i}"))));
            let times = Times { deadline: None, written_at: Some(NOW - 100 * SECOND + i) };
            writer.push(&key, &value, times).unwrap();
        }
        writer.push_eager(&bytes(&json!("eager")), &bytes(&json!(7)), Times::default()).unwrap();
        writer.finish().unwrap();
        Self { folder, file }
    }

    pub(crate) fn open(&self, segment_bytes: u32) -> DiskStore {
        self.file.store(options(segment_bytes), NOW - 40 * SECOND).unwrap()
    }

    /// Two segments with a run, and a tail; the entries 0 to 8 without 1, `last`, and `due`.
    pub(crate) fn written(&self) -> DiskStore {
        let store = self.open(4096 + 150);
        for i in 3..9 {
            put(&store, &format!("page {i}"), &json!(format!("written {i}")), None);
        }
        while store.maintain(NOW).unwrap() {}
        delete(&store, "page 1");
        put(&store, "due", &json!("soon gone"), Some(NOW + 10 * SECOND));
        put(&store, "expired", &json!(null), Some(NOW - SECOND));
        put(&store, "last", &json!({ "text": "x".repeat(100) }), None);
        store
    }

    pub(crate) fn path(&self) -> String {
        self.folder.path("pages.cache")
    }

    /// The files of the store whose names begin so.
    fn files(&self, prefix: &str) -> Vec<PathBuf> {
        let outer = Path::new(&self.path()).with_file_name("pages.cache.d");
        let stores = std::fs::read_dir(outer).unwrap();
        let files = stores.flat_map(|store| std::fs::read_dir(store.unwrap().path()).unwrap());
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
        files.sort();
        files
    }

    fn run(&self, args: &[&str]) -> Ran {
        let path = self.path();
        let args: Vec<&str> = args.iter().map(|arg| if *arg == "FILE" { &path } else { *arg }).collect();
        tool(&args)
    }

    fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(args);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {} {}", ran.out, ran.err))
    }

    /// The keys that `ls` lists.
    fn keys(&self) -> Vec<String> {
        let ran = self.run(&["ls", "FILE", "--json"]);
        let keys = ran.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["key"].clone());
        keys.map(|key| key.as_str().unwrap().to_owned()).collect()
    }
}

fn spoil(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset] ^= 0xFF;
    std::fs::write(path, bytes).unwrap();
}

const KEYS: [&str; 12] = [
    "page 0", "page 2", "page 3", "page 4", "page 5", "page 6", "page 7", "page 8", "due", "expired", "last",
    "eager",
];

#[test]
fn a_cache_in_use_is_shown_as_its_process_has_it() {
    let stored = Stored::new(None);
    let store = stored.written();
    assert_eq!(stored.keys(), KEYS);
    assert_eq!(stored.run(&["get", "FILE", "page 3"]).out, "\"written 3\"\n");
    assert_eq!(stored.run(&["get", "FILE", "page 0"]).out, "\"saved 0\"\n");
    assert_eq!(stored.run(&["get", "FILE", "eager"]).out, "7\n");
    let gone = stored.run(&["get", "FILE", "page 1"]);
    assert!(gone.code == 1 && gone.err.ends_with("there is no key \"page 1\"\n"), "{}", gone.err);
    assert!(stored.run(&["get", "FILE", "expired"]).err.contains("has expired"));
    let verified = stored.run(&["verify", "FILE"]);
    assert!(
        verified.code == 0 && verified.out.contains("11 of 11 entries can be served"),
        "{}",
        verified.out
    );

    let about = stored.json(&["inspect", "FILE", "--json"]);
    assert_eq!(about["entries"], 11);
    assert_eq!((&about["eager"], &about["expired"], &about["damage"]), (&json!(1), &json!(1), &Value::Null));
    assert_eq!((&about["format"], &about["version"]), (&json!(2), &json!("v1")));
    assert_eq!((&about["base"]["entries"], &about["base"]["is_ours"]), (&json!(5), &json!(true)));
    assert_eq!(
        (&about["is_closed"], &about["written_until"]),
        (&json!(false), &json!(NOW - 20 * SECOND + 3))
    );
    let segments = about["segments"].as_array().unwrap();
    assert_eq!(segments.len(), stored.files("s").len());
    assert_eq!(about["runs"].as_array().unwrap().len(), stored.files("i").len());
    let told = stored.run(&["inspect", "FILE"]).out;
    for part in ["format 2: a file and a store", "5 entries, and eager ones", "sealed, indexed", "open"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    #[cfg(target_os = "linux")]
    assert!(told.contains(&format!("in use by process {}", std::process::id())), "{told}");
    // Nothing of this took the lock away from the process.
    assert!(stored.file.store(options(5000), NOW).is_err());
    store.close(NOW).unwrap();
    assert_eq!(stored.keys(), KEYS);
    assert!(stored.run(&["inspect", "FILE"]).out.contains("closed"));
}

/// A program that reads the store while this process writes to it.
#[cfg(target_os = "linux")]
#[test]
fn another_process_sees_who_writes_to_the_store_and_does_not_disturb() {
    let stored = Stored::new(None);
    let store = stored.written();
    let elsewhere = |args: &[&str]| {
        let command =
            std::process::Command::new(env!("CARGO_BIN_EXE_async-cache")).args(args).output().unwrap();
        (command.status.code(), [command.stdout, command.stderr].map(|text| String::from_utf8(text).unwrap()))
    };
    let path = stored.path();
    for _ in 0..2 {
        let (code, [out, err]) = elsewhere(&["inspect", &path, "--json"]);
        assert_eq!(code, Some(0), "{err}");
        let about: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&about["process"], &about["is_in_use"]), (&json!(std::process::id()), &json!(true)));
    }
    assert!(stored.file.store(options(5000), NOW).is_err());
    put(&store, "while it was read", &json!(1), None);
    assert_eq!(elsewhere(&["get", &path, "while it was read"]).1[0], "1\n");
    drop(store);
    let (_, [out, _]) = elsewhere(&["inspect", &path, "--json"]);
    let about: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&about["process"], &about["is_in_use"]), (&Value::Null, &json!(false)));
}

#[test]
fn looking_at_a_store_changes_nothing_of_it() {
    let stored = Stored::new(None);
    let all =
        || stored.files("").into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect::<Vec<_>>();
    drop(stored.written());
    let before = all();
    let out = stored.folder.path("out");
    for args in [
        vec!["inspect", "FILE"],
        vec!["inspect", "FILE", "--full", "--json"],
        vec!["ls", "FILE"],
        vec!["get", "FILE", "last"],
        vec!["verify", "FILE"],
        vec!["export", "FILE"],
        vec!["diff", "FILE", "FILE"],
        vec!["compact", "FILE", &out],
    ] {
        let ran = stored.run(&args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.err);
        assert!(all() == before, "{args:?}");
    }
}

#[test]
fn a_store_is_exported_repaired_and_compacted_to_the_same_entries() {
    let stored = Stored::new(None);
    let store = stored.written();
    let out = |name: &str| stored.folder.path(name);
    let (imported, repaired, compacted) = (out("imported"), out("repaired"), out("compacted"));
    let exported = stored.run(&["export", "FILE"]).out;
    let head: Value = serde_json::from_str(exported.lines().next().unwrap()).unwrap();
    assert_eq!((&head["entries"], &head["version"]), (&json!(11), &json!("v1")));
    assert_eq!(head["saved_at"], json!(NOW - 20 * SECOND + 3));
    assert_eq!(exported.lines().count(), 1 + KEYS.len());
    assert_eq!(tool_reading(&["import", &imported], &exported).code, 0);
    assert_eq!(stored.run(&["repair", "FILE", &repaired]).code, 0);
    for copy in [&imported, &repaired] {
        let diff = stored.run(&["diff", "FILE", copy]);
        assert_eq!(diff.out, "0 added, 0 removed, 0 changed, 12 equal\n", "{}", diff.err);
        assert_eq!(tool(&["verify", copy]).code, 0);
    }
    let report = stored.json(&["compact", "FILE", &compacted, "--json"]);
    assert_eq!(
        (&report["entries"], &report["eager"], &report["expired"]),
        (&json!(10), &json!(1), &json!(1))
    );
    let diff = stored.run(&["diff", &compacted, "FILE"]);
    assert_eq!(diff.out, "+ expired  1 B\n1 added, 0 removed, 0 changed, 11 equal\n");
    put(&store, "page 0", &json!("later"), None);
    delete(&store, "page 2");
    let diff = stored.run(&["diff", &imported, "FILE", "--json"]);
    assert!(diff.out.ends_with("{\"added\":0,\"removed\":1,\"changed\":1,\"equal\":10}\n"), "{}", diff.out);

    let other = Stored::new(None);
    drop(other.written());
    assert_eq!(stored.run(&["diff", "FILE", &other.path()]).out.lines().count(), 3);
}

#[test]
fn compact_folds_a_store_that_no_process_has_open_into_its_file() {
    let secret = || Some(Secret::new("correct horse battery staple").unwrap());
    for secret in [None, secret()] {
        let stored = Stored::new(secret);
        stored.folder.put("secret", b"correct horse battery staple");
        let option = stored.folder.path("secret");
        let with = |args: &[&str]| {
            let option = if secret.is_some() { &["--secret-file", &option][..] } else { &[] };
            stored.run(&[args, option].concat())
        };
        let store = stored.written();
        let exported = with(&["export", "FILE"]).out;
        #[cfg(target_os = "linux")]
        {
            let ran = with(&["compact", "FILE"]);
            let process = format!("process {} has its store open; stop the process", std::process::id());
            assert!(ran.code == 2 && ran.err.contains(&process), "{}", ran.err);
        }
        drop(store);
        let ran = with(&["compact", "FILE", "--json"]);
        let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.err));
        assert_eq!(
            (&report["entries"], &report["eager"], &report["expired"]),
            (&json!(10), &json!(1), &json!(1))
        );
        assert!(!Path::new(&stored.path()).with_file_name("pages.cache.d").exists());
        let entries = |text: &str| {
            let lines = text.lines().skip(1).filter(|line| !line.contains("expired"));
            // An unknown time of writing is 0 in the file.
            let plain = lines.map(|line| line.replace(",\"written_at\":0", ""));
            plain.collect::<std::collections::BTreeSet<_>>()
        };
        let folded = with(&["export", "FILE"]).out;
        assert_eq!(entries(&folded), entries(&exported));
        assert_eq!(with(&["verify", "FILE"]).code, 0);
        assert_eq!(with(&["compact", "FILE"]).code, 0);
    }
}

#[test]
fn a_damaged_store_is_not_folded() {
    let stored = Stored::new(None);
    drop(stored.written());
    spoil(&stored.files("s")[0], 4096 + 30);
    let before = std::fs::read(stored.path()).unwrap();
    let ran = stored.run(&["compact", "FILE"]);
    assert!(ran.code == 2 && ran.err.contains("`async-cache repair`"), "{}", ran.err);
    assert!(std::fs::read(stored.path()).unwrap() == before && stored.files("s").len() > 1);
}

#[test]
fn eager_writes_of_the_store_count_after_those_of_the_file() {
    let stored = Stored::new(None);
    let store = stored.written();
    let put_eager = |key: &str, value: &Value| {
        let (key, value) = (bytes(&json!(key)), bytes(value));
        store
            .put_eager(&StoreWrite { key: &key, value: &value, deadline: None, replaces: None }, NOW)
            .unwrap();
    };
    put_eager("pickled", &json!("a"));
    put_eager("gone", &json!("b"));
    store.delete_eager(&bytes(&json!("gone")), NOW).unwrap();
    put_eager("eager", &json!("later"));
    put_eager("pickled", &json!("c"));
    let check = || {
        assert_eq!(stored.keys()[11..], ["eager", "pickled"]);
        assert_eq!(stored.run(&["get", "FILE", "pickled"]).out, "\"c\"\n");
        assert_eq!(stored.run(&["get", "FILE", "gone"]).code, 1);
        assert_eq!(stored.json(&["inspect", "FILE", "--json"])["eager"], 2);
        assert_eq!(stored.json(&["verify", "FILE", "--json"])["sound_eager"], 2);
    };
    check();
    store.close(NOW).unwrap();
    check();
    let run = stored.files("i").pop().unwrap();
    let end = std::fs::metadata(&run).unwrap().len();
    spoil(&run, usize::try_from(end).unwrap() - 1);
    let listed = stored.run(&["ls", "FILE"]);
    assert!(listed.code == 1 && listed.err.contains("eager entries are hidden by damage"), "{}", listed.err);
    assert!(stored.run(&["verify", "FILE"]).out.contains("eager-list"));
    let out = stored.folder.path("repaired");
    let report = stored.json(&["repair", "FILE", &out, "--json"]);
    assert_eq!((&report["entries"], &report["eager"]), (&json!(11), &json!(2)));
    assert_eq!(tool(&["get", &out, "pickled"]).out, "\"c\"\n");
}

#[test]
fn an_eager_entry_before_any_eager_delete_is_not_in_a_repaired_file() {
    let stored = Stored::new(None);
    let store = stored.open(1 << 20);
    store.delete_eager(&bytes(&json!("equal, with other bytes")), NOW).unwrap();
    store.close(NOW).unwrap();
    assert_eq!(stored.json(&["inspect", "FILE", "--json"])["eager"], 1);
    let out = stored.folder.path("repaired");
    let report = stored.json(&["repair", "FILE", &out, "--json"]);
    assert_eq!((&report["entries"], &report["eager"]), (&json!(5), &json!(0)));
}

#[test]
fn nothing_is_put_under_a_store() {
    let stored = Stored::new(None);
    drop(stored.written());
    std::fs::remove_file(stored.path()).unwrap();
    assert_eq!(stored.keys().len(), 9, "without the file, the store has its own entries");
    let ran = tool_reading(&["import", &stored.path()], "{\"key\":1,\"value\":2}\n");
    assert!(ran.code == 2 && ran.err.contains("there is a store of this name already"), "{}", ran.err);
    let repaired = stored.run(&["repair", "FILE", &stored.path()]);
    assert!(repaired.code == 2 && !Path::new(&stored.path()).exists(), "{}", repaired.err);
}

#[test]
fn of_several_versions_one_is_chosen() {
    let stored = Stored::new(None);
    stored.written().close(NOW).unwrap();
    let newer = stored.file.clone().version("v2").store(options(5000), NOW).unwrap();
    let choose = |version: &str| stored.run(&["ls", "FILE", "--data-version", version]);
    put(&newer, "new", &json!(1), None);
    let ran = stored.run(&["ls", "FILE"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.ends_with("data of several versions, \"v1\", \"v2\"; choose with `--data-version TAG`\n"),
        "{}",
        ran.err
    );
    assert!(choose("v1").out.contains("12 listed") && choose("v2").out.contains("1 listed"));
    let ran = choose("v3");
    assert!(ran.err.contains("there is no data of version \"v3\"; there is \"v1\", \"v2\""), "{}", ran.err);
    newer.delete(&bytes(&json!("new")), None, NOW).unwrap();
    assert_eq!(choose("v2").out.lines().last(), Some("0 listed"));
    let diff = stored.run(&["diff", "FILE", "FILE", "--data-version", "v1"]);
    assert_eq!(diff.code, 0, "{}", diff.err);
}

/// A new version of a program that has written nothing leaves nothing behind, not even if it dies.
#[test]
fn a_store_of_another_version_without_writes_is_no_choice() {
    let stored = Stored::new(None);
    stored.written().close(NOW).unwrap();
    drop(stored.file.clone().version("v2").store(options(5000), NOW).unwrap());
    assert_eq!(stored.keys(), KEYS);
    let ran = stored.run(&["ls", "FILE", "--data-version", "v2"]);
    assert!(ran.err.contains("there is no data of version \"v2\"; there is \"v1\""), "{}", ran.err);
}

#[test]
fn a_store_with_a_secret_opens_with_it_only() {
    let secret = "correct horse battery staple";
    let stored = Stored::new(Some(Secret::new(secret).unwrap()));
    let store = stored.written();
    stored.folder.put("secret", secret.as_bytes());
    stored.folder.put("wrong", b"another secret of some length");
    let (right, wrong) = (stored.folder.path("secret"), stored.folder.path("wrong"));
    let with = |args: &[&str], secret: &str| stored.run(&[args, &["--secret-file", secret]].concat());
    for args in [&["ls", "FILE"][..], &["verify", "FILE"], &["export", "FILE"], &["inspect", "FILE"]] {
        assert_eq!(with(args, &right).code, 0);
        assert_eq!(with(args, &wrong).code, 2);
        let without = stored.run(args);
        assert!(without.code == 2 && without.err.contains("`--secret-file PATH` or"), "{}", without.err);
    }
    // Also if there is no file yet.
    std::fs::remove_file(stored.path()).unwrap();
    let without = stored.run(&["ls", "FILE"]);
    assert!(without.err.contains("`--secret-file PATH` or"), "{}", without.err);
    let out = stored.folder.path("out");
    assert_eq!(with(&["compact", "FILE", &out], &right).code, 0);
    assert_eq!(with(&["verify", &out], &right).code, 0);
    assert_eq!(tool(&["verify", &out]).code, 2);
    drop(store);
}

#[test]
fn damage_is_listed_and_what_it_does_not_touch_is_repaired() {
    for (prefix, offset, kind, left) in [
        ("s", 4096 + 30, "record", 11),
        ("i", 4096 + 20, "bucket", 12),
        ("s", 20, "segment", 4),
        ("i", 20, "run", 12),
    ] {
        let stored = Stored::new(None);
        stored.written().close(NOW).unwrap();
        let file = stored.files(prefix).remove(0);
        spoil(&file, offset);
        let verified = stored.run(&["verify", "FILE"]);
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(verified.code, 1, "{kind}: {}", verified.out);
        let expected = [format!("{name} byte"), format!("  {kind}  "), "`async-cache repair`".to_owned()];
        assert!(expected.iter().all(|part| verified.out.contains(part)), "{kind}: {}", verified.out);
        let report = stored.json(&["verify", "FILE", "--json"]);
        assert_eq!((&report["clean"], &report["findings"][0]["file"]), (&json!(false), &json!(name)));

        let out = stored.folder.path("repaired");
        let repaired = stored.run(&["repair", "FILE", &out, "--json"]);
        let report: Value = serde_json::from_str(&repaired.out).unwrap();
        let saved = report["entries"].as_u64().unwrap() + report["eager"].as_u64().unwrap();
        assert_eq!(saved, left, "{kind}: {report}");
        assert_eq!(repaired.code, u8::from(left < 12), "{kind}: {report}");
        let diff = stored.run(&["diff", "FILE", &out, "--json"]).out;
        assert!(diff.contains("\"removed\":0,\"changed\":0"), "{kind}: {diff}");
        assert_eq!(tool(&["verify", &out]).code, 0);
        assert_eq!(stored.run(&["inspect", "FILE"]).code, 1, "{kind}");
        let compacted = stored.run(&["compact", "FILE", &stored.folder.path("compacted")]);
        assert_eq!(compacted.code, if kind == "run" { 0 } else { 2 }, "{kind}: {}", compacted.err);
    }
}

#[test]
fn a_damaged_manifest_is_an_error_and_the_file_is_not_shown_alone() {
    let stored = Stored::new(None);
    drop(stored.written());
    spoil(&stored.files("manifest")[0], 4096 + 40);
    for args in [&["ls", "FILE"][..], &["get", "FILE", "page 1"], &["verify", "FILE"], &["inspect", "FILE"]] {
        let ran = stored.run(args);
        assert!(ran.code == 2 && ran.err.contains("manifest: "), "{}", ran.err);
        assert!(!ran.err.contains("repair"), "{}", ran.err);
    }
}

#[test]
fn damage_of_the_file_under_a_store_is_found_and_repaired() {
    let stored = Stored::new(None);
    drop(stored.written());
    let whole = std::fs::read(stored.path()).unwrap();
    spoil(Path::new(&stored.path()), 8192 + 20);
    let verified = stored.run(&["verify", "FILE"]);
    assert!(verified.code == 1 && verified.out.contains("bucket"), "{}", verified.out);
    let out = stored.folder.path("repaired");
    let ran = stored.run(&["repair", "FILE", &out]);
    assert!(ran.code == 0 && ran.out.contains("11\n"), "{} {}", ran.out, ran.err);
    std::fs::write(stored.path(), &whole).unwrap();
    assert_eq!(stored.run(&["diff", "FILE", &out]).code, 0);
    // Without its header there is nothing of it.
    spoil(Path::new(&stored.path()), 100);
    let verified = stored.run(&["verify", "FILE"]);
    assert!(verified.code == 1 && verified.out.contains("the header"), "{}", verified.out);
    let ran = stored.run(&["repair", "FILE", &stored.folder.path("rest")]);
    assert!(ran.code == 1 && ran.out.contains("all of the file"), "{} {}", ran.out, ran.err);
}
