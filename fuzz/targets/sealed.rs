//! The same of a file with a secret, by somebody who knows it: every checksum and every tag made to match.
#![no_main]

use async_cache_disk::fuzzing;
use async_cache_fuzz::{read_all, secret};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let secret = secret();
    let mut sealed = bytes.to_vec();
    fuzzing::reseal(&mut sealed, Some(&secret));
    read_all(&sealed, Some(secret));
});
