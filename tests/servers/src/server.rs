//! A running server, and its life: started, paused, killed, started again.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::{Client, Reply};
use crate::process::Process;
use crate::program::Program;

/// A server that takes longer to start, or a state that takes longer to come, is a failure.
const LIMIT: Duration = Duration::from_secs(30);

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    Port,
    Tls,
    Socket,
}

/// The service of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Data,
    Sentinel,
}

impl Role {
    /// Stands in the log when connections are accepted and the data was loaded.
    fn ready(self) -> &'static str {
        match self {
            // "Ready to ..."; Redis on a socket: "The server is now ready to ...".
            Self::Data => "eady to accept connections",
            Self::Sentinel => "Sentinel ID is",
        }
    }
}

/// A server of a test. Dropped: killed, and its folder removed.
#[derive(Debug)]
pub struct Server {
    program: Program,
    listener: Listener,
    role: Role,
    port: u16,
    // Dropped before the folder.
    process: Mutex<Option<Process>>,
    folder: TempDir,
}

impl Server {
    /// Starts a server. The error is the log of a program that ended by itself.
    pub(crate) fn start(
        program: &Program,
        listener: Listener,
        role: Role,
        config: &[&str],
    ) -> Result<Self, String> {
        let folder = TempDir::with_prefix("async-cache-server-").expect("a folder can be made");
        let mut server =
            Self { program: program.clone(), listener, role, port: 0, process: Mutex::new(None), folder };
        loop {
            server.port = free_port();
            fs::write(server.config(), server.lines(config)).expect("the folder is writable");
            match server.launch() {
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => return Err(log),
                Ok(process) => {
                    server.process = Mutex::new(Some(process));
                    return Ok(server);
                }
            }
        }
    }

    fn lines(&self, config: &[&str]) -> String {
        let port = match self.listener {
            Listener::Port => format!("port {}", self.port),
            Listener::Socket => format!("port 0\nunixsocket {}", self.folder().join("socket").display()),
            Listener::Tls => {
                let tls = tls();
                format!(
                    "port 0\ntls-port {}\ntls-auth-clients no\ntls-ca-cert-file {}\ntls-cert-file {}\n\
                     tls-key-file {}",
                    self.port,
                    tls.join("authority.crt").display(),
                    tls.join("server.crt").display(),
                    tls.join("server.key").display()
                )
            }
        };
        let saves = match self.role {
            Role::Data => "save \"\"\n",
            Role::Sentinel => "",
        };
        let folder = self.folder().display();
        format!("bind 127.0.0.1\ndir {folder}\n{port}\n{saves}{}\n", config.join("\n"))
    }

    /// Starts the process; returns when connections are accepted. The error is the log of a
    /// program that ended.
    fn launch(&self) -> Result<Process, String> {
        let config = self.config();
        let mut arguments = vec![config.to_str().expect("paths of temporary folders are text")];
        if self.role == Role::Sentinel {
            arguments.push("--sentinel");
        }
        let _ = fs::remove_file(self.folder().join("log")); // of the run before
        let mut process = Process::start(self.program.path(), &arguments, self.folder());
        // The log shows that this very server has the port. An answer on the port does not.
        eventually("the server starts", || {
            let ended = process.ended();
            let log = process.log();
            match (log.contains(self.role.ready()), ended) {
                (_, Some(status)) => Some(Err(format!("{log}\n{status}"))),
                (true, None) => Some(Ok(())),
                (false, None) => None,
            }
        })?;
        Ok(process)
    }

    /// The address; `None` if the server listens on a socket only.
    ///
    /// The port stays the same over restarts. It is below those that the system gives to outgoing
    /// connections, so that no client meets itself while the server is down.
    pub fn address(&self) -> Option<SocketAddr> {
        (self.listener != Listener::Socket).then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))
    }

    /// The port.
    ///
    /// # Panics
    /// If the server listens on a socket only.
    pub fn port(&self) -> u16 {
        self.address().expect("the server has a port").port()
    }

    /// The path of the Unix socket, if the server listens on one.
    pub fn socket(&self) -> Option<PathBuf> {
        (self.listener == Listener::Socket).then(|| self.folder().join("socket"))
    }

    /// The certificate of the authority that signed the server's certificate, in PEM.
    pub fn authority() -> PathBuf {
        tls().join("authority.crt")
    }

    /// The folder, with `log`, `config`, and dumps.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The log since the last start; empty if the server was killed.
    pub fn log(&self) -> String {
        self.locked().as_ref().map(Process::log).unwrap_or_default()
    }

    /// The id of the process; `None` if the server was killed.
    pub fn id(&self) -> Option<u32> {
        self.locked().as_ref().map(Process::id)
    }

    /// Stops the process (`SIGSTOP`); returns when it is stopped. Connections stay open, and new
    /// ones are accepted by the system.
    ///
    /// # Panics
    /// If the server does not run.
    pub fn pause(&self) {
        self.locked().as_ref().expect("the server runs").pause();
    }

    /// Lets a paused process run (`SIGCONT`).
    ///
    /// # Panics
    /// If the server does not run.
    pub fn resume(&self) {
        self.locked().as_ref().expect("the server runs").resume();
    }

    /// Kills the process (`SIGKILL`); returns when it has ended.
    pub fn kill(&self) {
        *self.locked() = None;
    }

    /// Kills the process if it runs, and starts the server again, on the same port and folder. The
    /// data are those of the last dump, if the test saved one.
    ///
    /// # Panics
    /// If the server does not start.
    pub fn restart(&self) {
        let mut process = self.locked();
        *process = None;
        *process = Some(eventually("the port is free", || match self.launch() {
            Ok(process) => Some(process),
            Err(log) if log.contains("Address already in use") => None,
            Err(log) => panic!("{}:\n{log}", self.program),
        }));
    }

    /// A new connection. Not for a server with TLS.
    ///
    /// # Errors
    /// If the server does not accept it.
    ///
    /// # Panics
    /// If the server speaks TLS.
    pub fn connect(&self) -> io::Result<Client> {
        assert!(self.listener != Listener::Tls, "this client speaks no TLS");
        match (self.address(), self.socket()) {
            (Some(address), _) => Client::connect(address),
            (None, Some(path)) => Client::connect_to_socket(&path),
            (None, None) => unreachable!("a server listens somewhere"),
        }
    }

    /// Sends a command on a connection of its own, and returns the reply.
    ///
    /// # Panics
    /// If the server does not answer.
    pub fn call(&self, command: &[&str]) -> Reply {
        let reply = self.connect().and_then(|mut client| client.call(command));
        reply.unwrap_or_else(|error| panic!("{command:?}: {error}\n{}", self.log()))
    }

    fn config(&self) -> PathBuf {
        self.folder().join("config")
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn tls() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tls")
}

/// A port that nothing listens on, from 10000 to 31999. Another process may take it later.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = process::id().wrapping_mul(7919).wrapping_add(NEXT.fetch_add(1, Relaxed));
        let port = 10_000 + u16::try_from(number % 22_000).expect("is below 22,000");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Asks again and again until there is an answer. For states of a server, which nothing announces.
///
/// # Panics
/// If there is no answer for half a minute.
pub fn eventually<T>(wanted: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {wanted}");
        thread::sleep(Duration::from_millis(3));
    }
}
