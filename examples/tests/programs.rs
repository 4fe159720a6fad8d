//! Runs the examples as their readers would run them.
#![cfg(unix)]

// The time limit of the tests of the front.
#[path = "../../crates/async-cache/tests/stage/limit.rs"]
mod limit;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use limit::within_limit;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn batch_loading_asks_in_one_query_for_what_took_six() {
    within_limit(|| {
        let output = Command::new(env!("CARGO_BIN_EXE_batch_loading")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        let queries: Vec<_> = text.lines().filter(|line| line.contains("SELECT")).collect();
        assert_eq!(queries.len(), 6 + 1 + 1, "{text}");
        let mut asked: Vec<_> = queries[6].chars().filter(char::is_ascii_digit).collect();
        asked.sort_unstable();
        assert_eq!(asked, ['1', '2', '3', '4', '9', '9'], "each author once");
        assert!(queries[7].ends_with("IN [99]"), "{text}");
        assert_eq!(text.matches("Bugs, and how to find them by Grace").count(), 3, "{text}");
        assert!(text.ends_with("2 batches, 6 keys, 5 hits\n"), "{text}");
    });
}

/// Runs the service until it is ready, sends a signal to it, and returns its output and its end.
fn served_and_stopped_by(signal: Signal, path: &Path) -> String {
    let mut service =
        Command::new(env!("CARGO_BIN_EXE_shutdown_save")).arg(path).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut out = BufReader::new(service.stdout.take().unwrap());
    while !said.ends_with("ready\n") {
        assert_ne!(out.read_line(&mut said).unwrap(), 0, "it ended early: {said}");
    }
    kill_process(Pid::from_child(&service), signal).unwrap();
    out.read_to_string(&mut said).unwrap();
    assert!(service.wait().unwrap().success(), "{said}");
    said
}

#[test]
fn a_service_that_is_told_to_stop_saves_and_the_next_one_is_warm() {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        within_limit(move || {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("service.cache");
            let cold = served_and_stopped_by(signal, &path);
            assert!(cold.starts_with("0 entries came back"), "{cold}");
            assert_eq!(cold.matches("working out").count(), 3, "{cold}");
            assert!(cold.ends_with(&format!("{name}: saving\n3 entries saved\n")), "{cold}");
            let warm = served_and_stopped_by(signal, &path);
            assert!(warm.starts_with("3 entries came back"), "{warm}");
            assert_eq!(warm.matches("working out").count(), 0, "{warm}");
            assert!(warm.contains("served the square of 3 is 9"), "{warm}");
        });
    }
}
