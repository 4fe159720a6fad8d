//! The settings of a tier on Redis or Valkey.

use std::path::PathBuf;
use std::time::Duration;

use async_cache_core::remote::Settings;
pub use async_cache_core::remote::WhileDown;
pub use async_cache_redis::{Address, ConfigError, Secret as RedisSecret};
use async_cache_redis::{Config, Route};

use super::tls::Tls;

/// A server of Redis or Valkey, where the entries of a cache stand beyond one host; for
/// [`Builder::remote`](crate::Builder::remote).
///
/// All processes with the same server, prefix, namespace and version share one cache: a value that
/// one of them loads is there for all, a key is loaded by one of them at a time, and a `set`,
/// `delete` or `clear` of one reaches the memory of all within the time of a message.
///
/// While the server is away, the cache goes on without it: see
/// [`while_down`](RedisBuilder::while_down).
///
/// ```
/// use async_cache::remote::Redis;
///
/// let pages = Redis::builder("redis://127.0.0.1:6379").namespace("pages").build()?;
/// # let _ = pages;
/// # Ok::<(), async_cache::remote::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Redis {
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    pub(crate) route: Route,
    pub(crate) tls: Option<Tls>,
}

/// Makes a [`Redis`]; from [`Redis::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing is made before `build`"]
pub struct RedisBuilder {
    config: Result<Config, ConfigError>,
    settings: Settings,
    authorities: Option<PathBuf>,
}

impl Redis {
    /// Begins with the URL of a server; `valkey` may stand in it for `redis`:
    ///
    /// - `redis://[user[:password]@]host[:port][/db]`, or `unix:///path/of/socket?db=0`;
    /// - `redis+sentinel://[user[:password]@]host[:port][,host[:port]...]/service[/db]`: the
    ///   primary that Sentinels name. The query may have their own `sentinel_username` and
    ///   `sentinel_password`;
    /// - `redis+cluster://[user[:password]@]host[:port][,host[:port]...]`: a cluster. All entries
    ///   of a namespace are on one of its nodes, and namespaces spread over the nodes.
    ///
    /// With `rediss` instead of `redis`, all connections are encrypted (feature `redis-tls`).
    pub fn builder(url: &str) -> RedisBuilder {
        RedisBuilder { config: Config::from_url(url), settings: Settings::default(), authorities: None }
    }
}

impl RedisBuilder {
    fn with(mut self, set: impl FnOnce(&mut Config)) -> Self {
        if let Ok(config) = &mut self.config {
            set(config);
        }
        self
    }

    /// The name of the cache among all on the server. Caches of the same name share their entries,
    /// so their keys and values must be of the same types. Default: `default`.
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        self.with(|config| config.namespace = namespace.into())
    }

    /// Names the shape of keys and values: caches of different versions share nothing. Change it
    /// when old values must not be served any more. Default: empty.
    pub fn version(self, version: impl Into<String>) -> Self {
        self.with(|config| config.version = version.into())
    }

    /// The beginning of every key on the server. Default: `ac:`.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        self.with(|config| config.prefix = prefix.into())
    }

    /// The user, for servers with users.
    pub fn username(self, username: impl Into<String>) -> Self {
        self.with(|config| config.username = Some(username.into()))
    }

    /// The password.
    pub fn password(self, password: impl Into<String>) -> Self {
        self.with(|config| config.password = Some(password.into()))
    }

    /// The number of the database. Default: 0.
    pub fn db(self, db: u32) -> Self {
        self.with(|config| config.db = db)
    }

    /// A file with the certificates of the authorities that sign those of the servers, in PEM. No
    /// other authority counts then. Default: the authorities of the system.
    pub fn tls_ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities = Some(path.into());
        self
    }

    /// Makes values unforgeable: a value without a tag that only the secret makes is not read.
    pub fn secret(self, secret: RedisSecret) -> Self {
        self.with(|config| config.secret = Some(secret))
    }

    /// The longest value that is kept on the server, in bytes. A longer one is kept in memory only.
    /// Default: 1 MiB.
    pub fn max_value(self, bytes: usize) -> Self {
        self.with(|config| config.max_value = bytes)
    }

    /// Whether the server is asked to tell of changes. Without, an entry stays in memory for
    /// [`uncovered_ttl`](Self::uncovered_ttl) at most. Default: yes.
    pub fn tracking(self, tracks: bool) -> Self {
        self.with(|config| config.tracking = tracks)
    }

    /// How long a call waits for a server that says nothing. Later calls do not wait until it
    /// speaks again. Default: 250 ms.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self.with(|config| config.timeout = timeout)
    }

    /// How long the others leave a load to a process that has stopped without ending. Default: 10
    /// s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self.with(|config| config.lease = lease)
    }

    /// How long a call waits for the load of another process, before it loads by itself. Default:
    /// 30 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.settings.wait = wait;
        self
    }

    /// Whether entries in memory and in the file are served while the server is away, when changes
    /// by others cannot be heard. Default: they are, for [`max_uncovered`](Self::max_uncovered).
    pub fn while_down(mut self, while_down: WhileDown) -> Self {
        self.settings.while_down = while_down;
        self
    }

    /// How long entries are served while the server is away. Default: 30 s.
    pub fn max_uncovered(mut self, time: Duration) -> Self {
        self.settings.max_uncovered = time;
        self
    }

    /// How long an entry stays in memory if the server does not tell of its changes. Default: 5 s.
    pub fn uncovered_ttl(mut self, ttl: Duration) -> Self {
        self.settings.uncovered_ttl = ttl;
        self
    }

    /// Checks the settings, and reads the certificates of the authorities if connections are
    /// encrypted. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ConfigError`]: which setting cannot be used, and what to do.
    pub fn build(self) -> Result<Redis, ConfigError> {
        let config = self.config?;
        let route = Route::new(&config)?;
        let tls = match (config.tls, self.authorities) {
            (true, authorities) => Some(Tls::new(authorities.as_deref())?),
            (false, None) => None,
            (false, Some(_)) => {
                let problem = "there are authorities, but connections are not encrypted";
                return Err(ConfigError::new("tls_ca", problem, "use a URL with rediss://"));
            }
        };
        Ok(Redis { config, settings: self.settings, route, tls })
    }
}
