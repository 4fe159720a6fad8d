//! The proxy does to a connection exactly as the test says.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use servers::Direction::{ToClient, ToServer};
use servers::{Client, Proxy, Reply, all};

/// A proxy, and both ends of a connection through it: the client's and the server's.
struct Ends {
    proxy: Proxy,
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

impl Ends {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::before(listener.local_addr().unwrap());
        let (client, server) = connection(&proxy, &listener);
        Self { proxy, listener, client, server }
    }
}

fn connection(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.address()).unwrap();
    let server = listener.accept().unwrap().0;
    for side in [&client, &server] {
        side.set_read_timeout(Some(Duration::from_secs(20))).unwrap(); // a hang is a failure
    }
    (client, server)
}

fn read(mut stream: &TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Everything up to the end of the connection.
fn rest(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_server_answers_through_a_proxy_however_its_bytes_are_split() {
    for program in all() {
        let server = program.start();
        let proxy = Proxy::before(server.address().unwrap());
        let mut client = Client::connect(proxy.address()).unwrap();
        assert_eq!(client.call(&["SET", "key", "value"]).unwrap(), Reply::ok());
        proxy.split(ToServer);
        proxy.split(ToClient);
        let value = "long".repeat(1000);
        assert_eq!(client.call(&["SET", "key", &value]).unwrap(), Reply::ok());
        assert_eq!(client.call(&["GET", "key"]).unwrap().text(), value);
        proxy.join(ToServer);
        proxy.join(ToClient);
        assert_eq!(client.call(&["STRLEN", "key"]).unwrap(), Reply::Number(4000));
    }
}

#[test]
fn bytes_keep_their_order_and_none_is_lost() {
    let Ends { proxy, mut client, server, .. } = Ends::new();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let expected = sent.clone();
    proxy.hold_after(ToServer, 1_000_003);
    let writer = std::thread::spawn(move || client.write_all(&sent).map(|()| client));
    let mut received = read(&server, 1_000_003);
    proxy.wait_until_held(ToServer);
    proxy.release(ToServer);
    received.extend(read(&server, 1_999_997));
    assert!(received == expected);
    drop(writer.join().unwrap().unwrap());
    assert!(rest(&server).is_empty());
    assert_eq!(proxy.passed(ToServer), 3_000_000);
}

#[test]
fn a_held_direction_passes_nothing_and_the_other_one_does() {
    let Ends { proxy, mut client, mut server, .. } = Ends::new();
    proxy.hold(ToClient);
    client.write_all(b"question").unwrap();
    assert_eq!(read(&server, 8), b"question");
    server.write_all(b"answer").unwrap();
    proxy.wait_until_held(ToClient);
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!((proxy.passed(ToServer), proxy.passed(ToClient)), (8, 0));
    client.set_nonblocking(false).unwrap();
    proxy.release(ToClient);
    assert_eq!(read(&client, 6), b"answer");
}

#[test]
fn the_end_of_a_connection_is_held_too() {
    let Ends { proxy, client, server, .. } = Ends::new();
    proxy.hold(ToClient);
    drop(server);
    proxy.wait_until_held(ToClient);
    client.set_nonblocking(true).unwrap();
    assert_eq!((&client).read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    proxy.release(ToClient);
    assert!(rest(&client).is_empty());
}

#[test]
fn bytes_up_to_a_limit_pass_before_a_hold_and_before_a_cut() {
    let Ends { proxy, listener, client, mut server } = Ends::new();
    proxy.hold_after(ToClient, 3);
    server.write_all(b"abcdef").unwrap();
    assert_eq!(read(&client, 3), b"abc");
    proxy.wait_until_held(ToClient);
    assert_eq!(proxy.passed(ToClient), 3);
    proxy.cut_after(ToClient, 2);
    assert_eq!(rest(&client), b"de");
    assert!(rest(&server).is_empty());
    // Later connections are not limited.
    let (client, mut server) = connection(&proxy, &listener);
    server.write_all(b"abcdef").unwrap();
    drop(server);
    assert_eq!(rest(&client), b"abcdef");
}

#[test]
fn a_cut_closes_both_sides_of_every_connection_even_while_bytes_are_held() {
    let Ends { proxy, listener, client, mut server } = Ends::new();
    let (other_client, other_server) = connection(&proxy, &listener);
    proxy.hold(ToClient);
    server.write_all(b"lost").unwrap();
    proxy.wait_until_held(ToClient);
    proxy.cut();
    for side in [&client, &server, &other_client, &other_server] {
        assert!(rest(side).is_empty());
    }
    assert_eq!((proxy.accepted(), proxy.open()), (2, 0));
}

#[test]
#[allow(clippy::disallowed_methods)] // the delay is a real one
fn a_delay_is_a_latency_for_each_direction_and_keeps_the_order() {
    let Ends { proxy, mut client, mut server, .. } = Ends::new();
    let delay = Duration::from_millis(60);
    proxy.delay(ToClient, delay);
    let begun = Instant::now();
    for word in [b"a", b"b", b"c"] {
        server.write_all(word).unwrap();
    }
    assert_eq!(read(&client, 1), b"a");
    assert!(begun.elapsed() >= delay);
    // What came later does not overtake, although its own delay is none.
    proxy.delay(ToClient, Duration::ZERO);
    server.write_all(b"d").unwrap();
    assert_eq!(read(&client, 3), b"bcd");
    // An hour in one direction does not delay the other.
    proxy.delay(ToClient, Duration::from_secs(3600));
    client.write_all(b"question").unwrap();
    assert_eq!(read(&server, 8), b"question");
}

#[test]
fn a_proxy_refuses_and_accepts_connections_and_counts_them() {
    let Ends { proxy, listener, mut client, server } = Ends::new();
    proxy.refuse();
    assert!(rest(&TcpStream::connect(proxy.address()).unwrap()).is_empty());
    client.write_all(b"open").unwrap();
    assert_eq!(read(&server, 4), b"open");
    proxy.accept();
    let (mut client, server) = connection(&proxy, &listener);
    client.write_all(b"new").unwrap();
    assert_eq!(read(&server, 3), b"new");
    proxy.wait_until_accepted(3);
    assert_eq!(proxy.accepted(), 3);
}

#[test]
fn a_proxy_before_a_server_that_is_gone_closes_connections_until_it_is_back() {
    let server = all()[0].start();
    let proxy = Proxy::before(server.address().unwrap());
    server.kill();
    assert!(rest(&TcpStream::connect(proxy.address()).unwrap()).is_empty());
    server.restart();
    let mut client = Client::connect(proxy.address()).unwrap();
    assert_eq!(client.call(&["PING"]).unwrap(), Reply::Text(b"PONG".to_vec()));
}

#[test]
fn a_dropped_proxy_closes_its_connections_and_its_port() {
    let Ends { proxy, client, server, .. } = Ends::new();
    let address = proxy.address();
    drop(proxy);
    assert!(rest(&client).is_empty() && rest(&server).is_empty());
    TcpStream::connect(address).unwrap_err();
}
