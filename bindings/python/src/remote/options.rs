//! The settings of a tier in Redis or Valkey, made by Python's `RedisBackend`, which has checked
//! the types.

use std::time::Duration;

use async_cache_core::remote::{Settings, WhileDown};
use async_cache_redis::{Address, Config, ConfigError, Layout, Link, Place, Route, Secret};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::codec::CodecOptions;

/// The settings of a server. The secret is not kept in its given form.
#[pyclass(frozen, module = "cache._native")]
pub(crate) struct RedisOptions {
    config: Config,
    machine: Settings,
}

/// The settings of the tier of one cache.
pub(crate) struct TierSettings {
    /// The name of the class of a user's own backend; `None`: the server is Redis or Valkey.
    pub(crate) own: Option<String>,
    /// Of a user's own backend, only the namespace.
    pub(crate) config: Config,
    /// The way to the server, as it is before the first connection.
    pub(crate) route: Option<Route>,
    pub(crate) machine: Settings,
    /// Values that need pickle are shared with a secret only.
    pub(crate) codec: CodecOptions,
}

#[pymethods]
impl RedisOptions {
    #[new]
    #[pyo3(signature = (
        *, address, url, tls, username, password, prefix, version, timeout, lease, max_value, secret,
        serves_while_down, uncovered_ttl, tracking
    ))]
    #[allow(clippy::too_many_arguments)] // they are those of Python's class
    fn new(
        address: Option<(String, u16, u32)>,
        url: Option<&str>,
        tls: bool,
        username: Option<String>,
        password: Option<String>,
        prefix: String,
        version: String,
        timeout: f64,
        lease: f64,
        max_value: usize,
        secret: Option<&[u8]>,
        serves_while_down: bool,
        uncovered_ttl: f64,
        tracking: bool,
    ) -> PyResult<Self> {
        let mut config = match url {
            Some(url) => Config::from_url(url).map_err(wrong)?,
            None => Config::default(),
        };
        if let Some((host, port, db)) = address {
            config.place = Place::Server(Address::tcp(host, port));
            config.db = db;
        }
        config.tls |= tls;
        config.username = username.or(config.username);
        config.password = password.or(config.password);
        (config.prefix, config.version) = (prefix, version);
        config.timeout = seconds(timeout, "timeout")?;
        config.lease = seconds(lease, "lease")?;
        config.max_value = max_value;
        config.secret = secret.map(Secret::new).transpose().map_err(wrong)?;
        config.tracking = tracking;
        config.check().map_err(wrong)?;
        let machine = Settings {
            timeout: config.timeout,
            lease: config.lease,
            while_down: if serves_while_down { WhileDown::Serve } else { WhileDown::Bypass },
            uncovered_ttl: seconds(uncovered_ttl, "uncovered_ttl")?,
            ..Settings::default()
        };
        Ok(Self { config, machine })
    }

    /// Raises `ValueError` if a namespace, the prefix or the version cannot be part of a key.
    fn check_namespace(&self, namespace: String) -> PyResult<()> {
        let mut config = self.config.clone();
        config.namespace = namespace;
        Layout::new(&config).map(drop).map_err(wrong)
    }

    /// The place and the database, for messages.
    #[getter]
    fn place(&self) -> String {
        let (place, db) = (&self.config.place, self.config.db);
        match place {
            Place::Server(Address::Tcp { .. }) => format!("{place}/{db}"),
            _ if db == 0 => place.to_string(),
            _ => format!("{place}, db={db}"),
        }
    }

    /// Whether the server is reached through a socket of this host.
    #[getter]
    fn is_local(&self) -> bool {
        matches!(self.config.place, Place::Server(Address::Unix(_)))
    }

    /// Whether connections are encrypted.
    #[getter]
    fn tls(&self) -> bool {
        self.config.tls
    }
}

impl RedisOptions {
    /// The settings of a cache with a namespace.
    pub(crate) fn tier(&self, namespace: String) -> PyResult<TierSettings> {
        let mut config = self.config.clone();
        config.namespace = namespace;
        Link::new(&config).map_err(wrong)?;
        let route = Some(Route::new(&config).map_err(wrong)?);
        let codec = CodecOptions { pickle: config.secret.is_some() };
        Ok(TierSettings { own: None, config, route, machine: self.machine.clone(), codec })
    }
}

fn seconds(seconds: f64, name: &str) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(format!("{name}: {error}")))
}

fn wrong(error: ConfigError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

impl TierSettings {
    /// The settings for a user's own backend, with the name of its class.
    pub(crate) fn own(class: String, namespace: String) -> Self {
        let mut config = Config::default();
        config.namespace = namespace;
        Self {
            own: Some(class),
            config,
            route: None,
            machine: Settings::default(),
            codec: CodecOptions { pickle: true },
        }
    }

    /// The server, for messages.
    pub(crate) fn place(&self) -> String {
        self.own.clone().unwrap_or_else(|| self.config.place.to_string())
    }
}
