//! The output of every command for golden, damaged and empty files, compared with its previous
//! output (`tests/snapshots`; `INSTA_UPDATE=always cargo test -p async-cache-cli --test suite
//! output::` accepts changes).

use std::fmt::Write as _;

use crate::tool::{self, Ran, Spoiled, golden, tool, tool_reading};

/// Longer outputs are cut in the middle, where all lines are similar.
const MOST_LINES: usize = 40;

const GOLDEN: [&str; 3] = ["v1.acf", "v1-eager.acf", "v1-python.acf"];

/// The output of a command for every file.
struct Transcript {
    spoiled: Spoiled,
    text: String,
}

impl Transcript {
    fn new() -> Self {
        Self { spoiled: Spoiled::new(), text: String::new() }
    }

    /// Runs a command on every file. `FILE` among the arguments stands for the file, `OUT` for a
    /// new file.
    fn on_all(&mut self, args: &[&str]) {
        for name in GOLDEN {
            self.on(args, &golden(name));
        }
        self.on_spoiled(args);
    }

    fn on_spoiled(&mut self, args: &[&str]) {
        for name in Spoiled::names() {
            self.on(args, &self.spoiled.path(name));
        }
    }

    fn on(&mut self, args: &[&str], file: &str) {
        let folder = Spoiled::new();
        let out = folder.path("out.acf");
        let full: Vec<&str> = args
            .iter()
            .map(|arg| match *arg {
                "FILE" => file,
                "OUT" => &out,
                arg => arg,
            })
            .collect();
        let ran = tool(&full);
        let ran = Ran { out: folder.plain(&ran.out), err: folder.plain(&ran.err), ..ran };
        self.add(&folder.plain(&full.join(" ")), &ran);
    }

    fn add(&mut self, command: &str, ran: &Ran) {
        let (command, err) = (self.spoiled.plain(command), self.spoiled.plain(&ran.err));
        let out = self.spoiled.plain(&ran.out);
        writeln!(self.text, "$ async-cache {command}").unwrap();
        let lines: Vec<&str> = out.lines().collect();
        for line in lines.iter().take(MOST_LINES) {
            writeln!(self.text, "{line}").unwrap();
        }
        if lines.len() > MOST_LINES {
            writeln!(self.text, "[{} more lines]", lines.len() - MOST_LINES).unwrap();
        }
        for line in err.lines() {
            writeln!(self.text, "[stderr] {line}").unwrap();
        }
        writeln!(self.text, "[exit code {}]\n", ran.code).unwrap();
    }
}

macro_rules! transcript {
    ($name:literal, $($args:expr),+ $(,)?) => {{
        let mut transcript = Transcript::new();
        $(transcript.on_all(&$args);)+
        insta::assert_snapshot!($name, transcript.text);
    }};
}

#[test]
fn inspect_says_what_a_file_is() {
    transcript!("inspect", ["inspect", "FILE"], ["inspect", "FILE", "--full", "--largest", "1"]);
}

#[test]
fn inspect_says_it_to_programs() {
    transcript!("inspect_json", ["inspect", "FILE", "--json"]);
}

#[test]
fn ls_lists_entries() {
    transcript!("ls", ["ls", "FILE", "--limit", "8"], ["ls", "FILE", "--json", "--min-bytes", "15"]);
}

#[test]
fn ls_filters() {
    let mut transcript = Transcript::new();
    for args in [
        &["--match", "*product:1[0-3]*"][..],
        &["--prefix", "raw b\"product:7"],
        &["--expiring-within", "2s"],
        &["--expiring-within", "1h", "--limit", "3"],
        &["--min-bytes", "100", "--match", "*k*"],
        &["--match", "["],
        &["--expiring-within", "soon"],
    ] {
        transcript.on(&[&["ls", "FILE"], args].concat(), &golden("v1-eager.acf"));
    }
    insta::assert_snapshot!("ls_filters", transcript.text);
}

#[test]
fn get_prints_a_value() {
    let mut transcript = Transcript::new();
    let python = golden("v1-python.acf");
    for key in [
        "text",
        "map",
        "datetime",
        "pickled",
        "tuple",
        "42",
        "[\"user\", 7]",
        "nothing",
        "{\"$rational\":[1,3]}",
    ] {
        transcript.on(&["get", "FILE", key], &python);
    }
    transcript.on(&["get", "FILE", "42", "--key-as", "text"], &python);
    transcript.on(&["get", "FILE", "text", "--key-as", "json"], &python);
    transcript.on(&["get", "FILE", "{\"$nothing\": 1}", "--key-as", "json"], &python);
    transcript.on(&["get", "FILE", "pickled", "--allow-pickle"], &python);
    transcript.on_spoiled(&["get", "FILE", "{\"$raw\": \"cHJvZHVjdDo1\"}"]); // product:5
    insta::assert_snapshot!("get", transcript.text);
}

#[test]
fn verify_names_every_finding_with_its_place() {
    transcript!("verify", ["verify", "FILE"], ["verify", "FILE", "--json"]);
}

#[test]
fn repair_writes_what_is_intact() {
    transcript!("repair", ["repair", "FILE", "OUT"], ["repair", "FILE", "OUT", "--json"]);
}

#[test]
fn export_writes_lines() {
    transcript!("export", ["export", "FILE"]);
}

#[test]
fn compact_drops_what_is_gone() {
    transcript!("compact", ["compact", "FILE", "OUT"], ["compact", "FILE", "OUT", "--json"]);
}

#[test]
fn diff_tells_files_apart() {
    let (v1, eager, python) = (golden("v1.acf"), golden("v1-eager.acf"), golden("v1-python.acf"));
    transcript!(
        "diff",
        ["diff", &v1, "FILE", "--limit", "4"],
        ["diff", &python, "FILE", "--limit", "2", "--json"],
        ["diff", "FILE", &eager, "--ignore-deadlines", "--limit", "3"],
    );
}

#[test]
fn import_says_what_is_wrong_with_a_line() {
    let mut transcript = Transcript::new();
    let head = "{\"async_cache_export\":1,\"version\":\"v9\",\"saved_at\":5}\n";
    for input in [
        "",
        "\n\n",
        "no JSON",
        "[]",
        "{\"async_cache_export\":2}",
        "{\"key\":1}",
        "{\"key\":1,\"value\":{\"$tuple\":2}}",
        "{\"key\":{\"$raw\":\"***\"},\"value\":1}",
        "{\"key\":1,\"value\":1,\"deadline\":-1}",
        &format!("{head}{{\"key\":\"a\",\"value\":1}}\n\n{{\"key\":\"a\",\"value\":[2],\"deadline\":7}}\n"),
        &format!("{head}{{\"key\":\"a\",\"value\":1}}\n{{\"key\":\"b\",\"value\":{{\"$pickle\":{{}}}}}}\n"),
    ] {
        let folder = Spoiled::new();
        let ran = tool_reading(&["import", &folder.path("out.acf")], input);
        let plain = Ran { out: folder.plain(&ran.out), err: folder.plain(&ran.err), ..ran };
        transcript.add(&format!("import FOLDER/out.acf <<< {input:?}"), &plain);
        assert_eq!(tool::exists(&folder.path("out.acf")), plain.code == 0, "a failed import leaves no file");
    }
    transcript.on(&["import", "FILE"], &golden("v1.acf"));
    insta::assert_snapshot!("import", transcript.text);
}

#[test]
fn a_file_with_a_secret_opens_with_it_only() {
    let mut transcript = Transcript::new();
    let secret = transcript.spoiled.path("secret");
    transcript.spoiled.put("secret", b"correct horse battery staple\n");
    let wrong = transcript.spoiled.path("other-secret");
    transcript.spoiled.put("other-secret", b"another secret, long enough");
    let short = transcript.spoiled.path("short-secret");
    transcript.spoiled.put("short-secret", b"hunter2");
    for name in ["v1-mac.acf", "v1-zstd.acf", "v1-zstd-mac.acf"] {
        transcript.on(&["inspect", "FILE"], &golden(name));
        for secret in [&secret, &wrong, &short, &golden("no such file")] {
            transcript.on(&["inspect", "FILE", "--secret-file", secret], &golden(name));
        }
    }
    let file = golden("v1-zstd-mac.acf");
    transcript.on(&["verify", "FILE", "--secret-file", &secret], &file);
    transcript.on(&["ls", "FILE", "--limit", "3", "--secret-file", &secret], &file);
    transcript.on(&["repair", "FILE", "OUT", "--secret-file", &secret], &file);
    transcript.on(&["compact", "FILE", "OUT", "--secret-file", &secret], &file);
    transcript.on(&["compact", "FILE", "--any-owner", "--secret-file", &secret], &file);
    insta::assert_snapshot!("secret", transcript.text);
}

#[test]
fn the_manual_is_in_the_tool() {
    let mut transcript = Transcript::new();
    for args in [
        &["--help"][..],
        &["inspect", "--help"],
        &["ls", "--help"],
        &["get", "--help"],
        &["verify", "--help"],
        &["repair", "--help"],
        &["export", "--help"],
        &["import", "--help"],
        &["compact", "--help"],
        &["diff", "--help"],
        &["completions", "--help"],
        &["lst"],
        &["get", "FILE"],
        &[],
    ] {
        transcript.on(args, "pages.cache");
    }
    insta::assert_snapshot!("help", transcript.text);
}
