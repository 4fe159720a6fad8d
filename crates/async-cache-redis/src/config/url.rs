//! Settings from a URL.
//!
//! A password with an unencoded `/`, `?`, `@` or `:` moves the borders between the parts, so an
//! error shows none of the parts behind the scheme.

use percent_encoding::percent_decode_str;

use super::{Address, Config, Place, Sentinels};
use crate::error::ConfigError;

const ENCODE: &str = "write the characters `/ ? # @ : %` of a user or password as `%2F %3F %23 %40 %3A %25`";
const FORMS: &str = "use redis://host:port/db, rediss://host:port/db for TLS, unix:///path?db=n for a \
    socket, redis+sentinel://host:port,host:port/service/db, or redis+cluster://host:port,host:port";

/// Changes the settings that a URL has.
pub(super) fn apply(config: &mut Config, url: &str) -> Result<(), ConfigError> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(ConfigError::new("url", "it has no `://`", FORMS));
    };
    if rest.contains('#') {
        return Err(ConfigError::new("url", "it has a `#`", ENCODE));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let (user, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    credentials(config, user)?;
    let scheme = scheme.to_ascii_lowercase();
    let (protocol, kind) = scheme.split_once('+').unwrap_or((&scheme, ""));
    config.tls = match protocol {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" if kind != "unix" => true,
        "unix" if kind.is_empty() => false,
        _ => return Err(unknown(&scheme)),
    };
    match if protocol == "unix" { protocol } else { kind } {
        "" => {
            config.place = Place::Server(address(place, 6379)?);
            database(config, path)?;
        }
        "unix" => {
            if !place.is_empty() || path.len() < 2 {
                return Err(ConfigError::new("url", "the path of the socket does not begin with `/`", FORMS));
            }
            config.place = Place::Server(Address::Unix(decoded(path)?.into()));
        }
        "sentinel" => {
            let path = path.strip_prefix('/').unwrap_or_default();
            let (service, path) = path.find('/').map_or((path, ""), |slash| path.split_at(slash));
            if service.is_empty() {
                return Err(ConfigError::new("url", "the name of the primary is missing", FORMS));
            }
            let (addresses, service) = (addresses(place, 26379)?, decoded(service)?);
            config.place = Place::Sentinel(Sentinels { addresses, service, username: None, password: None });
            database(config, path)?;
        }
        "cluster" => {
            config.place = Place::Cluster(addresses(place, 6379)?);
            database(config, path)?;
        }
        _ => return Err(unknown(&scheme)),
    }
    for setting in query.split('&').filter(|setting| !setting.is_empty()) {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        match (name, &mut config.place) {
            ("db", _) => config.db = number(value)?,
            ("username", _) => config.username = Some(decoded(value)?),
            ("password", _) => config.password = Some(decoded(value)?),
            ("sentinel_username", Place::Sentinel(sentinels)) => sentinels.username = Some(decoded(value)?),
            ("sentinel_password", Place::Sentinel(sentinels)) => sentinels.password = Some(decoded(value)?),
            _ => {
                let remedy = "only db, username and password (for Sentinels also sentinel_username and \
                    sentinel_password) are read from a URL; give other settings by name";
                return Err(ConfigError::new("url", "the query has an unknown setting", remedy));
            }
        }
    }
    Ok(())
}

fn credentials(config: &mut Config, user: &str) -> Result<(), ConfigError> {
    if user.is_empty() {
        return Ok(());
    }
    let (name, password) = match user.split_once(':') {
        Some((name, password)) => (name, Some(password)),
        None => (user, None),
    };
    config.username = if name.is_empty() { None } else { Some(decoded(name)?) };
    config.password = password.filter(|password| !password.is_empty()).map(decoded).transpose()?;
    Ok(())
}

fn addresses(places: &str, port: u16) -> Result<Vec<Address>, ConfigError> {
    places.split(',').map(|place| address(place, port)).collect()
}

fn address(place: &str, default: u16) -> Result<Address, ConfigError> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) if port.starts_with(':') => (host, port.get(1..)),
            _ => return Err(ConfigError::new("url", "the address in brackets has no end", FORMS)),
        },
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = match port {
        None | Some("") => default,
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(ConfigError::new("url", "the port is no number from 1 to 65535", ENCODE)),
        },
    };
    Ok(Address::tcp(if host.is_empty() { "localhost" } else { host }, port))
}

fn database(config: &mut Config, path: &str) -> Result<(), ConfigError> {
    if path.len() > 1 {
        config.db = number(path.get(1..).unwrap_or_default())?;
    }
    Ok(())
}

fn number(text: &str) -> Result<u32, ConfigError> {
    text.parse().map_err(|_| ConfigError::new("url", "the database is not a number", ENCODE))
}

fn decoded(text: &str) -> Result<String, ConfigError> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(Into::into).map_err(|_| ConfigError::new("url", "a part is not UTF-8 after decoding", ENCODE))
}

fn unknown(scheme: &str) -> ConfigError {
    ConfigError::new("url", format!("the scheme `{}` is unknown", short(scheme)), FORMS)
}

/// A scheme that is long enough to hold a password is not shown whole.
fn short(scheme: &str) -> String {
    let mut shown: String = scheme.chars().take(12).collect();
    if shown.len() < scheme.len() {
        shown.push_str("...");
    }
    shown
}
