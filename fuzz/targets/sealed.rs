//! As `file`, for a file with a secret, changed by an attacker with the secret: all checksums and
//! tags are corrected.
#![no_main]

use async_cache_disk::fuzzing;
use async_cache_fuzz::{read_all, secret};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let secret = secret();
    let mut sealed = bytes.to_vec();
    fuzzing::reseal(&mut sealed, Some(&secret));
    read_all(&sealed, Some(secret));
});
