use super::super::testing::{assert_refuses_changes, seals};
use super::*;

fn segment(number: u32) -> SegmentRow {
    SegmentRow {
        number,
        is_sealed: true,
        file_id: [5; 16],
        end: 4096 + 0x0304,
        entries: 7,
        earliest: 10,
        latest: 20,
        last_deadline: u64::MAX,
        dead_bytes: 0x0102,
    }
}

fn run(number: u32, first_segment: u32, last_segment: u32) -> RunRow {
    RunRow { number, level: 3, file_id: [6; 16], first_segment, last_segment, earliest: 10, latest: 30 }
}

/// Runs over 1 to 2 (2 was collected) and over 4; 6 and 8 are tails, and 8 is open.
fn body() -> ManifestBody {
    let open = SegmentRow { is_sealed: false, end: 0, latest: 99, ..segment(8) };
    ManifestBody {
        is_clean: false,
        sequence: 0x11,
        cleared_at: 0x12,
        floor: 0x13,
        dropped_until: 0x14,
        written_until: 30,
        next_number: 0x0A,
        base: Some([7; 16]),
        segments: vec![segment(1), segment(4), segment(6), open],
        runs: vec![run(9, 1, 2), run(5, 4, 4)],
    }
}

#[test]
fn a_body_has_the_bytes_of_the_format() {
    let body =
        ManifestBody { is_clean: true, segments: vec![segment(1)], runs: vec![run(9, 1, 2)], ..body() };
    #[rustfmt::skip]
    let expected = [
        0x4A, 0x66, 0xB3, 0x10, // checksum
        1, 0, 0, 0, // clean
        0x11, 0, 0, 0, 0, 0, 0, 0, 0x12, 0, 0, 0, 0, 0, 0, 0, 0x13, 0, 0, 0, 0, 0, 0, 0,
        0x14, 0, 0, 0, 0, 0, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, // the five times
        10, 0, 0, 0, 1, 0, 0, 0, // next number, has a base
        7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
        1, 0, 0, 0, 1, 0, 0, 0, // counts
        // The segment.
        1, 0, 0, 0, 1, 0, 0, 0, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5,
        4, 0x13, 0, 0, 7, 0, 0, 0, // end, entries
        10, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0,
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2, 1, 0, 0, 0, 0, 0, 0,
        // The run.
        9, 0, 0, 0, 3, 0, 0, 0, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6,
        1, 0, 0, 0, 2, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(body.encode(seals()[0]).unwrap(), expected);
}

#[test]
fn bodies_come_back_and_no_bit_of_them_can_change() {
    for seal in seals() {
        let open = body();
        let empty = ManifestBody::default();
        let without_base = ManifestBody { base: None, ..body() };
        for body in [open, empty, without_base] {
            let unit = body.encode(seal).unwrap();
            assert_eq!(ManifestBody::decode(seal, &unit).as_ref(), Ok(&body));
            assert_refuses_changes(&unit, |unit| ManifestBody::decode(seal, unit).is_ok());
            assert!(ManifestBody::decode(seal, &[&unit[..], &[0]].concat()).is_err());
        }
    }
}

#[test]
fn the_tails_are_the_segments_without_a_run() {
    let body = body();
    assert!(body.tails().map(|segment| segment.number).eq([6, 8]));
    let runs = [0, 1, 2, 3, 4, 5, 9].map(|segment| body.run_over(segment).map(|run| run.number));
    assert_eq!(runs, [None, Some(9), Some(9), None, Some(5), None, None]);
}

#[test]
fn neither_side_accepts_a_body_that_breaks_a_rule() {
    type Change = fn(&mut ManifestBody);
    let wrong: &[Change] = &[
        |body| body.next_number = 9, // below the number of a run
        |body| body.next_number = (1 << 24) + 1,
        |body| body.segments[0].number = 0,
        |body| body.segments[1].number = 1, // twice
        |body| body.segments.swap(1, 2),
        |body| body.runs[0].number = 4, // a segment's number
        |body| body.runs[0].number = 5, // twice
        |body| body.runs[0].first_segment = 0,
        |body| body.runs[0].first_segment = 3, // behind its last
        |body| body.runs[0].last_segment = 4,  // overlaps
        |body| body.runs.swap(0, 1),
        |body| body.runs[1].last_segment = 10, // not below the next number
        |body| body.runs[1].last_segment = 8,  // over an open segment
        |body| body.is_clean = true,           // with an open segment
        |body| body.segments[0].end = 4095,
        |body| body.segments[0].entries = 52, // 772 bytes have room for 51
        |body| body.segments[0].dead_bytes = 773,
        |body| body.segments[0].latest = 9, // before its earliest
        |body| body.segments[3].latest = 9,
        |body| body.segments[0].latest = 31, // after written until
        |body| body.runs[0].latest = 31,
        |body| body.runs[0].latest = 9,
    ];
    for seal in seals() {
        for (index, change) in wrong.iter().enumerate() {
            let mut changed = body();
            change(&mut changed);
            assert!(changed.encode(seal).is_err(), "rule {index}");
            assert!(decode_unchecked(&changed).is_err(), "rule {index}");
        }
    }
    let right: &[Change] = &[
        |body| body.next_number = 1 << 24,
        |body| body.segments[0].entries = 51,
        |body| body.segments[0].dead_bytes = 772,
        |body| body.runs[0].last_segment = 3,
    ];
    for change in right {
        let mut changed = body();
        change(&mut changed);
        assert_eq!(decode_unchecked(&changed).as_ref(), Ok(&changed));
    }
}

/// The result of a reader for the bytes of a writer that checks nothing.
fn decode_unchecked(body: &ManifestBody) -> Result<ManifestBody, &'static str> {
    let [seal, _] = seals();
    let mut unit = ManifestBody { next_number: 1, ..ManifestBody::default() }.encode(seal).unwrap();
    unit.truncate(4);
    put_u32s(&mut unit, &[u32::from(body.is_clean)]);
    let times = [body.sequence, body.cleared_at, body.floor, body.dropped_until, body.written_until];
    put_u64s(&mut unit, &times);
    put_u32s(&mut unit, &[body.next_number, u32::from(body.base.is_some())]);
    unit.extend_from_slice(&body.base.unwrap_or_default());
    put_u32s(&mut unit, &[body.segments.len(), body.runs.len()].map(|len| u32::try_from(len).unwrap()));
    body.segments.iter().for_each(|segment| segment.encode(&mut unit));
    body.runs.iter().for_each(|run| run.encode(&mut unit));
    seal.close(BODY_OFFSET, &mut unit);
    ManifestBody::decode(seal, &unit)
}

#[test]
fn unknown_flags_and_counts_that_do_not_fit_are_refused() {
    for seal in seals() {
        let unit = body().encode(seal).unwrap();
        let changed = |offset: usize, byte: u8| {
            let mut unit = unit.clone();
            unit[offset] = byte;
            seal.close(BODY_OFFSET, &mut unit);
            ManifestBody::decode(seal, &unit)
        };
        assert!(changed(4, 0).is_ok());
        assert!(changed(8, 1).is_ok());
        for (offset, byte) in [
            (4, 2), // flags of the body
            (7, 1),
            (52, 2), // has a base
            (72, 5), // number of segments
            (72, 3),
            (75, 0xFF),
            (76, 3), // number of runs
            (76, 1),
            (79, 0xFF),
            (80 + 4, 2), // flags of a segment
            (80 + 7, 0x80),
        ] {
            assert!(changed(offset, byte).is_err(), "{offset}");
        }
    }
}
