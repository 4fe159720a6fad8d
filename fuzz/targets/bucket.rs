//! A bucket of the index; the first two bytes are a key to look up in the bucket.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((key, page)) = bytes.split_first_chunk::<2>() {
        async_cache_disk::fuzzing::bucket(page, key);
    }
});
