//! The settings of a connection and of its cache.
//!
//! # Layout
//!
//! - `place`: the places of servers; `url`: settings from a URL.
//!
//! Invariant: no debug output contains a password.

mod place;
mod url;

use std::fmt;
use std::time::Duration;

pub use self::place::{Address, Place, Sentinels};
use crate::error::ConfigError;
use crate::secret::Secret;

/// The largest limit of a value: Redis takes no longer string by default.
pub const MAX_VALUE: usize = 512 * 1024 * 1024 - 4096;

/// The settings. [`Config::default`] is a server on this machine.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The server, or the servers that know it.
    pub place: Place,
    /// Whether connections are encrypted, those of Sentinels included. The front does it, before
    /// bytes come here.
    pub tls: bool,
    /// The number of the database.
    pub db: u32,
    /// The name of the user, for servers with users.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The beginning of every key on the server.
    pub prefix: String,
    /// The name of the cache among all caches with the prefix.
    pub namespace: String,
    /// The user's version of the cached data. Caches of several versions share nothing.
    pub version: String,
    /// The secret that makes values unforgeable.
    pub secret: Option<Secret>,
    /// The longest value, in bytes; the server keeps a stub of a longer value.
    pub max_value: usize,
    /// How long a front waits for an answer.
    pub timeout: Duration,
    /// How long a lease stands.
    pub lease: Duration,
    /// Whether the server is asked to tell of changes.
    pub tracking: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            place: Place::Server(Address::tcp("localhost", 6379)),
            tls: false,
            db: 0,
            username: None,
            password: None,
            prefix: "ac:".to_owned(),
            namespace: "default".to_owned(),
            version: String::new(),
            secret: None,
            max_value: 1024 * 1024,
            timeout: Duration::from_millis(250),
            lease: Duration::from_secs(10),
            tracking: true,
        }
    }
}

impl Config {
    /// The settings in a URL, and the defaults of the rest.
    ///
    /// - `redis://[user[:password]@]host[:port][/db]`, also `valkey://`;
    /// - `rediss://...`: the same with TLS, also `valkeys://`;
    /// - `unix://[user[:password]@]/path[?db=n]`, also `redis+unix://`, `valkey+unix://`;
    /// - `redis+sentinel://[user[:password]@]host[:port][,host[:port]...]/service[/db]`: the
    ///   primary that Sentinels name, with `rediss+sentinel://` over TLS, also `valkey+sentinel://`
    ///   and `valkeys+sentinel://`. The port is 26379 unless given;
    /// - `redis+cluster://[user[:password]@]host[:port][,host[:port]...]`: some nodes of a cluster,
    ///   with `rediss+cluster://`, `valkey+cluster://` and `valkeys+cluster://`.
    ///
    /// The query may have `db`, `username` and `password`, and for Sentinels with a password of
    /// their own `sentinel_username` and `sentinel_password`. Users, passwords, service and path
    /// are percent-decoded.
    ///
    /// ```
    /// use async_cache_redis::Config;
    ///
    /// let config = Config::from_url("rediss://app:s%40cret@cache.example:6380/2")?;
    /// assert!(config.tls && config.db == 2 && config.password.as_deref() == Some("s@cret"));
    /// assert!(!format!("{config:?}").contains("cret@"));
    /// # Ok::<(), async_cache_redis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// [`ConfigError`] if the URL has another form.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        url::apply(&mut config, url)?;
        Ok(config)
    }

    /// Checks the settings that have limits.
    ///
    /// # Errors
    /// [`ConfigError`] if a setting is outside of its limits.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.max_value == 0 || self.max_value > MAX_VALUE {
            let remedy = "give a number of bytes from 1 to 512 MiB less 4 KiB";
            return Err(ConfigError::new("max_value", format!("it is {}", self.max_value), remedy));
        }
        for (setting, duration) in [("timeout", self.timeout), ("lease", self.lease)] {
            if duration < Duration::from_millis(1) {
                return Err(ConfigError::new(setting, "it is less than a millisecond", "give a longer one"));
            }
        }
        if self.username.is_some() && self.password.is_none() {
            let remedy = "give the password of the user too, or neither";
            return Err(ConfigError::new("password", "there is a user without a password", remedy));
        }
        self.place.check()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("place", &self.place)
            .field("tls", &self.tls)
            .field("db", &self.db)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| ".."))
            .field("prefix", &self.prefix)
            .field("namespace", &self.namespace)
            .field("version", &self.version)
            .field("secret", &self.secret)
            .field("max_value", &self.max_value)
            .field("timeout", &self.timeout)
            .field("lease", &self.lease)
            .field("tracking", &self.tracking)
            .finish()
    }
}
