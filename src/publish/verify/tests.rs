//! Comparisons with a server that answers as it is told, and with a real Prometheus where one is installed.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use super::*;
use crate::aggregate::{Aggregator, GaugeSign, View};
use crate::client::outbound::{OutboundClient, OutboundSettings};
use crate::config::{CredentialFiles, HttpTarget, ProxyChoice, RemoteWriteSink, RemoteWriteVersion, StartAt};
use crate::model::{Allocation, ContainerId, Generation, Moment, Origin, TaskId};
use crate::render::exposition::Escaping;
use crate::render::prometheus::{Naming, Timers};
use crate::render::publish::{
    EncodedRequest, RemoteWriteOptions, RemoteWriteProtocol, RoundRecord, RunningTotal, encode_remote_write,
    encode_zero_samples,
};

const WINDOW: Duration = Duration::from_secs(10);
const WINDOWS: u64 = 12;

/// A store with two tasks that have sent in each of some windows, which ended lately.
fn store(start: Timestamp) -> Arc<Store> {
    let store = Store::new(7, 100);
    for (allocation, task) in (1..).zip(["web.1", "web.2"]) {
        let allocation = Allocation(allocation);
        let origin = Arc::new(Origin {
            container_id: ContainerId::new(&format!("c-{task}")).unwrap(),
            generation: Generation(1),
            task_id: TaskId::new(task).unwrap(),
            labels: [].into(),
        });
        store.open(allocation, origin, start);
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, start);
        for window in 0..WINDOWS {
            let at = |secs: u64| Moment {
                wall: start
                    .saturating_add(WINDOW * u32::try_from(window).unwrap() + Duration::from_secs(secs)),
                mono: WINDOW * u32::try_from(window).unwrap() + Duration::from_secs(secs),
            };
            let datagram = format!(
                "hits:{window}.5|c|#route:/pay\nlevel:{window}|g\nlatency:20:{window}|ms\nvisitors:a|s"
            );
            aggregator.ingest_datagram(datagram.as_bytes(), at(4), None);
            store.push(allocation, aggregator.roll_window(at(10).wall).unwrap());
        }
    }
    Arc::new(store)
}

fn recent_start() -> Timestamp {
    clock::wall_time().saturating_sub(Duration::from_mins(5)).floor_to_window(WINDOW)
}

fn source(store: &Arc<Store>, node: &str, url: String) -> VerifySource {
    let target = HttpTarget {
        url,
        timeout: Duration::from_secs(5),
        proxy: ProxyChoice::Direct,
        ca: None,
        client_certificate: None,
        credentials: CredentialFiles::None,
        headers: vec![("X-Scope-OrgID".to_owned(), "shop".to_owned())],
        headers_file: None,
    };
    let sink = RemoteWriteSink {
        target,
        query_url: None,
        version: RemoteWriteVersion::Auto,
        naming: Naming::Openmetrics,
        timers: Timers::Summary,
        labels: Vec::new(),
    };
    let config = PublisherConfig {
        name: "prometheus".to_owned(),
        sink: SinkConfig::RemoteWrite(sink),
        interval: WINDOW,
        batch: Duration::ZERO,
        include: Vec::new(),
        exclude: Vec::new(),
        identity: Level::Orchestrator,
        workers: 1,
        max_age: None,
        start: StartAt::Now,
    };
    let settle = Duration::from_secs(1);
    let (node, sent) = (node.to_owned(), store.end_cursor().seq);
    let spool = Arc::new(Spool::without_files());
    VerifySource { config, settle, node, store: Arc::clone(store), spool, sent, begun: 0 }
}

const EVERYTHING: VerifyRequest = VerifyRequest { since: Timestamp::MIN, until: None, part: 0, parts: None };

fn verify(source: VerifySource, request: VerifyRequest) -> PublisherVerifyDocument {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(verify_part(source, request))
}

/// A server that keeps the heads and bodies of requests, and gives one answer to all of them.
fn serve(answer: String) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, received) = (listener.local_addr().unwrap(), Arc::default());
    let kept: Arc<Mutex<Vec<String>>> = Arc::clone(&received);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            answer_one(stream, &answer, &kept);
        }
    });
    (address, received)
}

fn answer_one(stream: TcpStream, answer: &str, kept: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request).unwrap() > 0 {}
    let length = request.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    kept.lock().unwrap().push(request + &String::from_utf8(body).unwrap());
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.len());
    reader.get_mut().write_all((head + answer).as_bytes()).unwrap();
}

#[test]
fn a_receiver_is_asked_for_the_samples_of_all_rounds_and_every_series_that_it_lacks_is_named() {
    let start = recent_start();
    let store = store(start);
    let (address, received) =
        serve(r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.to_owned());
    let document = verify(source(&store, "n1", format!("http://{address}/api/v1/push")), EVERYTHING);
    // A counter, a gauge, five percentiles, a sum and a count, and a set, of each task.
    assert_eq!(
        (&*document.outcome, document.series, document.differing),
        ("differs", 20, 20),
        "{document:?}"
    );
    assert_eq!((document.rounds, document.parts, document.late), (WINDOWS, 1, 0));
    assert_eq!(document.from, Some(start));
    let missing = document
        .differences
        .iter()
        .all(|it| it.what == "points" && it.found == Some(0.0) && it.expected == 12.0);
    assert!(missing && document.differences.len() == 20, "{:?}", document.differences);
    let hits = document.differences.iter().find(|it| it.name == "hits_total").unwrap();
    assert_eq!((hits.labels["route"].as_str(), hits.labels["node"].as_str()), ("/pay", "n1"));
    let requests = received.lock().unwrap();
    let (head, form) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /prometheus/api/v1/query HTTP/1.1\r\n")
            && head.contains("x-scope-orgid: shop"),
        "{head}"
    );
    let form: HashMap<_, _> = form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    let query = r#"{task=~"web\\.1|web\\.2",instance="n1",job="tallyport",node="n1"}[110001ms]"#;
    assert_eq!(form["query"], query);
    let last = start.saturating_add(WINDOW * u32::try_from(WINDOWS).unwrap());
    assert_eq!(form["time"], format!("{}.000", last.as_secs()));
    assert_eq!(requests.len(), 1);
}

#[test]
fn rounds_that_are_not_sent_or_not_asked_for_are_not_compared() {
    let start = recent_start();
    let store = store(start);
    let (address, _) = serve(r#"{"status":"error","errorType":"x","error":"too busy"}"#.to_owned());
    let url = format!("http://{address}/api/v1/write");
    let failed = verify(source(&store, "n1", url.clone()), EVERYTHING);
    assert_eq!(
        (&*failed.outcome, failed.answer.as_deref()),
        ("failed", Some("a query is answered with: too busy"))
    );
    let unsent = VerifySource { sent: 0, ..source(&store, "n1", url.clone()) };
    assert_eq!(verify(unsent, EVERYTHING).outcome, "nothing");
    // The places of the second task come after those of the first, so every round lacks a window from before the beginning.
    let begun = VerifySource { begun: store.end_cursor().seq / 2, ..source(&store, "n1", url.clone()) };
    assert_eq!(verify(begun, EVERYTHING).outcome, "nothing");
    let late = VerifyRequest { since: start.saturating_add(WINDOW * 10), ..EVERYTHING };
    let late = verify(source(&store, "n1", url), late);
    assert_eq!((late.rounds, late.not_compared), (2, None));
    let nowhere = verify(source(&store, "n1", "http://127.0.0.1:1/receive".to_owned()), EVERYTHING);
    assert!(nowhere.answer.unwrap().starts_with("queries have no known address beside http://127.0.0.1:1/"));
}

#[test]
fn queries_go_to_the_address_that_is_set() {
    let store = store(recent_start());
    let (address, received) =
        serve(r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.to_owned());
    for base in ["/select/0/prometheus", "/select/0/prometheus/", "/select/0/prometheus/api/v1/query"] {
        let mut source = source(&store, "n1", "http://127.0.0.1:1/receive".to_owned());
        let SinkConfig::RemoteWrite(sink) = &mut source.config.sink else { unreachable!() };
        sink.query_url = Some(format!("http://{address}{base}"));
        assert_eq!(verify(source, EVERYTHING).outcome, "differs");
        let request = received.lock().unwrap().pop().unwrap();
        assert!(request.starts_with("POST /select/0/prometheus/api/v1/query HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("x-scope-orgid: shop"), "the header fields of writing: {request}");
    }
}

#[test]
#[ignore = "needs Prometheus; make e2e-publish installs and runs it"]
fn a_real_prometheus_holds_what_was_written_and_lacks_what_was_not() {
    let prometheus = Prometheus::start();
    let store = store(recent_start());
    let url = format!("http://{}/api/v1/write", prometheus.address);
    write_rounds(&source(&store, "n1", url.clone()), |_, _| true);
    let same = verify(source(&store, "n1", url.clone()), EVERYTHING);
    assert_eq!((&*same.outcome, same.series, same.rounds), ("ok", 20, WINDOWS), "{same:?}");
    // Of another node, a round lacks one series, and a gauge is missing altogether.
    write_rounds(&source(&store, "n2", url.clone()), |round, record| {
        let (name, task) = (&*record.series.name, record.origin.task_id.as_str());
        !(name == "level" && task == "web.2" || name == "hits" && task == "web.1" && round == 5)
    });
    let other = verify(source(&store, "n2", url), EVERYTHING);
    let named: Vec<_> = other
        .differences
        .iter()
        .map(|it| (it.name.as_str(), it.labels["task"].as_str(), &*it.what, it.expected, it.found))
        .collect();
    assert_eq!(
        named,
        [("hits_total", "web.1", "points", 12.0, Some(11.0)), ("level", "web.2", "points", 12.0, Some(0.0))],
    );
    assert_eq!((&*other.outcome, other.differing), ("differs", 2));
}

/// Writes the rounds of a store as a publisher would, with the records that are wanted. Totals have what others have added.
fn write_rounds(source: &VerifySource, wanted: impl Fn(usize, &RoundRecord<'_>) -> bool) {
    let SinkConfig::RemoteWrite(sink) = &source.config.sink else { unreachable!() };
    let options = RemoteWriteOptions {
        protocol: RemoteWriteProtocol::V1,
        naming: sink.naming,
        escaping: Escaping::Underscores,
        timers: sink.timers,
        labels: Vec::new(),
        metadata: false,
    };
    let windows = source.store.kept_after(0);
    let (batch, settle) = (Duration::ZERO, source.settle);
    let rules = RoundRules { interval: WINDOW, batch, settle, records: usize::MAX, floor: None };
    let selection = SeriesSelection::default();
    let epoch = source.store.epoch();
    let reading = RecordReading::Became;
    let level = Level::Orchestrator;
    let scope = RoundScope { rules, level, selection: &selection, epoch, reading, group: |_| 0 };
    let records = CutRecords::collect_records(&windows, &[], 0..=u64::MAX, scope);
    let marks = source.store.snapshot_at_level(Level::Orchestrator).2;
    let mut totals: HashMap<u64, (f64, f64)> = HashMap::new();
    let client = OutboundClient::new(OutboundSettings::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let post = |request: &EncodedRequest| {
        let headers = [
            ("content-type", request.content_type),
            ("content-encoding", "snappy"),
            options.protocol.version_header(),
        ];
        let response = runtime
            .block_on(client.post_body(&sink.target.url, &headers, request.body.clone().into()))
            .unwrap();
        assert_eq!(response.status, 204, "{:?}", response.body);
    };
    for (index, interval) in records.intervals.iter().enumerate() {
        let mut round = interval.as_round(&source.node, 7, &marks);
        for record in &mut round.records {
            let (sum, count) = match record.view {
                View::Counter { counter, .. } => (counter.sum, counter.count.as_f64()),
                View::Distribution { summary, .. } => (summary.sum, summary.count.as_f64()),
                _ => continue,
            };
            let key = hash_series(record.identity, record.series);
            let first = !totals.contains_key(&key);
            let total = totals.entry(key).or_default();
            *total = (total.0 + sum, total.1 + count);
            let (created, (total, count)) = (record.span.start, *total);
            record.running = Some(RunningTotal { created, total, count, buckets: None, first });
        }
        round.records.retain(|record| wanted(index, record));
        let all = 0..round.records.len();
        let zeros = encode_zero_samples(&round, all.clone(), &options, ANY_SIZE);
        zeros.iter().for_each(post);
        encode_remote_write(&round, all, &options, ANY_SIZE).requests.iter().for_each(post);
    }
}

/// A real Prometheus with an empty directory.
struct Prometheus {
    process: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::fs::write(directory.path().join("prometheus.yml"), "").unwrap();
        let process = Command::new("prometheus")
            .current_dir(directory.path())
            .args([
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                "--web.enable-remote-write-receiver",
            ])
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus can be started; scripts/setup prometheus installs it");
        let started = Self { process, address, _directory: directory };
        let deadline = Instant::now() + Duration::from_mins(1);
        while !started.is_ready() {
            assert!(Instant::now() < deadline, "prometheus is not ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        started
    }

    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return false };
        let mut answer = String::new();
        stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.0 200")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}
