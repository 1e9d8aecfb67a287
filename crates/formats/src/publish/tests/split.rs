use proptest::prelude::*;

use super::*;
use crate::publish::{
    DatadogRoute, Framing, GraphiteOptions, InfluxOptions, LeftOutReason, encode_datadog, encode_graphite,
    encode_influx, encode_json,
};

type Encode = Box<dyn Fn(&Round<'_>, Range<usize>, RequestRoom) -> Encoded>;

/// Every dialect, with what joins its bodies.
fn dialects() -> Vec<(Framing, Encode)> {
    let graphite = GraphiteOptions::with_default_template(false);
    let json: Encode = Box::new(encode_json);
    let influx: Encode =
        Box::new(|round, records, room| encode_influx(round, records, &InfluxOptions::default(), room));
    let graphite: Encode =
        Box::new(move |round, records, room| encode_graphite(round, records, &graphite, room));
    let mut dialects = vec![(Framing::BARE, json), (Framing::BARE, influx), (Framing::BARE, graphite)];
    for route in DatadogRoute::ALL {
        let encode: Encode =
            Box::new(move |round, records, room| encode_datadog(round, records, route, room));
        dialects.push((route.body_framing(), encode));
    }
    dialects
}

/// Asserts that every record of a range is in one request or left out, and that no request exceeds its room.
fn assert_complete(encoded: &Encoded, range: Range<usize>, room: RequestRoom) {
    let mut next = range.start;
    for request in &encoded.requests {
        assert_eq!(request.records.start, next, "{encoded:?}");
        assert!(request.held > 0 && request.held <= room.records.max(1), "{encoded:?}");
        assert!(request.body.len() <= room.bytes, "{encoded:?}");
        next = request.records.end;
    }
    assert!(encoded.requests.is_empty() || next == range.end, "{encoded:?}");
    let held: usize = encoded.requests.iter().map(|request| request.held).sum();
    assert_eq!(held + encoded.left_out.len(), range.len(), "{encoded:?}");
    assert!(encoded.left_out.is_sorted_by(|a, b| a.record < b.record));
}

#[test]
fn a_record_that_alone_exceeds_the_room_is_reported_and_the_others_are_sent() {
    let long = format!("b:1|g|#note:{}", "x".repeat(400));
    let lines = format!("a:1|g\n{long}\nc:1|g");
    let fixture = Fixture::from_lines(Level::Orchestrator, &[(origin("t", "c", &[]), lines.as_str())]);
    let room = RequestRoom { bytes: 300, ..AMPLE };
    let encoded = encode_influx(&fixture.round(), ALL, &InfluxOptions::default(), room);
    assert_eq!(only_text(&encoded).lines().count(), 2);
    let left_out: Vec<_> = encoded.left_out.iter().map(|left| (left.record, left.why)).collect();
    assert_eq!(left_out, [(1, LeftOutReason::TooLarge)]);
}

#[test]
fn a_room_of_no_records_is_taken_as_one() {
    let fixture = odd_and_ordinary();
    let encoded = encode_json(&fixture.round(), ALL, RequestRoom { records: 0, ..AMPLE });
    assert!(encoded.requests.iter().all(|request| request.held == 1));
    assert_eq!(encoded.requests.len(), fixture.round().records.len());
}

#[test]
fn an_empty_round_and_a_range_beyond_its_end_give_no_request() {
    let fixture = odd_and_ordinary();
    let length = fixture.round().records.len();
    for (_, encode) in dialects() {
        for range in [0..0, length..length, length..length + 7, usize::MAX - 1..usize::MAX] {
            assert_eq!(encode(&fixture.round(), range, AMPLE), Encoded::default());
        }
    }
}

#[test]
fn bodies_of_one_dialect_are_joined_to_what_one_request_would_have_been() {
    let fixture = odd_and_ordinary();
    let round = fixture.round();
    for (framing, encode) in dialects() {
        let whole = encode(&round, ALL, AMPLE);
        let apart = encode(&round, ALL, RequestRoom { records: 1, ..AMPLE });
        let joined = framing.join(apart.requests.iter().map(|request| request.body.as_slice()));
        assert_eq!(joined, only_body(&whole));
        assert_eq!(framing.join([only_body(&whole)]), only_body(&whole));
    }
    let none: [&[u8]; 0] = [];
    assert_eq!(DatadogRoute::Series.body_framing().join(none), b"{\"series\":[]}");
}

proptest! {
    #[test]
    fn property_any_room_and_range_holds_every_record_once(
        bytes in 20..3000_usize,
        records in 0..9_usize,
        start in 0..14_usize,
        length in 0..14_usize,
    ) {
        let fixture = odd_and_ordinary();
        let round = fixture.round();
        let end = (start + length).min(round.records.len());
        let range = start.min(end)..end;
        let room = RequestRoom { bytes, records };
        for (_, encode) in dialects() {
            let encoded = encode(&round, range.clone(), room);
            assert_complete(&encoded, range.clone(), room);
            // A sender that searches for a refused record encodes the ranges of requests again.
            for request in &encoded.requests {
                let again = encode(&round, request.records.clone(), room);
                prop_assert_eq!(&again.requests[..], std::slice::from_ref(request));
            }
        }
    }
}
