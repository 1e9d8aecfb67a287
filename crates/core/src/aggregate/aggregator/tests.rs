use super::*;
use crate::aggregate::{Limits, Record, View, Window};
use crate::statsd::TagStyles;

/// 2026-01-01T00:00:00Z, a window boundary.
const START: i64 = 1_767_225_600;

fn moment(millis: u64) -> Moment {
    let mono = Duration::from_millis(millis);
    Moment { wall: Timestamp::from_secs(START).saturating_add(mono), mono }
}

/// An aggregator and its time.
struct Bench {
    aggregator: Aggregator,
    windows: Vec<ClosedWindow>,
}

impl Bench {
    fn with(settings: AggregatorSettings) -> Self {
        Self::signed(settings, GaugeSign::Delta)
    }

    fn signed(settings: AggregatorSettings, sign: GaugeSign) -> Self {
        Self { aggregator: Aggregator::new(Arc::new(settings), sign, moment(0).wall), windows: Vec::new() }
    }

    fn new() -> Self {
        Self::with(AggregatorSettings::default())
    }

    fn limited(change: impl FnOnce(&mut Limits)) -> Self {
        let mut settings = AggregatorSettings::default();
        change(&mut settings.limits);
        Self::with(settings)
    }

    fn send(&mut self, millis: u64, datagram: impl AsRef<[u8]>) -> &mut Self {
        self.roll(millis);
        self.aggregator.ingest_datagram(datagram.as_ref(), moment(millis), None);
        self.checked()
    }

    /// Closes every window in between on time, as the shard's tick does.
    fn roll(&mut self, millis: u64) -> &mut Self {
        while self.aggregator.window_end() <= moment(millis).wall {
            self.windows.extend(self.aggregator.roll_window(self.aggregator.window_end()));
        }
        self.checked()
    }

    /// Advances the time as if the tick were late.
    fn jump(&mut self, millis: u64) -> &mut Self {
        self.windows.extend(self.aggregator.roll_window(moment(millis).wall));
        self.checked()
    }

    fn checked(&mut self) -> &mut Self {
        let accounting = self.aggregator.accounting();
        assert!(accounting.is_balanced(self.aggregator.open_values()), "{accounting:?}");
        assert_eq!(self.aggregator.open_values(), self.aggregator.recount_open_values());
        self
    }

    fn last(&self) -> &Window {
        &self.windows.last().expect("a window was closed").window
    }
}

fn record<'w>(window: &'w Window, name: &str) -> Option<Record<'w>> {
    window.records().find(|record| &*record.series.name == name)
}

fn counter(window: &Window, name: &str) -> (f64, f64) {
    match record(window, name).map(|record| record.view) {
        Some(View::Counter { counter, total }) => (counter.sum, total),
        other => panic!("{other:?}"),
    }
}

fn gauge(window: &Window, name: &str) -> crate::aggregate::Gauge {
    match record(window, name).map(|record| record.view) {
        Some(View::Gauge(gauge)) => gauge,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_window_holds_what_arrived_in_it_and_nothing_else() {
    let mut bench = Bench::new();
    bench.send(1_000, "a:1|c\nb:5|g\nc:3|ms").send(9_999, "a:2|c").send(10_000, "a:4|c").roll(20_000);
    let [first, second] = &bench.windows[..] else { panic!("two windows were closed") };
    assert_eq!(counter(&first.window, "a"), (3.0, 3.0));
    assert_eq!(counter(&second.window, "a"), (4.0, 7.0));
    assert_eq!(first.window.len(), 3);
    assert!(record(&second.window, "c").is_none());
}

#[test]
fn a_window_knows_how_much_of_it_was_observed() {
    let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(3_500).wall);
    let first = aggregator.roll_window(moment(10_020).wall).unwrap().window.span;
    assert_eq!((first.start, first.end), (moment(0).wall, moment(10_000).wall));
    assert_eq!((first.covered, first.is_partial()), (Duration::from_millis(6_500), true));
    let last = aggregator.close_final_window(moment(14_000).wall).window.span;
    assert_eq!(
        (last.start, last.covered, last.is_partial()),
        (moment(10_000).wall, Duration::from_secs(4), true)
    );
    let mut whole = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
    assert!(!whole.roll_window(moment(10_000).wall).unwrap().window.span.is_partial());
}

#[test]
fn a_pause_closes_one_window_and_opens_the_one_that_holds_now() {
    let mut bench = Bench::new();
    bench.send(1_000, "a:1|c").jump(75_000).send(75_000, "a:1|c");
    assert_eq!(bench.windows.len(), 1);
    assert_eq!(bench.aggregator.window_end(), moment(80_000).wall);
}

#[test]
fn tags_in_any_order_are_one_series_and_a_fifth_spelling_still_finds_it() {
    let mut bench = Bench::new();
    for tags in
        ["a:1,b:2,c:3", "b:2,a:1,c:3", "c:3,a:1,b:2", "c:3,b:2,a:1", "b:2,c:3,a:1", ",b:2,,c:3,a:1,a:1"]
    {
        bench.send(0, format!("x:1|c|#{tags}"));
    }
    bench.roll(10_000);
    assert_eq!((bench.last().len(), bench.aggregator.series_count()), (1, 1));
    assert_eq!(counter(bench.last(), "x").0, 6.0);
}

#[test]
fn types_of_one_name_are_series_of_their_own() {
    let mut bench = Bench::new();
    bench.send(0, "x:1|c\nx:2|g\nx:3|ms\nx:4|h\nx:5|d\nx:a|s\n_sc|x|0").roll(10_000);
    let types: Vec<_> = bench.last().records().map(|record| record.series.metric_type).collect();
    assert_eq!(types.len(), 7);
    assert_eq!(types.iter().collect::<std::collections::BTreeSet<_>>().len(), 7);
}

#[test]
fn a_sampled_value_counts_as_many_as_it_stands_for() {
    let mut bench = Bench::new();
    bench.send(0, "a:3|c|@0.1\nt:5:7|ms|@0.5\ns:x|s|@0.25\ng:9|g|@0.5").roll(10_000);
    assert_eq!(counter(bench.last(), "a").0, 30.0);
    match record(bench.last(), "t").map(|record| record.view) {
        Some(View::Distribution { summary, .. }) => {
            assert_eq!((summary.samples, summary.count.as_f64(), summary.sum), (2, 4.0, 24.0));
        }
        other => panic!("{other:?}"),
    }
    let level = gauge(bench.last(), "g");
    assert_eq!((level.last, level.count.as_f64()), (9.0, 2.0));
    assert_eq!(record(bench.last(), "s").unwrap().view.cardinality(), Some(1.0));
}

#[test]
fn a_gauge_is_carried_for_five_minutes_and_its_base_longer() {
    let mut bench = Bench::new();
    bench.send(1_000, "g:10|g").roll(20_000);
    let carried = gauge(bench.last(), "g");
    assert_eq!((carried.samples, carried.last, carried.last_at), (0, 10.0, moment(1_000).wall));
    for second in 2..=30 {
        bench.roll(second * 10_000);
    }
    assert!(record(bench.last(), "g").is_some(), "299 s old");
    bench.roll(310_000);
    assert!(record(bench.last(), "g").is_none(), "309 s old");
    bench.send(320_000, "g:-3|g").roll(330_000);
    assert_eq!(gauge(bench.last(), "g").last, 7.0);
}

#[test]
fn the_sign_of_a_gauge_is_an_option_of_the_container() {
    let mut bench = Bench::signed(AggregatorSettings::default(), GaugeSign::Absolute);
    bench.send(0, "g:10|g\ng:-3|g").roll(10_000);
    assert_eq!(gauge(bench.last(), "g").last, -3.0);
}

#[test]
fn a_set_idle_for_an_hour_is_dropped_and_what_has_a_level_or_a_total_is_not() {
    let mut bench = Bench::new();
    bench.send(0, "a:5|c\ng:5|g\nt:5|ms\n_sc|up|0\ns:a|s");
    for minute in 1..=60 {
        bench.send(minute * 60_000, "busy:1|c");
    }
    assert_eq!(bench.aggregator.series_count(), 6);
    bench.roll(3_610_000);
    assert_eq!(bench.aggregator.series_count(), 5, "the set is gone");
    bench.send(3_620_000, "s:a|s").roll(3_630_000);
    assert_eq!(record(bench.last(), "s").unwrap().series.created, moment(3_620_000).wall);
}

#[test]
fn a_dropped_series_frees_its_place_under_the_limit() {
    let mut bench = Bench::limited(|limits| limits.series = 1);
    bench.send(0, "a:1|g").jump(3_610_000).send(3_611_000, "b:1|g").roll(3_620_000);
    assert!(record(bench.last(), "b").is_some());
    assert_eq!(bench.aggregator.accounting().dropped.total_count(), 0);
}

#[test]
fn a_late_sample_revises_its_window_and_an_older_one_is_dropped() {
    let mut bench = Bench::new();
    bench.send(1_000, "a:1|c").send(25_000, format!("a:5|c|T{}\nt:7|ms|T{}", START + 2, START + 12));
    bench.roll(30_000);
    let revisions = &bench.windows.last().unwrap().revisions;
    let starts: Vec<_> = revisions.iter().map(|window| window.span.start).collect();
    assert_eq!(starts, [moment(0).wall, moment(10_000).wall]);
    assert_eq!(counter(&revisions[0], "a"), (5.0, 6.0));
    bench.send(400_000, format!("a:1|c|T{START}"));
    let late: Vec<_> = bench.aggregator.accounting().dropped.iter().collect();
    assert_eq!(late, [(Dropped::Late, 1)]);
}

#[test]
fn totals_go_up_in_the_order_in_which_records_are_made() {
    let mut bench = Bench::new();
    bench.send(1_000, "a:1|c").send(12_000, format!("a:4|c\na:2|c|T{}", START + 3));
    assert_eq!(
        counter(&bench.aggregator.peek_open_window(moment(12_000).wall), "a"),
        (4.0, 7.0),
        "late ones included"
    );
    bench.roll(20_000);
    let closed = bench.windows.last().unwrap();
    assert_eq!(counter(&closed.revisions[0], "a"), (2.0, 3.0), "revisions are published first");
    assert_eq!(counter(&closed.window, "a"), (4.0, 7.0));
}

#[test]
fn a_total_saturates_before_its_window_is_closed() {
    let mut bench = Bench::new();
    bench.send(1_000, "a:1.7e308|c").send(12_000, "a:1.7e308|c");
    assert_eq!(counter(&bench.aggregator.peek_open_window(moment(12_000).wall), "a"), (1.7e308, f64::MAX));
}

#[test]
fn a_timestamp_in_the_open_window_or_a_little_ahead_counts_now() {
    let mut bench = Bench::new();
    bench.send(5_000, format!("a:1|c|T{}\na:2|c|T{}\na:4|c|T{}", START + 3, START + 600, START + 606));
    bench.roll(10_000);
    assert_eq!(counter(bench.last(), "a").0, 3.0);
    let dropped: Vec<_> = bench.aggregator.accounting().dropped.iter().collect();
    assert_eq!(dropped, [(Dropped::Future, 1)]);
}

#[test]
fn a_late_level_does_not_overwrite_a_later_one_but_a_late_change_counts() {
    let mut bench = Bench::new();
    bench
        .send(1_000, "g:10|g")
        .send(21_000, "g:20|g")
        .send(25_000, format!("g:99|g|T{}", START + 2))
        .roll(30_000);
    assert_eq!(gauge(bench.last(), "g").last, 20.0);
    bench.send(35_000, format!("g:+1|g|T{}", START + 2)).roll(40_000);
    assert_eq!(gauge(bench.last(), "g").last, 21.0);
}

#[test]
fn beyond_the_series_limit_counters_fold_and_the_rest_is_dropped() {
    let mut bench = Bench::limited(|limits| limits.series = 2);
    bench.send(0, "a:1|c\nb:1|g");
    for n in 0..50 {
        bench.send(1_000, format!("c{n}:2|c\ng{n}:1:2|g"));
    }
    bench.send(2_000, "a:1|c").roll(10_000);
    assert_eq!(counter(bench.last(), OVERFLOW).0, 100.0);
    assert_eq!(counter(bench.last(), "a").0, 2.0);
    let accounting = bench.aggregator.accounting();
    assert_eq!(accounting.dropped.iter().collect::<Vec<_>>(), [(Dropped::SeriesLimit, 100)]);
    assert_eq!((accounting.folded, bench.aggregator.series_count()), (50, 2));
}

#[test]
fn observing_limits_keeps_everything_and_counts_what_was_over() {
    let mut bench = Bench::limited(|limits| {
        *limits = Limits {
            mode: LimitMode::Observe,
            series: 1,
            name_bytes: 3,
            tags_bytes: 3,
            datagrams_per_second: Some(1),
            ..*limits
        };
    });
    bench.send(0, "a:1|g").send(1, "long.name:1|c|#k:v1").roll(10_000);
    assert_eq!(bench.last().len(), 2);
    let accounting = bench.aggregator.accounting();
    assert_eq!(accounting.dropped.total_count(), 0);
    let over: Vec<_> = accounting.over_limit.iter().map(|(reason, _)| reason).collect();
    assert_eq!(
        over,
        [Dropped::DatagramRate, Dropped::SeriesLimit, Dropped::NameTooLong, Dropped::TagsTooLong]
    );
}

#[test]
fn late_samples_revise_no_more_records_than_their_quota() {
    let mut bench = Bench::limited(|limits| limits.late_records = 2);
    let (first, second) = (START + 1, START + 11);
    bench.send(
        25_000,
        format!("a:1|c|T{first}\na:1|c|T{second}\na:1:2|ms|T{first}\nb:5|g|T{first}\na:2|c|T{first}"),
    );
    let dropped = |bench: &Bench| bench.aggregator.accounting().dropped.iter().collect::<Vec<_>>();
    assert_eq!(dropped(&bench), [(Dropped::LateQuota, 3)]);
    bench.roll(30_000);
    let revised: Vec<_> = bench.windows.last().unwrap().revisions.iter().map(Window::len).collect();
    assert_eq!(revised, [1, 1]);
    bench.send(31_000, format!("b:5|g|T{first}"));
    assert_eq!(dropped(&bench), [(Dropped::LateQuota, 3)], "the next window has a quota of its own");
}

#[test]
fn a_snapshot_takes_the_late_quota_along() {
    let mut bench = Bench::limited(|limits| limits.late_records = 1);
    bench.send(25_000, format!("a:1|c|T{}", START + 1));
    let (settings, bytes) = (Arc::clone(&bench.aggregator.settings), bench.aggregator.encode_snapshot());
    let restored = Aggregator::from_snapshot(settings, &bytes).unwrap();
    let mut bench = Bench { aggregator: restored, windows: Vec::new() };
    bench.send(26_000, format!("b:1|c|T{}", START + 1));
    assert_eq!(bench.aggregator.accounting().dropped.count_for(Dropped::LateQuota), 1);
}

#[test]
fn revisions_that_are_kept_count_as_memory_and_late_samples_stop_at_its_limit() {
    let mut bench = Bench::limited(|limits| limits.memory = 100 << 10);
    bench.send(1_000, "a:1|c").roll(20_000);
    let before = bench.aggregator.memory_bytes();
    let windows: usize = bench.windows.iter().map(|closed| closed.window.bytes()).sum();
    bench.aggregator.set_kept_bytes(200 << 10);
    assert!(bench.aggregator.memory_bytes() > before + (150 << 10), "{}", bench.aggregator.memory_bytes());
    bench.send(25_000, format!("a:1|c|T{}\na:1|c", START + 1));
    let dropped: Vec<_> = bench.aggregator.accounting().dropped.iter().collect();
    assert_eq!(dropped, [(Dropped::MemoryLimit, 1)]);
    bench.roll(30_000).aggregator.set_kept_bytes(windows);
    bench.send(31_000, format!("a:1|c|T{}", START + 1));
    assert_eq!(
        bench.aggregator.accounting().dropped.total_count(),
        1,
        "what is no longer kept counts no more"
    );
}

#[test]
fn a_full_node_takes_no_more_late_records() {
    let mut bench = Bench::new();
    bench.send(1_000, "a:1|c").send(12_000, format!("a:1|c|T{}", START + 1)).aggregator.set_node_full(true);
    bench.send(13_000, format!("a:1|c|T{}\na:1|c", START + 1)).send(25_000, format!("a:1|c|T{}", START + 1));
    assert_eq!(bench.aggregator.accounting().dropped.iter().collect::<Vec<_>>(), [(Dropped::NodeMemory, 1)]);
}

#[test]
fn late_samples_that_wait_are_part_of_the_memory_of_a_restored_container() {
    let mut bench = Bench::new();
    bench.send(1_000, "a:1|s").roll(10_000);
    let members: Vec<_> = (0..500).map(|n| format!("a:m{n}|s|T{}", START + 1)).collect();
    for line in &members {
        bench.send(12_000, line);
    }
    let settings = Arc::clone(&bench.aggregator.settings);
    let restored = Aggregator::from_snapshot(settings, &bench.aggregator.encode_snapshot()).unwrap();
    assert!(restored.late_bytes() > 500 * 8 && restored.memory_bytes() > restored.late_bytes());
    let without = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall).memory_bytes();
    assert!(restored.memory_bytes() > without + 500 * 8);
}

#[test]
fn names_and_tags_have_a_length() {
    let mut bench = Bench::new();
    let (name, tags) = ("n".repeat(1024), "t".repeat(8192));
    bench
        .send(0, format!("{name}:1|c|#{tags}"))
        .send(0, format!("{name}n:1|c"))
        .send(0, format!("x:1:2|ms|#{tags}t"));
    let dropped: Vec<_> = bench.aggregator.accounting().dropped.iter().collect();
    assert_eq!(dropped, [(Dropped::NameTooLong, 1), (Dropped::TagsTooLong, 2)]);
    assert_eq!(bench.aggregator.series_count(), 1);
}

#[test]
fn a_container_that_moves_gets_no_new_tokens() {
    let mut bench = Bench::limited(|limits| limits.datagrams_per_second = Some(1));
    bench.send(0, "a:1|c");
    let same = bench.aggregator.settings.as_ref().clone();
    bench.aggregator.apply_settings(&same);
    bench.send(1, "a:1|c");
    assert_eq!(
        bench.aggregator.accounting().dropped.iter().collect::<Vec<_>>(),
        [(Dropped::DatagramRate, 1)]
    );
}

#[test]
fn datagrams_and_bytes_a_second_have_a_limit() {
    let mut bench = Bench::limited(|limits| limits.datagrams_per_second = Some(10));
    for _ in 0..15 {
        bench.send(0, "a:1|c");
    }
    bench.send(1_000, "a:1|c").roll(10_000);
    assert_eq!(counter(bench.last(), "a").0, 11.0);
    let accounting = bench.aggregator.accounting();
    assert_eq!((accounting.received, accounting.lines), (16, 11));
    assert_eq!(accounting.dropped.iter().collect::<Vec<_>>(), [(Dropped::DatagramRate, 5)]);

    let mut bench = Bench::limited(|limits| limits.bytes_per_second = Some(10));
    bench.send(0, "a:1|c").send(0, "a:1|c").send(0, "a:1|c");
    assert_eq!(bench.aggregator.accounting().dropped.iter().collect::<Vec<_>>(), [(Dropped::ByteRate, 1)]);
}

#[test]
fn memory_has_a_limit_that_counters_and_gauges_get_past() {
    let mut bench = Bench::limited(|limits| limits.memory = 200 << 10);
    bench.send(0, "c:1|c\nt:1|ms");
    for n in 0..2000 {
        bench.send(1_000, format!("some.long.name.of.a.timer.{n}:1|ms"));
    }
    bench.send(2_000, "c:1|c\nt:5|ms").roll(10_000);
    let accounting = bench.aggregator.accounting();
    let dropped: Vec<_> = accounting.dropped.iter().map(|(reason, _)| reason).collect();
    assert_eq!(dropped, [Dropped::MemoryLimit]);
    assert!(bench.aggregator.series_count() < 1_500, "{} series fit", bench.aggregator.series_count());
    assert_eq!(counter(bench.last(), "c").0, 2.0);
}

#[test]
fn beyond_the_memory_limit_known_series_take_no_further_spellings_and_no_late_values() {
    let mut bench = Bench::limited(|limits| limits.memory = 200 << 10);
    bench.send(0, "c:1|c");
    for n in 0..2000 {
        bench.send(1_000, format!("some.long.name.of.a.timer.{n}:1|ms"));
    }
    bench.roll(10_000);
    while bench.aggregator.memory_bytes() < 200 << 10 {
        let n = bench.aggregator.series_count();
        bench.send(11_000, format!("another.{n}:1|g"));
    }
    let memory = bench.aggregator.memory_bytes();
    bench.send(12_000, format!("c:1|c|#{}\nc:1|c|T{}", "a".repeat(4_000), START + 1));
    for n in 0..4 {
        bench.send(12_000, format!("c:1|c|#{}", ",".repeat(1_000 + n)));
    }
    assert!(
        bench.aggregator.memory_bytes() <= memory + 512,
        "{} of {memory}",
        bench.aggregator.memory_bytes()
    );
    bench.roll(20_000);
    assert_eq!(counter(bench.last(), "c").0, 4.0, "what needs no memory still counts");
}

#[test]
fn what_checks_say_counts_as_memory() {
    let mut bench = Bench::limited(|limits| limits.memory = 200 << 10);
    let text = "x".repeat(8_000);
    for n in 0..100 {
        bench.send(n, format!("_sc|check.{n}|1|m:{text}"));
    }
    let dropped: Vec<_> = bench.aggregator.accounting().dropped.iter().collect();
    assert!(matches!(dropped[..], [(Dropped::MemoryLimit, 70..85)]), "{dropped:?}");
    let before = bench.aggregator.memory_bytes();
    bench.roll(10_000);
    assert!(bench.aggregator.memory_bytes() > before + 100_000, "the closed window keeps what they said");
}

#[test]
fn a_full_node_takes_no_new_series() {
    let mut bench = Bench::new();
    bench.send(0, "a:1|g").aggregator.set_node_full(true);
    bench.send(1, "b:1|g").send(2, "a:2|g").send(3, "c:1|c");
    assert_eq!(bench.aggregator.accounting().dropped.iter().collect::<Vec<_>>(), [(Dropped::NodeMemory, 1)]);
    assert_eq!((bench.aggregator.series_count(), bench.aggregator.accounting().folded), (1, 1));
}

#[test]
fn a_bad_line_costs_its_neighbours_nothing_and_is_shown() {
    let mut bench = Bench::new();
    let mut seen = Vec::new();
    let mut tap = |line: &[u8], code: Option<Rejected>| seen.push((line.to_vec(), code));
    bench.aggregator.ingest_datagram(b"a:1|c\nbad\r\n\nb:2|c", moment(0), Some(&mut tap));
    assert_eq!(
        seen,
        [
            (b"a:1|c".to_vec(), None),
            (b"bad".to_vec(), Some(Rejected::MissingType)),
            (b"b:2|c".to_vec(), None)
        ]
    );
    let accounting = bench.checked().aggregator.accounting();
    assert_eq!((accounting.lines, accounting.accepted, accounting.values), (3, 2, 2));
    assert_eq!(bench.aggregator.rejected_lines().iter().next().unwrap().line, b"bad");
}

#[test]
fn an_empty_datagram_is_a_datagram() {
    let mut bench = Bench::new();
    bench.send(0, "");
    let accounting = bench.aggregator.accounting();
    assert_eq!(
        (accounting.received, accounting.lines, accounting.last_datagram),
        (1, 0, Some(moment(0).wall))
    );
}

#[test]
fn replaced_bytes_and_renamed_tags_are_counted() {
    let mut bench = Bench::new();
    bench.send(0, b"x:1|c|#task_id:evil,a:\xff").send(1, b"x:1|c|#task_id:evil,a:\xff").roll(10_000);
    let accounting = bench.aggregator.accounting();
    assert_eq!((accounting.invalid_utf8, accounting.renamed_tags), (2, 1));
    let record = record(bench.last(), "x").unwrap();
    assert_eq!(record.series.tags.get("client_task_id"), Some("evil"));
}

#[test]
fn events_and_checks_go_with_the_window() {
    let mut bench = Bench::new();
    bench.send(0, "_e{3,2}:dep|ok\n_sc|db|0\n_sc|db|2|m:down\n_sc|cache|1").roll(10_000);
    let summary = &bench.windows.last().unwrap().summary;
    assert_eq!(summary.events[0].title, "dep");
    let checks: Vec<_> =
        summary.checks.iter().map(|check| (&*check.series.name, check.outcome.status)).collect();
    assert_eq!(checks, [("db", statsd::CheckStatus::Critical), ("cache", statsd::CheckStatus::Warning)]);
    bench.roll(20_000);
    assert_eq!(bench.windows.last().unwrap().summary.checks.len(), 2, "the last outcome stays known");
    assert!(bench.last().is_empty());
}

#[test]
fn the_ledger_has_every_live_series_since_it_was_created() {
    let mut bench = Bench::new();
    bench.send(0, "a:1|c|@0.5\nt:4|ms").send(12_000, "a:3|c").roll(20_000);
    let ledger = &bench.windows.last().unwrap().summary.ledger;
    let rows: Vec<_> =
        ledger.iter().map(|(series, row)| (&*series.name, row.total, row.count.as_f64())).collect();
    assert_eq!(rows, [("a", 5.0, 3.0), ("t", 4.0, 1.0)]);
}

#[test]
fn peeking_shows_the_open_window_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.send(2_000, "a:1|c");
    let open = bench.aggregator.peek_open_window(moment(4_000).wall);
    assert_eq!((counter(&open, "a"), open.span.covered), ((1.0, 1.0), Duration::from_secs(4)));
    bench.send(5_000, "a:1|c").roll(10_000);
    assert_eq!(counter(bench.last(), "a"), (2.0, 2.0));
}

#[test]
fn windows_closed_while_no_series_comes_or_goes_share_their_layout() {
    let mut bench = Bench::new();
    bench.send(0, "a:1|c").roll(10_000).send(11_000, "a:1|c").roll(20_000);
    let layouts: Vec<_> = bench.windows.iter().map(|closed| Arc::as_ptr(closed.window.layout())).collect();
    assert!(std::ptr::addr_eq(layouts[0], layouts[1]));
}

#[test]
fn new_settings_apply_but_windows_keep_their_length() {
    let mut bench = Bench::new();
    bench.send(0, "a,k=v:1|c");
    let changed = AggregatorSettings {
        window: Duration::from_mins(1),
        tag_styles: TagStyles::INFLUX,
        limits: Limits { series: 2, ..Limits::default() },
        ..AggregatorSettings::default()
    };
    bench.aggregator.apply_settings(&changed);
    bench.send(1, "a,k=v:1|c\nb:1|g").roll(10_000);
    assert_eq!(bench.windows.len(), 1);
    assert_eq!(record(bench.last(), "a").unwrap().series.tags.get("k"), Some("v"));
    assert_eq!(bench.aggregator.accounting().dropped.value_count(), 1);
}

#[test]
fn an_aggregator_goes_on_from_its_snapshot() {
    let traffic = |bench: &mut Bench, from: u64| {
        bench
            .send(from + 1_000, "a:1|c|@0.3\ng:+5|g\nt:1:2:3|ms\nu:x|s\n_sc|db|1|m:slow\n_e{1,1}:a|b\nbad")
            .send(from + 12_000, format!("a:2|c|T{}\nt:9|ms|T{}", START + 1, START + 2));
        for n in 0..80 {
            bench.send(from + 13_000, format!("t:{n}|ms|#shard:1\nmany:{n}|s\nmany:{n}x|s"));
        }
    };
    let mut straight = Bench::new();
    traffic(&mut straight, 0);
    let bytes = straight.aggregator.encode_snapshot();
    let mut moved = Bench::new();
    moved.aggregator = Aggregator::from_snapshot(Arc::default(), &bytes).unwrap();
    moved.checked();
    assert_eq!(moved.aggregator.encode_snapshot(), bytes, "nothing is lost on the way");
    straight.windows.clear();
    for bench in [&mut straight, &mut moved] {
        traffic(bench, 20_000);
        bench.roll(60_000);
    }
    let shown = |bench: &Bench| {
        let windows = bench.windows.iter().flat_map(|closed| closed.revisions.iter().chain([&closed.window]));
        windows
            .map(|window| format!("{:?} {:?}", window.span, window.records().collect::<Vec<_>>()))
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(&straight), shown(&moved));
    assert_eq!(straight.aggregator.accounting(), moved.aggregator.accounting());
    assert_eq!(straight.aggregator.series_count(), moved.aggregator.series_count());
}

#[test]
fn a_damaged_snapshot_is_refused_wherever_it_is_damaged() {
    let mut bench = Bench::new();
    bench.send(0, "a:1|c\nt:1:2|ms\nu:x|s");
    let bytes = bench.aggregator.encode_snapshot();
    let restore = |bytes: &[u8]| Aggregator::from_snapshot(Arc::default(), bytes).map(|_| ());
    for length in 0..bytes.len() {
        assert!(restore(&bytes[..length]).is_err(), "cut at {length}");
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert!(restore(&flipped).is_err(), "bit {bit} of byte {at}");
        }
    }
    let mut newer = bytes.clone();
    newer[4] = 99;
    assert_eq!(restore(&newer), Err(SnapshotError::Version { found: 99 }));
    assert_eq!(restore(b"hello"), Err(SnapshotError::NotASnapshot));
}

#[test]
fn a_snapshot_that_no_samples_can_have_made_is_refused() {
    let sealed = |mut bytes: Vec<u8>| {
        let end = bytes.len() - 8;
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    };
    let restore = |bytes: Vec<u8>| Aggregator::from_snapshot(Arc::default(), &sealed(bytes)).map(|_| ());
    let replaced = |datagram: &str, from: f64, to: f64| {
        let mut bench = Bench::new();
        bench.send(0, datagram);
        let mut bytes = bench.aggregator.encode_snapshot();
        let at = bytes.windows(8).position(|window| window == from.to_le_bytes()).expect("it is in there");
        bytes[at..at + 8].copy_from_slice(&to.to_le_bytes());
        restore(bytes)
    };
    assert_eq!(replaced("a:123.5|c", 123.5, 124.5), Ok(()));
    for (datagram, from, to) in [
        ("a:123.5|c", 123.5, f64::NAN),
        ("a:123.5|g", 123.5, f64::INFINITY),
        ("a:123.5|g\na:99|g", 123.5, 98.0),
        ("a:1|ms\na:123.5|ms\na:2|ms", 123.5, f64::NAN),
        ("a:1|ms\na:2|ms", 1.0, 3.0),
    ] {
        assert_eq!(replaced(datagram, from, to), Err(SnapshotError::Damaged), "{datagram}: {from} is {to}");
    }
}

mod levels;

#[test]
fn windows_that_end_or_begin_while_nothing_is_read_are_partial() {
    let at = |secs: u64| moment(secs * 1000);
    let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, at(0).wall);
    let unread = |from: u64, until: u64| Some(ReadGap { from: at(from).wall, until: at(until).wall });
    aggregator.ingest_datagram(b"a:1|c", at(2), None);
    assert!(aggregator.roll_across(at(9).wall, unread(3, 8)).is_none(), "it was whole again in time");
    let before = aggregator.roll_across(at(64).wall, unread(4, 64)).unwrap().window;
    assert_eq!((before.span.covered, before.span.is_partial()), (Duration::from_secs(4), true));
    // Datagrams that waited for a minute.
    (0..60).for_each(|_| aggregator.ingest_datagram(b"a:1|c", at(64), None));
    let after = aggregator.roll_across(at(70).wall, unread(4, 64)).unwrap().window;
    assert_eq!(after.span.start, at(60).wall);
    assert_eq!((after.span.covered, after.span.is_partial()), (Duration::from_secs(6), true));
    aggregator.ingest_datagram(b"a:1|c", at(71), None);
    let next = aggregator.roll_across(at(80).wall, unread(4, 64)).unwrap().window;
    assert!(!next.span.is_partial());
}
