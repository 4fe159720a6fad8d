//! The beginning of a connection.

use std::cell::RefCell;
use std::time::Duration;

use async_cache_core::remote::port::{Abilities, Command, CommandId, Content, Event, Reply};
use async_cache_redis::{Config, Link, LinkErrorKind, LinkEvent, Predecessor};

use super::*;

#[test]
fn the_greeting_is_one_packet() {
    let mut config = config();
    (config.username, config.password, config.db) = (Some("u".into()), Some("p".into()), 3);
    let mut link = Link::new(&config).unwrap();
    link.start();
    link.start();
    let probe = "ac:{n:}:p";
    let [set_name, info, role] = ["CLIENT SETNAME async-cache", "INFO server", "ROLE"].map(str::to_owned);
    let script =
        "if redis.pcall('GET',KEYS[1])==ARGV[1] then redis.call('UNLINK',KEYS[1]) return 1 end return 0";
    let script = script.replace('\'', "\\'");
    let expected = [
        "HELLO 3 AUTH u p".into(),
        set_name,
        "CLIENT SETINFO LIB-NAME async-cache".into(),
        format!("CLIENT SETINFO LIB-VER {}", env!("CARGO_PKG_VERSION")),
        "SELECT 3".into(),
        "CLIENT TRACKING ON BCAST PREFIX ac:{n:}: NOLOOP".into(),
        info,
        role,
        format!("SET {probe} 1 IFEQ 0"),
        format!("DELIFEQ {probe} 0"),
        format!("DELEX {probe} IFEQ 0"),
        format!("SET {probe} 1 NX GET PX 0"),
        format!("EVAL {script} 1 {probe} 0"),
    ];
    assert_eq!(commands(&mut link), expected);
}

#[test]
fn a_password_without_a_user_is_that_of_the_default_user() {
    let mut config = config();
    config.password = Some("p".into());
    let mut link = Link::new(&config).unwrap();
    link.start();
    assert_eq!(commands(&mut link)[0], "HELLO 3 AUTH default p");
}

#[test]
fn the_connection_before_is_ended_by_the_same_server() {
    let predecessor = Predecessor::default();
    let ended = |server: &dyn Fn(&str) -> String| {
        let ended = RefCell::new(Vec::new());
        let answers = |command: &str| {
            ended.borrow_mut().extend(command.strip_prefix("CLIENT KILL ID ").map(str::to_owned));
            server(command)
        };
        greeted_after(&predecessor, &config(), answers).unwrap();
        ended.into_inner()
    };
    let client = |number: u32| {
        move |command: &str| match command.split(' ').next() {
            Some("HELLO") => format!("%2\r\n+proto\r\n:3\r\n+id\r\n:{number}\r\n"),
            _ => valkey(command),
        }
    };
    assert_eq!(ended(&client(7)), [""; 0]);
    assert_eq!(ended(&client(8)), ["7"]);
    let forbids = |command: &str| match command {
        _ if command.starts_with("CLIENT KILL") => "-NOPERM no\r\n".to_owned(),
        _ => client(9)(command),
    };
    assert_eq!(ended(&forbids), ["8"]);
    // Another server has other connections with the same numbers.
    let other = |command: &str| match command {
        _ if command.starts_with("INFO") => info("valkey_version:9.1.2\r\nrun_id:def\r\n"),
        _ => client(7)(command),
    };
    assert_eq!(ended(&other), [""; 0]);
    // Before a proxy, all connections may have one number: none ends itself.
    assert_eq!(ended(&other), [""; 0]);
    // In RESP2, the number has a command of its own.
    let old = |number: u32| {
        move |command: &str| match command {
            _ if command.starts_with("HELLO") => "-ERR unknown command\r\n".to_owned(),
            "CLIENT ID" => format!(":{number}\r\n"),
            _ => valkey(command),
        }
    };
    assert_eq!(ended(&old(12)), [""; 0]);
    assert_eq!(ended(&old(13)), ["12"]);
}

#[test]
fn the_server_is_described() {
    let (_, ready) = greeted(&config(), valkey).unwrap();
    assert_eq!((&*ready.server, ready.run_id.as_deref()), ("valkey 9.1.2", Some("abc")));
    assert_eq!((ready.role.as_deref(), ready.notices.len()), (Some("master"), 0));
    assert_eq!(&*greeted(&config(), redis).unwrap().1.server, "redis 7.0.15");
}

/// A server without some commands of Valkey 9. `forbidden` has beginnings of commands.
fn without(forbidden: &'static [&'static str], words: &'static str) -> impl Fn(&str) -> String {
    move |command| {
        let missing = forbidden.iter().any(|part| command.contains(part));
        if missing { format!("-{words}\r\n") } else { valkey(command) }
    }
}

#[test]
fn the_commands_of_a_server_are_found_by_asking() {
    let unknown = "ERR unknown command";
    let syntax = "ERR syntax error";
    // Missing commands; then whether there are fences, and the commands of Fill, Release, Acquire.
    let table: &[(&[&str], &str, bool, [&str; 3])] = &[
        (&[], "", true, ["IFEQ", "DELIFEQ", "NX GET PX"]),
        (&["DELIFEQ"], unknown, true, ["IFEQ", "EVAL", "NX GET PX"]),
        (&["DELIFEQ", "EVAL"], "NOPERM no", true, ["IFEQ", "IFEQ", "NX GET PX"]),
        (&["DELIFEQ", "1 IFEQ"], syntax, true, ["EVAL", "EVAL", "NX GET PX"]),
        (&["DELIFEQ", "1 IFEQ", "GET PX"], syntax, true, ["EVAL", "EVAL", "NX PX"]),
        (&["DELIFEQ", "1 IFEQ", "EVAL"], "NOPERM no", false, ["SET", "", "NX GET PX"]),
    ];
    for (missing, words, fences, expected) in table {
        let (mut link, ready) = greeted(&config(), without(missing, words)).unwrap();
        assert_eq!(ready.abilities, Abilities { fences: *fences, notifies: true }, "{missing:?}");
        assert_eq!(ready.notices.is_empty(), *fences, "{:?}", ready.notices);
        let (name, lease, life) = (name("k"), LEASE, Duration::from_secs(1));
        let fill = Command::Fill { name: name.clone(), lease, content: Content::Stub, life: Some(life) };
        let release = Command::Release { name: name.clone(), lease };
        for (command, words) in [fill, release, Command::Acquire { name, lease, life }].iter().zip(expected) {
            link.send(CommandId(1), GENERATION, command);
            let written = commands(&mut link).join("; ");
            assert!(written.contains(words), "{missing:?}: {written}");
            assert_eq!(written.is_empty(), words.is_empty());
            if !words.contains("IFEQ") {
                assert!(!written.contains("IFEQ"), "{missing:?}: {written}");
            }
        }
    }
}

#[test]
fn a_server_with_delex_removes_with_it() {
    let server = |command: &str| match command {
        _ if command.starts_with("DELIFEQ") => "-ERR unknown command\r\n".into(),
        _ if command.starts_with("DELEX") => ":0\r\n".into(),
        _ => valkey(command),
    };
    let (mut link, _) = greeted(&config(), server).unwrap();
    link.send(CommandId(1), GENERATION, &Command::Release { name: name("k"), lease: LEASE });
    assert!(commands(&mut link)[0].starts_with("DELEX ac:{n:}:0000000000010:sk IFEQ AC"));
}

#[test]
fn without_tracking_the_connection_is_usable_and_the_reason_is_said() {
    let (_, ready) = greeted(&config(), without(&["TRACKING"], "NOPERM no permissions")).unwrap();
    assert_eq!(ready.abilities, Abilities { fences: true, notifies: false });
    let notice = &ready.notices[0];
    assert!(notice.contains("NOPERM no permissions; permit the command"), "{notice}");
    let mut config = config();
    config.tracking = false;
    let (_, ready) = greeted(&config, |command| {
        assert!(!command.contains("TRACKING"));
        valkey(command)
    })
    .unwrap();
    assert!(!ready.abilities.notifies && ready.notices.is_empty());
}

#[test]
fn a_server_of_resp2_is_greeted_again() {
    let mut config = config();
    (config.password, config.db) = (Some("p".into()), 2);
    let server = |command: &str| match command {
        "AUTH p" => "+OK\r\n".to_owned(),
        _ if command.contains("1 IFEQ") => "$-1\r\n".to_owned(),
        _ if command.starts_with("INFO") => "$17\r\nredis_version:5\r\n\r\n".to_owned(),
        _ => valkey(command),
    };
    // Valkey asks for the password before it says that it has no HELLO.
    for refusal in ["ERR unknown command 'HELLO'", "NOAUTH Authentication required."] {
        greeted_again(&config, refusal, server);
    }
}

fn greeted_again(config: &Config, refusal: &str, server: impl Fn(&str) -> String) {
    let mut link = Link::new(config).unwrap();
    link.start();
    let first = commands(&mut link).len();
    let refused = format!("-{refusal}\r\n{}", "-NOAUTH Authentication required.\r\n".repeat(first - 1));
    link.receive(refused.as_bytes()).unwrap();
    assert!(link.poll().is_none());
    let second = commands(&mut link);
    assert_eq!(second[0], "AUTH p");
    assert!(
        second.contains(&"SELECT 2".to_owned()) && !second.iter().any(|command| command.contains("TRACKING"))
    );
    link.receive(second.iter().map(|command| server(command)).collect::<String>().as_bytes()).unwrap();
    let Some(LinkEvent::Ready(ready)) = link.poll() else { panic!("not ready") };
    assert_eq!(ready.abilities, Abilities { fences: true, notifies: false });
    assert!(ready.notices[0].contains("RESP2 only") && &*ready.server == "redis 5");
}

#[test]
fn a_server_that_cannot_be_used_is_refused_with_the_remedy() {
    let table: &[(&str, String, LinkErrorKind, &str)] = &[
        (
            "HELLO",
            "-WRONGPASS invalid username-password pair\r\n".into(),
            LinkErrorKind::Auth,
            "check the user",
        ),
        ("HELLO", "-NOAUTH HELLO must be called\r\n".into(), LinkErrorKind::Auth, "NOAUTH HELLO must"),
        (
            "HELLO",
            "-DENIED protected mode\r\n".into(),
            LinkErrorKind::Refused,
            "protected mode; see the server",
        ),
        ("HELLO", "-ERR max number of clients reached\r\n".into(), LinkErrorKind::Refused, "max number"),
        ("HELLO", hello("redis", "8", "sentinel", "sentinel"), LinkErrorKind::Sentinel, "it watches"),
        ("ROLE", "*1\r\n+slave\r\n".into(), LinkErrorKind::Replica, "connect to the primary"),
        (
            "SELECT",
            "-ERR DB index is out of range\r\n".into(),
            LinkErrorKind::Database,
            "database 3: ERR DB index",
        ),
        ("SET", "-LOADING Redis is loading\r\n".into(), LinkErrorKind::Loading, "wait until"),
        ("SET", "-READONLY You can't write\r\n".into(), LinkErrorKind::Replica, "connect to the primary"),
        ("SET", "-MOVED 7 h:7\r\n".into(), LinkErrorKind::Moved, "goes to that node"),
        ("SET", "-CLUSTERDOWN Hash slot not served\r\n".into(), LinkErrorKind::Cluster, "see `CLUSTER INFO`"),
        ("SET", "-ASK 7 h:7\r\n".into(), LinkErrorKind::Cluster, "ASK 7 h:7; see"),
        ("SET", "-MASTERDOWN Link with MASTER is down\r\n".into(), LinkErrorKind::Replica, "MASTERDOWN"),
        ("HELLO", "\x15\x03\x03\x00".into(), LinkErrorKind::Tls, "rediss://"),
        ("HELLO", "HTTP/1.1 400 Bad Request\r\n".into(), LinkErrorKind::NotRedis, "speaks HTTP"),
        ("HELLO", "SSH-2.0\r\n".into(), LinkErrorKind::NotRedis, "check the host and the port"),
    ];
    let mut config = config();
    config.db = 3;
    for (beginning, answer, kind, words) in table {
        let server = |command: &str| match command {
            "ROLE" if answer.contains("sentinel") => "-ERR unknown command\r\n".to_owned(),
            _ if command.starts_with(beginning) => answer.clone(),
            _ => valkey(command),
        };
        let error = greeted(&config, server).unwrap_err();
        assert_eq!(error.kind, *kind, "{answer}: {error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_node_of_a_cluster_that_has_the_slot_is_usable() {
    let server = |command: &str| match command {
        _ if command.starts_with("HELLO") => hello("redis", "8", "cluster", "master"),
        _ => valkey(command),
    };
    let (_, ready) = greeted(&config(), server).unwrap();
    assert_eq!(ready.abilities, Abilities { fences: true, notifies: true });
}

#[test]
fn the_greeting_is_understood_at_every_split() {
    let mut link = Link::new(&config()).unwrap();
    link.start();
    let answers: String = commands(&mut link).iter().map(|command| valkey(command)).collect();
    let (_, expected) = greeted(&config(), valkey).unwrap();
    for split in 0..answers.len() {
        let mut link = Link::new(&config()).unwrap();
        link.start();
        link.receive(&answers.as_bytes()[..split]).unwrap();
        assert_eq!(link.poll(), None);
        link.receive(&answers.as_bytes()[split..]).unwrap();
        assert_eq!(link.poll(), Some(LinkEvent::Ready(expected.clone())));
    }
}

#[test]
fn a_command_before_the_greeting_is_over_fails() {
    let mut link = Link::new(&config()).unwrap();
    link.start();
    commands(&mut link);
    link.send(CommandId(1), GENERATION, &Command::Ping);
    assert!(commands(&mut link).is_empty());
    assert!(matches!(events(&mut link).as_slice(), [Event::Reply(CommandId(1), Reply::Failed(_))]));
}

#[test]
fn a_server_that_closes_the_connection_without_a_word_may_expect_tls() {
    let mut link = Link::new(&config()).unwrap();
    link.start();
    let remedy = "reset; if the server expects TLS on this port, use a URL with rediss://";
    assert_eq!(link.lost("reset"), remedy);
    link.receive(b"%").unwrap();
    assert_eq!(link.lost("reset"), "reset");
    let mut encrypted = config();
    encrypted.tls = true;
    assert_eq!(Link::new(&encrypted).unwrap().lost("reset"), "reset");
}

#[test]
fn an_error_stays() {
    let mut link = Link::new(&config()).unwrap();
    link.start();
    let error = link.receive(b"HTTP").unwrap_err();
    assert_eq!(link.receive(valkey("HELLO 3").as_bytes()), Err(error));
    let mut link = Link::new(&config()).unwrap();
    let error = link.receive(b"+hi\r\n").unwrap_err();
    assert!(error.to_string().contains("before it was greeted"), "{error}");
}

#[test]
fn settings_out_of_their_limits_are_refused() {
    type Break = fn(&mut Config);
    let broken: &[(Break, &str)] = &[
        (|config| config.namespace.clear(), "namespace"),
        (|config| config.max_value = 0, "max_value"),
        (|config| config.max_value = usize::MAX, "max_value"),
        (|config| config.lease = Duration::ZERO, "lease"),
        (|config| config.timeout = Duration::ZERO, "timeout"),
        (|config| config.username = Some("u".into()), "password"),
    ];
    for (break_it, setting) in broken {
        let mut config = config();
        break_it(&mut config);
        assert_eq!(Link::new(&config).unwrap_err().setting, *setting);
    }
}

#[test]
fn no_password_is_shown() {
    let mut config = config();
    config.password = Some("hunter2".into());
    let mut link = Link::new(&config).unwrap();
    assert!(!format!("{link:?}").contains("hunter2"));
    link.start();
    link.outgoing().clear();
    assert!(!format!("{link:?}").contains("hunter2"));
}
