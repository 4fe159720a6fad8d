//! Connections with real servers: each test runs with every server on the machine.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use async_cache_core::remote::port::{
    Abilities, Command, CommandId, Content, Event, Found, Generation, Lease, Name, Owner, Replaced, Reply,
};
use async_cache_redis::body::{Body, Holds};
use async_cache_redis::{Config, Layout, Link, LinkError, LinkErrorKind, LinkEvent, Ready};
use servers::{Kind, Program, Server};

const LIFE: Duration = Duration::from_secs(60);

/// A link with a socket.
struct Connection {
    stream: TcpStream,
    link: Link,
    ready: Option<Ready>,
    next: u64,
    generation: Generation,
    /// The events that no test has taken.
    news: Vec<Event>,
}

impl Connection {
    fn new(server: &Server) -> Self {
        Self::with(server, &Config::default()).unwrap()
    }

    fn with(server: &Server, config: &Config) -> Result<Self, LinkError> {
        let stream = TcpStream::connect(server.address().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut link = Link::new(config).unwrap();
        link.start();
        let generation = Generation(1);
        let mut connection = Self { stream, link, ready: None, next: 0, generation, news: Vec::new() };
        while connection.ready.is_none() {
            connection.exchange()?;
        }
        Ok(connection)
    }

    /// Writes, waits for bytes, and takes the events.
    fn exchange(&mut self) -> Result<(), LinkError> {
        self.stream.write_all(&std::mem::take(self.link.outgoing())).unwrap();
        let mut bytes = [0; 16 * 1024];
        let count = self.stream.read(&mut bytes).expect("the server answers");
        assert!(count > 0, "the server closed the connection");
        let received = self.link.receive(&bytes[..count]);
        while let Some(event) = self.link.poll() {
            match event {
                LinkEvent::Ready(ready) => self.ready = Some(ready),
                LinkEvent::Event(event) => self.news.push(event),
            }
        }
        self.stream.write_all(&std::mem::take(self.link.outgoing())).unwrap();
        received
    }

    fn ask(&mut self, command: &Command) -> Reply {
        self.next += 1;
        let id = CommandId(self.next);
        self.link.send(id, self.generation, command);
        loop {
            let answer = |event: &Event| matches!(event, Event::Reply(of, _) if *of == id);
            if let Some(place) = self.news.iter().position(answer)
                && let Event::Reply(_, reply) = self.news.remove(place)
            {
                return reply;
            }
            self.exchange().unwrap();
        }
    }

    /// Waits for an event.
    fn expect(&mut self, event: &Event) {
        while !self.news.contains(event) {
            self.exchange().unwrap();
        }
        self.news.clear();
    }

    fn read(&mut self, name: &Name) -> Found {
        match self.ask(&Command::Read(vec![name.clone()])) {
            Reply::Found(mut found) if found.len() == 1 => found.remove(0),
            reply => panic!("{reply:?}"),
        }
    }
}

/// The output names the server if the test fails.
#[allow(clippy::print_stdout)]
fn each(test: impl Fn(&Program)) {
    for program in servers::all() {
        println!("with {:?} {}", program.kind(), program.version());
        test(program);
    }
}

const KEY: &[u8] = b"\xA3key";

fn name() -> Name {
    Layout::name(KEY)
}

fn lease(serial: u64) -> Lease {
    Lease { owner: Owner(1), serial }
}

fn value(key: &[u8], payload: &[u8]) -> Content {
    let mut body = Vec::new();
    Body::begin(&mut body, &Layout::name(key), key, Holds::Data);
    body.extend_from_slice(payload);
    Content::Value(body.into())
}

fn bytes(content: &Content) -> &[u8] {
    match content {
        Content::Value(bytes) => bytes,
        Content::Stub => panic!("not a value"),
    }
}

#[test]
fn a_server_says_its_abilities() {
    each(|program| {
        let ready = Connection::new(&program.start()).ready.unwrap();
        assert_eq!(ready.abilities, Abilities { fences: true, notifies: true });
        let name = match program.kind() {
            Kind::Redis => "redis ",
            Kind::Valkey => "valkey ",
        };
        assert!(ready.server.starts_with(name) && ready.run_id.is_some(), "{ready:?}");
        assert_eq!((ready.role.as_deref(), ready.notices.len()), (Some("master"), 0));
    });
}

#[test]
fn a_load_is_stored_only_where_its_own_lease_stands() {
    each(|program| {
        let server = program.start();
        let [mut one, mut two] = [(); 2].map(|()| Connection::new(&server));
        let (name, life, content) = (name(), LIFE, value(KEY, b"payload"));
        let fill = |serial| Command::Fill {
            name: name.clone(),
            lease: lease(serial),
            content: content.clone(),
            life: Some(life),
        };
        let acquire = |serial| Command::Acquire { name: name.clone(), lease: lease(serial), life };
        assert_eq!(one.read(&name), Found::Absent);
        assert_eq!(one.ask(&acquire(1)), Reply::Done);
        assert_eq!(two.ask(&acquire(2)), Reply::Found(vec![Found::Lease(lease(1))]));
        let extend = |serial| Command::Extend { name: name.clone(), lease: lease(serial), life };
        assert_eq!(two.ask(&extend(2)), Reply::Refused);
        assert_eq!(one.ask(&extend(1)), Reply::Done);
        assert_eq!(two.ask(&fill(2)), Reply::Refused);
        // Invalidated while it loads, and loaded again: the first load is not stored.
        assert_eq!(two.ask(&Command::Drop(vec![name.clone()])), Reply::Done);
        assert_eq!(one.ask(&acquire(3)), Reply::Done);
        assert_eq!(one.ask(&fill(1)), Reply::Refused);
        assert_eq!(one.read(&name), Found::Lease(lease(3)));
        assert_eq!(one.ask(&fill(3)), Reply::Done);
        let Found::Value(found) = two.read(&name) else { panic!("no value") };
        assert_eq!(&*found.bytes, bytes(&content));
        assert!(found.life.is_some_and(|left| left <= life && left > life / 2), "{:?}", found.life);
        assert_eq!(two.ask(&extend(3)), Reply::Refused);
    });
}

#[test]
fn a_lease_is_released_or_taken_over_only_by_its_name() {
    each(|program| {
        let server = program.start();
        let mut one = Connection::new(&server);
        let (name, life) = (name(), LIFE);
        let release = |serial| Command::Release { name: name.clone(), lease: lease(serial) };
        let take_over = |from: Replaced, serial| Command::TakeOver {
            name: name.clone(),
            from,
            lease: lease(serial),
            life,
        };
        assert_eq!(one.ask(&Command::Acquire { name: name.clone(), lease: lease(1), life }), Reply::Done);
        assert_eq!(one.ask(&take_over(Replaced::Lease(lease(2)), 3)), Reply::Refused);
        assert_eq!(one.ask(&take_over(Replaced::Lease(lease(1)), 3)), Reply::Done);
        assert_eq!(one.ask(&release(1)), Reply::Refused);
        assert_eq!(one.ask(&release(3)), Reply::Done);
        assert_eq!(one.read(&name), Found::Absent);
        // Foreign bytes are replaced if they still stand there, a foreign type never.
        let key = "ac:{default:}:0000000000001:skey";
        server.call(&["SET", key, "foreign"]);
        let Found::Foreign(Some(foreign)) = one.read(&name) else { panic!("not foreign") };
        assert_eq!(one.ask(&take_over(Replaced::Foreign((*b"other").into()), 4)), Reply::Refused);
        assert_eq!(one.ask(&take_over(Replaced::Foreign(foreign), 4)), Reply::Done);
        server.call(&["DEL", key]);
        server.call(&["LPUSH", key, "foreign"]);
        assert_eq!(one.read(&name), Found::Foreign(None));
        let acquire = Command::Acquire { name: name.clone(), lease: lease(5), life };
        assert_eq!(one.ask(&acquire), Reply::Found(vec![Found::Foreign(None)]));
        for command in [release(4), take_over(Replaced::Lease(lease(4)), 5)] {
            assert_eq!(one.ask(&command), Reply::Refused);
        }
    });
}

#[test]
fn many_names_are_read_at_once() {
    each(|program| {
        let server = program.start();
        let mut one = Connection::new(&server);
        let keys: Vec<[u8; 3]> =
            (0..2000_u16).map(u16::to_be_bytes).map(|[high, low]| [0xCD, high, low]).collect();
        for key in keys.iter().step_by(2) {
            let content = value(key, &[7; 100]);
            let put = Command::Put { name: Layout::name(key), content, life: None };
            assert_eq!(one.ask(&put), Reply::Done);
        }
        let names = keys.iter().map(|key| Layout::name(key)).collect();
        let Reply::Found(found) = one.ask(&Command::Read(names)) else { panic!("not read") };
        assert_eq!(found.len(), keys.len());
        for (place, (found, key)) in found.iter().zip(&keys).enumerate() {
            match found {
                Found::Value(found) if place % 2 == 0 => {
                    assert_eq!((&*found.bytes, found.life), (bytes(&value(key, &[7; 100])), None));
                }
                Found::Absent if place % 2 == 1 => {}
                found => panic!("{place}: {found:?}"),
            }
        }
    });
}

#[test]
fn changes_by_others_are_told() {
    each(|program| {
        let server = program.start();
        let [mut one, mut two] = [(); 2].map(|()| Connection::new(&server));
        let name = name();
        let changed = Event::Changed(name.clone());
        assert_eq!(one.read(&name), Found::Absent);
        let put = |life| Command::Put { name: name.clone(), content: Content::Stub, life };
        two.ask(&put(None));
        one.expect(&changed);
        two.ask(&Command::Drop(vec![name.clone()]));
        one.expect(&changed);
        // Expiry.
        two.ask(&put(Some(Duration::from_millis(20))));
        one.expect(&changed);
        one.expect(&changed);
        server.call(&["FLUSHALL"]);
        one.expect(&Event::AllChanged);
        two.ask(&Command::Alive { owner: Owner(9), life: LIFE });
        one.expect(&Event::OwnerChanged(Owner(9)));
        assert_eq!(one.ask(&Command::IsAlive(Owner(9))), Reply::Done);
        assert_eq!(one.ask(&Command::IsAlive(Owner(8))), Reply::Refused);
    });
}

#[test]
fn processes_agree_on_a_generation() {
    each(|program| {
        let server = program.start();
        let [mut one, mut two] = [(); 2].map(|()| Connection::new(&server));
        let generation = |number| Reply::Generation(Generation(number));
        assert_eq!(one.ask(&Command::Generation(Generation(5))), generation(5));
        two.expect(&Event::GenerationChanged);
        assert_eq!(two.ask(&Command::Generation(Generation(6))), generation(5));
        assert_eq!(two.ask(&Command::NewGeneration(Generation(7))), Reply::Done);
        one.expect(&Event::GenerationChanged);
        assert_eq!(one.ask(&Command::Generation(Generation(8))), generation(7));
        server.call(&["SET", "ac:{default:}:g", "rubbish"]);
        assert_eq!(one.ask(&Command::Generation(Generation(9))), generation(9));
        assert_eq!(one.ask(&Command::Ping), Reply::Done); // the generation is written before
        assert_eq!(two.ask(&Command::Generation(Generation(10))), generation(9));
    });
}

#[test]
fn users_with_less_permissions_have_less_abilities() {
    each(|program| {
        let server = program.start();
        let as_user = |rules: &[&str]| {
            server.call(&[&["ACL", "SETUSER", "u", "reset", "on", ">p", "~ac:*"], rules].concat());
            let mut config = Config::default();
            (config.username, config.password) = (Some("u".into()), Some("p".into()));
            Connection::with(&server, &config).unwrap().ready.unwrap()
        };
        let all = as_user(&["+@read", "+@write", "+@connection", "+eval"]);
        assert_eq!((all.abilities.fences, all.abilities.notifies, all.run_id), (true, true, None));
        let untold = as_user(&["+@all", "-client|tracking"]);
        assert!(!untold.abilities.notifies && untold.notices[0].contains("NOPERM"), "{untold:?}");
        let without_scripts = as_user(&["+@all", "-eval"]);
        assert_eq!(without_scripts.abilities.fences, program.kind() == Kind::Valkey);
    });
}

#[test]
fn servers_that_cannot_be_used_are_refused() {
    each(|program| {
        let primary = program.start();
        let port = primary.port().to_string();
        let replica = format!("replicaof 127.0.0.1 {port}");
        let mut database = Config::default();
        database.db = 99;
        let mut password = Config::default();
        password.password = Some("wrong".into());
        for (lines, config, kind) in [
            // No node has a slot yet.
            ("cluster-enabled yes", &Config::default(), LinkErrorKind::Cluster),
            (&*replica, &Config::default(), LinkErrorKind::Replica),
            ("databases 16", &database, LinkErrorKind::Database),
        ] {
            let error = Connection::with(&program.start_with(&[lines]), config).err().unwrap();
            assert_eq!(error.kind, kind, "{error}");
        }
        primary.call(&["CONFIG", "SET", "requirepass", "right"]);
        for config in [&Config::default(), &password] {
            let error = Connection::with(&primary, config).err().unwrap();
            assert_eq!(error.kind, LinkErrorKind::Auth, "{error}");
        }
        password.password = Some("right".into());
        assert!(Connection::with(&primary, &password).is_ok());
    });
}

#[test]
fn a_server_without_hello_is_used_in_resp2() {
    each(|program| {
        let server = program.start_with(&["rename-command HELLO \"\""]);
        server.call(&["CONFIG", "SET", "requirepass", "p"]);
        let mut config = Config::default();
        config.password = Some("p".into());
        let mut one = Connection::with(&server, &config).unwrap();
        let abilities = one.ready.as_ref().unwrap().abilities;
        assert_eq!(abilities, Abilities { fences: true, notifies: false });
        let (name, life) = (name(), LIFE);
        assert_eq!(one.read(&name), Found::Absent);
        let acquire = Command::Acquire { name: name.clone(), lease: lease(1), life };
        assert_eq!(one.ask(&acquire), Reply::Done);
        assert_eq!(one.ask(&acquire), Reply::Found(vec![Found::Lease(lease(1))]));
        let release = Command::Release { name: name.clone(), lease: lease(1) };
        assert_eq!((one.ask(&release), one.ask(&release)), (Reply::Done, Reply::Refused));
        assert_eq!(one.ask(&Command::Read(vec![name.clone(), name])), Reply::Found(vec![Found::Absent; 2]));
    });
}
