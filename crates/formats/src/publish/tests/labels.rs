use tallyport_core::model::MetricType;

use super::*;
use crate::exposition::{Escaping, Format};
use crate::prometheus::identity::push_label;
use crate::prometheus::{Marks, Name, NameKind, Naming, PageBuilder, PageSource, PageWindow};
use crate::publish::labels::LabelReader;

/// The page of the same windows.
fn page(fixture: &Fixture, naming: Naming, escaping: Escaping) -> String {
    let carry = Duration::from_mins(1);
    let mut page = PageBuilder::<Held>::new(Format::OpenMetrics, naming, fixture.level, at(10), carry)
        .with_names(escaping, fixture.marks.clone());
    for container in &fixture.containers {
        let window = Arc::clone(&container.window);
        let records = (0..window.0.len()).collect();
        let ledger = container.ledger.as_ref().unwrap();
        let windows = vec![PageWindow { window, records }];
        page.add_container(&PageSource { origin: &container.origin, ledger, windows, shown: true }, |_| true);
    }
    let mut page = page.build_page();
    let mut text = Vec::new();
    while let Some(piece) = page.next_piece() {
        text.extend(piece);
    }
    String::from_utf8(text).unwrap()
}

/// Asserts that every series is on the page under the family's name and the labels that publishers give it.
fn assert_on_page(fixture: &Fixture, naming: Naming, escaping: Escaping) {
    let page = page(fixture, naming, escaping);
    let round = fixture.round();
    let mut labels = LabelReader::new(&round, naming, escaping);
    let mut shown = 0;
    for record in &round.records {
        labels.enter_identity(record);
        let Some((family, shape)) = labels.series_names().family_name(record.series) else {
            assert_eq!(record.series.metric_type, MetricType::ServiceCheck);
            continue;
        };
        let mut text = String::new();
        for (name, value) in labels.identity_labels() {
            push_label(&mut text, name, value);
        }
        for (name, value) in labels.tag_labels(&record.series.tags) {
            push_label(&mut text, &name, &value);
        }
        let name = format!("{family}{}", shape.parts[0].1);
        let unquoted = format!("\n{name}{{{text}");
        let quoted = format!("\n{{\"{name}\",{text}");
        assert!(page.contains(&unquoted) || page.contains(&quoted), "{unquoted}\nis not in\n{page}");
        shown += 1;
    }
    assert!(shown > 5);
}

#[test]
fn names_and_labels_are_those_of_a_page() {
    let fixture = odd_and_ordinary();
    for escaping in Escaping::ALL {
        for naming in Naming::ALL {
            assert_on_page(&fixture, naming, escaping);
        }
    }
}

#[test]
fn names_that_carry_marks_on_a_page_carry_them_when_published() {
    let mut fixture = odd_and_ordinary();
    let mut marks = Marks::default();
    marks.set_spelling(&Name { kind: NameKind::Label, text: "note".into() }, [Some(0), Some(0)]);
    let requests = NameKind::Metric(MetricType::Counter);
    marks.set_spelling(&Name { kind: requests, text: "requests".into() }, [Some(1), None]);
    let web = &fixture.containers[1].origin;
    fixture.marks.insert(SeriesIdentity::from_origin(web, Level::Low), Arc::new(marks));
    for escaping in Escaping::ALL {
        assert_on_page(&fixture, Naming::Openmetrics, escaping);
    }
    let round = fixture.round();
    let mut labels = LabelReader::with_plain_names(&round);
    let marked = |record: &&RoundRecord<'_>| record.series.tags.get("note").is_some();
    labels.enter_identity(round.records.iter().find(marked).unwrap());
    let tags = &round.records.iter().find(marked).unwrap().series.tags;
    assert!(labels.tag_labels(tags).any(|(name, _)| name.starts_with("note__")));
}
