use super::*;
use crate::publish::{Merged, encode_json};
use crate::record::RecordFrame;

#[test]
fn each_line_is_the_document_that_queries_get() {
    let fixture = odd_and_ordinary();
    let round = fixture.round();
    let encoded = encode_json(&round, ALL, AMPLE);
    let lines: Vec<_> = only_text(&encoded).lines().collect();
    assert_eq!(lines.len(), round.records.len());
    for (line, record) in lines.into_iter().zip(&round.records) {
        let frame = RecordFrame::new("n1", 3, record.origin, record.span);
        let document = frame.series_document(record.number, record.series, record.view);
        assert_eq!(line, serde_json::to_string(&document).unwrap());
    }
    assert_golden("records.ndjson", only_body(&encoded));
}

#[test]
fn the_same_round_gives_the_same_lines() {
    assert_deterministic(|round| encode_json(round, ALL, AMPLE));
}

#[test]
fn a_merged_record_says_from_what_it_is() {
    let (one, other) = (origin("web.1", "c-1", &[]), origin("web.1", "c-2", &[]));
    let fixture = Fixture::from_lines(Level::Orchestrator, &[(one, "a:1|c\nb:1|c")]);
    let others = [&other];
    let mut round = fixture.round();
    round.records[0].merged = Some(Merged { records: 2, others: &others });
    round.records[0].number = None;
    let encoded = encode_json(&round, ALL, AMPLE);
    let lines: Vec<_> = only_text(&encoded).lines().collect();
    assert!(
        lines[0].contains(r#""merged":2,"origin":{"task_id":"web.1","containers":["c-1","c-2"]}"#),
        "{}",
        lines[0]
    );
    assert!(!lines[0].contains("\"seq\""), "{}", lines[0]);
    assert!(!lines[1].contains("merged") && lines[1].contains("\"container_id\":\"c-1\""), "{}", lines[1]);
}
