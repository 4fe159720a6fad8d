//! The units of a store's files. The first byte selects the unit; in front of a record, the next
//! four bytes are its offset.
#![no_main]

use async_cache_disk::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((0, page)) => fuzzing::store_header(page),
        Some((1, rest)) => {
            if let Some((offset, record)) = rest.split_first_chunk() {
                fuzzing::segment_record(record, u32::from_le_bytes(*offset));
            }
        }
        Some((2, unit)) => fuzzing::run(unit),
        Some((3, unit)) => fuzzing::manifest(unit),
        _ => {}
    }
});
