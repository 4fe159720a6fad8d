//! Encrypted connections (feature `redis-tls`).
//!
//! Invariant: no connection without a certificate that an authority has signed for the host of the
//! address. There is no setting that turns this off.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use async_cache_redis::ConfigError;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Both directions of a connection.
type Halves = (ReadHalf<TlsStream<TcpStream>>, WriteHalf<TlsStream<TcpStream>>);

/// The authorities whose certificates count.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl Tls {
    /// With the authorities in a file, or else with those of the system. Reads their files.
    pub(crate) fn new(authorities: Option<&Path>) -> Result<Self, ConfigError> {
        let roots = match authorities {
            Some(path) => in_file(path)?,
            None => of_the_system()?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::new("tls", error.to_string(), "use redis:// without TLS"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<Halves> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("TLS needs the name of a host: {error}"))
        })?;
        let stream = self.0.connect(name, stream).await.map_err(|error| {
            let remedy = if error.kind() == io::ErrorKind::InvalidData {
                "check that the server speaks TLS on this port and that its certificate is for this host, and \
                 name a private authority with `tls_ca`"
            } else {
                "check that the server speaks TLS on this port"
            };
            io::Error::new(error.kind(), format!("TLS: {error}; {remedy}"))
        })?;
        Ok(tokio::io::split(stream))
    }
}

fn in_file(path: &Path) -> Result<RootCertStore, ConfigError> {
    let remedy = "give a file in PEM with the certificates of the authorities";
    let refused = |problem: &dyn fmt::Display| {
        ConfigError::new("tls_ca", format!("{}: {problem}", path.display()), remedy)
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| refused(&error))? {
        roots.add(certificate.map_err(|error| refused(&error))?).map_err(|error| refused(&error))?;
    }
    if roots.is_empty() {
        return Err(refused(&"there is no certificate in it"));
    }
    Ok(roots)
}

fn of_the_system() -> Result<RootCertStore, ConfigError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let problem = format!("the system has no certificates of authorities: {}", errors.join("; "));
        let remedy = "install them (the package is often `ca-certificates`), or name a file with `tls_ca`";
        return Err(ConfigError::new("tls", problem, remedy));
    }
    Ok(roots)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}
