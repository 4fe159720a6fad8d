//! Where to connect, with servers that answer as the test says.

use std::fmt::Write;

use async_cache_redis::{
    Address, Config, Inquiry, Layout, Link, LinkError, LinkErrorKind, Place, Route, Sentinels, Step,
};

fn address(text: &str) -> Address {
    let (host, port) = text.rsplit_once(':').unwrap();
    Address::tcp(host, port.parse().unwrap())
}

fn ask(text: &str) -> Step {
    Step::Ask(address(text))
}

fn use_(text: &str) -> Step {
    Step::Use(address(text))
}

fn config(url: &str) -> Config {
    Config::from_url(url).unwrap()
}

fn route(url: &str) -> Route {
    Route::new(&config(url)).unwrap()
}

/// What a question writes, and what comes of the answer.
fn inquire(route: &mut Route, asked: &str, answer: &[u8]) -> (String, Result<(), LinkError>) {
    let mut inquiry = route.inquiry(&address(asked));
    let written = String::from_utf8(std::mem::take(inquiry.outgoing())).unwrap();
    let received =
        inquiry.receive(answer).map(|located| route.located(located.expect("the answer is whole")));
    (written, received)
}

/// Slots: first, last, and the nodes.
type Slots<'a> = (u16, u16, &'a [(&'a str, u16)]);

fn slots(ranges: &[Slots]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", ranges.len());
    for (first, last, nodes) in ranges {
        write!(text, "*{}\r\n:{first}\r\n:{last}\r\n", nodes.len() + 2).unwrap();
        for (host, port) in *nodes {
            write!(text, "*4\r\n${}\r\n{host}\r\n:{port}\r\n$2\r\nid\r\n*0\r\n", host.len()).unwrap();
        }
    }
    text.into_bytes()
}

/// The error of a link that gets this answer in its greeting.
fn refused(config: &Config, answer: &str) -> LinkError {
    let mut link = Link::new(config).unwrap();
    link.start();
    link.receive(b"%1\r\n+proto\r\n:3\r\n").unwrap();
    link.receive(answer.as_bytes()).unwrap_err()
}

#[test]
fn a_single_server_is_used_at_once_and_again() {
    let mut route = route("redis://a:1");
    for _ in 0..2 {
        route.begin();
        assert_eq!(route.step(), Some(use_("a:1")));
        assert_eq!(route.current(), Some(&address("a:1")));
    }
}

#[test]
fn sentinels_are_asked_in_turn_until_one_knows_the_primary() {
    let mut route = route("redis+sentinel://a:1,b:2,c:3/main");
    route.begin();
    assert_eq!(route.step(), Some(ask("a:1")));
    assert_eq!(route.step(), Some(ask("b:2")));
    let (written, answer) = inquire(&mut route, "b:2", b"*2\r\n$8\r\n10.0.0.7\r\n$4\r\n6380\r\n");
    assert_eq!(written, "*3\r\n$8\r\nSENTINEL\r\n$23\r\nGET-MASTER-ADDR-BY-NAME\r\n$4\r\nmain\r\n");
    answer.unwrap();
    assert_eq!(route.step(), Some(use_("10.0.0.7:6380")));
    // The next attempt asks again, beginning with another one.
    route.begin();
    assert_eq!(route.step(), Some(ask("c:3")));
    assert_eq!(route.step(), Some(ask("a:1")));
    assert_eq!(route.step(), Some(ask("b:2")));
    assert_eq!(route.step(), None);
    assert_eq!(route.step(), None);
    route.begin();
    assert_eq!(route.step(), Some(ask("c:3")));
}

#[test]
fn sentinels_have_their_own_password_and_a_cluster_that_of_its_nodes() {
    let url = "redis+sentinel://:data@a:1/main?sentinel_username=u&sentinel_password=p";
    let mut with_password = route(url);
    let answer = b"+OK\r\n*2\r\n$1\r\nh\r\n$1\r\n7\r\n";
    let (written, answered) = inquire(&mut with_password, "a:1", answer);
    assert!(
        written.starts_with("*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$1\r\np\r\n*3\r\n$8\r\nSENTINEL"),
        "{written}"
    );
    answered.unwrap();
    // A password for a server without one is no fault.
    let answer =
        b"-ERR AUTH <password> called without any password configured\r\n*2\r\n$1\r\nh\r\n$1\r\n7\r\n";
    inquire(&mut with_password, "a:1", answer).1.unwrap();
    let (_, answered) = inquire(&mut with_password, "a:1", b"-WRONGPASS invalid\r\n");
    assert_eq!(answered.unwrap_err().kind, LinkErrorKind::Auth);
    let (written, _) = inquire(&mut route("redis+sentinel://:data@a:1/main"), "a:1", b"_\r\n");
    assert!(!written.contains("data"), "{written}");
    let (written, _) = inquire(&mut route("redis+cluster://:data@a:1"), "a:1", b"+OK\r\n_\r\n");
    assert!(
        written.starts_with("*2\r\n$4\r\nAUTH\r\n$4\r\ndata\r\n*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS"),
        "{written}"
    );
    assert!(!format!("{:?}", route("redis+cluster://:hunter2@a")).contains("hunter2"));
}

#[test]
fn a_server_that_does_not_know_is_an_error_with_the_remedy() {
    for (url, answer, kind, words) in [
        (
            "redis+sentinel://a:1/main",
            "*-1\r\n",
            LinkErrorKind::Unknown,
            "a:1 does not know `main`; check the name",
        ),
        (
            "redis+sentinel://a:1/main",
            "-NOAUTH needed\r\n",
            LinkErrorKind::Auth,
            "NOAUTH needed; check the user",
        ),
        ("redis+sentinel://a:1/main", "-ERR unknown command\r\n", LinkErrorKind::Refused, "unknown command"),
        ("redis+sentinel://a:1/main", "*1\r\n$1\r\nh\r\n", LinkErrorKind::Protocol, "named no address"),
        ("redis+sentinel://a:1/main", "*2\r\n$1\r\nh\r\n$1\r\n0\r\n", LinkErrorKind::Protocol, "no address"),
        ("redis+sentinel://a:1/main", "*2\r\n$1\r\n?\r\n$1\r\n7\r\n", LinkErrorKind::Protocol, "no address"),
        ("redis+sentinel://a:1/main", "HTTP/1.1 400\r\n", LinkErrorKind::NotRedis, "check the host"),
        ("rediss+sentinel://a:1/main", "\x15\x03\x03\x00", LinkErrorKind::Tls, "speaks TLS"),
        (
            "redis+cluster://a:1",
            "-ERR This instance has cluster support disabled\r\n",
            LinkErrorKind::Refused,
            "disabled",
        ),
        ("redis+cluster://a:1", "-LOADING it\r\n", LinkErrorKind::Loading, "wait until"),
        (
            "redis+cluster://a:1",
            "*0\r\n",
            LinkErrorKind::Cluster,
            "no node of the cluster has slot 10914, says a:1",
        ),
        ("redis+cluster://a:1", "+x\r\n", LinkErrorKind::Protocol, "named no slots"),
    ] {
        let (_, answered) = inquire(&mut route(url), "a:1", answer.as_bytes());
        let error = answered.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn the_node_of_the_slot_is_found_and_all_nodes_are_remembered() {
    // The slot of the namespace `default` is 10914.
    let mut route = route("redis+cluster://a:1");
    route.begin();
    assert_eq!(route.step(), Some(ask("a:1")));
    let ranges: [Slots; 3] = [
        (0, 10913, &[("", 1), ("r", 2)]),
        (10914, 10914, &[("b", 3), ("r", 4)]),
        (10915, 16383, &[("?", 5)]),
    ];
    inquire(&mut route, "a:1", &slots(&ranges)).1.unwrap();
    assert_eq!(route.step(), Some(use_("b:3")));
    // All may be asked from now on; an unknown host is no address.
    route.begin();
    let asked: Vec<_> = std::iter::from_fn(|| route.step()).collect();
    assert_eq!(asked, ["a:1", "b:3", "r:2", "r:4"].map(ask));
}

#[test]
fn a_host_that_is_missing_is_that_of_the_server_that_answers() {
    for host in ["$0\r\n\r\n", "$-1\r\n"] {
        let mut route = route("redis+cluster://a:1");
        route.begin();
        let answer = format!("*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n{host}:7\r\n$2\r\nid\r\n");
        inquire(&mut route, "a:1", answer.as_bytes()).1.unwrap();
        assert_eq!(route.step(), Some(use_("a:7")));
    }
}

#[test]
fn an_answer_is_understood_at_every_split_and_never_beyond_its_end() {
    let answer = [b"+OK\r\n".as_slice(), &slots(&[(0, 16383, &[("b", 3)])]), b"rubbish"].concat();
    let route = route("redis+cluster://:p@a:1");
    for split in 0..answer.len() {
        let mut inquiry: Inquiry = route.inquiry(&address("a:1"));
        let first = inquiry.receive(&answer[..split]).unwrap();
        let located = inquiry.receive(&answer[split..]).unwrap().expect("the answer is whole");
        assert_eq!(located.address, address("b:3"));
        assert!(first.is_none_or(|first| first == located));
    }
}

#[test]
fn a_redirection_is_followed_without_a_question() {
    let config = config("redis+cluster://a:1");
    for (answer, node) in [
        ("-MOVED 10914 10.0.0.7:6380\r\n", "10.0.0.7:6380"),
        ("-MOVED 10914 ::1:6380\r\n", "::1:6380"),
        ("-MOVED 10914 :6380\r\n", "b:6380"),
    ] {
        let mut route = Route::new(&config).unwrap();
        route.begin();
        inquire(&mut route, "a:1", &slots(&[(0, 16383, &[("b", 3)])])).1.unwrap();
        assert_eq!(route.step(), Some(use_("b:3")));
        route.ended(&refused(&config, answer));
        route.begin();
        assert_eq!(route.step(), Some(use_(node)));
        // If nothing is there, the cluster is asked.
        route.begin();
        assert_eq!(route.step(), Some(ask("a:1")));
    }
    for answer in
        ["-MOVED 10914 ?:7\r\n", "-MOVED 10914 h\r\n", "-MOVED 1\r\n", "-MOVED\r\n", "-MOVED 1 h:0\r\n"]
    {
        let mut route = Route::new(&config).unwrap();
        route.begin();
        inquire(&mut route, "a:1", &slots(&[(0, 16383, &[("b", 3)])])).1.unwrap();
        assert_eq!(route.step(), Some(use_("b:3")));
        route.ended(&refused(&config, answer));
        route.begin();
        assert_eq!(route.step(), Some(ask("a:1")), "{answer}");
    }
}

#[test]
fn a_single_server_that_is_a_node_of_a_cluster_leads_to_the_others_and_back() {
    let config = config("redis://a:1");
    let mut route = Route::new(&config).unwrap();
    route.begin();
    assert_eq!(route.step(), Some(use_("a:1")));
    route.ended(&refused(&config, "-MOVED 10914 b:3\r\n"));
    route.begin();
    assert_eq!(route.step(), Some(use_("b:3")));
    // After that connection, the nodes are asked.
    route.begin();
    assert_eq!(route.step(), Some(ask("b:3")));
    assert_eq!(route.step(), Some(ask("a:1")));
    assert_eq!(route.step(), None);
    // None of them is there any more.
    route.begin();
    assert_eq!(route.step(), Some(use_("a:1")));
}

#[test]
fn other_errors_do_not_change_the_way() {
    for url in ["redis://a:1", "redis+sentinel://a:1/main", "redis+cluster://a:1"] {
        let config = config(url);
        let mut route = Route::new(&config).unwrap();
        route.begin();
        let first = route.step();
        for answer in ["-READONLY x\r\n", "-CLUSTERDOWN x\r\n", "-ASK 7 h:7\r\n", "-LOADING x\r\n"] {
            route.ended(&refused(&config, answer));
        }
        route.begin();
        assert_eq!(route.step(), first, "{url}");
    }
}

#[test]
fn a_place_without_servers_makes_no_route() {
    let mut config = Config::default();
    config.place = Place::Cluster(vec![]);
    assert_eq!(Route::new(&config).unwrap_err().setting, "place");
    let sentinels = Sentinels { addresses: vec![], service: "m".into(), username: None, password: None };
    config.place = Place::Sentinel(sentinels);
    assert_eq!(Route::new(&config).unwrap_err().setting, "place");
}

#[test]
fn the_slot_of_the_tests_is_that_of_the_layout() {
    assert_eq!(Layout::new(&Config::default()).unwrap().slot(), 10914);
}
