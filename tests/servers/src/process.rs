//! A child process that ends with the process of the tests, even if the tests are killed.
//!
//! 1. A shell waits for a line on its standard input, and then becomes the program. The id of the
//!    process is known before the program runs.
//! 2. The watcher, a second shell, reads a pipe whose other end is open in the tests alone. At the
//!    end of the pipe, the watcher kills the program and removes its folder.
//! 3. The first shell gets its line after the watcher was started.
//!
//! (`PR_SET_PDEATHSIG` is no alternative: it follows the thread that started the process, and tests
//! run in threads of their own.)

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

const PROGRAM: &str = r#"read -r line && exec "$@" </dev/null >"$0" 2>&1"#;
const WATCHER: &str = r#"trap "" HUP INT TERM; read -r line; kill -KILL "$0"; rm -rf "$1""#;

/// A program that runs. Dropped: killed.
#[derive(Debug)]
pub(crate) struct Process {
    program: Child,
    watcher: Child,
    output: PathBuf,
}

impl Process {
    /// Starts a program. `folder` is removed if the tests are killed; the file `log` in it receives
    /// the output.
    pub(crate) fn start(program: &Path, arguments: &[&str], folder: &Path) -> Self {
        let output = folder.join("log");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(PROGRAM).arg(&output).arg(program).args(arguments);
        let mut program = shell.stdin(Stdio::piped()).spawn().expect("a shell can be started");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(WATCHER).arg(program.id().to_string()).arg(folder);
        let watcher =
            shell.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a shell can be started");
        let mut input = program.stdin.take().expect("the input is a pipe");
        input.write_all(b"go\n").expect("the shell waits for its line");
        Self { program, watcher, output }
    }

    pub(crate) fn id(&self) -> u32 {
        self.program.id()
    }

    /// Everything that the program has written.
    pub(crate) fn log(&self) -> String {
        fs::read(&self.output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Whether the program has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.program.try_wait().expect("the process is a child of this process")
    }

    /// Stops the program; returns when it is stopped.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        let seen = waitpid(Some(self.pid()), WaitOptions::UNTRACED).expect("the process is a child");
        assert!(
            seen.is_some_and(|(_, status)| status.stopped()),
            "ended instead of stopping:\n{}",
            self.log()
        );
    }

    /// Lets a stopped program run.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process has not been waited for");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.program)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.program.kill();
        // The watcher ends before the id of the program is free for another process.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
        let _ = self.program.wait();
    }
}
