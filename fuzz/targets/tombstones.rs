//! Two sections of tombstones; the first two bytes are the length of the first one.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((len, rest)) = bytes.split_first_chunk::<2>() {
        let (left, right) = rest.split_at(rest.len().min(u16::from_le_bytes(*len).into()));
        async_cache_disk::fuzzing::tombstones(left, right);
    }
});
