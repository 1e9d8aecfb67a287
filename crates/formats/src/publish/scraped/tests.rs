//! Rounds of what containers sent in one window, and the pages that show the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tallyport_core::aggregate::{Aggregator, GaugeSign, Ledger, Native, Window};
use tallyport_core::model::{ContainerId, Generation, Moment, TaskId, Timestamp};

use super::*;
use crate::exposition::Format;
use crate::prometheus::protobuf::parse_label_pairs;
use crate::prometheus::{PageBuilder, PageSource, PageWindow, Total};
use crate::publish::{Round, RunningTotal};

/// 2026-01-01T00:00:00Z.
const START_SECS: i64 = 1_767_225_600;

/// Seconds after the start of the window.
pub(in crate::publish) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(START_SECS).saturating_add(Duration::from_secs(seconds))
}

pub(in crate::publish) fn origin(task: &str, labels: &[(&str, &str)]) -> Origin {
    Origin {
        container_id: ContainerId::new(&format!("c-{task}")).unwrap(),
        generation: Generation(1),
        task_id: TaskId::new(task).unwrap(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

#[derive(Debug)]
struct Held(Window);

impl AsRef<Window> for Held {
    fn as_ref(&self) -> &Window {
        &self.0
    }
}

/// What a container sent in a window of ten seconds.
#[derive(Debug)]
struct Sent {
    origin: Origin,
    identity: SeriesIdentity,
    window: Arc<Held>,
    ledger: Arc<Ledger>,
    /// The values of each record, if it is a distribution.
    natives: Vec<Option<Native>>,
}

/// What several containers sent.
#[derive(Debug)]
pub(in crate::publish) struct SentByAll {
    level: Level,
    pub(in crate::publish) marks: MarksOfAll,
    containers: Vec<Sent>,
}

impl SentByAll {
    pub(in crate::publish) fn new(level: Level, sent: &[(Origin, &str)]) -> Self {
        let containers = sent.iter().map(|(origin, lines)| Sent::new(origin.clone(), level, lines)).collect();
        Self { level, marks: MarksOfAll::default(), containers }
    }

    /// A round in which everything is sent for the first time.
    pub(in crate::publish) fn round(&self) -> Round<'_> {
        let records = self.containers.iter().flat_map(Sent::records).collect();
        let (level, marks) = (self.level, &self.marks);
        let mut round = Round { node: "n1", epoch: 3, start: at(0), end: at(10), level, marks, records };
        round.sort_records();
        round
    }

    /// The samples of a page of the same window by name and labels, without what is known of the containers.
    pub(in crate::publish) fn page_samples(
        &self,
        naming: Naming,
        escaping: Escaping,
    ) -> BTreeMap<String, f64> {
        let carry = Duration::from_mins(1);
        let page = PageBuilder::<Held>::new(Format::Prometheus, naming, self.level, at(10), carry);
        let mut page = page.with_names(escaping, self.marks.clone());
        for sent in &self.containers {
            let (window, records) = (Arc::clone(&sent.window), (0..sent.window.0.len()).collect());
            let windows = vec![PageWindow { window, records }];
            let source = PageSource { origin: &sent.origin, ledger: &sent.ledger, windows, shown: true };
            page.add_container(&source, |_| true);
        }
        let mut page = page.build_page();
        let pieces: Vec<_> = std::iter::from_fn(|| page.next_piece()).flatten().collect();
        let text = String::from_utf8(pieces).unwrap();
        let samples =
            text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("tallyport_task"));
        samples.map(parse_sample).collect()
    }
}

impl Sent {
    fn new(origin: Origin, level: Level, lines: &str) -> Self {
        let moment = |seconds| Moment { wall: at(seconds), mono: Duration::from_secs(seconds) };
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, at(0));
        aggregator.ingest_datagram(lines.as_bytes(), moment(4), None);
        let closed = aggregator.roll_window(at(10)).unwrap();
        let natives =
            closed.window.records().map(|record| record.view.to_native(record.series.metric_type)).collect();
        let identity = SeriesIdentity::from_origin(&origin, level);
        let window = Arc::new(Held(closed.window));
        Self { origin, identity, window, ledger: closed.summary.ledger, natives }
    }

    fn records(&self) -> impl Iterator<Item = RoundRecord<'_>> {
        self.window.0.records().zip(&self.natives).map(|(record, native)| {
            let row = self.ledger.get(record.place as usize).unwrap().1;
            RoundRecord {
                origin: &self.origin,
                identity: &self.identity,
                span: self.window.0.span,
                series: record.series,
                view: record.view,
                number: None,
                merged: None,
                running: Some(RunningTotal {
                    created: record.series.created,
                    total: Total::from(row.total).as_f64(),
                    count: row.count.as_f64(),
                    buckets: native.as_ref(),
                    first: true,
                }),
            }
        })
    }
}

/// A line of a page, as a name with its labels in order, and the value.
fn parse_sample(line: &str) -> (String, f64) {
    let (series, value) = line.rsplit_once("} ").unwrap();
    let (name, labels) = series.split_once('{').unwrap();
    let (name, labels) = match name {
        // A name in quotes stands among the labels.
        "" => {
            let quoted = format!("name={labels}");
            let mut pairs = parse_label_pairs(&quoted);
            (pairs.remove(0).value, pairs)
        }
        name => (name.to_owned(), parse_label_pairs(labels)),
    };
    let labels = labels.into_iter().map(|pair| (pair.name, pair.value));
    (format_sample(&name, labels), value.parse().unwrap())
}

/// A name with its labels in order.
pub(in crate::publish) fn format_sample(
    name: &str,
    labels: impl IntoIterator<Item = (String, String)>,
) -> String {
    let labels: BTreeMap<String, String> = labels.into_iter().collect();
    format!("{name}{labels:?}")
}

/// Every type of series, names that no receiver takes as they are, and two containers in one workload.
pub(in crate::publish) fn everything(level: Level) -> SentByAll {
    const WEB: &str = "latency:7:2:91:11|ms|@0.5|#route:/pay\n\
        requests:7|c|#route:/pay,note:a \\b\"=c\n\
        requests:-2.5|c\n\
        room.temperature:21.5|g|#time:noon,Zone:x,flag,node:forged\n\
        payload:1024:-3|h\n\
        load:0.25|d|#http.method:GET\n\
        users:alice|s\n\
        users:bob|s\n\
        404.errors:1|c|#code:404,code:410\n\
        _sc|db up|2|m:down";
    let pod = [("namespace", "shop"), ("pod", "cart-0"), ("container", "main"), ("workload", "cart")];
    SentByAll::new(
        level,
        &[
            (origin("web.3f9a", &[]), WEB),
            (origin("fib", &[]), "runTime:0.828|ms|#program:fibonacci\nup:1|g"),
            (origin("shop_cart-0_u", &pod), "requests:1|c|#pod:forged\nidle:0|c"),
        ],
    )
}

fn names_of(sent: &SentByAll, wanted: Range<usize>, spelling: ScrapeSpelling) -> Vec<(usize, String, bool)> {
    let round = sent.round();
    let runs = IdentityRuns::new(&round.records, wanted, (round.level, round.marks), spelling);
    runs.flat_map(|run| run.series).map(|series| (series.index, series.family, series.clashes)).collect()
}

#[test]
fn of_two_series_with_one_name_the_same_is_left_out_of_every_range() {
    let web = origin("web", &[]);
    let sent = SentByAll::new(Level::Orchestrator, &[(web, "a.b:1|c\na_b:1|c\na_b:1|c|#x:1\nb:1|c")]);
    let spelling = ScrapeSpelling {
        naming: Naming::StatsdExporter,
        escaping: Escaping::Underscores,
        timers: Timers::Summary,
    };
    let all = names_of(&sent, 0..4, spelling);
    let clashes: Vec<_> = all.iter().filter(|(.., clashes)| *clashes).collect();
    assert_eq!(clashes, [&(1, "a_b".to_owned(), true)], "{all:?}");
    for (index, expected) in all.iter().enumerate() {
        assert_eq!(names_of(&sent, index..index + 1, spelling), std::slice::from_ref(expected));
    }
}

#[test]
fn a_native_histogram_or_a_check_yields_to_a_gauge_of_its_name() {
    let web = origin("web", &[]);
    let lines = "a:1|ms\na_seconds:1|g\nb:1|ms\nb_seconds:1|g|#x:1\n_sc|c|0\nc_status:1|g";
    let sent = SentByAll::new(Level::Orchestrator, &[(web, lines)]);
    let spelling =
        |timers| ScrapeSpelling { naming: Naming::Openmetrics, escaping: Escaping::Underscores, timers };
    let left_out = |timers| {
        let names = names_of(&sent, 0..6, spelling(timers));
        let round = sent.round();
        let clashes = names.into_iter().filter(|(.., clashes)| *clashes);
        clashes.map(|(index, ..)| round.records[index].series.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(left_out(Timers::Native), ["a", "c"]);
    assert_eq!(left_out(Timers::Summary), ["c"], "percentiles have a label more than the gauge");
}
