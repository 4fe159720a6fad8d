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
    pub(crate) fn new(setting: &'static str, problem: impl Into<String>, remedy: &'static str) -> Self {
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
    /// The server is a node of a cluster.
    Cluster,
    /// The server is a Sentinel.
    Sentinel,
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
}

impl LinkError {
    pub(crate) fn new(kind: LinkErrorKind, problem: impl Into<String>) -> Self {
        Self { kind, problem: problem.into() }
    }

    /// The way to mend it.
    pub fn remedy(&self) -> &'static str {
        match self.kind {
            LinkErrorKind::NotRedis => "check the host and the port",
            LinkErrorKind::Tls => "use a URL with rediss://, or the port without TLS",
            LinkErrorKind::Auth => "check the user and the password in the settings",
            LinkErrorKind::Database => "use another db, or raise `databases` in the server's configuration",
            LinkErrorKind::Cluster => "clusters are not supported: use a server without `cluster-enabled`",
            LinkErrorKind::Sentinel => "connect to the primary that it watches",
            LinkErrorKind::Replica => "connect to the primary",
            LinkErrorKind::Loading => "wait until it has started",
            LinkErrorKind::Refused => "see the server's configuration and log",
            LinkErrorKind::Protocol => {
                "reconnect; if it happens again, look for a proxy between cache and server"
            }
        }
    }
}
