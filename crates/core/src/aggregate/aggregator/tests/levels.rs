//! Levels and totals: the base to which changes are added, and how long each is kept.

use super::*;

fn idle_after_a_minute(change: impl FnOnce(&mut Limits)) -> Bench {
    let mut settings =
        AggregatorSettings { series_idle: Duration::from_mins(1), ..AggregatorSettings::default() };
    change(&mut settings.limits);
    Bench::with(settings)
}

/// The names of the counters in the newest ledger and their totals.
fn totals(bench: &Bench) -> Vec<(String, f64)> {
    let ledger = &bench.windows.last().unwrap().summary.ledger;
    let counters = ledger.iter().filter(|(series, _)| series.metric_type == MetricType::Counter);
    let mut totals: Vec<_> = counters.map(|(series, row)| (series.name.to_string(), row.total)).collect();
    totals.sort_by(|(a, _), (b, _)| a.cmp(b));
    totals
}

fn named(totals: &[(&str, f64)]) -> Vec<(String, f64)> {
    totals.iter().map(|(name, total)| ((*name).to_owned(), *total)).collect()
}

#[test]
fn a_change_stamped_with_the_start_of_the_open_window_is_added_to_the_level() {
    let mut bench = Bench::new();
    bench.send(5_000, "g:10|g").send(6_000, format!("g:+5|g|T{START}")).roll(10_000);
    let level = gauge(bench.last(), "g");
    assert_eq!((level.last, level.max, level.last_at), (15.0, 15.0, moment(5_000).wall));
}

#[test]
fn a_plus_sign_shows_that_changes_are_sent_whatever_marks_lines_have() {
    let mut bench = Bench::signed(AggregatorSettings::default(), GaugeSign::Auto);
    bench.send(4_000, "x:-1|g|#a:b\nx:-1|g|#a:b");
    assert_eq!(gauge(&bench.aggregator.peek_open_window(moment(4_000).wall), "x").last, -1.0);
    bench.send(5_000, "g:10|g").send(6_000, format!("g:+5|g|T{START}")).send(7_000, "g:-1|g|#a:b\ng:-1|g");
    bench.roll(10_000);
    assert_eq!(gauge(bench.last(), "g").last_at, moment(7_000).wall);
    let levels: Vec<_> = bench.last().records().filter(|record| &*record.series.name == "g").collect();
    let of = |tagged: bool| {
        let found = levels.iter().find(|record| record.series.tags.get("a").is_some() == tagged);
        match found.map(|record| record.view) {
            Some(View::Gauge(gauge)) => gauge.last,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((of(false), of(true)), (14.0, -1.0));
}

#[test]
fn a_level_stamped_with_the_second_of_an_earlier_one_replaces_it() {
    let mut bench = Bench::new();
    bench.send(22_450, "lvl:10|g").send(22_800, format!("lvl:20|g|T{}", START + 22));
    bench.send(22_900, format!("lvl:30|g|T{}", START + 21)).roll(30_000);
    assert_eq!(gauge(bench.last(), "lvl").last, 20.0, "an earlier second does not");
}

#[test]
fn a_value_stamped_with_the_second_of_an_earlier_one_is_the_last_of_a_timer() {
    let mut bench = Bench::new();
    bench.send(2_450, "t:10|ms").send(2_800, format!("t:20|ms|T{}", START + 2)).roll(10_000);
    match record(bench.last(), "t").map(|record| record.view) {
        Some(View::Distribution { summary, .. }) => assert_eq!((summary.first, summary.last), (10.0, 20.0)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_late_level_of_the_same_second_replaces_the_level_that_is_carried() {
    let mut bench = Bench::new();
    bench.send(9_450, "lvl:10|g").send(12_000, format!("lvl:20|g|T{}", START + 9)).roll(20_000);
    assert_eq!(gauge(bench.last(), "lvl").last, 20.0);
}

#[test]
fn a_change_after_a_long_silence_is_added_to_the_level() {
    let mut bench = idle_after_a_minute(|_| {});
    bench.send(0, "conns:+5|g").send(67_000, "conns:-1|g").roll(70_000);
    assert_eq!(gauge(bench.last(), "conns").last, 4.0);
    bench.send(3_600_000, "conns:-1|g").roll(3_610_000);
    assert_eq!(gauge(bench.last(), "conns").last, 3.0);
}

#[test]
fn a_counter_that_is_silent_keeps_its_total_while_its_container_lives() {
    let mut bench = idle_after_a_minute(|_| {});
    bench.send(0, "disk.errors:1|c").send(300_000, "other:1|c").roll(310_000);
    assert_eq!(totals(&bench), named(&[("disk.errors", 1.0), ("other", 1.0)]));
    bench.send(320_000, "disk.errors:1|c").roll(330_000);
    assert_eq!(counter(bench.last(), "disk.errors"), (1.0, 2.0));
}

#[test]
fn at_the_series_limit_the_least_recently_updated_idle_series_makes_room_and_returns_with_a_new_start() {
    let mut bench = idle_after_a_minute(|limits| limits.series = 3);
    bench.send(0, "a:5|c").send(10_000, "b:5|c").send(20_000, "c:5|c").send(200_000, "d:1|c").roll(210_000);
    assert_eq!(totals(&bench), named(&[("b", 5.0), ("c", 5.0), ("d", 1.0)]));
    bench.send(220_000, "a:2|c").roll(230_000);
    assert_eq!(totals(&bench), named(&[("a", 2.0), ("c", 5.0), ("d", 1.0)]));
    assert_eq!(record(bench.last(), "a").unwrap().series.created, moment(220_000).wall);
    assert_eq!(bench.aggregator.accounting().dropped.total_count(), 0);
}

#[test]
fn a_signed_gauge_on_a_line_with_dogstatsd_marks_is_a_level() {
    let mut bench = Bench::signed(AggregatorSettings::default(), GaugeSign::default());
    for poll in 0..8 {
        bench.send(poll * 1_000, "jvm.memory.max:-1|g|#area:heap,id:g1");
    }
    bench.send(8_000, "plain:+3|g\nplain:+3|g").roll(10_000);
    assert_eq!(gauge(bench.last(), "jvm.memory.max").last, -1.0);
}

#[test]
fn levels_are_known_again_to_an_aggregator_that_recalls_them() {
    let mut bench = Bench::new();
    bench.send(1_000, "conns:+5|g\nplain:7|g").roll(400_000);
    let mut after = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(400_000).wall);
    let summary = &bench.windows.last().unwrap().summary;
    after.restore_from_summary(summary, &summary.lasting);
    after.ingest_datagram(b"conns:-1|g", moment(401_000), None);
    let window = after.roll_window(moment(410_000).wall).unwrap().window;
    assert_eq!(gauge(&window, "conns").last, 4.0);
}

#[test]
fn a_counter_is_known_to_have_been_counted_down_for_as_long_as_it_lives() {
    let mut bench = Bench::new();
    let known = |bench: &Bench, name: &str| {
        let ledger = &bench.windows.last().unwrap().summary.ledger;
        let decremented = ledger.iter().find(|(series, _)| &*series.name == name).unwrap().1.decremented;
        let shown = record(bench.last(), name).map(|record| record.view);
        (decremented, matches!(shown, Some(View::Counter { counter, .. }) if counter.decremented))
    };
    bench.send(0, "jobs:100|c\nhits:-0|c").roll(10_000);
    assert_eq!((known(&bench, "jobs"), known(&bench, "hits")), ((false, false), (false, false)));
    bench.send(10_000, "jobs:-1|c\njobs:7|c").roll(20_000);
    assert_eq!(known(&bench, "jobs"), (true, true));
    bench.send(20_000, "jobs:1|c\nhits:1|c").roll(30_000);
    assert_eq!((known(&bench, "jobs"), known(&bench, "hits")), ((true, true), (false, false)));
    let again = Aggregator::from_snapshot(Arc::default(), &bench.aggregator.encode_snapshot()).unwrap();
    assert!(again.build_summary().ledger.iter().any(|(_, row)| row.decremented && row.total == 107.0));
    bench.send(30_000, format!("hits:-1|c|T{}", START + 5)).roll(40_000);
    assert!(known(&bench, "hits").0, "late values count");
    let named: Vec<_> =
        bench.aggregator.decremented_series().iter().map(|series| series.name.to_string()).collect();
    assert_eq!(named, ["jobs", "hits"]);
}

#[test]
fn levels_and_totals_of_what_was_counted_down_are_known_beside_windows_once_these_do_not_show_them() {
    let mut bench = Bench::new();
    let lasting = |bench: &Bench| {
        let lasting = &bench.windows.last().unwrap().summary.lasting;
        let mut shown: Vec<_> =
            lasting.iter().map(|last| (last.series.name.to_string(), last.value)).collect();
        shown.sort_by(|(a, _), (b, _)| a.cmp(b));
        shown
    };
    bench.send(1_000, "g:7|g\njobs:5|c\njobs:-2|c\nhits:1|c").roll(10_000);
    assert_eq!(lasting(&bench), []);
    bench.roll(20_000);
    assert_eq!(lasting(&bench), named(&[("jobs", 3.0)]), "the gauge is carried");
    bench.roll(310_000);
    assert_eq!(lasting(&bench), named(&[("g", 7.0), ("jobs", 3.0)]));
    let before = Arc::clone(&bench.windows.last().unwrap().summary.lasting);
    bench.roll(320_000);
    assert!(Arc::ptr_eq(&before, &bench.windows.last().unwrap().summary.lasting));
}

#[test]
fn a_batch_finds_no_place_that_an_idle_series_has_left_to_another() {
    let mut bench = idle_after_a_minute(|limits| limits.series = 2);
    bench.send(0, "old:5|c\nkept:1|c").send(70_000, "kept:1|c");
    // All are looked up before the first is inserted, which takes the place of the old one.
    bench.send(130_000, "new:1|c\nold:2|c\nkept:1|c").roll(140_000);
    let mut all = totals(&bench);
    all.retain(|(name, _)| name != OVERFLOW);
    assert_eq!(all, named(&[("kept", 3.0), ("new", 1.0)]));
    assert_eq!(counter(bench.last(), OVERFLOW).0, 2.0, "there is no room for the old one");
    assert_eq!(bench.aggregator.accounting().evicted, 1);
}

#[test]
fn a_new_series_takes_the_place_of_one_and_a_burst_takes_hardly_more_than_it_needs() {
    let mut bench = idle_after_a_minute(|limits| limits.series = 1_000);
    for n in 0..1_000 {
        bench.send(n, format!("old{n}:1|c"));
    }
    bench.send(130_000, "new:1|c");
    assert_eq!((bench.aggregator.series_count(), bench.aggregator.accounting().evicted), (1_000, 1));
    for n in 0..400 {
        bench.send(131_000, format!("new{n}:1|c"));
    }
    let evicted = bench.aggregator.accounting().evicted;
    assert!((401..450).contains(&evicted), "{evicted}");
    assert_eq!(bench.aggregator.accounting().folded, 0);
}

#[test]
fn idle_series_give_their_memory_to_those_in_use() {
    let mut bench = idle_after_a_minute(|limits| limits.memory = 200 << 10);
    for n in 0..2000 {
        bench.send(1_000, format!("some.long.name.of.a.timer.{n}:1|ms"));
    }
    let full = bench.aggregator.series_count();
    bench.roll(120_000);
    assert!(bench.aggregator.series_count() < full && bench.aggregator.memory_bytes() < 200 << 10);
}

#[test]
fn timers_in_seconds_are_kept_in_milliseconds_whichever_way_they_are_read() {
    let aggregator = Aggregator::new(Arc::default(), GaugeSign::Auto, moment(0).wall);
    let mut bench = Bench { aggregator: aggregator.with_timer_unit(TimerUnit::Seconds), windows: Vec::new() };
    bench.send(1_000, "t:0.1|ms").send(1_100, "t:0.1|ms\nt:0.1:0.1|ms\nh:0.1|h");
    bench.send(12_000, format!("t:0.5|ms|T{}\nt:0.5:1e306|ms|T{}", START + 2, START + 11)).roll(20_000);
    let sum = |window: &Window, name: &str| match record(window, name).map(|record| record.view) {
        Some(View::Distribution { summary, .. }) => (summary.samples, summary.sum),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (sum(&bench.windows[0].window, "t"), sum(&bench.windows[0].window, "h")),
        ((4, 400.0), (1, 0.1))
    );
    assert_eq!(sum(&bench.windows[1].revisions[0], "t"), (1, 500.0));
    assert_eq!(sum(bench.last(), "t"), (2, f64::MAX));
}

#[test]
fn timers_below_one_with_fractions_look_like_seconds_until_one_does_not() {
    let mut bench = Bench::new();
    let looks = |bench: &Bench| bench.aggregator.habits().timers_look_like_seconds();
    bench.send(0, "t:0|ms\nh:0.5|h").roll(10_000);
    assert!(!looks(&bench), "a zero is a zero in every unit, and histograms have none");
    bench.send(10_000, "t:0.25|ms").roll(20_000);
    assert!(looks(&bench));
    bench.send(20_000, "u:12|ms").roll(30_000);
    assert!(!looks(&bench));
}

#[test]
fn changes_before_the_first_mark_of_dogstatsd_are_counted_and_what_follows_is_a_level() {
    let mut bench = Bench::signed(AggregatorSettings::default(), GaugeSign::Auto);
    bench.send(0, "g:-5|g\ng:-5|g");
    assert_eq!((bench.aggregator.habits().dogstatsd, bench.aggregator.habits().gauge_changes), (false, 2));
    bench.send(1_000, "g:-5|g\nother:1|c|c:abc\ng:-3|g").roll(10_000);
    assert_eq!(gauge(bench.last(), "g").last, -3.0);
    assert_eq!((bench.aggregator.habits().dogstatsd, bench.aggregator.habits().gauge_changes), (true, 3));
    let again = Aggregator::from_snapshot(Arc::default(), &bench.aggregator.encode_snapshot()).unwrap();
    assert_eq!(again.habits(), bench.aggregator.habits());
}
