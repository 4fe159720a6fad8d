//! Bytes under a key of the cache that no such cache wrote: a miss, replaced only by a load that
//! has seen them, and never a crash.

use std::fmt::Write;
use std::time::Duration;

use async_cache::remote::RedisSecret;
use servers::{Reply, Server};

use crate::support::{Origin, cache, connected, each, hears, over, redis, wire_key};

const NOW: Duration = Duration::ZERO;

/// Replaces the value of a key on the server; the bytes may be any.
fn plant(server: &Server, key: &str, bytes: &[u8]) {
    let mut hexadecimal = String::new();
    for byte in bytes {
        write!(hexadecimal, "{byte:02x}").unwrap();
    }
    let script = "return redis.call('SET',KEYS[1],(ARGV[1]:gsub('..',function(digits) return \
                  string.char(tonumber(digits,16)) end)))";
    assert_eq!(server.call(&["EVAL", script, "1", key, &hexadecimal]), Reply::ok());
}

fn planted(server: &Server, key: &str) -> Vec<u8> {
    match server.call(&["GET", key]) {
        Reply::Text(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn foreign_truncated_and_changed_bytes_are_a_miss() {
    each(async |server| {
        let (one, two, origin) = (cache(&server).await, cache(&server).await, Origin::default());
        one.set("key".into(), "value".into());
        hears(&one).await;
        let name = wire_key(&server, "key").unwrap();
        let real = planted(&server, &name);
        let mut wrong = vec![Vec::new(), b"foreign".to_vec(), b"AC".to_vec(), vec![0xFF; 100]];
        wrong.extend((0..real.len()).step_by(5).map(|length| real[..length].to_vec()));
        wrong.push([real.as_slice(), b"x"].concat());
        for bit in (0..real.len() * 8).step_by(11) {
            let mut flipped = real.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            wrong.push(flipped);
        }
        for bytes in wrong {
            plant(&server, &name, &bytes);
            hears(&two).await;
            assert_eq!(two.fetch("key").await, None, "{bytes:?}");
            assert_eq!(planted(&server, &name), bytes, "a look replaces nothing");
            let before = origin.loads();
            let value = origin.get(&two, "key", NOW).await;
            assert_eq!(value, before.to_string(), "{bytes:?}");
            hears(&two).await;
            assert_eq!(one.fetch("key").await, Some(value), "the load has replaced it");
        }
    });
}

#[test]
fn a_key_of_another_type_is_a_miss_and_stays() {
    each(async |server| {
        let (one, origin) = (cache(&server).await, Origin::default());
        one.set("key".into(), "value".into());
        hears(&one).await;
        let name = wire_key(&server, "key").unwrap();
        server.call(&["DEL", &name]);
        server.call(&["RPUSH", &name, "a list"]);
        hears(&one).await;
        assert_eq!(one.fetch("key").await, None);
        assert_eq!(origin.get(&one, "key", NOW).await, "0");
        hears(&one).await;
        assert_eq!(server.call(&["LLEN", &name]), Reply::Number(1), "the list stays");
        assert_eq!(one.get_many(["key", "other"]).await.len(), 2);
    });
}

#[test]
fn a_value_with_another_secret_is_a_miss() {
    each(async |server| {
        let secret = |byte| RedisSecret::new([byte; 32]).unwrap();
        let one = connected(redis(&server).secret(secret(1))).await;
        one.set("key".into(), "value".into());
        hears(&one).await;
        let two = over(redis(&server).secret(secret(2)));
        let none = over(redis(&server));
        let same = over(redis(&server).secret(secret(1)));
        assert_eq!((two.fetch("key").await, none.fetch("key").await), (None, None));
        assert_eq!(same.fetch("key").await.as_deref(), Some("value"));
        let origin = Origin::default();
        assert_eq!(origin.get(&none, "key", NOW).await, "0");
        hears(&none).await;
        assert_eq!(one.fetch("key").await, None, "the memory of the writer follows");
    });
}

#[test]
fn a_generation_that_is_no_generation_is_replaced() {
    each(async |server| {
        let one = cache(&server).await;
        one.set("key".into(), "value".into());
        hears(&one).await;
        let keys = server.call(&["KEYS", "*:g"]);
        let generation = keys.list()[0].text();
        for wrong in ["", "not a generation", "ZZZZZZZZZZZZZ", "zzzzzzzzzzzzz"] {
            plant(&server, &generation, wrong.as_bytes());
            hears(&one).await;
            hears(&one).await;
            assert_eq!(one.fetch("key").await, None, "{wrong:?}");
            one.set("key".into(), wrong.into());
            let two = cache(&server).await;
            hears(&one).await;
            assert_eq!(two.fetch("key").await.as_deref(), Some(wrong));
        }
    });
}
