//! The tool with missing files, with pipes as input, and with unexpectedly large files.
#![allow(clippy::disallowed_methods)] // tests may read and make files

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::{Command, Stdio};

use crate::tool::{Spoiled, exists, golden, read, tool, tool_reading};

/// The tool took the lock first, and so created the lock file and its folder.
#[test]
fn compact_of_a_file_that_is_not_there_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("empty.cache"), b"").unwrap();
    for name in ["none.cache", "no folder/none.cache"] {
        for args in
            [vec!["compact", &path(name)], vec!["compact", &path(name), &path("new folder/out.cache")]]
        {
            let ran = tool(&args);
            assert_eq!(ran.code, 2);
            assert!(ran.err.contains("there is no such file"), "{}", ran.err);
        }
    }
    assert_eq!(tool(&["compact", &path("empty.cache")]).code, 2);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["empty.cache"]);
}

/// The message named the problem and the remedy for callers of the library, but not the option of
/// the tool.
#[cfg(unix)]
#[test]
fn a_file_that_is_refused_says_which_option_opens_it() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Spoiled::new();
    folder.put("secret", b"correct horse battery staple");
    folder.put("open", &std::fs::read(golden("v1.acf")).unwrap());
    std::fs::set_permissions(folder.path("open"), std::fs::Permissions::from_mode(0o666)).unwrap();
    symlink("nowhere", folder.path("dangling")).unwrap();
    symlink("circle", folder.path("circle")).unwrap();
    let (tagged, plain) = (golden("v1-mac.acf"), golden("v1.acf"));
    let (open, dangling, circle) = (folder.path("open"), folder.path("dangling"), folder.path("circle"));
    let secret = ["--secret-file", &folder.path("secret")];
    let out = folder.path("out");
    for command in ["inspect", "ls", "verify", "export", "repair"] {
        let refused = |file: &str, more: &[&str]| {
            let to: &[&str] = if command == "repair" { &[&out] } else { &[] };
            let ran = tool(&[&[command, file], to, more].concat());
            assert_eq!(ran.code, 2, "{command} {file}");
            ran.err
        };
        assert!(
            refused(&tagged, &[]).contains("; `--secret-file PATH` or the environment variable"),
            "{command}"
        );
        assert!(refused(&plain, &secret).contains("; leave out `--secret-file`"), "{command}");
        assert!(refused(&open, &[]).contains("; `--any-owner` looks into it"), "{command}");
        assert!(
            refused(&dangling, &[]).contains("it is a symlink to nowhere, where there is no file"),
            "{command}"
        );
        assert!(refused(&circle, &[]).ends_with("give the cache another path\n"), "{command}");
    }
}

/// Visiting all that the file's header counts would never end.
#[test]
fn a_file_that_claims_billions_of_entries_in_a_hole_takes_no_time() {
    const ENTRIES: u32 = 4_000_000_000;
    let folder = Spoiled::new();
    let mut page = std::fs::read(golden("v1.acf")).unwrap()[..4096].to_vec();
    let buckets = ENTRIES.div_ceil(42);
    for (at, count) in [(72, ENTRIES), (76, ENTRIES), (80, 0), (84, buckets), (12, 2)] {
        page[at..at + 4].copy_from_slice(&count.to_le_bytes());
    }
    page[768..4092].fill(0);
    let mut end = 4096_u64;
    for (at, kind, bytes) in [(768, 1_u32, u64::from(ENTRIES) * 8), (792, 2, u64::from(buckets) * 512)] {
        page[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        page[at + 8..at + 16].copy_from_slice(&end.to_le_bytes());
        page[at + 16..at + 24].copy_from_slice(&bytes.to_le_bytes());
        end += bytes;
    }
    let checksum = crc32c::crc32c(&page[..4092]);
    page[4092..].copy_from_slice(&checksum.to_le_bytes());
    folder.put("holes", &page);
    std::fs::File::options().write(true).open(folder.path("holes")).unwrap().set_len(end).unwrap();
    let (holes, plain, out) = (folder.path("holes"), golden("v1.acf"), folder.path("out"));
    let lost = "4,000,000,000 entries";
    for (args, says) in [
        (vec!["ls", &holes], lost),
        (vec!["export", &holes], lost),
        (vec!["verify", &holes], "0 of 4,000,000,000"),
        (vec!["inspect", &holes], "95,238,096 buckets"),
        (vec!["diff", &holes, &plain], lost),
        (vec!["diff", &plain, &holes], lost),
        (vec!["compact", &holes, &out], lost),
        (vec!["repair", &holes, &out], lost),
    ] {
        let ran = tool(&args);
        assert!(
            ran.code > 0 && format!("{}{}", ran.out, ran.err).contains(says),
            "{args:?}: {}{}",
            ran.out,
            ran.err
        );
    }
}

/// A pipe has no length, cannot be read at a position, and can be read only once.
#[cfg(unix)]
#[test]
fn a_secret_comes_from_a_pipe_too() {
    let folder = Spoiled::new();
    folder.put("secret", b"correct horse battery staple\n");
    let (file, out) = (golden("v1-zstd-mac.acf"), folder.path("out.acf"));
    for command in ["inspect", "verify", "export", "compact", "repair", "diff"] {
        let more = match command {
            "compact" | "repair" => &out,
            "diff" => &file,
            _ => "",
        };
        let shell = format!(
            "cat '{}' | '{}' {command} '{file}' {more} --secret-file /dev/stdin",
            folder.path("secret"),
            env!("CARGO_BIN_EXE_async-cache")
        );
        let ran = Command::new("sh").args(["-c", &shell]).stdin(Stdio::null()).output().unwrap();
        assert_eq!(ran.status.code(), Some(0), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
        let _ = std::fs::remove_file(&out);
    }
    let endless = tool(&["inspect", &file, "--secret-file", "/dev/zero"]);
    assert!(endless.err.contains("too long for a secret"), "{}", endless.err);
    let folder = tool(&["inspect", &file, "--secret-file", "/"]);
    assert!(folder.err.contains("the secret cannot be read"), "{}", folder.err);
}

/// An interrupted copy, or a disk filled up by another program: the header is present, but part of
/// the rest is missing. Nothing could be recovered from a file that lacked its last byte.
#[test]
fn what_is_left_of_a_file_that_was_cut_is_repaired() {
    let whole = read(golden("v1.acf"));
    let folder = Spoiled::new();
    let file = folder.path("cut.cache");
    let mut before = None;
    for len in (4096..whole.len()).rev().step_by(97).chain([4096]) {
        folder.put("cut.cache", &whole[..len]);
        let verified = tool(&["verify", &file]);
        assert_eq!(verified.code, 2, "it is not served");
        assert!(verified.err.contains("`async-cache repair` writes what is intact"), "{}", verified.err);

        let out = folder.path(&format!("{len}.acf"));
        let ran = tool(&["repair", &file, &out, "--json"]);
        let report: serde_json::Value =
            serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.err));
        let saved = (report["entries"].as_u64().unwrap(), report["eager"].as_u64().unwrap());
        assert!(before.is_none_or(|before| saved <= before), "{len} bytes: {saved:?} after {before:?}");
        assert_eq!(tool(&["verify", &out]).code, 0);
        let diff = tool(&["diff", &golden("v1.acf"), &out, "--json"]).out;
        assert!(diff.contains("\"added\":0,") && diff.contains("\"changed\":0,"), "{diff}");
        before = Some(saved);
    }
    assert_eq!(before, Some((0, 0)));
    folder.put("cut.cache", &whole[..whole.len() - 1]);
    let ran = tool(&["repair", &file, &folder.path("one.acf"), "--json"]);
    assert_eq!(
        ran.code, 0,
        "nothing but a page of deadlines is lost, which the records have, too: {}",
        ran.out
    );
    folder.put("cut.cache", &whole[..4095]);
    assert_eq!(
        tool(&["repair", &file, &folder.path("none.acf")]).code,
        2,
        "without a header there is nothing"
    );
}

/// An integer of a million digits took half a minute to read.
#[test]
fn an_integer_of_any_length_goes_out_and_in_again() {
    let folder = Spoiled::new();
    let mut lines = String::new();
    for (key, int) in [
        ("decimal", "7".repeat(9000)),
        ("negative", format!("-{}", "7".repeat(9000))),
        ("long", format!("1{}", "0".repeat(300_000))),
        ("hexadecimal", format!("0x{}", "f".repeat(1_000_000))),
    ] {
        writeln!(lines, "{{\"key\":\"{key}\",\"value\":{{\"$int\":\"{int}\"}}}}").unwrap();
    }
    let (one, two) = (folder.path("one.acf"), folder.path("two.acf"));
    assert_eq!(tool_reading(&["import", &one], &lines).code, 0);
    let exported = tool(&["export", &one]).out;
    assert!(exported.contains(&format!("\"$int\":\"-{}\"", "7".repeat(9000))));
    assert!(exported.contains(&format!("\"$int\":\"0x{}\"", "f".repeat(1_000_000))));
    assert!(!exported.contains("$raw") && !exported.contains("$ext"));
    assert_eq!(tool_reading(&["import", &two], &exported).code, 0);
    assert_eq!(tool(&["diff", &one, &two]).code, 0);
    let wrong = format!("{{\"key\":1,\"value\":{{\"$int\":\"{}\"}}}}", "1".repeat(1_000_001));
    let ran = tool_reading(&["import", &folder.path("wrong.acf")], &wrong);
    assert!(ran.err.contains("write it as 0x"), "{}", ran.err);
    assert!(!exists(&folder.path("wrong.acf")));
}

/// The options in a text.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '-'));
    words.filter(|word| word.len() > 3 && word.starts_with("--")).map(str::to_owned).collect()
}

#[test]
fn the_document_and_the_help_name_the_same_commands_and_options() {
    let document = String::from_utf8(read("../../docs/cli.md")).unwrap();
    let main = tool(&["--help"]).out;
    let commands = main.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|word| !word.is_empty()))
        .filter(|word| *word != "help")
        .collect();
    assert!(commands.contains(&"repair") && commands.len() >= 10, "{commands:?}");
    let mut known = options(&main);
    for command in &commands {
        assert!(document.contains(&format!("async-cache {command}")), "docs/cli.md lacks {command}");
        known.extend(options(&tool(&[command, "--help"]).out));
    }
    assert_eq!(options(&document), known, "docs/cli.md (left) and the help (right)");
}

#[test]
fn the_version_is_that_of_the_workspace() {
    let said = tool(&["--version"]).out;
    assert_eq!(said, format!("async-cache {}\n", env!("CARGO_PKG_VERSION")));
}
