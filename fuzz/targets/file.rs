//! A whole file, opened and read in every possible way: unchanged, and with corrected checksums.
#![no_main]

use async_cache_disk::fuzzing;
use async_cache_fuzz::read_all;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read_all(bytes, None);
    let mut sealed = bytes.to_vec();
    fuzzing::reseal(&mut sealed, None);
    read_all(&sealed, None);
});
