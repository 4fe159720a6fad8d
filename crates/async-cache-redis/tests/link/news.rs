//! News of changes, and their order among answers.

use super::*;

fn push(keys: &[&str]) -> String {
    let keys: String =
        keys.iter().map(|key| format!("${}\r\n{key}\r\n", key.len())).collect::<Vec<_>>().concat();
    let count = keys.matches('$').count();
    format!(">2\r\n$10\r\ninvalidate\r\n*{count}\r\n{keys}")
}

/// A link that knows the generation 36.
fn with_generation() -> Link {
    let mut link = ready();
    exchange(&mut link, &Command::Generation(GENERATION), "_\r\n");
    link
}

fn told(link: &mut Link, bytes: &str) -> Vec<Event> {
    link.receive(bytes.as_bytes()).unwrap();
    events(link)
}

#[test]
fn each_key_has_its_event() {
    let mut link = with_generation();
    let keys = [
        "ac:{n:}:0000000000010:sk",
        "ac:{n:}:g",
        "ac:{n:}:o:000000000000000a",
        "ac:{n:}:p",
        "ac:{m:}:0000000000010:sk",
        "ac:{n:}:0000000000010:sl",
    ];
    let expected = [
        Event::Changed(name("k")),
        Event::GenerationChanged,
        Event::OwnerChanged(Owner(10)),
        Event::Changed(name("l")),
    ];
    assert_eq!(told(&mut link, &push(&keys)), expected);
    assert_eq!(told(&mut link, &push(&[])), []);
}

#[test]
fn a_flush_and_what_is_not_understood_may_have_changed_anything() {
    let mut link = with_generation();
    for rest in ["2\r\n+invalidate\r\n_\r\n", "2\r\n+invalidate\r\n*-1\r\n", "1\r\n+invalidate\r\n"] {
        assert_eq!(told(&mut link, &format!(">{rest}")), [Event::AllChanged]);
    }
    for other in [">0\r\n", ">1\r\n:1\r\n", ">3\r\n+message\r\n+channel\r\n+text\r\n"] {
        assert_eq!(told(&mut link, other), []);
    }
}

#[test]
fn entries_of_other_generations_are_ignored() {
    let [present, earlier] = ["ac:{n:}:0000000000010:sk", "ac:{n:}:0000000000011:sk"];
    let changed = [Event::Changed(name("k"))];
    // Named by the server.
    let mut link = with_generation();
    assert_eq!(told(&mut link, &push(&[earlier])), []);
    assert_eq!(told(&mut link, &push(&[present])), changed);
    // Begun.
    link.send(CommandId(1), GENERATION, &Command::NewGeneration(Generation(37)));
    assert_eq!(told(&mut link, &push(&[earlier])), changed);
    assert_eq!(told(&mut link, &push(&[present])), []);
    // Of the last command about entries; a late removal does not count.
    let mut link = ready();
    assert_eq!(told(&mut link, &push(&[present])), []);
    link.send(CommandId(1), GENERATION, &Command::Read(vec![name("k")]));
    link.send(CommandId(2), Generation(37), &Command::Drop(vec![name("k")]));
    assert_eq!(told(&mut link, &push(&[earlier])), []);
    assert_eq!(told(&mut link, &push(&[present])), changed);
}

#[test]
fn news_before_the_connection_is_ready_are_dropped() {
    let mut link = Link::new(&config()).unwrap();
    link.start();
    let answers: String = commands(&mut link).iter().map(|command| valkey(command)).collect();
    let null = ">2\r\n+invalidate\r\n_\r\n";
    link.receive(format!("{null}{answers}{null}").as_bytes()).unwrap();
    assert!(matches!(link.poll(), Some(LinkEvent::Ready(_))));
    assert_eq!(events(&mut link), [Event::AllChanged]);
}

#[test]
fn answers_and_news_keep_their_order_at_every_split() {
    let key = "ac:{n:}:0000000000010:sk";
    let news = push(&[key]);
    // The second news come between the value and its life.
    let bytes = format!("{news}{ALIVE}{news}_\r\n{news}:-2\r\n>2\r\n+invalidate\r\n_\r\n{ALIVE}");
    let changed = || Event::Changed(name("k"));
    let done = |id| Event::Reply(CommandId(id), Reply::Done);
    let found = Reply::Found(vec![async_cache_core::remote::port::Found::Absent]);
    let expected = [
        changed(),
        done(1),
        changed(),
        changed(),
        Event::Reply(CommandId(2), found),
        Event::AllChanged,
        done(3),
    ];
    for split in 0..=bytes.len() {
        let mut link = with_generation();
        link.send(CommandId(1), GENERATION, &Command::Ping);
        link.send(CommandId(2), GENERATION, &Command::Read(vec![name("k")]));
        link.send(CommandId(3), GENERATION, &Command::Ping);
        link.receive(&bytes.as_bytes()[..split]).unwrap();
        link.receive(&bytes.as_bytes()[split..]).unwrap();
        assert_eq!(events(&mut link), expected, "split at {split}");
    }
}

#[test]
fn events_before_an_error_count() {
    let mut link = with_generation();
    link.send(CommandId(1), GENERATION, &Command::Ping);
    let bytes = format!("{}{ALIVE}rubbish", push(&["ac:{n:}:g"]));
    let error = link.receive(bytes.as_bytes()).unwrap_err();
    assert_eq!(error.kind, async_cache_redis::LinkErrorKind::Protocol);
    assert_eq!(events(&mut link), [Event::GenerationChanged, Event::Reply(CommandId(1), Reply::Done)]);
}
