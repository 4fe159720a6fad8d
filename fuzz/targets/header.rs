//! The header page; the first two bytes are the size of the file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((size, page)) = bytes.split_first_chunk::<2>() {
        async_cache_disk::fuzzing::header(page, u64::from(u16::from_le_bytes(*size)) * 16);
    }
});
