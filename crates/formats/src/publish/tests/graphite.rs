use std::collections::BTreeMap;

use proptest::prelude::*;
use tallyport_core::aggregate::View;

use super::*;
use crate::publish::{GraphiteOptions, PathTemplate, TemplateError, encode_graphite};
use crate::record::value;

fn template(text: &str) -> GraphiteOptions {
    GraphiteOptions { template: text.parse().unwrap(), tags: false }
}

/// A line as a receiver reads it: nodes of the path, tags and the value.
#[derive(Debug)]
struct Line {
    path: String,
    tags: BTreeMap<String, String>,
    value: f64,
}

fn parse_lines(text: &str) -> Vec<Line> {
    let parse = |line: &str| {
        let [series, value, seconds] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(seconds, "1767225610");
        let mut parts = series.split(';');
        let path = parts.next().unwrap().to_owned();
        assert!(path.split('.').all(|node| !node.is_empty()), "an empty node in {line:?}");
        let mut tags = BTreeMap::new();
        for tag in parts {
            let (key, value) = tag.split_once('=').unwrap();
            assert!(!key.is_empty() && !key.contains(['!', '^']), "{line:?}");
            assert!(!value.is_empty() && !value.starts_with('~'), "{line:?}");
            tags.insert(key.to_owned(), value.to_owned());
        }
        Line { path, tags, value: value.parse().unwrap() }
    };
    text.strip_suffix('\n').unwrap().split('\n').map(parse).collect()
}

fn paths(fixture: &Fixture, options: &GraphiteOptions) -> Vec<String> {
    let encoded = encode_graphite(&fixture.round(), ALL, options, AMPLE);
    parse_lines(only_text(&encoded)).into_iter().map(|line| line.path).collect()
}

#[test]
fn the_lines_of_a_round_are_as_golden() {
    let fixture = odd_and_ordinary();
    for (name, tags) in [("graphite.txt", false), ("graphite-tags.txt", true)] {
        let options = GraphiteOptions::with_default_template(tags);
        assert_golden(name, only_body(&encode_graphite(&fixture.round(), ALL, &options, AMPLE)));
    }
}

#[test]
fn the_same_round_gives_the_same_lines() {
    for tags in [false, true] {
        let options = GraphiteOptions::with_default_template(tags);
        assert_deterministic(|round| encode_graphite(round, ALL, &options, AMPLE));
    }
}

#[test]
fn a_template_places_what_identifies_a_series() {
    let one = |template_text: &str, origin: Origin, level| {
        let fixture = Fixture::from_lines(level, &[(origin, "up.time:1|g")]);
        paths(&fixture, &template(template_text)).remove(0)
    };
    let all =
        "{node}.{namespace}.{pod}.{container}.{workload}.{task}.{container_id}.{generation}.{type}.{name}";
    let orchestrated = Level::Orchestrator;
    assert_eq!(one(all, pod(), orchestrated), "n1.shop.web-5d4f7.main.web.none.none.none.gauge.up.time");
    assert_eq!(one(all, pod(), Level::High), "n1.shop.web-5d4f7.main.web.none.c-7.3.gauge.up.time");
    assert_eq!(one(all, pod(), Level::Low), "n1.shop.none.main.web.none.none.none.gauge.up.time");
    let task = || origin("web.3f9a", "c-2", &[]);
    assert_eq!(one("a.{task}.{workload}-{name}", task(), orchestrated), "a.web_3f9a.web-up.time");
    assert_eq!(one("{identity}.{name}", pod(), orchestrated), "shop.web-5d4f7.main.up.time");
    assert_eq!(one("{identity}.{name}", task(), orchestrated), "web_3f9a.up.time");
}

#[test]
fn a_template_that_would_lose_series_or_leave_the_path_is_refused() {
    let refused = |text: &str| text.parse::<PathTemplate>().unwrap_err();
    assert_eq!(refused("a.{task}"), TemplateError::WithoutName);
    assert_eq!(refused(""), TemplateError::EmptyNode);
    assert_eq!(refused("a.{tsak}.{name}"), TemplateError::UnknownPlaceholder("tsak".to_owned()));
    assert_eq!(
        [refused("a.{name"), refused("a}.{name}")],
        [TemplateError::Unbalanced, TemplateError::Unbalanced]
    );
    for text in [".{name}", "a..{name}", "{name}."] {
        assert_eq!(refused(text), TemplateError::EmptyNode, "{text}");
    }
    for text in ["a b.{name}", "a/{name}", "a;{name}", "é.{name}"] {
        assert!(matches!(refused(text), TemplateError::Forbidden(_)), "{text}");
    }
    let unknown = refused("{x}{name}").to_string();
    assert!(unknown.starts_with("has an unknown placeholder {x}; use {name}, {type}, "), "{unknown}");
}

#[test]
fn the_default_templates_are_valid() {
    for tags in [false, true] {
        let default = PathTemplate::default_for(tags);
        assert_eq!(default.to_string().parse(), Ok(default));
    }
}

#[test]
fn a_name_never_leads_out_of_its_directory() {
    let lines = "..a../b...c:1|g\n...:2|g\n/etc/passwd:3|g";
    let fixture = Fixture::from_lines(Level::Orchestrator, &[(origin("..", "c", &[]), lines)]);
    let mut found = paths(&fixture, &template("{task}.{name}"));
    found.sort();
    assert_eq!(found, ["__._", "__._etc_passwd", "__.a._b.c"]);
}

proptest! {
    #[test]
    fn property_every_line_is_parsed_and_holds_the_value(
        states in prop::collection::vec(state(), 1..6),
        tags in any::<bool>(),
    ) {
        let fixture = Fixture::from_states(origin("ta sk;=~1", "c", &[]), &states);
        let round = fixture.round();
        for (index, record) in round.records.iter().enumerate() {
            let options = GraphiteOptions::with_default_template(tags);
            let encoded = encode_graphite(&round, index..index + 1, &options, AMPLE);
            let lines = parse_lines(only_text(&encoded));
            let suffix = match record.view {
                View::Counter { .. } => ".sum",
                View::Gauge(_) => "",
                View::Distribution { .. } => ".mean",
                View::Set { .. } => ".cardinality",
                View::Check { .. } => ".status",
            };
            let main = lines.iter().find(|line| line.path.ends_with(suffix)).unwrap();
            prop_assert_eq!(Some(main.value), value(&record.view));
            for line in &lines {
                prop_assert!(line.path.is_ascii() && line.value.is_finite());
                prop_assert_eq!(line.tags.is_empty(), !tags);
                prop_assert_eq!(line.tags.get("task").map(String::as_str), tags.then_some("ta_sk_=~1"));
            }
        }
    }
}
