use super::*;

fn series(labels: &[(&str, &str)]) -> SampleSeries {
    let mut labels: Vec<_> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    labels.sort();
    SampleSeries { labels, number: SampleNumber::Value }
}

fn numbers(pairs: &[(i64, f64)]) -> BTreeMap<i64, f64> {
    pairs.iter().copied().collect()
}

fn shown(pairs: &[NumberPair]) -> Vec<(&str, f64, Option<f64>)> {
    pairs.iter().map(|pair| (pair.what, pair.expected, pair.found)).collect()
}

#[test]
fn queries_go_where_the_receiver_answers_them() {
    for (write, query) in [
        ("http://prom:9090/api/v1/write", Some("http://prom:9090/api/v1/query")),
        ("https://vm:8428/api/v1/write?extra_label=a=b", Some("https://vm:8428/api/v1/query")),
        ("http://vm/insert/0/prometheus/api/v1/write", Some("http://vm/select/0/prometheus/api/v1/query")),
        ("https://mimir/api/v1/push", Some("https://mimir/prometheus/api/v1/query")),
        ("http://cortex/api/prom/push/", Some("http://cortex/api/prom/api/v1/query")),
        ("http://thanos/api/v1/receive", None),
    ] {
        assert_eq!(find_query_url(write).as_deref(), query, "{write}");
    }
}

#[test]
fn a_query_selects_identities_and_what_all_series_have() {
    let one = series(&[("__name__", "hits_total"), ("task", "web.1"), ("node", "n1"), ("route", "/pay")]);
    let other = series(&[("__name__", "level"), ("task", "o\"x|"), ("node", "n1"), ("a b", "c")]);
    let all = [&one, &other];
    let identities: Vec<_> = all.iter().map(|series| series.identity()).collect();
    let common = find_common_labels(all);
    assert_eq!(common, [("node", "n1")]);
    let query = build_query(&identities, &common, (10_000, 40_000));
    assert_eq!(query, r#"{task=~"o\"x\\||web\\.1",node="n1"}[30001ms]"#);
    let pod = series(&[("namespace", "shop"), ("pod", "p-1"), ("container", "app")]);
    let mixed = build_query(&[one.identity(), pod.identity()], &[], (0, 9_999));
    assert_eq!(mixed, r#"{container=~"app|",namespace=~"shop|",pod=~"p-1|",task=~"web\\.1|"}[10000ms]"#);
    assert_eq!(format_seconds(1_767_225_600_045), "1767225600.045");
}

#[test]
fn levels_are_compared_where_both_have_one() {
    let expected = numbers(&[(10, 1.0), (20, 5.0), (30, 2.0)]);
    assert_eq!(shown(&compare_levels(&expected, &expected)), []);
    let extra = numbers(&[(10, 1.0), (15, 9.0), (20, 5.0), (30, 2.0)]);
    assert_eq!(shown(&compare_levels(&expected, &extra)), [], "samples at other times are another agent's");
    let missing = numbers(&[(10, 1.0), (30, 2.0)]);
    assert_eq!(shown(&compare_levels(&expected, &missing)), [("points", 3.0, Some(2.0))]);
    let other = numbers(&[(10, 1.0), (20, 6.0), (30, 2.0)]);
    assert_eq!(shown(&compare_levels(&expected, &other)), [("value", 8.0, Some(9.0))]);
    assert_eq!(shown(&compare_levels(&expected, &BTreeMap::new())), [("points", 3.0, Some(0.0))]);
}

#[test]
fn increases_are_those_after_the_first_sample() {
    let added = numbers(&[(10, 7.0), (20, 5.0), (30, 2.0)]);
    let totals = |base: f64| numbers(&[(10, base), (20, base + 5.0), (30, base + 7.0)]);
    assert_eq!(shown(&compare_increase(&added, &totals(1000.0))), []);
    let with_zero = numbers(&[(1, 0.0), (10, 7.0), (20, 12.0), (30, 14.0)]);
    assert_eq!(shown(&compare_increase(&added, &with_zero)), []);
    let begun_anew = numbers(&[(10, 1000.0), (20, 5.0), (30, 7.0)]);
    assert_eq!(shown(&compare_increase(&added, &begun_anew)), []);
    let lost = numbers(&[(10, 1000.0), (20, 1000.0), (30, 1002.0)]);
    assert_eq!(shown(&compare_increase(&added, &lost)), [("increase", 7.0, Some(2.0))]);
    let missing = numbers(&[(10, 1000.0), (30, 1007.0)]);
    assert_eq!(shown(&compare_increase(&added, &missing)), [("points", 3.0, Some(2.0))]);
    let falling = numbers(&[(10, 7.0), (20, -5.0), (30, 2.0)]);
    let fallen = numbers(&[(10, 100.0), (20, 95.0), (30, 97.0)]);
    assert_eq!(shown(&compare_increase(&falling, &fallen)), []);
    assert_eq!(shown(&compare_increase(&added, &BTreeMap::new())), [("points", 3.0, Some(0.0))]);
    let grown = compare_increase(&numbers(&[(10, 7.0)]), &numbers(&[(10, 7.0), (20, 9.0)]));
    assert!(matches!(grown[..], [NumberPair { expected, .. }] if expected.is_sign_positive()), "{grown:?}");
}

#[test]
fn answers_are_read_with_numbers_and_histograms() {
    let text = r#"{"status":"success","data":{"resultType":"matrix","result":[
        {"metric":{"__name__":"hits_total","task":"web"},"values":[[9.999,"1"],[10,"2"],[10.001,"NaN"],[20.000,"3.5"],[21,"9"]]},
        {"metric":{"__name__":"load_seconds","task":"web"},"histograms":[[20,{"count":"4","sum":"0.5","buckets":[]}]]}]}}"#;
    let mut found = HashMap::new();
    let answer: PrometheusAnswer = serde_json::from_str(text).unwrap();
    answer.read_into((10_000, 20_000), &mut found).unwrap();
    let hits = series(&[("__name__", "hits_total"), ("task", "web")]);
    assert_eq!(found[&hits], numbers(&[(10_000, 2.0), (20_000, 3.5)]));
    let load = series(&[("__name__", "load_seconds"), ("task", "web")]);
    for (number, value) in [(SampleNumber::HistogramCount, 4.0), (SampleNumber::HistogramSum, 0.5)] {
        assert_eq!(found[&SampleSeries { number, ..load.clone() }], numbers(&[(20_000, value)]));
    }
    let refused: PrometheusAnswer =
        serde_json::from_str(r#"{"status":"error","errorType":"bad_data","error":"parse"}"#).unwrap();
    let error = refused.read_into((0, 1), &mut HashMap::new()).unwrap_err().to_string();
    assert_eq!(error, "a query is answered with: parse");
    let empty: PrometheusAnswer = serde_json::from_str("{}").unwrap();
    assert!(empty.read_into((0, 1), &mut HashMap::new()).is_err());
}
