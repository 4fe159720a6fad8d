//! The tool's promises beyond its output: nothing is lost in an export and import, nothing is
//! repaired wrongly, nothing panics, and a broken pipe is an end and not an error.
#![allow(clippy::disallowed_methods)] // tests may read and make files

use std::io::{self, Read as _, Write};
use std::process::{Command, Stdio};

use crate::tool::{NOW, Spoiled, golden, read, tool, tool_reading};
use async_cache_cli::{Environment, Progress, exact, from_json, run_with, show};

const GOLDEN: [&str; 3] = ["v1.acf", "v1-eager.acf", "v1-python.acf"];

#[test]
fn what_was_exported_and_imported_is_the_same_file_again() {
    for name in GOLDEN {
        let folder = Spoiled::new();
        let (file, copy) = (golden(name), folder.path("copy.acf"));
        let exported = tool(&["export", &file]).out;
        let imported = tool_reading(&["import", &copy], &exported);
        assert_eq!(imported.code, 0, "{}", imported.err);
        let again = tool(&["export", &copy]).out;
        let entries = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(entries(&exported), entries(&again));
        assert_eq!(tool(&["verify", &copy]).code, 0);
        let diff = tool(&["diff", &file, &copy, "--json"]);
        assert_eq!(diff.code, 0, "{}", diff.out);
        // The file's own time and version were kept: lives do not lengthen.
        let about = |file: &str| -> serde_json::Value {
            serde_json::from_str(&tool(&["inspect", file, "--json"]).out).unwrap()
        };
        for name in ["saved_at", "version", "entries", "eager", "expired"] {
            assert_eq!(about(&file)[name], about(&copy)[name], "{name}");
        }
    }
}

/// A file written from a file with a secret has the same secret, and compressed values stay
/// compressed.
#[test]
fn secret_and_compression_go_on_into_what_is_written() {
    let folder = Spoiled::new();
    folder.put("secret", b"correct horse battery staple");
    let secret = folder.path("secret");
    let file = golden("v1-zstd-mac.acf");
    let with =
        |args: &[&str], input: &str| tool_reading(&[args, &["--secret-file", &secret]].concat(), input);
    let exported = with(&["export", &file], "").out;
    let out = |name: &str| folder.path(name);
    let (repaired, compacted, imported) = (out("repaired.acf"), out("compacted.acf"), out("imported.acf"));
    assert_eq!(with(&["repair", &file, &repaired], "").code, 0);
    assert_eq!(with(&["compact", &file, &compacted], "").code, 0);
    assert_eq!(with(&["import", &imported, "--compression", "zstd"], &exported).code, 0);
    for copy in [&repaired, &compacted, &imported] {
        assert_eq!(tool(&["verify", copy]).code, 2, "it opens without the secret");
        assert_eq!(with(&["verify", copy], "").code, 0);
        let about: serde_json::Value =
            serde_json::from_str(&with(&["inspect", copy, "--json"], "").out).unwrap();
        assert_eq!((&about["has_secret"], &about["is_compressed"]), (&true.into(), &true.into()));
        assert!(about["dictionary_bytes"].as_u64().unwrap() > 0);
    }
    assert_eq!(with(&["diff", &file, &repaired], "").code, 0);
    assert_eq!(with(&["diff", &file, &imported], "").code, 0);
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_write_to_is_looked_into_only_if_asked_for() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Spoiled::new();
    folder.put("open.acf", &read(golden("v1-python.acf")));
    let file = folder.path("open.acf");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let refused = tool(&["get", &file, "text"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("others can write to it"), "{}", refused.err);
    assert_eq!(tool(&["get", &file, "text", "--any-owner"]).out, "\"grüße\"\n");
    // A file to be replaced is not only inspected: it must be trusted.
    assert_eq!(tool(&["compact", &file, "--any-owner"]).code, 2);
}

#[test]
fn of_two_lines_with_one_key_the_later_one_counts() {
    let folder = Spoiled::new();
    let out = folder.path("out.acf");
    let lines = "{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":2}\n{\"key\":\"a\",\"value\":3}\n";
    assert_eq!(tool_reading(&["import", &out, "--data-version", "v7"], lines).code, 0);
    assert_eq!(tool(&["get", &out, "a"]).out, "3\n");
    assert_eq!(tool(&["verify", &out]).code, 0);
    assert!(tool(&["inspect", &out]).out.contains("\"v7\""));
}

/// Every example of `docs/values.md` has a distinct JSON form, and the form stands for the same
/// bytes.
#[test]
fn every_example_of_the_document_comes_back_from_json() {
    let document = String::from_utf8(read("../../docs/values.md")).unwrap();
    let hex = |cell: &str| -> Option<Vec<u8>> {
        let cell = cell.trim().strip_prefix('`')?.strip_suffix('`')?;
        cell.split(' ').map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2)).collect()
    };
    let rows = document.lines().filter_map(|line| line.trim_end_matches('|').rsplit_once('|'));
    let examples: Vec<Vec<u8>> = rows.filter_map(|(_, cell)| hex(cell)).collect();
    assert!(examples.len() > 50, "only {} examples were found", examples.len());
    for bytes in examples {
        let value = exact(&bytes);
        for unnamed in ["$raw", "$ext"] {
            assert!(value.get(unnamed).is_none(), "{bytes:x?} is shown as {value}");
        }
        assert_eq!(from_json(&value).unwrap(), bytes, "{value}");
        // Through text, like the lines of a file.
        let text: serde_json::Value = serde_json::from_str(&value.to_string()).unwrap();
        assert_eq!(from_json(&text).unwrap(), bytes, "{value}");
    }
}

/// Bytes of any kind, mostly similar to `MessagePack`.
fn any_bytes(random: &mut fastrand::Rng) -> Vec<u8> {
    let markers = [0x81, 0x93, 0xa3, 0xc4, 0xc7, 0xca, 0xcb, 0xcc, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xdc, 0xde];
    let byte = |random: &mut fastrand::Rng| match random.u8(0..4) {
        0 => random.u8(..),
        1 => markers[random.usize(..markers.len())],
        _ => random.u8(..24),
    };
    (0..random.usize(..40)).map(|_| byte(random)).collect()
}

#[test]
#[allow(clippy::print_stderr)]
fn any_bytes_come_back_from_json_through_text() {
    let seed = std::env::var("ASYNC_CACHE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("run again with ASYNC_CACHE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let rounds = std::env::var("ASYNC_CACHE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    for _ in 0..rounds.unwrap_or(50_000) {
        let bytes = any_bytes(&mut random);
        let text = exact(&bytes).to_string();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(from_json(&value).as_deref(), Ok(&bytes[..]), "{text}");
        show(&bytes);
    }
}

#[test]
fn deep_nesting_is_shown_as_bytes_and_comes_back() {
    for unit in [&[0x91][..], &[0x81, 1], &[0x81, 0xa1, b'a'], &[0xc7, 0, 1]] {
        for levels in [1, 30, 33, 49, 50, 99, 100, 101, 127, 255, 100_000] {
            let mut bytes = unit.repeat(levels);
            bytes.push(0xc0);
            let text = exact(&bytes).to_string();
            let value: serde_json::Value = serde_json::from_str(&format!("{{\"value\":{text}}}")).unwrap();
            assert_eq!(from_json(&value["value"]).unwrap(), bytes);
        }
    }
}

/// A flipped byte in the index costs a cache the entries of a bucket; `repair` recovers all of
/// them.
#[test]
fn repair_finds_what_a_damaged_index_does_not_lead_to() {
    let folder = Spoiled::new();
    let whole = read(golden("v1-eager.acf"));
    for offset in (8192..9728).step_by(61) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 1;
        folder.put("spoiled.acf", &bytes);
        let out = folder.path(&format!("repaired-{offset}.acf"));
        let repaired = tool(&["repair", &folder.path("spoiled.acf"), &out]);
        assert_eq!(repaired.code, 0, "{}", repaired.out);
        assert_eq!(tool(&["diff", &golden("v1-eager.acf"), &out]).code, 0);
        assert_eq!(tool(&["verify", &out]).code, 0);
    }
}

/// `v1.acf` has a record that was taken back. If its bucket is damaged, the record cannot be
/// distinguished from the others.
#[test]
fn repair_does_not_bring_back_what_was_taken_back() {
    let folder = Spoiled::new();
    let whole = read(golden("v1.acf"));
    for offset in (8192..9216).step_by(61) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 1;
        folder.put("spoiled.acf", &bytes);
        let out = folder.path(&format!("repaired-{offset}.acf"));
        let _ = tool(&["repair", &folder.path("spoiled.acf"), &out]);
        let list = tool(&["ls", &out]).out;
        assert!(!list.contains("forgotten"), "{list}");
    }
}

#[test]
fn no_command_panics_on_any_flipped_byte_and_none_serves_a_wrong_value() {
    let folder = Spoiled::new();
    let whole = read(golden("v1-python.acf"));
    let truth: Vec<String> =
        tool(&["export", &golden("v1-python.acf")]).out.lines().map(str::to_owned).collect();
    for offset in (0..whole.len()).step_by(23) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x11;
        folder.put("spoiled.acf", &bytes);
        let file = folder.path("spoiled.acf");
        for line in tool(&["export", &file]).out.lines().skip(1) {
            assert!(truth.iter().any(|true_line| true_line == line), "byte {offset}: {line}");
        }
        let out = folder.path("out.acf");
        for args in [
            &["inspect", &file, "--full"][..],
            &["inspect", &file],
            &["ls", &file],
            &["verify", &file],
            &["diff", &file, &golden("v1-python.acf")],
            &["get", &file, "text"],
            &["repair", &file, &out],
        ] {
            assert!(tool(args).code <= 2);
        }
        let _ = std::fs::remove_file(&out);
    }
}

#[test]
fn compact_in_place_keeps_what_is_live_and_the_files_time() {
    let folder = Spoiled::new();
    folder.put("pages.acf", &read(golden("v1-eager.acf")));
    let file = folder.path("pages.acf");
    let live = tool(&["ls", &file, "--json"]).out;
    let live: Vec<serde_json::Value> = live.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys = |entries: Vec<serde_json::Value>| {
        entries
            .into_iter()
            .filter(|it| it["expired"] == false)
            .map(|it| it["key"].to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(tool(&["compact", &file]).code, 0);
    let after = tool(&["ls", &file, "--json"]).out;
    let after: Vec<serde_json::Value> =
        after.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(after.iter().all(|it| it["expired"] == false));
    assert_eq!(keys(after), keys(live));
    assert!(tool(&["inspect", &file]).out.contains("2023-11-14T22:13:20Z"));
    assert_eq!(tool(&["verify", &file]).code, 0);
}

#[test]
fn times_of_writing_and_what_was_deleted_go_on_into_what_is_written() {
    let folder = Spoiled::new();
    let file = golden("v1-merged.acf");
    folder.put("in place.acf", &read(&file));
    let out = |name: &str| folder.path(name);
    let (repaired, compacted, imported) = (out("repaired.acf"), out("compacted.acf"), out("imported.acf"));
    let in_place = out("in place.acf");
    let exported = tool(&["export", &file]).out;
    assert_eq!(tool(&["repair", &file, &repaired]).code, 0);
    assert_eq!(tool(&["compact", &file, &compacted]).code, 0);
    assert_eq!(tool(&["compact", &in_place]).code, 0);
    assert_eq!(tool_reading(&["import", &imported], &exported).code, 0);
    let entries = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let before = entries(&exported);
    for (copy, expired) in [(&repaired, 0), (&imported, 0), (&compacted, 2), (&in_place, 2)] {
        let after = entries(&tool(&["export", copy]).out);
        assert!(after.iter().all(|entry| before.contains(entry)), "{after:?}");
        assert_eq!(after.len() + expired, before.len());
        assert!(after.iter().filter(|entry| entry.contains("\"written_at\"")).count() > 50);
        assert_eq!(tool(&["verify", copy]).code, 0);
    }
    let deleted = |file: &str| {
        let about: serde_json::Value = serde_json::from_str(&tool(&["inspect", file, "--json"]).out).unwrap();
        ["written_until", "cleared_at", "tombstones"].map(|name| about[name].clone())
    };
    assert_eq!(deleted(&file)[2], 3);
    for copy in [&repaired, &compacted, &in_place] {
        assert_eq!(deleted(copy), deleted(&file));
    }
    let about = tool(&["inspect", &file]).out;
    assert!(about.contains("3 keys are remembered; everything until 2023-11-14T22:13:19"), "{about}");
}

#[test]
fn a_damaged_file_is_not_compacted() {
    let folder = Spoiled::new();
    let file = folder.path("record.acf");
    let before = read(&file);
    let ran = tool(&["compact", &file]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("repair"), "{}", ran.err);
    assert!(read(&file) == before);
}

#[test]
fn a_new_file_never_takes_the_place_of_another() {
    let folder = Spoiled::new();
    let (file, taken) = (golden("v1.acf"), folder.path("foreign.acf"));
    let before = read(&taken);
    for args in [&["repair", &file, &taken][..], &["compact", &file, &taken], &["import", &taken]] {
        let ran = tool_reading(args, "{\"key\":1,\"value\":2}\n");
        assert_eq!(ran.code, 2);
        assert!(ran.err.contains("there is something already"), "{}", ran.err);
    }
    assert!(read(&taken) == before);
}

/// Accepts this many bytes, and is then a broken pipe.
struct Pipe(usize);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.0);
        self.0 -= count;
        if count == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(count) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.0 == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

#[test]
fn a_pipe_that_breaks_ends_every_command_quietly() {
    let (v1, eager) = (golden("v1.acf"), golden("v1-eager.acf"));
    for args in [
        &["inspect", &v1][..],
        &["inspect", &v1, "--json"],
        &["ls", &v1],
        &["verify", &v1],
        &["export", &v1],
        &["diff", &v1, &eager],
        &["completions", "bash"],
    ] {
        for bytes in [0, 1, 100] {
            let (mut out, mut err) = (Pipe(bytes), Vec::new());
            let mut environment = Environment {
                out: &mut out,
                err: &mut err,
                input: &mut io::empty(),
                now: NOW,
                secret: None,
                progress: Progress::Never,
                unpickle: None,
            };
            let code = run_with(["async-cache"].iter().chain(args).map(Into::into), &mut environment);
            assert_eq!((code, err), (0, Vec::new()), "{args:?}");
        }
    }
}

#[test]
fn the_binary_writes_no_colours_into_a_pipe_and_ends_when_nobody_reads() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_async-cache"));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let file = golden("v1-eager.acf");
    let output = run(&["inspect", &file]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty() && !output.stdout.is_empty());
    assert!(!output.stdout.contains(&0x1b), "there are colours in it");

    let folder = Spoiled::new();
    let line = |number: u32| format!("{{\"key\":{number},\"value\":\"{}\"}}\n", "v".repeat(500));
    let lines: String = (0..2000).map(line).collect();
    assert_eq!(tool_reading(&["import", &folder.path("big.acf")], &lines).code, 0);
    let mut child = run(&["export", &folder.path("big.acf")]);
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap(); // and closed
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
