//! No encrypted connections: the feature `redis-tls` is off. The same names as in `tls`, of a type
//! without values.

use std::io;
use std::path::Path;

use async_cache_redis::ConfigError;
use tokio::net::TcpStream;

#[derive(Clone, Debug)]
pub(crate) enum Tls {}

impl Tls {
    pub(crate) fn new(_: Option<&Path>) -> Result<Self, ConfigError> {
        let remedy = "enable the feature `redis-tls` of async-cache, or use redis:// without TLS";
        Err(ConfigError::new("tls", "this build has no TLS", remedy))
    }

    #[allow(clippy::unused_async, reason = "as in `tls`")]
    pub(super) async fn connect(&self, _: &str, _: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
        match *self {}
    }
}
