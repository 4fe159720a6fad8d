//! The head of a record.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| async_cache_disk::fuzzing::record(bytes));
