//! Commands, and their answers.

use std::sync::Arc;
use std::time::Duration;

use async_cache_core::remote::port::{Content, Found, FoundValue, Replaced};
use async_cache_redis::LinkErrorKind;
use async_cache_redis::body::{Body, Holds};
use async_cache_redis::envelope::Envelope;

use super::*;

const LIFE: Duration = Duration::from_secs(10);
const KEY: &str = "ac:{n:}:0000000000010:sk";

fn envelope() -> Envelope {
    Envelope::new(&Layout::new(&config()).unwrap(), None, 1 << 20)
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn lease_bytes() -> String {
    shown(&envelope().lease(&name("k"), LEASE))
}

fn value() -> Content {
    let mut body = Vec::new();
    Body::begin(&mut body, &name("k"), b"\xA1k", Holds::Data);
    body.extend_from_slice(b"payload");
    Content::Value(body.into())
}

fn found(life: Option<Duration>) -> Found {
    let Content::Value(bytes) = value() else { panic!("not a value") };
    Found::Value(FoundValue { bytes, life })
}

/// Answers of the server, and their meaning.
type Answers<'a> = &'a [(&'a str, Reply)];

fn failed(reply: &Reply) -> &str {
    match reply {
        Reply::Failed(text) => text,
        _ => panic!("{reply:?}"),
    }
}

/// Each command with what is written for it, and answers of the server with their meaning.
#[test]
fn every_command_is_written_and_answered() {
    let (name, lease, life) = (name("k"), LEASE, LIFE);
    let (l, v, s) = (
        lease_bytes(),
        shown(&envelope().content(&name, &value())),
        shown(&envelope().content(&name, &Content::Stub)),
    );
    let (n, content) = (|| name.clone(), value());
    let condition: Answers = &[
        ("+OK\r\n", Reply::Done),
        (":1\r\n", Reply::Done),
        ("_\r\n", Reply::Refused),
        ("$-1\r\n", Reply::Refused),
        (":0\r\n", Reply::Refused),
        ("-WRONGTYPE Operation\r\n", Reply::Refused),
        ("-ERR x\r\n", Reply::Failed("ERR x".into())),
    ];
    let plain: Answers =
        &[("+OK\r\n", Reply::Done), (":0\r\n", Reply::Done), ("-ERR x\r\n", Reply::Failed("ERR x".into()))];
    let foreign = Replaced::Foreign(Arc::from(*b"x y"));
    let digits = "0000000000011";
    let generation: Answers = &[
        ("_\r\n", Reply::Generation(Generation(37))),
        ("$13\r\n0000000000012\r\n", Reply::Generation(Generation(38))),
        ("-ERR x\r\n", Reply::Failed("ERR x".into())),
    ];
    let owner = "ac:{n:}:o:0000000000000001";
    let table: Vec<(Command, String, Answers)> = vec![
        (
            Command::TakeOver { name: n(), from: Replaced::Lease(Lease { serial: 2, ..LEASE }), lease, life },
            format!("SET {KEY} {l} IFEQ {l} PX 10000"),
            condition,
        ),
        (
            Command::TakeOver { name: n(), from: foreign, lease, life },
            format!("SET {KEY} {l} IFEQ x y PX 10000"),
            condition,
        ),
        (
            Command::Fill { name: n(), lease, content: content.clone(), life: Some(life) },
            format!("SET {KEY} {v} IFEQ {l} PX 10000"),
            condition,
        ),
        (
            Command::Fill { name: n(), lease, content: Content::Stub, life: None },
            format!("SET {KEY} {s} IFEQ {l}"),
            condition,
        ),
        (Command::Extend { name: n(), lease, life }, format!("SET {KEY} {l} IFEQ {l} PX 10000"), condition),
        (Command::Release { name: n(), lease }, format!("DELIFEQ {KEY} {l}"), condition),
        (
            Command::Put { name: n(), content: content.clone(), life: Some(life) },
            format!("SET {KEY} {v} PX 10000"),
            plain,
        ),
        (Command::Put { name: n(), content: Content::Stub, life: None }, format!("SET {KEY} {s}"), plain),
        (
            Command::Drop(vec![n(), super::name("l")]),
            format!("UNLINK {KEY} ac:{{n:}}:0000000000010:sl"),
            plain,
        ),
        (Command::Generation(Generation(37)), format!("SET ac:{{n:}}:g {digits} NX GET"), generation),
        (Command::NewGeneration(Generation(37)), format!("SET ac:{{n:}}:g {digits}"), plain),
        (Command::Alive { owner: Owner(1), life }, format!("SET {owner} 1 PX 10000"), plain),
        (Command::IsAlive(Owner(1)), format!("EXISTS {owner}"), condition),
    ];
    let mut link = ready();
    for (command, expected, answers) in table {
        for (answer, reply) in answers {
            let (written, given) = exchange(&mut link, &command, answer);
            assert_eq!(written, std::slice::from_ref(&expected));
            assert_eq!(given, *reply, "{command:?}: {answer}");
        }
    }
}

#[test]
fn a_script_has_the_same_conditions() {
    let (mut link, _) = greeted(&config(), redis).unwrap();
    let (name, lease, l) = (name("k"), LEASE, lease_bytes());
    let fill = Command::Fill { name: name.clone(), lease, content: Content::Stub, life: Some(LIFE) };
    let (written, reply) = exchange(&mut link, &fill, ":0\r\n");
    let stub = shown(&envelope().content(&name, &Content::Stub));
    assert!(written[0].starts_with("EVAL if redis.pcall(") && reply == Reply::Refused);
    assert!(written[0].ends_with(&format!(" 1 {KEY} {l} {stub} PX 10000")), "{}", written[0]);
    let (written, reply) = exchange(&mut link, &Command::Release { name, lease }, ":1\r\n");
    assert!(written[0].ends_with(&format!(" 1 {KEY} {l}")) && reply == Reply::Done);
}

#[test]
fn one_name_is_read_with_its_life() {
    let name = name("k");
    let stored = String::from_utf8(bulk(b"x")).unwrap();
    let mut link = ready();
    for (answers, expected) in [
        ("_\r\n:-2\r\n", Found::Absent),
        ("$-1\r\n:-2\r\n", Found::Absent),
        // Put between the two commands.
        ("_\r\n:50\r\n", Found::Absent),
        // Expired between the two commands.
        ("$1\r\nx\r\n:-2\r\n", Found::Absent),
        (&format!("{stored}:5\r\n"), Found::Foreign(Some(Arc::from(*b"x")))),
        ("-WRONGTYPE Operation\r\n:-1\r\n", Found::Foreign(None)),
        ("*0\r\n:-1\r\n", Found::Foreign(None)),
    ] {
        let (written, reply) = exchange(&mut link, &Command::Read(vec![name.clone()]), answers);
        assert_eq!(written, [format!("GET {KEY}"), format!("PTTL {KEY}")]);
        assert_eq!(reply, Reply::Found(vec![expected]), "{answers}");
    }
    for (answers, words) in [
        ("-NOPERM no\r\n:5\r\n", "NOPERM no; permit the command"),
        ("-ASK 1 h:1\r\n-ASK 1 h:1\r\n", "ASK 1 h:1; the slot of the cache is being moved"),
        ("_\r\n-NOPERM pttl\r\n", "NOPERM pttl"),
        ("_\r\n+x\r\n", "named no life"),
    ] {
        let (_, reply) = exchange(&mut link, &Command::Read(vec![name.clone()]), answers);
        assert!(failed(&reply).contains(words), "{reply:?}");
    }
}

#[test]
fn each_kind_of_content_is_found() {
    let (name, envelope, mut link) = (name("k"), envelope(), ready());
    let cases: [(Vec<u8>, &[u8], Found); 4] = [
        (envelope.content(&name, &value()), b":1500\r\n", found(Some(Duration::from_millis(1500)))),
        (envelope.content(&name, &value()), b":-1\r\n", found(None)),
        (envelope.content(&name, &Content::Stub), b":5\r\n", Found::Stub),
        (envelope.lease(&name, LEASE), b":5\r\n", Found::Lease(LEASE)),
    ];
    for (stored, life, expected) in cases {
        link.send(CommandId(1), GENERATION, &Command::Read(vec![name.clone()]));
        link.receive(&joined(&[&bulk(&stored), life])).unwrap();
        let reply = Reply::Found(vec![expected.clone()]);
        assert_eq!(events(&mut link), [Event::Reply(CommandId(1), reply)]);
        let acquire = Command::Acquire { name: name.clone(), lease: LEASE, life: LIFE };
        link.send(CommandId(2), GENERATION, &acquire);
        link.receive(&joined(&[&bulk(&stored), life])).unwrap();
        assert_eq!(events(&mut link), [Event::Reply(CommandId(2), Reply::Found(vec![expected]))]);
    }
}

#[test]
fn several_names_are_one_answer_in_their_order() {
    let names = ["a", "b", "c"].map(name);
    let stub = envelope().content(&names[2], &Content::Stub);
    let mut link = ready();
    link.send(CommandId(1), GENERATION, &Command::Read(names.to_vec()));
    let keys = ["a", "b", "c"].map(|key| format!("ac:{{n:}}:0000000000010:s{key}"));
    let mut expected = vec![format!("MGET {}", keys.join(" "))];
    expected.extend(keys.iter().map(|key| format!("PTTL {key}")));
    assert_eq!(commands(&mut link), expected);
    let bytes = joined(&[b"*3\r\n_\r\n$1\r\nx\r\n", &bulk(&stub), b":-2\r\n:1\r\n:-1\r\n"]);
    link.receive(&bytes).unwrap();
    let found = vec![Found::Absent, Found::Foreign(Some(Arc::from(*b"x"))), Found::Stub];
    assert_eq!(events(&mut link), [Event::Reply(CommandId(1), Reply::Found(found))]);
    // An error takes the place of all, after all replies.
    let read = Command::Read(names.to_vec());
    let (_, reply) = exchange(&mut link, &read, "-ERR x\r\n:1\r\n:1\r\n:1\r\n");
    assert_eq!(reply, Reply::Failed("ERR x".into()));
    let (_, reply) = exchange(&mut link, &Command::Ping, ALIVE);
    assert_eq!(reply, Reply::Done);
    link.send(CommandId(1), GENERATION, &read);
    let error = link.receive(b"*2\r\n_\r\n_\r\n").unwrap_err();
    assert_eq!(error.kind, LinkErrorKind::Protocol);
}

#[test]
fn a_value_above_the_limit_is_foreign_and_cannot_be_named() {
    let mut config = config();
    config.max_value = 100_000;
    let (mut link, _) = greeted(&config, valkey).unwrap();
    for (length, kept) in [(100_027, true), (100_028, false)] {
        let answers = format!("${length}\r\n{}\r\n:5\r\n", "x".repeat(length));
        let (_, reply) = exchange(&mut link, &Command::Read(vec![name("k")]), &answers);
        let bytes = kept.then(|| Arc::from(vec![b'x'; length]));
        assert!(reply == Reply::Found(vec![Found::Foreign(bytes)]), "{length}");
    }
}

#[test]
fn acquiring_asks_for_the_life_of_what_stands_there() {
    let acquire = Command::Acquire { name: name("k"), lease: LEASE, life: LIFE };
    let mut link = ready();
    let (written, reply) = exchange(&mut link, &acquire, "_\r\n:10000\r\n");
    let l = lease_bytes();
    assert_eq!(written, [format!("SET {KEY} {l} NX GET PX 10000"), format!("PTTL {KEY}")]);
    assert_eq!(reply, Reply::Done);
    for (answers, expected) in
        [("$1\r\nx\r\n:-2\r\n", Found::Absent), ("-WRONGTYPE Operation\r\n:-1\r\n", Found::Foreign(None))]
    {
        assert_eq!(exchange(&mut link, &acquire, answers).1, Reply::Found(vec![expected]));
    }
    let (_, reply) = exchange(&mut link, &acquire, "-OOM command not allowed\r\n:-2\r\n");
    assert!(failed(&reply).contains("raise `maxmemory`"), "{reply:?}");
}

#[test]
fn a_server_without_set_nx_get_is_asked_in_two_commands() {
    let server = |command: &str| match command {
        _ if command.ends_with("PX 0") => "-ERR syntax error\r\n".into(),
        _ => valkey(command),
    };
    let (mut link, _) = greeted(&config(), server).unwrap();
    let acquire = Command::Acquire { name: name("k"), lease: LEASE, life: LIFE };
    let l = lease_bytes();
    for (answers, expected) in [
        ("+OK\r\n$1\r\nx\r\n:10000\r\n", Reply::Done),
        ("_\r\n$1\r\nx\r\n:-2\r\n", Reply::Found(vec![Found::Absent])),
        ("_\r\n_\r\n:-2\r\n", Reply::Found(vec![Found::Absent])),
        ("_\r\n-WRONGTYPE Operation\r\n:-1\r\n", Reply::Found(vec![Found::Foreign(None)])),
        ("-ERR x\r\n_\r\n:-2\r\n", Reply::Failed("ERR x".into())),
    ] {
        let (written, reply) = exchange(&mut link, &acquire, answers);
        assert_eq!(
            written,
            [format!("SET {KEY} {l} NX PX 10000"), format!("GET {KEY}"), format!("PTTL {KEY}")]
        );
        assert_eq!(reply, expected, "{answers}");
    }
    let generation = Command::Generation(Generation(37));
    for (answers, expected) in
        [("+OK\r\n$13\r\n0000000000011\r\n", 37), ("_\r\n$13\r\n0000000000012\r\n", 38)]
    {
        assert_eq!(exchange(&mut link, &generation, answers).1, Reply::Generation(Generation(expected)));
    }
}

#[test]
fn a_generation_that_is_none_is_replaced() {
    for stands in ["$1\r\nx\r\n", "$13\r\nzzzzzzzzzzzzz\r\n", "-WRONGTYPE Operation\r\n"] {
        let mut link = ready();
        let (_, reply) = exchange(&mut link, &Command::Generation(Generation(37)), stands);
        assert_eq!(reply, Reply::Generation(Generation(37)));
        assert_eq!(commands(&mut link), ["SET ac:{n:}:g 0000000000011"]);
        link.send(CommandId(8), GENERATION, &Command::Ping);
        link.receive(b"+OK\r\n*1\r\n+master\r\n$13\r\n0000000000011\r\n+PONG\r\n").unwrap();
        assert_eq!(events(&mut link), [Event::Reply(CommandId(8), Reply::Done)]);
        // Where it cannot be replaced, the processes would not hear of each other.
        exchange(&mut link, &Command::Generation(Generation(37)), stands);
        let error = link.receive(b"-NOPERM no\r\n").unwrap_err();
        assert!(error.to_string().contains("the generation cannot be written: NOPERM no"), "{error}");
    }
}

#[test]
fn lives_are_at_least_a_millisecond_and_no_life_is_too_long_for_the_server() {
    let mut link = ready();
    for (life, words) in [(Duration::ZERO, "PX 1"), (Duration::MAX, "PX 3153600000000")] {
        let put = Command::Put { name: name("k"), content: Content::Stub, life: Some(life) };
        let (written, _) = exchange(&mut link, &put, "+OK\r\n");
        assert!(written[0].ends_with(words), "{written:?}");
    }
}

#[test]
fn commands_that_need_no_server_are_answered_in_their_turn() {
    let mut link = ready();
    link.send(CommandId(1), GENERATION, &Command::Read(vec![]));
    assert_eq!(events(&mut link), [Event::Reply(CommandId(1), Reply::Found(vec![]))]);
    link.send(CommandId(2), GENERATION, &Command::Ping);
    link.send(CommandId(3), GENERATION, &Command::Drop(vec![]));
    link.send(CommandId(4), GENERATION, &Command::Read(vec![]));
    link.send(CommandId(5), GENERATION, &Command::Ping);
    assert_eq!((commands(&mut link).len(), events(&mut link)), (6, vec![]));
    link.receive(ALIVE.as_bytes()).unwrap();
    let replies = [Reply::Done, Reply::Done, Reply::Found(vec![])];
    let expected: Vec<Event> =
        (2..).map(CommandId).zip(replies).map(|(id, reply)| Event::Reply(id, reply)).collect();
    assert_eq!(events(&mut link), expected);
    link.receive(ALIVE.as_bytes()).unwrap();
    assert_eq!(events(&mut link), [Event::Reply(CommandId(5), Reply::Done)]);
}

#[test]
fn a_server_that_became_a_replica_ends_the_connection() {
    let mut link = ready();
    link.send(CommandId(1), GENERATION, &Command::Drop(vec![name("k")]));
    let error = link.receive(b"-READONLY You can't write against a read only replica.\r\n").unwrap_err();
    assert_eq!(error.kind, LinkErrorKind::Replica);
    assert!(error.to_string().contains("connect to the primary"), "{error}");
    assert_eq!(events(&mut link), []);
}

#[test]
fn after_the_end_of_the_connection_no_command_is_answered_before_earlier_ones() {
    let mut link = ready();
    let ping = |link: &mut Link, number| link.send(CommandId(number), GENERATION, &Command::Ping);
    for number in 1..=3 {
        ping(&mut link, number);
    }
    let answers = format!("{ALIVE}-MOVED 7 h:7\r\n");
    assert_eq!(link.receive(answers.as_bytes()).unwrap_err().kind, LinkErrorKind::Moved);
    ping(&mut link, 4);
    assert_eq!(events(&mut link), [Event::Reply(CommandId(1), Reply::Done)]);
}

#[test]
fn a_sign_of_life_has_the_role_and_a_demoted_server_ends_the_connection() {
    for (answers, ends) in [
        (ALIVE, None),
        ("-NOPERM no\r\n-NOPERM no\r\n+PONG\r\n", None),
        ("*1\r\n+slave\r\n", Some("the server is a slave now; connect to the primary")),
    ] {
        let mut link = ready();
        link.send(CommandId(1), GENERATION, &Command::Ping);
        assert_eq!(commands(&mut link), ["ROLE", "GET ac:{n:}:g", "PING"]);
        let error = link.receive(answers.as_bytes()).err().map(|error| error.to_string());
        assert!(error.as_deref().unwrap_or_default().contains(ends.unwrap_or_default()), "{error:?}");
        assert_eq!(error.is_some(), ends.is_some());
        assert_eq!(events(&mut link).is_empty(), ends.is_some());
    }
}

#[test]
fn a_sign_of_life_tells_of_another_generation() {
    let tells = |stands: &str, expected: &[Event]| {
        let mut link = ready();
        let answers = "$13\r\n0000000000010\r\n";
        exchange(&mut link, &Command::Generation(GENERATION), answers);
        link.send(CommandId(1), GENERATION, &Command::Ping);
        link.receive(format!("*1\r\n+master\r\n{stands}+PONG\r\n").as_bytes()).unwrap();
        assert_eq!(events(&mut link), expected, "{stands:?}");
    };
    let done = Event::Reply(CommandId(1), Reply::Done);
    tells("$13\r\n0000000000010\r\n", std::slice::from_ref(&done));
    tells("-ERR x\r\n", &[Event::Reply(CommandId(1), Reply::Failed("ERR x".into()))]); // not told
    tells("-WRONGTYPE x\r\n", &[Event::GenerationChanged, done.clone()]);
    for other in ["$13\r\n0000000000011\r\n", "_\r\n", "$1\r\nx\r\n"] {
        tells(other, &[Event::GenerationChanged, done.clone()]);
    }
}

#[test]
fn a_sign_of_life_finds_out_that_the_slot_of_a_cluster_has_moved() {
    let mut link = ready();
    link.send(CommandId(2), GENERATION, &Command::Ping);
    // A slot that is being moved is still this node's, and the generation is not told.
    link.receive(b"*1\r\n+master\r\n-ASK 7 h:7\r\n+PONG\r\n").unwrap();
    assert!(matches!(events(&mut link)[..], [Event::Reply(CommandId(2), Reply::Failed(_))]));
    link.send(CommandId(3), GENERATION, &Command::Ping);
    let error = link.receive(b"*1\r\n+master\r\n-MOVED 7 h:7\r\n").unwrap_err();
    assert_eq!(error.kind, LinkErrorKind::Moved);
}

#[test]
fn while_a_slot_is_moved_questions_fail_and_writes_end_the_connection() {
    let (k, lease, life) = (name("k"), LEASE, LIFE);
    let questions = [
        (Command::Read(vec![k.clone()]), 2),
        (Command::Read(vec![k.clone(), name("l")]), 3),
        (Command::Acquire { name: k.clone(), lease, life }, 2),
        (Command::Fill { name: k.clone(), lease, content: Content::Stub, life: None }, 1),
        (Command::Extend { name: k.clone(), lease, life }, 1),
        (Command::Release { name: k.clone(), lease }, 1),
        (Command::IsAlive(Owner(1)), 1),
    ];
    let writes = [
        Command::Put { name: k.clone(), content: Content::Stub, life: None },
        Command::Drop(vec![k]),
        Command::Generation(Generation(1)),
        Command::NewGeneration(Generation(1)),
        Command::Alive { owner: Owner(1), life },
    ];
    let mut link = ready();
    for (command, replies) in questions {
        for refusal in ["-ASK 7 h:7\r\n", "-TRYAGAIN Multiple keys\r\n"] {
            let (_, reply) = exchange(&mut link, &command, &refusal.repeat(replies));
            assert!(failed(&reply).contains("is being moved"), "{command:?}: {reply:?}");
        }
        for (refusal, kind) in [
            ("-MOVED 7 h:7\r\n", LinkErrorKind::Moved),
            ("-CLUSTERDOWN The cluster is down\r\n", LinkErrorKind::Cluster),
        ] {
            let mut link = ready();
            link.send(CommandId(1), GENERATION, &command);
            assert_eq!(link.receive(refusal.as_bytes()).unwrap_err().kind, kind, "{command:?}");
            assert_eq!(events(&mut link), []);
        }
    }
    for command in writes {
        for (refusal, kind) in [
            ("-ASK 7 h:7\r\n", LinkErrorKind::Cluster),
            ("-TRYAGAIN Multiple keys\r\n", LinkErrorKind::Cluster),
            ("-MOVED 7 h:7\r\n", LinkErrorKind::Moved),
        ] {
            let mut link = ready();
            link.send(CommandId(1), GENERATION, &command);
            assert_eq!(link.receive(refusal.as_bytes()).unwrap_err().kind, kind, "{command:?}");
            assert_eq!(events(&mut link), []);
        }
    }
}

#[test]
fn an_answer_without_a_command_ends_the_connection() {
    let error = ready().receive(b"+OK\r\n").unwrap_err();
    assert_eq!(error.kind, LinkErrorKind::Protocol);
}

#[test]
fn without_fences_a_load_is_written_and_leases_are_refused() {
    let server = |command: &str| match command {
        _ if command.contains("IFEQ") || command.starts_with("EVAL") => "-ERR no\r\n".into(),
        _ => valkey(command),
    };
    let (mut link, _) = greeted(&config(), server).unwrap();
    let (name, lease, life) = (name("k"), LEASE, LIFE);
    let fill = Command::Fill { name: name.clone(), lease, content: Content::Stub, life: None };
    let (written, reply) = exchange(&mut link, &fill, "+OK\r\n");
    assert!(written[0].starts_with(&format!("SET {KEY} AC")) && reply == Reply::Done);
    let from = Replaced::Lease(lease);
    for command in [
        Command::TakeOver { name: name.clone(), from, lease, life },
        Command::Extend { name: name.clone(), lease, life },
        Command::Release { name, lease },
    ] {
        assert_eq!(exchange(&mut link, &command, ""), (vec![], Reply::Refused));
    }
}
