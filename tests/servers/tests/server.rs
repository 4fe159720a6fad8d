//! Servers start, answer, stop, and never outlive their test.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileTypeExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use servers::{Client, Kind, Reply, Server, all};

/// Fails on a connection that is open, and waits for the end of one that is about to end.
fn ends(mut stream: TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap(); // a hang is a failure
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("the connection is open: {other:?}"),
    }
}

#[test]
fn every_kind_answers_and_says_its_version() {
    for program in all() {
        let server = program.start();
        assert_eq!(server.call(&["PING"]), Reply::Text(b"PONG".to_vec()), "{program}");
        let info = server.call(&["INFO", "server"]);
        let name = match program.kind() {
            Kind::Redis => "redis_version",
            Kind::Valkey => "valkey_version",
        };
        assert_eq!(info.field(name).as_deref(), Some(program.version()), "{program}");
        assert_eq!(info.field("process_id"), server.id().map(|id| id.to_string()), "{program}");
    }
}

#[test]
fn servers_of_a_test_are_independent() {
    for program in all() {
        let servers = [program.start(), program.start()];
        servers[0].call(&["SET", "key", "first"]);
        assert_ne!(servers[0].port(), servers[1].port());
        assert_eq!(servers[1].call(&["GET", "key"]), Reply::Nil);
    }
}

#[test]
fn lines_of_configuration_count() {
    for program in all() {
        let server = program.start_with(&["maxmemory 1mb", "maxmemory-policy allkeys-lru"]);
        let policy = server.call(&["CONFIG", "GET", "maxmemory*"]);
        assert_eq!(policy.field("maxmemory").as_deref(), Some("1048576"), "{program}");
        assert_eq!(policy.field("maxmemory-policy").as_deref(), Some("allkeys-lru"), "{program}");
    }
}

#[test]
#[should_panic(expected = "Bad directive")]
fn a_server_that_refuses_its_configuration_fails_the_test_with_its_words() {
    all()[0].start_with(&["no-such-directive 1"]);
}

#[test]
fn a_server_listens_on_a_socket_alone() {
    for program in all() {
        let server = program.start_on_socket(&[]);
        assert_eq!(server.address(), None);
        assert_eq!(server.call(&["PING"]), Reply::Text(b"PONG".to_vec()), "{program}");
        let socket = server.socket().expect("the server listens on a socket");
        assert!(socket.metadata().unwrap().file_type().is_socket());
    }
}

#[test]
fn a_server_with_tls_refuses_plain_text() {
    for program in all() {
        // Both outcomes are right: Debian's Redis has TLS, the Valkey of PyPI has none.
        if let Some(server) = program.start_with_tls(&[]) {
            let mut stream = TcpStream::connect(server.address().unwrap()).unwrap();
            stream.write_all(b"PING\r\n").unwrap();
            ends(stream);
            assert!(Server::authority().is_file());
            assert!(server.log().contains("Error accepting a client connection"), "{}", server.log());
        }
    }
}

#[test]
fn a_paused_server_keeps_its_connections_and_answers_when_it_is_resumed() {
    for program in all() {
        let server = program.start();
        let mut client = server.connect().unwrap();
        server.pause();
        client.send(&["SET", "key", "value"]).unwrap();
        // The state of the process, as Linux tells it.
        if let Ok(status) = fs::read_to_string(format!("/proc/{}/stat", server.id().unwrap())) {
            assert!(status.contains(") T "), "{status}");
        }
        server.resume();
        assert_eq!(client.receive().unwrap(), Reply::ok(), "{program}");
    }
}

#[test]
fn a_killed_server_ends_its_connections_and_comes_back_empty_on_the_same_port() {
    for program in all() {
        let server = program.start();
        let address = server.address().unwrap();
        server.call(&["SET", "key", "value"]);
        let stream = TcpStream::connect(address).unwrap();
        server.kill();
        ends(stream);
        assert_eq!(server.id(), None);
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        server.restart();
        assert_eq!(server.address(), Some(address));
        assert_eq!(server.call(&["GET", "key"]), Reply::Nil, "{program}");
    }
}

#[test]
fn a_restarted_server_has_the_data_that_it_saved() {
    for program in all() {
        let server = program.start();
        server.call(&["SET", "key", "saved"]);
        assert_eq!(server.call(&["SAVE"]), Reply::ok());
        server.call(&["SET", "key", "not saved"]);
        server.restart();
        assert_eq!(server.call(&["GET", "key"]).text(), "saved", "{program}");
    }
}

#[test]
fn a_dropped_server_ends_even_if_it_is_paused_and_leaves_no_folder() {
    for program in all() {
        let server = program.start();
        let (stream, folder) =
            (TcpStream::connect(server.address().unwrap()).unwrap(), server.folder().to_owned());
        server.pause();
        drop(server);
        ends(stream);
        assert!(!folder.exists());
    }
}

#[test]
fn servers_end_with_a_process_that_is_killed() {
    let mut tests = Command::new(env!("CARGO_BIN_EXE_serve"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tests.stdout.take().unwrap()).lines();
    let streams: Vec<TcpStream> = all()
        .iter()
        .map(|_| {
            let line = lines.next().unwrap().unwrap();
            let port: u16 = line.split_once(' ').unwrap().1.parse().unwrap();
            let mut client = Client::connect(([127, 0, 0, 1], port).into()).unwrap();
            assert_eq!(client.call(&["PING"]).unwrap(), Reply::Text(b"PONG".to_vec()));
            TcpStream::connect(("127.0.0.1", port)).unwrap()
        })
        .collect();
    tests.kill().unwrap();
    tests.wait().unwrap();
    for stream in streams {
        ends(stream);
    }
}
