//! Where a cache is: a server, or servers that know it.

use std::fmt;
use std::path::PathBuf;

use crate::error::ConfigError;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A host and a port.
    Tcp {
        /// A name or an address, IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a socket.
    Unix(PathBuf),
}

/// The server of a cache, or the servers that know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// One server. If it is a node of a cluster, the cache goes to the node of its slot.
    Server(Address),
    /// The primary that Sentinels name.
    Sentinel(Sentinels),
    /// The node of a cluster that has the slot of the cache; these are some of the nodes.
    Cluster(Vec<Address>),
}

/// Sentinels that watch a primary.
#[derive(Clone, PartialEq, Eq)]
pub struct Sentinels {
    /// Some of the Sentinels.
    pub addresses: Vec<Address>,
    /// The name of the primary at the Sentinels.
    pub service: String,
    /// The user at the Sentinels.
    pub username: Option<String>,
    /// The password at the Sentinels.
    pub password: Option<String>,
}

impl Address {
    /// A host and a port.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }

    /// Another port on the host of this address, or on another host.
    pub(crate) fn beside(&self, host: Option<&str>, port: u16) -> Self {
        let host = match (host, self) {
            (Some(host), _) => host,
            (None, Self::Tcp { host, .. }) => host,
            (None, Self::Unix(_)) => "localhost",
        };
        Self::tcp(host, port)
    }
}

impl Place {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let remedy = "name at least one, better all that there are";
        match self {
            Self::Server(_) => {}
            Self::Cluster(nodes) => {
                if nodes.is_empty() {
                    return Err(ConfigError::new("place", "there is no node of the cluster", remedy));
                }
            }
            Self::Sentinel(Sentinels { addresses, service, username, password }) => {
                if addresses.is_empty() {
                    return Err(ConfigError::new("place", "there is no Sentinel", remedy));
                }
                if service.is_empty() {
                    let remedy = "give the name after `sentinel monitor` in their configuration";
                    return Err(ConfigError::new("service", "the primary has no name", remedy));
                }
                if username.is_some() && password.is_none() {
                    let problem = "there is a user at the Sentinels without a password";
                    let remedy = "give the password of the user too, or neither";
                    return Err(ConfigError::new("sentinel_password", problem, remedy));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// For logs: `127.0.0.1:6379`, or `the primary main of Sentinels a:26379, b:26379`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = match self {
            Self::Server(address) => return address.fmt(f),
            Self::Sentinel(sentinels) => {
                write!(f, "the primary {} of Sentinels ", sentinels.service)?;
                &sentinels.addresses
            }
            Self::Cluster(nodes) => {
                f.write_str("the cluster at ")?;
                nodes
            }
        };
        for (number, address) in addresses.iter().enumerate() {
            write!(f, "{}{address}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinels")
            .field("addresses", &self.addresses)
            .field("service", &self.service)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| ".."))
            .finish()
    }
}
