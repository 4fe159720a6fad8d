//! The errors of this crate: the fault, its place, and the remedy.
//!
//! Invariant: no error shows a password, or a part of a URL that may be a password.

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}; {remedy}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The setting, such as `namespace`.
    pub setting: &'static str,
    /// The fault.
    pub problem: String,
    /// The way to mend it.
    pub remedy: &'static str,
}

impl ConfigError {
    /// A setting that a front cannot use.
    pub fn new(setting: &'static str, problem: impl Into<String>, remedy: &'static str) -> Self {
        Self { setting, problem: problem.into(), remedy }
    }
}

/// Why a connection cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkErrorKind {
    /// The server speaks another protocol.
    NotRedis,
    /// The server expects TLS.
    Tls,
    /// The server wants another user or password.
    Auth,
    /// The server does not have the database.
    Database,
    /// Another node of the cluster has the slot of the cache.
    Moved,
    /// No node of the cluster serves the slot of the cache now.
    Cluster,
    /// The server is a Sentinel.
    Sentinel,
    /// A Sentinel does not know the primary.
    Unknown,
    /// The server is a replica.
    Replica,
    /// The server is still reading its data.
    Loading,
    /// The server refused the connection, or a write that the cache cannot do without.
    Refused,
    /// The server broke the protocol.
    Protocol,
}

/// A connection that cannot be used (any more).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {}", self.remedy())]
#[non_exhaustive]
pub struct LinkError {
    /// The kind of the fault.
    pub kind: LinkErrorKind,
    /// The fault, with the words of the server.
    pub problem: String,
    /// The node that has the slot now, if the server names it.
    pub(crate) moved: Option<Moved>,
}

/// The node that has a slot, as another node names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// `None`: the host of the node that names it.
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
}

impl LinkError {
    pub(crate) fn new(kind: LinkErrorKind, problem: impl Into<String>) -> Self {
        Self { kind, problem: problem.into(), moved: None }
    }

    /// The fault of an error that ends a connection wherever it stands: `MOVED 7 host:port`, a node
    /// without a cluster, a server that has become a replica.
    pub(crate) fn of_the_place(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (kind, problem) = match words.next().unwrap_or_default() {
            "MOVED" => (LinkErrorKind::Moved, "another node has the slot of the cache"),
            "CLUSTERDOWN" => (LinkErrorKind::Cluster, "the cluster does not serve the slot of the cache"),
            "READONLY" => (LinkErrorKind::Replica, "the server is a replica"),
            "MASTERDOWN" => (LinkErrorKind::Replica, "the server is a replica without its primary"),
            _ => return None,
        };
        let mut error = Self::new(kind, format!("{problem}: {text}"));
        if kind == LinkErrorKind::Moved {
            error.moved = words.nth(1).and_then(moved_to);
        }
        Some(error)
    }

    /// The way to mend it.
    pub fn remedy(&self) -> &'static str {
        match self.kind {
            LinkErrorKind::NotRedis => "check the host and the port",
            LinkErrorKind::Tls => "use a URL with rediss://, or the port without TLS",
            LinkErrorKind::Auth => "check the user and the password in the settings",
            LinkErrorKind::Database => "use another db, or raise `databases` in the server's configuration",
            LinkErrorKind::Moved => "the next connection goes to that node",
            LinkErrorKind::Cluster => "see `CLUSTER INFO` and `CLUSTER SLOTS` of the nodes",
            LinkErrorKind::Sentinel => {
                "use a URL with redis+sentinel://, or connect to the primary that it watches"
            }
            LinkErrorKind::Unknown => "check the name of the primary in the URL, and `SENTINEL MASTERS`",
            LinkErrorKind::Replica => "connect to the primary, or use a URL with redis+sentinel://",
            LinkErrorKind::Loading => "wait until it has started",
            LinkErrorKind::Refused => "see the server's configuration and log",
            LinkErrorKind::Protocol => {
                "reconnect; if it happens again, look for a proxy between cache and server"
            }
        }
    }
}

/// The address in a redirection. Without a host, it is the host of the server that redirects.
fn moved_to(address: &str) -> Option<Moved> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host {
        "" => None,
        "?" => return None, // the server does not know
        host => Some(host.to_owned()),
    };
    let port = port.parse().ok().filter(|port| *port > 0)?;
    Some(Moved { host, port })
}
