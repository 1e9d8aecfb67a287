use super::super::live::tests::sample_record;
use super::*;
use crate::model::Timestamp;

fn args(more: &[&str]) -> PlotArgs {
    use clap::Parser as _;
    let words = [&["tallyport", "metrics", "plot", "web.1", "hits"], more].concat();
    match super::super::args::Cli::try_parse_from(words).unwrap().command {
        super::super::args::Command::Metrics { command: super::super::args::MetricsCommand::Plot(args) } => {
            args
        }
        other => panic!("{other:?}"),
    }
}

fn series(records: Vec<LiveRecord>) -> LiveSeries {
    let mut live = LiveSeries::default();
    live.add_records(records);
    live
}

fn point(start: i64, value: f64) -> PlotPoint {
    PlotPoint {
        start: Timestamp::from_secs(start),
        end: Timestamp::from_secs(start + 10),
        value,
        open: false,
    }
}

/// The plot as text.
fn plotted(points: &[PlotPoint], width: u16, height: u16) -> Vec<String> {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    SeriesPlot::new(points, area).render_plot(area, &mut buffer);
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn of_several_series_the_one_with_exactly_these_tags_is_chosen() {
    let tagged = |tags: serde_json::Value| sample_record("hits", 0, &serde_json::json!({"tags": tags}));
    let live = series(vec![
        tagged(serde_json::json!({"route": "/pay"})),
        tagged(serde_json::json!({"code": "500", "route": "/pay"})),
    ]);
    let matching: Vec<_> = live.all_series().iter().collect();
    let (id, _) = choose_series(&args(&["--tag", "route=/pay"]), "web.1", &matching).unwrap();
    assert_eq!(id.tags, "route:/pay");
    let (id, _) =
        choose_series(&args(&["--tag", "route:/pay", "--tag", "code=500"]), "web.1", &matching).unwrap();
    assert_eq!(id.tags, "code:500,route:/pay");
    let failure = choose_series(&args(&[]), "web.1", &matching).unwrap_err().to_string();
    assert!(
        failure.starts_with("2 series match \"hits\":\n    hits  counter  code:500,route:/pay"),
        "{failure}"
    );
}

#[test]
fn a_field_that_the_type_does_not_have_is_an_error_that_lists_those_it_has() {
    let live =
        series(vec![sample_record("hits", 0, &serde_json::json!({"agg": {"samples": 4, "rate": 0.5}}))]);
    let (id, windows) = live.all_series().iter().next().unwrap();
    assert_eq!(collect_points(PlotField::Rate, id, windows).unwrap()[0].value, 0.5);
    let failure = format!("{:?}", collect_points(PlotField::P99, id, windows).unwrap_err());
    assert!(failure.contains("a counter has no p99") && failure.contains("value, rate, count"), "{failure}");
}

#[test]
fn a_plot_has_round_values_times_and_a_gap_for_missing_windows() {
    let points: Vec<_> = [0, 1, 2, 6, 7, 8].map(|n| point(n * 10, n as f64 * 10.0)).to_vec();
    let lines = plotted(&points, 60, 12);
    let text = lines.join("\n");
    for label in ["100", "50", "0", "00:00:10", "00:01:30"] {
        assert!(text.contains(label), "{label}:\n{text}");
    }
    // The columns in the middle have no point.
    let middle = |line: &String| line.chars().skip(28).take(6).all(|c| c == ' ');
    assert!(lines[..10].iter().all(middle), "{text}");
}

#[test]
fn the_open_window_is_marked() {
    let points = [point(0, 4.0), point(10, 8.0), PlotPoint { open: true, ..point(20, 3.0) }];
    let text = plotted(&points, 40, 10).join("\n");
    assert_eq!(text.matches('•').count(), 1, "{text}");
    assert_eq!(describe_points(&points), "last 8  min 4  max 8  open • 3  windows of 10 s: 2, UTC");
}

#[test]
fn any_numbers_can_be_plotted_at_any_size() {
    let numbers = [
        vec![0.0],
        vec![-3.0, -3.0],
        vec![1e-9, 2e-9],
        vec![f64::MAX, f64::MIN],
        vec![1e308, 1.1e308],
        vec![5e-324],
        vec![999.0, 1000.0, 1001.0],
    ];
    for values in numbers {
        let points: Vec<_> = values.iter().zip(0..).map(|(value, n)| point(n * 10, *value)).collect();
        for (width, height) in [(1, 1), (2, 2), (8, 3), (20, 5), (80, 24), (200, 50)] {
            assert_eq!(plotted(&points, width, height).len(), usize::from(height), "{values:?}");
        }
        let text = plotted(&points, 80, 24).join("");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{values:?}: {text}");
    }
}

#[test]
fn a_rate_is_per_second_of_the_time_in_which_the_container_listened() {
    let live = series(vec![sample_record("hits", 0, &serde_json::json!({"type": "timer", "covered": 4.0}))]);
    let windows = live.all_series().values().next().unwrap();
    assert_eq!(list_points(PlotField::Rate, windows)[0].value, 5.0);
    assert_eq!(list_points(PlotField::Count, windows)[0].value, 20.0);
}

#[test]
fn a_window_that_has_only_just_opened_has_no_rate() {
    let opened = |covered: f64| {
        let agg = serde_json::json!({"samples": 1, "rate": 1.0 / covered});
        let more = serde_json::json!({"open": true, "covered": covered, "agg": agg});
        series(vec![sample_record("hits", 0, &serde_json::json!({})), sample_record("hits", 10, &more)])
    };
    let rates = |live: &LiveSeries| -> Vec<f64> {
        let windows = live.all_series().values().next().unwrap();
        list_points(PlotField::Rate, windows).iter().map(|point| point.value).collect()
    };
    assert_eq!(rates(&opened(0.039)), [2.0]);
    assert_eq!(rates(&opened(2.5)), [2.0, 0.4]);
    let live = opened(0.039);
    let windows = live.all_series().values().next().unwrap();
    assert_eq!(list_points(PlotField::Count, windows).len(), 2, "other numbers are exact from the start");
}
