//! A page of deadlines.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| async_cache_disk::fuzzing::deadline_page(bytes));
