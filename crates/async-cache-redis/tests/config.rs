//! Settings and URLs.

use std::path::PathBuf;

use async_cache_redis::{Address, Config, Place, Sentinels};

fn tcp(host: &str, port: u16) -> Address {
    Address::tcp(host, port)
}

#[test]
fn urls_set_the_address_the_database_and_the_credentials() {
    let unix = |path: &str| Address::Unix(PathBuf::from(path));
    for (url, address, tls, db, username, password) in [
        ("redis://", tcp("localhost", 6379), false, 0, None, None),
        ("redis://h", tcp("h", 6379), false, 0, None, None),
        ("REDIS://h:1/", tcp("h", 1), false, 0, None, None),
        ("valkey://h:65535/3", tcp("h", 65535), false, 3, None, None),
        ("rediss://:p%40w@h/2", tcp("h", 6379), true, 2, None, Some("p@w")),
        ("valkeys://u:p@h:7", tcp("h", 7), true, 0, Some("u"), Some("p")),
        ("redis://u:a:b@c@h", tcp("h", 6379), false, 0, Some("u"), Some("a:b@c")),
        ("redis://[::1]:7/1", tcp("::1", 7), false, 1, None, None),
        ("redis://[::1]", tcp("::1", 6379), false, 0, None, None),
        ("redis://h?db=4&username=u&password=p%26", tcp("h", 6379), false, 4, Some("u"), Some("p&")),
        ("unix:///run/r.sock", unix("/run/r.sock"), false, 0, None, None),
        ("redis+unix://u:p@/run/a%20b?db=5", unix("/run/a b"), false, 5, Some("u"), Some("p")),
        ("unix:///r?password=p", unix("/r"), false, 0, None, Some("p")),
    ] {
        let config = Config::from_url(url).unwrap();
        assert_eq!(config.place, Place::Server(address), "{url}");
        assert_eq!((config.tls, config.db), (tls, db), "{url}");
        assert_eq!((config.username.as_deref(), config.password.as_deref()), (username, password), "{url}");
    }
}

#[test]
fn urls_name_sentinels_with_a_service_and_nodes_of_a_cluster() {
    let sentinels = |addresses: &[Address], username: Option<&str>, password: Option<&str>| {
        Place::Sentinel(Sentinels {
            addresses: addresses.to_vec(),
            service: "main".into(),
            username: username.map(Into::into),
            password: password.map(Into::into),
        })
    };
    let (a, b) = (tcp("a", 26379), tcp("::1", 7));
    for (url, place, tls, db, password) in [
        ("redis+sentinel://a/main", sentinels(std::slice::from_ref(&a), None, None), false, 0, None),
        (
            "rediss+sentinel://:p@a,[::1]:7/ma%69n/3",
            sentinels(&[a.clone(), b], None, None),
            true,
            3,
            Some("p"),
        ),
        (
            "VALKEY+sentinel://a/main?sentinel_username=u&sentinel_password=p%26&db=1",
            sentinels(&[a], Some("u"), Some("p&")),
            false,
            1,
            None,
        ),
        ("redis+cluster://a,b:7", Place::Cluster(vec![tcp("a", 6379), tcp("b", 7)]), false, 0, None),
        ("valkeys+cluster://:p@a/", Place::Cluster(vec![tcp("a", 6379)]), true, 0, Some("p")),
    ] {
        let config = Config::from_url(url).unwrap();
        assert_eq!(config.place, place, "{url}");
        assert_eq!((config.tls, config.db, config.password.as_deref()), (tls, db, password), "{url}");
        config.check().unwrap();
    }
}

#[test]
fn a_place_is_named_in_logs_without_its_password() {
    for (url, shown) in [
        ("redis://:hunter2@[::1]:7", "[::1]:7"),
        ("unix:///run/r.sock", "/run/r.sock"),
        (
            "redis+sentinel://a,b:7/main?sentinel_password=hunter2",
            "the primary main of Sentinels a:26379, b:7",
        ),
        ("redis+cluster://:hunter2@a,b", "the cluster at a:6379, b:6379"),
    ] {
        let config = Config::from_url(url).unwrap();
        assert_eq!(config.place.to_string(), shown);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}

#[test]
fn a_place_that_names_no_server_is_refused() {
    let with = |change: fn(&mut Sentinels)| {
        let mut sentinels = Sentinels {
            addresses: vec![tcp("a", 1)],
            service: "main".into(),
            username: None,
            password: None,
        };
        change(&mut sentinels);
        Place::Sentinel(sentinels)
    };
    for (place, setting) in [
        (Place::Cluster(vec![]), "place"),
        (with(|sentinels| sentinels.addresses.clear()), "place"),
        (with(|sentinels| sentinels.service.clear()), "service"),
        (with(|sentinels| sentinels.username = Some("u".into())), "sentinel_password"),
    ] {
        let mut config = Config::default();
        config.place = place;
        assert_eq!(config.check().unwrap_err().setting, setting);
    }
}

#[test]
fn other_urls_are_refused_with_the_remedy_and_without_the_password() {
    for (url, words) in [
        ("localhost:6379", "no `://`; use redis://"),
        ("http://h", "the scheme `http` is unknown; use redis://"),
        ("redis://:hunter2#@h", "it has a `#`; write the characters"),
        ("redis://:hunter2/x@h", "no number from 1 to 65535; write the characters"),
        ("redis://h:0", "from 1 to 65535"),
        ("redis://h:65536", "from 1 to 65535"),
        ("redis://[::1", "no end"),
        ("redis://[::1]x", "no end"),
        ("redis://h/hunter2", "the database is not a number"),
        ("redis://h?db=-1", "the database is not a number"),
        ("redis://h?hunter2=1", "unknown setting; only db"),
        ("redis://:%FFhunter2@h", "UTF-8"),
        ("unix://r.sock", "does not begin with `/`"),
        ("unix://", "does not begin with `/`"),
        ("redis+sentinel://h", "the name of the primary is missing; use redis://"),
        ("redis+sentinel:///", "the name of the primary is missing"),
        ("redis+sentinel://h,i:0/main", "from 1 to 65535"),
        ("redis+sentinel://h/main/hunter2", "the database is not a number"),
        ("redis+cluster://h?sentinel_password=hunter2", "unknown setting; only db"),
        ("redis+hunter2://h", "the scheme `redis+hunter...` is unknown"),
        ("rediss+unix:///r", "the scheme `rediss+unix` is unknown"),
        ("unix+cluster://h", "is unknown"),
        ("hunter2hunter2hunter2://h", "`hunter2hunte...` is unknown"),
    ] {
        let error = Config::from_url(url).unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("hunter2h2"), "{url}: {error}");
        assert!(!url.contains('@') || !error.contains("hunter2"), "{url}: {error}");
    }
}

#[test]
fn the_password_is_not_shown() {
    let mut config = Config::from_url("redis://u:hunter2@h").unwrap();
    config.secret = Some(async_cache_redis::Secret::new("hunter2hunter2hunter2").unwrap());
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && shown.contains("\"u\""), "{shown}");
}
