//! A connection with a server that answers as the test says.

mod answers;
mod greeting;
mod news;

use async_cache_core::remote::port::{Command, CommandId, Event, Generation, Lease, Name, Owner, Reply};
use async_cache_redis::resp::{Limits, Message, Reader, Value};
use async_cache_redis::{Config, Layout, Link, LinkError, LinkEvent, Predecessor, Ready};

const GENERATION: Generation = Generation(36);
/// The answers to the command Ping.
const ALIVE: &str = "*3\r\n+master\r\n:0\r\n*0\r\n$13\r\n0000000000010\r\n+PONG\r\n";
const LEASE: Lease = Lease { owner: Owner(1), serial: 2 };

fn config() -> Config {
    let mut config = Config::default();
    "n".clone_into(&mut config.namespace);
    config
}

fn name(text: &str) -> Name {
    let length = u8::try_from(text.len()).unwrap();
    Layout::name(&[&[0xA0 | length], text.as_bytes()].concat())
}

/// The commands that a link has for the server, each with its arguments separated by spaces.
fn commands(link: &mut Link) -> Vec<String> {
    let out = std::mem::take(link.outgoing());
    let mut reader = Reader::new(Limits { string: 1 << 20, message: 1 << 20 });
    let mut rest = out.as_slice();
    let mut found = Vec::new();
    while let Some(message) = reader.next(&mut rest).unwrap() {
        let Message::Reply(Value::List(arguments)) = message else { panic!("no command") };
        let arguments: Vec<String> =
            arguments.iter().map(|argument| argument.text().unwrap().escape_ascii().to_string()).collect();
        found.push(arguments.join(" "));
    }
    found
}

/// The answer of a Valkey 9 to a command of the greeting.
fn valkey(command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    match words.as_slice() {
        ["HELLO", ..] => hello("valkey", "9.1.2", "standalone", "master"),
        ["CLIENT" | "SELECT", ..] => "+OK\r\n".into(),
        ["INFO", ..] => info("valkey_version:9.1.2\r\nredis_version:7.2.4\r\nrun_id:abc\r\n"),
        ["ROLE"] => "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n".into(),
        ["SET", _, _, "IFEQ", _] => "_\r\n".into(),
        ["DELIFEQ" | "EVAL", ..] => ":0\r\n".into(),
        ["SET", _, _, "NX", "GET", "PX", "0"] => "-ERR invalid expire time in 'set' command\r\n".into(),
        _ => format!("-ERR unknown command '{}'\r\n", words[0]),
    }
}

/// The answer of a Redis 7.
fn redis(command: &str) -> String {
    match command {
        _ if command.starts_with("HELLO") => hello("redis", "7.0.15", "standalone", "master"),
        _ if command.starts_with("INFO") => info("redis_version:7.0.15\r\nrun_id:abc\r\n"),
        _ if command.contains("IFEQ") => "-ERR syntax error\r\n".into(),
        _ => valkey(command),
    }
}

fn hello(server: &str, version: &str, mode: &str, role: &str) -> String {
    format!(
        "%5\r\n+server\r\n+{server}\r\n+version\r\n+{version}\r\n+proto\r\n:3\r\n+mode\r\n+{mode}\r\n+role\r\n+{role}\r\n"
    )
}

fn info(lines: &str) -> String {
    let text = format!("txt:# Server\r\n{lines}");
    format!("={}\r\n{text}\r\n", text.len())
}

/// Starts a connection with a server, until it is ready.
fn greeted(config: &Config, server: impl Fn(&str) -> String) -> Result<(Link, Ready), LinkError> {
    greeted_after(&Predecessor::default(), config, server)
}

fn greeted_after(
    predecessor: &Predecessor,
    config: &Config,
    server: impl Fn(&str) -> String,
) -> Result<(Link, Ready), LinkError> {
    let mut link = Link::new(config).unwrap();
    link.follow(predecessor);
    link.start();
    loop {
        let answers: String = commands(&mut link).iter().map(|command| server(command)).collect();
        assert!(!answers.is_empty(), "the greeting is over, and nothing came of it");
        link.receive(answers.as_bytes())?;
        match link.poll() {
            Some(LinkEvent::Ready(ready)) => return Ok((link, ready)),
            None => {}
            event => panic!("{event:?}"),
        }
    }
}

fn ready() -> Link {
    greeted(&config(), valkey).unwrap().0
}

/// Sends a command, gives the server's answer, and returns the commands of the server and the
/// answer of the link.
fn exchange(link: &mut Link, command: &Command, answers: &str) -> (Vec<String>, Reply) {
    link.send(CommandId(7), GENERATION, command);
    let written = commands(link);
    link.receive(answers.as_bytes()).unwrap();
    match events(link).as_slice() {
        [Event::Reply(CommandId(7), reply)] => (written, reply.clone()),
        events => panic!("{command:?}: {events:?}"),
    }
}

fn events(link: &mut Link) -> Vec<Event> {
    let all = std::iter::from_fn(|| link.poll());
    all.map(|event| match event {
        LinkEvent::Event(event) => event,
        LinkEvent::Ready(ready) => panic!("ready once more: {ready:?}"),
    })
    .collect()
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}
