//! Encrypted connections (feature `redis-tls`), and the settings for them.

use async_cache::remote::Redis;

#[test]
fn settings_for_encryption_that_cannot_be_used_are_refused_with_the_remedy() {
    let error = Redis::builder("redis://h").tls_ca("authority.crt").build().unwrap_err().to_string();
    assert!(error.contains("tls_ca") && error.contains("use a URL with rediss://"), "{error}");
    #[cfg(not(feature = "redis-tls"))]
    {
        let error = Redis::builder("rediss://h").build().unwrap_err().to_string();
        assert!(error.contains("enable the feature `redis-tls`"), "{error}");
    }
    #[cfg(feature = "redis-tls")]
    {
        let folder = tempfile::tempdir().unwrap();
        let (missing, empty) = (folder.path().join("missing.crt"), folder.path().join("empty.crt"));
        std::fs::write(&empty, "no certificate").unwrap();
        for (path, words) in
            [(missing, "missing.crt: "), (empty, "there is no certificate in it; give a file")]
        {
            let error = Redis::builder("rediss://h").tls_ca(path).build().unwrap_err().to_string();
            assert!(error.starts_with("tls_ca: ") && error.contains(words), "{error}");
        }
    }
}

#[cfg(feature = "redis-tls")]
mod with_servers {
    use std::io::Write as _;
    use std::time::Duration;

    use async_cache::remote::{Redis, RedisBuilder};
    use servers::{Program, Server};
    use tracing::Level;

    use crate::programs::{each_program, until};
    use crate::support::{Origin, connected, keep_log, keeps, logged, over, redis_at, shows, soon};

    fn at(host: &str, server: &Server) -> RedisBuilder {
        Redis::builder(&format!("rediss://{host}:{}", server.port())).tls_ca(Server::authority())
    }

    /// A server that speaks TLS. Debian's Redis does; the Valkey of the Python package does not,
    /// which is said in the error output.
    fn started(program: &Program) -> Option<Server> {
        let server = program.start_with_tls(&[]);
        if server.is_none() {
            // Not by a macro, whose output the test harness keeps to itself.
            let _ = writeln!(std::io::stderr(), "not tested, as it was built without TLS: {program}");
        }
        server
    }

    #[test]
    fn caches_share_over_encrypted_connections_values_of_every_size() {
        each_program(async |program| {
            let Some(server) = started(program) else { return };
            let cache = async |host| connected(at(host, &server).timeout(Duration::from_secs(5))).await;
            let (one, two) = (cache("127.0.0.1").await, cache("localhost").await);
            for length in [1, 20_000, 900_000] {
                let (key, value) = (length.to_string(), "x".repeat(length));
                one.set(key.clone(), value.clone());
                shows(&two, &key, Some(&value)).await;
            }
            keeps(&two, "1", "x").await;
            one.delete("1");
            soon("the value leaves", || two.get("1").is_none()).await;
        });
    }

    #[test]
    fn the_primary_of_encrypted_sentinels_is_found() {
        each_program(async |program| {
            let Some(server) = started(program) else { return };
            let sentinel = program.start_sentinel_with_tls("main", &server);
            let url = format!("rediss+sentinel://localhost:{}/main", sentinel.port());
            let redis = || Redis::builder(&url).tls_ca(Server::authority()).timeout(Duration::from_secs(5));
            let (one, two) = (connected(redis()).await, connected(redis()).await);
            one.set("key".into(), "value".into());
            shows(&two, "key", Some("value")).await;
        });
    }

    #[test]
    fn a_server_of_another_authority_or_without_tls_is_refused_and_the_log_says_why() {
        keep_log();
        for program in servers::all() {
            let plain = program.start();
            let encrypted = started(program);
            let other = Server::authority().with_file_name("server.crt");
            let mut cases =
                vec![(&plain, Some(Server::authority()), "check that the server speaks TLS on this port")];
            if let Some(encrypted) = &encrypted {
                cases.push((encrypted, Some(other), "UnknownIssuer"));
                cases.push((
                    encrypted,
                    None,
                    "if the server expects TLS on this port, use a URL with rediss://",
                ));
            }
            for (server, authority, words) in cases {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let cache = over(match authority {
                        Some(authority) => at("127.0.0.1", server).tls_ca(authority),
                        None => redis_at(server.port()),
                    });
                    let origin = Origin::default();
                    assert_eq!(origin.get(&cache, "key", Duration::ZERO).await, "0");
                    until(Duration::from_secs(5), "the log says why", async || {
                        logged(server.port(), Level::WARN).iter().any(|line| line.contains(words))
                    })
                    .await;
                });
            }
        }
    }
}
