//! A whole connection. The first byte chooses the commands of the server, or a server that is not
//! greeted yet. Then a byte below 64 sends a command; any other byte gives a number of the bytes
//! behind it to the link. Every command has at most one answer, in the order of the commands.
#![no_main]

use std::collections::VecDeque;
use std::time::Duration;

use async_cache_core::remote::port::{
    Command, CommandId, Content, Event, Generation, Lease, Name, Owner, Replaced,
};
use async_cache_redis::{Config, Layout, Link, LinkEvent};

const GENERATION: Generation = Generation(36);
const GREETING: &str = "%1\r\n+proto\r\n:3\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+run_id:1\r\n*0\r\n";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, mut bytes)) = bytes.split_first() else { return };
    let mut link = Link::new(&Config::default()).expect("the defaults are sound");
    link.start();
    let engine = match choice {
        0 => None,
        1..128 => Some("_\r\n:0\r\n-ERR\r\n-ERR invalid expire\r\n:0\r\n"),
        128..192 => Some("-ERR\r\n-ERR\r\n:0\r\n-ERR\r\n:0\r\n"),
        192.. => Some("-ERR\r\n-ERR\r\n-ERR\r\n-ERR\r\n-ERR\r\n"),
    };
    if let Some(engine) = engine {
        link.receive(format!("{GREETING}{engine}").as_bytes()).expect("the greeting is sound");
        assert!(matches!(link.poll(), Some(LinkEvent::Ready(_))));
    }
    let (mut sent, mut next) = (VecDeque::new(), 0);
    while let Some((&step, rest)) = bytes.split_first() {
        bytes = rest;
        if step < 64 {
            let id = CommandId(next);
            next += 1;
            sent.push_back(id);
            link.send(id, GENERATION, &command(step));
        } else {
            let (now, later) = bytes.split_at(usize::from(step - 63).min(bytes.len()));
            bytes = later;
            if link.receive(now).is_err() {
                return;
            }
        }
        link.outgoing().clear();
        while let Some(event) = link.poll() {
            if let LinkEvent::Event(Event::Reply(id, _)) = event {
                assert_eq!(sent.pop_front(), Some(id), "commands are answered in their order");
            }
        }
    }
});

fn command(step: u8) -> Command {
    let name = |number: u8| Layout::name(&[number]);
    let names = |count: u8| (0..count).map(name).collect::<Vec<Name>>();
    let (name, life) = (name(step / 16), Duration::from_secs(u64::from(step)));
    let lease = Lease { owner: Owner(1), serial: u64::from(step) };
    match step % 16 {
        0 => Command::Read(names(step / 16)),
        1 => Command::Acquire { name, lease, life },
        2 => Command::TakeOver { name, from: Replaced::Lease(lease), lease, life },
        3 => Command::Fill { name, lease, content: Content::Value([0, 1].into()), life: Some(life) },
        4 => Command::Extend { name, lease, life },
        5 => Command::Release { name, lease },
        6 => Command::Put { name, content: Content::Stub, life: None },
        7 => Command::Drop(names(step / 16)),
        8 => Command::Generation(GENERATION),
        9 => Command::NewGeneration(Generation(u64::from(step))),
        10 => Command::Alive { owner: Owner(1), life },
        11 => Command::IsAlive(Owner(1)),
        _ => Command::Ping,
    }
}
