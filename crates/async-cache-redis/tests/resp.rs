//! The reader and the writer of the wire protocol.

use async_cache_redis::resp::{Limits, Malformed, Message, Reader, Value, Writer};

const LIMITS: Limits = Limits { string: 64, message: 4096 };

fn text(text: &str) -> Value {
    Value::Text(text.as_bytes().to_vec())
}

fn read(pieces: &[&[u8]]) -> Result<Vec<Message>, Malformed> {
    let mut reader = Reader::new(LIMITS);
    let mut messages = Vec::new();
    for mut piece in pieces.iter().copied() {
        while let Some(message) = reader.next(&mut piece)? {
            messages.push(message);
        }
        assert!(piece.is_empty());
    }
    Ok(messages)
}

fn read_whole(bytes: &[u8]) -> Result<Vec<Message>, Malformed> {
    read(&[bytes])
}

#[test]
fn every_type_is_read() {
    let error = |text: &str| Value::Error(text.into());
    let table: &[(&[u8], Value)] = &[
        (b"+OK\r\n", text("OK")),
        (b"+\r\n", text("")),
        (b"-ERR no\r\n", error("ERR no")),
        (b":-12\r\n", Value::Integer(-12)),
        (b":9223372036854775807\r\n", Value::Integer(i64::MAX)),
        (b"_\r\n", Value::Null),
        (b"$-1\r\n", Value::Null),
        (b"*-1\r\n", Value::Null),
        (b"#t\r\n", Value::Integer(1)),
        (b"#f\r\n", Value::Integer(0)),
        (b",1.5\r\n", text("1.5")),
        (b"(12345678901234567890\r\n", text("12345678901234567890")),
        (b"$0\r\n\r\n", text("")),
        (b"$4\r\na\r\nb\r\n", text("a\r\nb")),
        (b"=6\r\ntxt:hi\r\n", text("hi")),
        (b"!5\r\nERR x\r\n", error("ERR x")),
        (b"*0\r\n", Value::List(vec![])),
        (b"*2\r\n:1\r\n*1\r\n_\r\n", Value::List(vec![Value::Integer(1), Value::List(vec![Value::Null])])),
        (b"*2\r\n*0\r\n*0\r\n", Value::List(vec![Value::List(vec![]), Value::List(vec![])])),
        (b"~1\r\n+a\r\n", Value::List(vec![text("a")])),
        (b"%1\r\n+a\r\n:1\r\n", Value::List(vec![text("a"), Value::Integer(1)])),
    ];
    for (bytes, value) in table {
        assert_eq!(read_whole(bytes), Ok(vec![Message::Reply(value.clone())]), "{}", bytes.escape_ascii());
    }
}

#[test]
fn attributes_are_ignored_wherever_they_stand() {
    let bytes = b"|1\r\n+ttl\r\n:1\r\n*2\r\n|0\r\n:1\r\n|1\r\n+a\r\n*1\r\n+b\r\n:2\r\n";
    let list = Value::List(vec![Value::Integer(1), Value::Integer(2)]);
    assert_eq!(read_whole(bytes), Ok(vec![Message::Reply(list)]));
}

#[test]
fn a_push_is_told_apart_from_a_reply() {
    let bytes = b"+OK\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n:1\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n";
    let expected = vec![
        Message::Reply(text("OK")),
        Message::Push(vec![text("invalidate"), Value::List(vec![text("k")])]),
        Message::Reply(Value::Integer(1)),
        Message::Push(vec![text("invalidate"), Value::Null]),
    ];
    assert_eq!(read_whole(bytes), Ok(expected));
}

#[test]
fn every_split_gives_the_same_messages() {
    let long = "x".repeat(70);
    let bytes = format!(
        "+OK\r\n$5\r\nab\r\nc\r\n*3\r\n_\r\n%1\r\n+a\r\n|1\r\n+b\r\n*0\r\n=5\r\ntxt:y\r\n$70\r\n{long}\r\n\
         >2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n-ERR x\r\n*0\r\n:7\r\n"
    );
    let bytes = bytes.as_bytes();
    let expected = read_whole(bytes).unwrap();
    assert_eq!(expected.len(), 7);
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            assert_eq!(read(&pieces).unwrap(), expected, "split at {first} and {second}");
        }
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(&single).unwrap(), expected);
}

#[test]
fn a_string_longer_than_the_limit_is_skipped_and_the_stream_goes_on() {
    for length in [64, 65, 1000] {
        let bytes = format!("*2\r\n${length}\r\n{}\r\n:1\r\n+OK\r\n", "x".repeat(length));
        let expected = if length > 64 { Value::Large } else { text(&"x".repeat(64)) };
        let list = Value::List(vec![expected, Value::Integer(1)]);
        assert_eq!(read_whole(bytes.as_bytes()), Ok(vec![Message::Reply(list), Message::Reply(text("OK"))]));
    }
}

#[test]
fn strings_beyond_the_total_of_a_message_are_skipped() {
    let bytes = format!("*100\r\n{}", format!("$64\r\n{}\r\n", "x".repeat(64)).repeat(100)).repeat(2);
    let messages = read_whole(bytes.as_bytes()).unwrap();
    assert_eq!(messages.len(), 2);
    for message in messages {
        let Message::Reply(Value::List(items)) = message else { panic!("not a list") };
        let kept = items.iter().filter(|item| **item != Value::Large).count();
        assert_eq!((items.len(), kept), (100, 64));
    }
}

#[test]
fn bytes_of_no_protocol_are_refused_as_soon_as_they_arrive() {
    let deep = "*1\r\n".repeat(17);
    let long = format!("+{}", "x".repeat(70_000));
    let table: &[(&[u8], &str)] = &[
        (b"H", "not of the protocol"),
        (b"\x15\x03\x03", "not of the protocol"),
        (b"\r\n", "not of the protocol"),
        (b"+OK\n", "carriage return"),
        (b":\r\n", "integer"),
        (b":1x\r\n", "integer"),
        (b":9223372036854775808\r\n", "integer"),
        (b"$-2\r\n", "impossible length"),
        (b"$?\r\n", "impossible length"),
        (b"*?\r\n", "impossible length"),
        (b"%-1\r\n", "impossible length"),
        (b"*9223372036854775807\r\n", "too many parts"),
        (b"%9223372036854775807\r\n", "too many parts"),
        (b"*1048577\r\n", "too many parts"),
        (b"*1000000\r\n*1000000\r\n", "too many parts"),
        (b"*1\r\n>1\r\n", "push inside"),
        (b"$1\r\nabc", "without an end"),
        (
            b"$70\r\n0123456789012345678901234567890123456789012345678901234567890123456789abc",
            "without an end",
        ),
        (b"=2\r\nhi\r\n", "format"),
        (b"#x\r\n", "impossible value"),
        (b"_x\r\n", "impossible value"),
        (deep.as_bytes(), "too deep"),
        (long.as_bytes(), "too long"),
    ];
    for (bytes, what) in table {
        let error = read_whole(bytes).unwrap_err();
        assert!(error.to_string().contains(what), "{}: {error}", bytes.escape_ascii());
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&pieces), Err(error));
    }
}

#[test]
fn random_bytes_give_the_same_result_in_any_pieces() {
    let parts: &[&[u8]] = &[
        b"+OK\r\n",
        b"*2\r\n",
        b"%1\r\n",
        b"|1\r\n",
        b"$3\r\nabc\r\n",
        b":1\r\n",
        b">2\r\n",
        b"_\r\n",
        b"*0\r\n",
        b"$70\r\n",
        b"\r\n",
        b"x",
        b"-ERR\r\n",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let bytes: Vec<u8> =
            (0..random.usize(1..12)).flat_map(|_| parts[random.usize(..parts.len())].to_vec()).collect();
        let split = random.usize(..=bytes.len());
        let (one, two) = bytes.split_at(split);
        assert_eq!(read_whole(&bytes), read(&[one, two]), "{}", bytes.escape_ascii());
    }
}

/// A reader that began again at every piece would read the first strings of the reply 300 times.
#[test]
fn a_large_reply_in_pieces_is_read_once() {
    let count = 10_000;
    let string = format!("$2000\r\n{}\r\n", "x".repeat(2000));
    let bytes = format!("*{count}\r\n{}", string.repeat(count));
    let mut reader = Reader::new(Limits { string: 4096, message: 1 << 30 });
    let mut found = None;
    for mut piece in bytes.as_bytes().chunks(64 * 1024) {
        let before = piece.len();
        found = reader.next(&mut piece).unwrap();
        assert!(before > 0 && piece.is_empty());
    }
    let Some(Message::Reply(Value::List(items))) = found else { panic!("not a list") };
    assert!(items.len() == count && items.iter().all(|item| item.text().is_some_and(|t| t.len() == 2000)));
}

#[test]
fn a_command_is_an_array_of_strings() {
    let mut out = b"before".to_vec();
    let mut writer = Writer::new(&mut out);
    writer.command(&[b"GET", b"a\r\nb"]);
    writer.begin(2);
    writer.argument(b"DEL");
    writer.argument_of(&[b"ab", b"", b"c"]);
    assert_eq!(out, b"before*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n*2\r\n$3\r\nDEL\r\n$3\r\nabc\r\n");
}
