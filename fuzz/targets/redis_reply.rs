//! Replies of a server. The first byte is the length of the pieces: the messages are the same as in
//! one piece.
#![no_main]

use async_cache_redis::resp::{Limits, Malformed, Message, Reader};

const LIMITS: Limits = Limits { string: 1000, message: 4000 };

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&length, bytes)) = bytes.split_first() else { return };
    let whole = read([bytes].into_iter());
    let pieces = read(bytes.chunks(usize::from(length).max(1)));
    assert_eq!(whole, pieces);
});

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Message>, Option<Malformed>) {
    let mut reader = Reader::new(LIMITS);
    let mut messages = Vec::new();
    for mut piece in pieces {
        loop {
            match reader.next(&mut piece) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(malformed) => return (messages, Some(malformed)),
            }
        }
    }
    (messages, None)
}
