use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::aggregate::{Aggregator, GaugeSign, Window};
use crate::model::{ContainerId, Generation, Moment, TaskId};
use crate::render::prometheus::Level;

fn at(secs: u64) -> Moment {
    Moment {
        wall: Timestamp::from_secs(1_767_225_600).saturating_add(Duration::from_secs(secs)),
        mono: Duration::from_secs(secs),
    }
}

fn window(datagram: &str) -> Window {
    let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, at(0).wall);
    aggregator.ingest_datagram(datagram.as_bytes(), at(4), None);
    aggregator.roll_window(at(10).wall).unwrap().window
}

fn origin(task: &str) -> Origin {
    Origin {
        container_id: ContainerId::new("c-1").unwrap(),
        generation: Generation(1),
        task_id: TaskId::new(task).unwrap(),
        labels: [].into(),
    }
}

fn identity(task: &str) -> SeriesIdentity {
    SeriesIdentity::from_origin(&origin(task), Level::Orchestrator)
}

/// Stages a window in the round that starts after so many seconds. Returns the totals by name.
fn stage(totals: &mut RunningTotals, window: &Window, task: &str, start: u64) -> Vec<SeriesRunning> {
    let span = (at(start).wall, at(start + 10).wall);
    let mut of_identity = totals.stage_identity(&identity(task), &origin(task));
    let staged =
        window.records().filter_map(|record| of_identity.stage_record(record.series, &record.view, span));
    staged.collect()
}

/// The total, the count and whether it is the first, of the only series.
fn only(staged: &[SeriesRunning]) -> (f64, f64, bool) {
    let [of] = staged else { panic!("{staged:?}") };
    let total = of.as_total();
    (total.total, total.count, total.first)
}

#[test]
fn only_what_adds_up_has_a_total_and_the_first_is_marked_until_it_was_sent() {
    let (mut totals, counter) = (RunningTotals::new(10, false), window("a:2|c|@0.5"));
    assert_eq!(only(&stage(&mut totals, &counter, "web.1", 0)), (4.0, 2.0, true));
    totals.commit_round(true);
    assert_eq!(only(&stage(&mut totals, &counter, "web.1", 10)), (8.0, 4.0, false));
    totals.commit_round(true);
    assert!(stage(&mut totals, &window("g:7|g\ns:x|s\n_sc|d|0"), "web.1", 20).is_empty());
    let timer = stage(&mut totals, &window("t:3:4|ms"), "web.1", 20);
    assert_eq!(only(&timer), (7.0, 2.0, true));
    assert_eq!((timer[0].as_total().created, timer[0].as_total().buckets), (at(20).wall, None));
}

#[test]
fn a_round_that_is_read_again_adds_nothing_and_keeps_what_was_in_windows_that_are_gone() {
    let mut totals = RunningTotals::new(10, false);
    let (whole, rest) = (window("a:7|c"), window("a:5|c"));
    assert_eq!(only(&stage(&mut totals, &whole, "web.1", 0)), (7.0, 1.0, true));
    assert_eq!(only(&stage(&mut totals, &rest, "web.1", 0)), (7.0, 1.0, true));
    totals.commit_round(true);
    assert_eq!(only(&stage(&mut totals, &rest, "web.1", 10)), (12.0, 2.0, false));
}

#[test]
fn a_round_that_was_too_old_counts_and_its_series_are_still_new() {
    let mut totals = RunningTotals::new(10, false);
    stage(&mut totals, &window("a:7|c"), "web.1", 0);
    totals.commit_round(false);
    assert_eq!(only(&stage(&mut totals, &window("a:5|c"), "web.1", 10)), (12.0, 2.0, true));
}

#[test]
fn buckets_add_up_where_they_are_sent() {
    let (mut totals, timer) = (RunningTotals::new(10, true), window("t:3:4|ms"));
    stage(&mut totals, &timer, "web.1", 0);
    totals.commit_round(true);
    let staged = stage(&mut totals, &timer, "web.1", 10);
    let buckets = staged[0].as_total().buckets.unwrap();
    assert_eq!(buckets.count(), Weight::from_count(4));
}

#[test]
fn series_of_an_identity_that_is_gone_are_ended_once_if_they_were_sent() {
    let mut totals = RunningTotals::new(10, false);
    for task in ["web.1", "web.2"] {
        stage(&mut totals, &window("a:1|c\ng:1|g"), task, 0);
    }
    totals.commit_round(true);
    stage(&mut totals, &window("never:1|c"), "web.1", 10);
    totals.commit_round(false);
    let ended = totals.take_ended(|known| *known == identity("web.2"));
    let [ended] = &ended[..] else { panic!("{ended:?}") };
    let mut names: Vec<_> = ended.series.iter().map(|series| &*series.name).collect();
    names.sort_unstable();
    assert_eq!((&ended.identity, &names[..]), (&identity("web.1"), &["a", "g"][..]));
    assert!(totals.take_ended(|known| *known == identity("web.2")).is_empty());
    assert_eq!(only(&stage(&mut totals, &window("a:1|c"), "web.1", 20)), (1.0, 1.0, true));
}

#[test]
fn the_least_recently_seen_series_beyond_the_limit_are_ended() {
    let mut totals = RunningTotals::new(2, false);
    for (n, name) in (0..).zip(["a", "b", "c"]) {
        stage(&mut totals, &window(&format!("{name}:1|c")), "web.1", n * 10);
        totals.commit_round(true);
    }
    let ended = totals.take_ended(|_| true);
    assert_eq!((ended.len(), &*ended[0].series[0].name), (1, "a"));
    assert_eq!(totals.len(), 2);
    assert!(totals.take_ended(|_| true).is_empty());
}

proptest! {
    #[test]
    fn totals_do_not_depend_on_the_order_of_rounds(
        values in proptest::collection::vec((-1e6_f64..1e6, 1_u32..9), 1..20),
        order in any::<u64>(),
    ) {
        let windows: Vec<_> = values
            .iter()
            .map(|(value, rate)| window(&format!("a:{value}|c|@0.{rate}\nt:{value}|ms|@0.{rate}")))
            .collect();
        let mut shuffled: Vec<_> = windows.iter().collect();
        shuffled.sort_by_key(|window| {
            let sum = window.records().next().map_or(0, |record| format!("{:?}", record.view).len() as u64);
            sum.wrapping_mul(order | 1) % 17
        });
        let of = |windows: &[&Window]| {
            let (mut totals, mut last) = (RunningTotals::new(10, false), Vec::new());
            for (round, window) in (0..).zip(windows) {
                let staged = stage(&mut totals, window, "web.1", round * 10);
                last = staged.iter().map(|of| (of.as_total().total, of.as_total().count)).collect();
                totals.commit_round(true);
            }
            last
        };
        let plain: Vec<_> = windows.iter().collect();
        prop_assert_eq!(of(&plain), of(&shuffled));
    }
}
