use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::aggregate::{Counter, View, Weight, WindowSpan};
use crate::model::{ContainerId, Generation, Origin, Series, TagSet, TaskId, Timestamp};
use crate::render::prometheus::{Level, MarksOfAll, SeriesIdentity};
use crate::render::publish::{
    DatadogRoute, InfluxOptions, LeftOutReason, encode_datadog, encode_influx, encode_json,
};

const START: i64 = 1_767_225_600;

/// What the records of rounds borrow.
pub(in crate::publish) struct Sources {
    origins: Vec<(Origin, SeriesIdentity)>,
    counters: Vec<Series>,
    checks: Vec<Series>,
    marks: MarksOfAll,
}

/// A round with its records, each of which stands for so many places.
#[derive(Debug)]
pub(in crate::publish) struct TestRound<'a>(Round<'a>, u64);

impl<'a> TestRound<'a> {
    /// All of it.
    pub(in crate::publish) fn share(&'a self) -> RoundShare<'a> {
        RoundShare::of_all(Round { records: Vec::new(), ..self.0.clone() }, self)
    }
}

impl RoundSource for TestRound<'_> {
    fn len(&self) -> usize {
        self.0.records.len()
    }

    fn record_at(&self, index: usize) -> Option<RoundRecord<'_>> {
        self.0.records.get(index).copied()
    }

    fn type_at(&self, index: usize) -> Option<MetricType> {
        self.0.records.get(index).map(|record| record.series.metric_type)
    }

    fn identity_at(&self, index: usize) -> Option<&SeriesIdentity> {
        self.0.records.get(index).map(|record| record.identity)
    }

    fn places_at(&self, _: usize) -> u64 {
        self.1
    }

    fn begins_at(&self, index: usize) -> bool {
        let running = self.0.records.get(index).and_then(|record| record.running);
        running.is_some_and(|running| running.first)
    }
}

fn shares<'a>(rounds: &'a [TestRound<'a>]) -> Vec<RoundShare<'a>> {
    rounds.iter().map(TestRound::share).collect()
}

impl Sources {
    pub(in crate::publish) fn new(tasks: usize, series: usize) -> Self {
        let origin = |n: usize| {
            let origin = Origin {
                container_id: ContainerId::new(&format!("c-{n}")).unwrap(),
                generation: Generation(1),
                task_id: TaskId::new(&format!("web.{n}")).unwrap(),
                labels: [].into(),
            };
            let identity = SeriesIdentity::from_origin(&origin, Level::Orchestrator);
            (origin, identity)
        };
        let named = |prefix: &str, metric_type| {
            let nth = |n: usize| Series {
                name: format!("{prefix}.{n}").into(),
                tags: TagSet::default(),
                metric_type,
                created: Timestamp::from_secs(START),
            };
            (0..series).map(nth).collect()
        };
        let (counters, checks) = (named("hits", MetricType::Counter), named("up", MetricType::ServiceCheck));
        let origins = (0..tasks).map(origin).collect();
        Self { origins, counters, checks, marks: MarksOfAll::default() }
    }

    /// A round of ten seconds, the n-th, with these series of every task, each of which stands for `n + 1` places.
    pub(in crate::publish) fn round(&self, n: usize, counters: usize, checks: usize) -> TestRound<'_> {
        let start = Timestamp::from_secs(START + 10 * i64::try_from(n).unwrap());
        let end = start.saturating_add(Duration::from_secs(10));
        let counter = Counter { samples: 1, count: Weight::ONE, sum: 1.5, ..Counter::default() };
        let record = |(origin, identity), series| RoundRecord {
            origin,
            identity,
            span: WindowSpan { start, end, covered: Duration::from_secs(10) },
            series,
            view: View::Counter { counter, total: 1.0 },
            number: None,
            merged: None,
            running: None,
        };
        let of_each = |series: &'static str, count: usize| {
            let all = if series == "counters" { &self.counters } else { &self.checks };
            let origins = self.origins.iter();
            origins.flat_map(move |(origin, identity)| {
                all.iter().take(count).map(move |series| record((origin, identity), series))
            })
        };
        let records: Vec<_> = of_each("counters", counters).chain(of_each("checks", checks)).collect();
        let (level, marks) = (Level::Orchestrator, &self.marks);
        TestRound(Round { node: "n1", epoch: 7, start, end, level, marks, records }, n as u64 + 1)
    }
}

const ROOM: RequestRoom = RequestRoom { bytes: 1 << 20, records: 5000 };

fn one_group(_: MetricType) -> u8 {
    0
}

fn by_route(metric_type: MetricType) -> u8 {
    DatadogRoute::for_type(metric_type) as u8
}

fn influx(parcel: &Parcel<'_>, numbers: Range<usize>, room: RequestRoom) -> Encoded {
    let options = InfluxOptions::default();
    parcel.encode_range(
        numbers,
        room,
        |_| Framing::BARE,
        |round, records| encode_influx(round, records, &options, room),
    )
}

#[test]
fn rounds_share_a_request_and_each_record_keeps_its_time() {
    let sources = Sources::new(2, 3);
    let rounds: Vec<_> = (0..3).map(|n| sources.round(n, 3, 0)).collect();
    let parcel = Parcel::new(shares(&rounds), one_group);
    assert_eq!(parcel.group_ranges(), vec![0..18; 1]);
    assert_eq!(parcel.record_places(), [[1; 6], [2; 6], [3; 6]].concat());
    let Encoded { requests, left_out } = influx(&parcel, 0..18, ROOM);
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((request.records.clone(), request.held, left_out), (0..18, 18, vec![]));
    let text = String::from_utf8(request.body.clone()).unwrap();
    let times: BTreeSet<_> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(text.lines().count(), 18);
    assert_eq!(times, BTreeSet::from(["1767225610000", "1767225620000", "1767225630000"]));
    // One record alone, as a dead letter has it.
    let (round, record) = parcel.find_record(13).unwrap();
    assert_eq!((round.start.as_secs() - START, record), (20, 1));
    assert!(parcel.find_record(18).is_none());
    let old = parcel.ranges_of(|round| round.end.as_secs() <= START + 20);
    assert_eq!(old, [0..6, 6..12]);
}

#[test]
fn what_has_a_route_of_its_own_shares_requests_with_its_like_of_other_rounds() {
    let sources = Sources::new(1, 2);
    let rounds: Vec<_> = (0..3).map(|n| sources.round(n, 2, 1)).collect();
    let parcel = Parcel::new(shares(&rounds), by_route);
    assert_eq!(parcel.group_ranges(), [0..6, 6..9]);
    assert_eq!(parcel.record_places(), [1, 1, 2, 2, 3, 3, 1, 2, 3]);
    let encode = |numbers: Range<usize>, route: DatadogRoute| {
        let framing = |metric_type| DatadogRoute::for_type(metric_type).body_framing();
        parcel.encode_range(numbers, ROOM, framing, |round, records| {
            encode_datadog(round, records, route, ROOM)
        })
    };
    let Encoded { requests, left_out } = encode(0..6, DatadogRoute::Series);
    assert_eq!((requests.len(), left_out.len()), (1, 0));
    let document: serde_json::Value = serde_json::from_slice(&requests[0].body).unwrap();
    let times = document["series"].as_array().unwrap().iter().map(|series| &series["points"][0]["timestamp"]);
    let times: Vec<_> = times.map(|time| time.as_i64().unwrap() - START).collect();
    assert_eq!(times.iter().collect::<BTreeSet<_>>().len(), 3, "{times:?}");
    // By the wrong route all are left out, under the numbers that they have in the parcel.
    let Encoded { requests, left_out } = encode(6..9, DatadogRoute::Series);
    let left_out: Vec<_> = left_out.iter().map(|left_out| (left_out.record, left_out.why)).collect();
    assert_eq!((requests.len(), left_out), (0, (6..9).map(|n| (n, LeftOutReason::Unsupported)).collect()));
}

#[test]
fn a_worker_has_all_records_of_an_identity_in_every_round() {
    let sources = Sources::new(50, 4);
    let mut worker_of = std::collections::BTreeMap::new();
    for n in 0..3 {
        let round = sources.round(n, 4, 1);
        let (whole, shares) = (&round.0, round.share().divide_records(4));
        assert_eq!(shares.len(), 4);
        assert_eq!(shares.iter().map(RoundShare::len).sum::<usize>(), whole.records.len());
        for (worker, share) in shares.iter().enumerate() {
            assert_eq!((share.round.start, share.round.end), (whole.start, whole.end));
            assert!(share.len() > 4 * 5, "worker {worker} has {}", share.len());
            let records: Vec<_> = (0..share.len()).map(|record| share.record_at(record).unwrap()).collect();
            for record in &records {
                assert_eq!(*worker_of.entry(record.identity.as_str().to_owned()).or_insert(worker), worker);
            }
            let order = records.iter().map(|record| {
                let same = |of: &RoundRecord<'_>| {
                    std::ptr::eq(of.series, record.series) && of.identity == record.identity
                };
                whole.records.iter().position(same)
            });
            assert!(order.is_sorted(), "in the order of the round");
        }
    }
    let round = sources.round(0, 4, 1);
    let alone = round.share().divide_records(1);
    assert_eq!((alone.len(), alone[0].len()), (1, round.0.records.len()));
}

#[test]
fn a_series_of_two_rounds_has_two_keys_that_do_not_depend_on_the_rest() {
    let sources = Sources::new(2, 2);
    let keys = |rounds: &[TestRound<'_>]| Parcel::new(shares(rounds), one_group).record_keys();
    let both = keys(&[sources.round(0, 2, 0), sources.round(1, 2, 0)]);
    assert_eq!(both.iter().collect::<BTreeSet<_>>().len(), 8);
    assert_eq!(keys(&[sources.round(1, 2, 0)]), both[4..]);
}

proptest! {
    #[test]
    fn every_request_fits_and_its_range_encodes_to_itself(
        counters in proptest::collection::vec(0_usize..6, 1..6),
        bytes in 60_usize..2000,
        records in 1_usize..20,
        from in 0_usize..20,
        json in any::<bool>(),
    ) {
        let sources = Sources::new(2, 6);
        let rounds: Vec<_> =
            counters.iter().enumerate().map(|(n, count)| sources.round(n, *count, 0)).collect();
        let parcel = Parcel::new(shares(&rounds), one_group);
        let room = RequestRoom { bytes, records };
        let encode = |numbers: Range<usize>| match json {
            true => parcel.encode_range(numbers, room, |_| Framing::BARE, |round, records| {
                encode_json(round, records, room)
            }),
            false => influx(&parcel, numbers, room),
        };
        let all = parcel.record_places().len();
        let from = from.min(all);
        let Encoded { requests, left_out } = encode(from..all);
        let mut seen: Vec<usize> = left_out.iter().map(|left_out| left_out.record).collect();
        let mut held = 0;
        for request in &requests {
            prop_assert!(request.body.len() <= bytes && request.held <= records);
            let again = encode(request.records.clone());
            prop_assert_eq!(&again.requests, &vec![request.clone()]);
            held += request.held;
            seen.extend(request.records.clone().filter(|n| !left_out.iter().any(|it| it.record == *n)));
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (from..all).collect::<Vec<_>>());
        prop_assert_eq!(held + left_out.len(), all - from);
        // Nothing but the division into requests differs from what is sent without joining.
        let joined: Vec<u8> = requests.iter().flat_map(|request| request.body.clone()).collect();
        let alone = (from..all).flat_map(|n| encode(n..n + 1).requests).flat_map(|request| request.body);
        prop_assert_eq!(joined, alone.collect::<Vec<u8>>());
    }
}
