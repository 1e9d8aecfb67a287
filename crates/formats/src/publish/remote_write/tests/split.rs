//! Requests within their room, and halves of them.

use proptest::prelude::*;

use super::*;

/// A container with many series of every type.
fn many(series: usize) -> SentByAll {
    let line = |n: usize| match n % 4 {
        0 => format!("jobs.{n}:{n}|c|#route:/{n}"),
        1 => format!("level.{n}:{n}|g|#zone:{}", "z".repeat(n % 200)),
        2 => format!("time.{n}:1:2:{n}|ms|#route:/{n},same:yes"),
        _ => format!("users.{n}:u{n}|s"),
    };
    let lines: Vec<_> = (0..series).map(line).collect();
    let halves = lines.split_at(series / 2);
    SentByAll::new(
        Level::Orchestrator,
        &[(origin("a", &[]), &halves.0.join("\n")), (origin("b", &[]), &halves.1.join("\n"))],
    )
}

fn sorted(mut series: Vec<SentSeries>) -> Vec<SentSeries> {
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series
}

/// Asserts that requests cover a range without gaps and with every record in it once, and that each can be encoded again.
fn assert_covers(
    round: &Round<'_>,
    encoded: &Encoded,
    range: Range<usize>,
    options: &RemoteWriteOptions,
    room: RequestRoom,
) {
    let mut next = range.start;
    for request in &encoded.requests {
        assert!(request.records.start >= next && request.records.end <= range.end, "{request:?}");
        next = request.records.end;
        assert!(request.held <= room.records.max(1));
        assert!(unpacked(request).len() <= room.bytes, "{} > {}", unpacked(request).len(), room.bytes);
        let again = encode_remote_write(round, request.records.clone(), options, room);
        assert_eq!(only(&again.requests), *request);
    }
    let held: usize = encoded.requests.iter().map(|request| request.held).sum();
    assert_eq!(held + encoded.left_out.len(), range.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn property_requests_within_any_room_have_what_one_has(
        (count, bytes, records) in (1..60_usize, 600..9000_usize, 0..40_usize),
        (protocol, timers) in (prop::sample::select(BOTH.to_vec()), prop::sample::select(Timers::ALL.to_vec())),
    ) {
        let sent = many(count);
        let round = sent.round();
        let options = RemoteWriteOptions { timers, ..options(protocol) };
        let room = RequestRoom { bytes, records };
        let encoded = encode_remote_write(&round, ALL, &options, room);
        assert_covers(&round, &encoded, 0..count, &options, room);
        let whole = encode_remote_write(&round, ALL, &options, AMPLE);
        let too_large: BTreeSet<_> = encoded.left_out.iter().map(|left_out| left_out.record).collect();
        prop_assert!(encoded.left_out.iter().all(|left_out| left_out.why == LeftOutReason::TooLarge));
        let found = sorted(decode_all(&options, &encoded.requests));
        if too_large.is_empty() {
            prop_assert_eq!(found, sorted(decode_all(&options, &whole.requests)));
        } else {
            // Each of them alone is too large.
            for record in too_large {
                let alone = encode_remote_write(&round, record..record + 1, &options, room);
                prop_assert_eq!(alone.requests, []);
            }
        }
    }

    #[test]
    fn property_halves_have_what_the_whole_has(count in 2..40_usize, at in 0..40_usize, version in 0..2_usize) {
        let sent = many(count);
        let round = sent.round();
        let options = options(BOTH[version]);
        let at = at % count;
        let whole = encode_remote_write(&round, ALL, &options, AMPLE);
        let halves = [0..at, at..count].map(|half| encode_remote_write(&round, half, &options, AMPLE).requests);
        let found = decode_all(&options, &halves.concat());
        prop_assert_eq!(sorted(found), sorted(decode_all(&options, &whole.requests)));
    }
}

#[test]
fn a_record_that_fits_no_request_is_left_out_and_the_others_are_sent() {
    let long = format!("long:1|g|#x:{}", "y".repeat(2000));
    let lines = format!("a:1|c\n{long}\nz:1|c");
    let sent = SentByAll::new(Level::Orchestrator, &[(origin("web", &[]), &lines)]);
    let round = sent.round();
    let room = RequestRoom { bytes: 1000, records: 100 };
    for options in BOTH.map(options) {
        let encoded = encode_remote_write(&round, ALL, &options, room);
        assert_eq!(encoded.left_out, [LeftOut { record: 1, why: LeftOutReason::TooLarge }]);
        let series = decode_all(&options, &encoded.requests);
        assert_eq!(series.iter().map(SentSeries::name).collect::<Vec<_>>(), ["a_total", "z_total"]);
        assert_covers(&round, &encoded, 0..3, &options, room);
    }
}

#[test]
fn ranges_beyond_the_round_are_empty() {
    let sent = many(3);
    let round = sent.round();
    for range in [3..9, 7..9, 2..2, 0..0] {
        let encoded = encode_remote_write(&round, range, &options(RemoteWriteProtocol::V1), AMPLE);
        assert_eq!(encoded, Encoded::default());
    }
}
