use super::*;

fn series(measurement: &str, tags: &[(&str, &str)]) -> PointSeries {
    let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    PointSeries { measurement: measurement.to_owned(), tags }
}

fn expected() -> BTreeMap<PointSeries, PointSums> {
    let mut points: BTreeMap<PointSeries, PointSums> = BTreeMap::new();
    let mut add = |series: &PointSeries, numbers: &[(&str, f64)]| {
        let numbers: Vec<_> = numbers.iter().map(|(key, number)| ((*key).to_owned(), *number)).collect();
        points.entry(series.clone()).or_default().add_point(&numbers);
    };
    let hits = series("hits", &[("metric_type", "counter"), ("route", "/pay"), ("task", "web.1")]);
    add(&hits, &[("value", 3.0), ("count", 2.0)]);
    add(&hits, &[("value", -1.0), ("count", 1.0)]);
    add(
        &series("load time", &[("metric_type", "timer"), ("task", "o'brien")]),
        &[("value", 7.0), ("sum", 14.0)],
    );
    points
}

/// What a database answers to the statements of [`expected`].
fn answer(hits: &str, load: &str) -> HashMap<PointSeries, FoundSums> {
    let columns = r#""columns":["time","points","value","count","sum"]"#;
    let text = format!(
        r#"{{"results":[{{"statement_id":0,"series":[{{"name":"hits","tags":{{"metric_type":"counter","other":"","route":"/pay",
        "task":"web.1"}},{columns},"values":[[1,{hits}]]}}]}},{{"statement_id":1,"series":[{{"name":"load time","tags":
        {{"metric_type":"timer","task":"o'brien"}},{columns},"values":[[1,{load}]]}}]}}]}}"#
    );
    let mut found = HashMap::new();
    let answer: InfluxAnswer = serde_json::from_str(&text).unwrap();
    assert_eq!(answer.read_into(&mut found), None);
    found
}

fn differences(comparison: &DeliveryComparison) -> Vec<(String, String, f64, Option<f64>)> {
    let of = comparison.differences.iter();
    of.map(|it| (it.name.clone(), it.what.to_string(), it.expected, it.found)).collect()
}

#[test]
fn statements_name_each_measurement_once_and_its_identities() {
    let statements = build_statements(&expected(), (1000, 21_000));
    assert_eq!(
        statements,
        [
            "SELECT count(\"value\") AS \"points\", sum(\"value\") AS \"value\", sum(\"count\") AS \"count\", sum(\"sum\") AS \"sum\" \
             FROM \"hits\" WHERE ((\"task\" = 'web.1')) AND time >= 1000ms AND time <= 21000ms GROUP BY *",
            "SELECT count(\"value\") AS \"points\", sum(\"value\") AS \"value\", sum(\"count\") AS \"count\", sum(\"sum\") AS \"sum\" \
             FROM \"load time\" WHERE ((\"task\" = 'o\\'brien')) AND time >= 1000ms AND time <= 21000ms GROUP BY *",
        ]
    );
    assert_eq!(quote_name("a\"b\\"), "\"a\\\"b\\\\\"");
    assert_eq!((count_fitting(&statements, true), count_fitting(&statements, false)), (2, 1));
    let long = vec!["x".repeat(LONG_QUERY / 2); 5];
    assert_eq!((count_fitting(&long, true), count_fitting(&["x".repeat(LONG_QUERY * 2)], true)), (2, 1));
    let many: BTreeMap<_, _> =
        (0..120).map(|n| (series("hits", &[("task", &format!("t{n}"))]), PointSums::default())).collect();
    assert_eq!(build_statements(&many, (0, 1)).len(), 3);
}

#[test]
fn what_a_database_holds_is_the_same() {
    let same = compare_points(&expected(), answer("2,2,3,null", "1,7,null,14"));
    assert_eq!((same.series, same.differing), (2, 0), "{same:?}");
}

#[test]
fn every_number_that_differs_is_named() {
    let other = compare_points(&expected(), answer("1,3,3,null", "1,7,null,null"));
    let named = |name: &str, what: &str, expected, found| (name.to_owned(), what.to_owned(), expected, found);
    assert_eq!(
        differences(&other),
        [
            named("hits", "points", 2.0, Some(1.0)),
            named("hits", "value", 2.0, Some(3.0)),
            named("load time", "sum", 14.0, None),
        ]
    );
    assert_eq!((other.series, other.differing), (2, 2));
    let missing = compare_points(&expected(), HashMap::new());
    assert_eq!(
        differences(&missing),
        [named("hits", "points", 2.0, Some(0.0)), named("load time", "points", 1.0, Some(0.0))]
    );
    let mut more = answer("2,2,3,null", "1,7,null,14");
    more.insert(
        series("hits", &[("task", "web.1")]),
        FoundSums { points: Some(4.0), ..FoundSums::default() },
    );
    assert_eq!(differences(&compare_points(&expected(), more)), [named("hits", "points", 0.0, Some(4.0))]);
}

#[test]
fn an_error_of_one_statement_ends_what_an_answer_has() {
    let text = r#"{"results":[{"statement_id":0,"series":[{"name":"hits","columns":["time","points"],"values":[[1,2]]}]},
        {"statement_id":1,"error":"unsupported sum iterator type"},{"statement_id":2,"error":"not executed"}]}"#;
    let answer: InfluxAnswer = serde_json::from_str(text).unwrap();
    let mut found = HashMap::new();
    assert_eq!(answer.read_into(&mut found), Some((1, "unsupported sum iterator type".to_owned())));
    assert_eq!(found[&series("hits", &[])].points, Some(2.0));
    for text in ["{\"results\":[{\"series\":[{\"name\":1}]}]}", "[]", "<html>", ""] {
        assert!(serde_json::from_str::<InfluxAnswer>(text).is_err(), "{text}");
    }
}
