//! A shard that panics. The agent runs in this process, and the panic comes from its logging: the log line about the
//! growth of one container's buffer panics while that container's socket is read.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::float_cmp,
    reason = "a test that panics has done its work"
)]

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tallyport::app::{self, ConfigSources, Ended, Loader};
use tallyport::client::Client;
use tallyport::telemetry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Whether the log line panics.
static ARMED: AtomicBool = AtomicBool::new(false);
const PATIENCE: Duration = Duration::from_secs(20);

struct Poison;

impl<S: tracing::Subscriber> Layer<S> for Poison {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                let _infallible = write!(self.0, "{field}={value:?} ");
            }
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let grows = fields.0.contains("a larger receive buffer") && fields.0.contains("container=poison");
        assert!(!(grows && ARMED.load(Ordering::Relaxed)), "poisoned");
    }
}

struct Node {
    http: Client,
    admin: Client,
}

impl Node {
    async fn get(&self, path: &str) -> Value {
        serde_json::from_slice(&self.http.get(path).await.unwrap().body).unwrap()
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.admin.send_request(method, path, body.to_string().into_bytes()).await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    async fn reserve(&self, container: &str) -> UdpSocket {
        let reserved =
            self.call("POST", "/v1/containers", json!({"container_id": container, "ttl": null})).await;
        let host: std::net::IpAddr = reserved["statsd_host"].as_str().unwrap().parse().unwrap();
        let port = u16::try_from(reserved["statsd_port"].as_u64().unwrap()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(SocketAddr::new(host, port)).unwrap();
        socket
    }

    async fn counted(&self, container: &str) -> Value {
        let accounting = self.get("/v1/accounting").await;
        let containers = accounting["containers"].as_array().unwrap();
        containers.iter().find(|counted| counted["container_id"] == container).unwrap().clone()
    }

    async fn failures(&self) -> f64 {
        let page = String::from_utf8(self.http.get("/metrics").await.unwrap().body.to_vec()).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix("tallyport_shard_failures_total "));
        line.unwrap().parse().unwrap()
    }

    /// Sends bursts that fill the buffer, until its growth has made the shard panic.
    async fn fail(&self, poison: &UdpSocket) -> u64 {
        let (before, started, mut sent) = (self.failures().await, Instant::now(), 0);
        ARMED.store(true, Ordering::Relaxed);
        while self.failures().await == before {
            assert!(started.elapsed() < PATIENCE, "it did not fail");
            for _ in 0..12 {
                poison.send(b"a:1|c").unwrap();
                sent += 1;
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        ARMED.store(false, Ordering::Relaxed);
        sent
    }
}

#[test]
fn a_shard_that_panics_goes_on_and_what_it_lost_is_counted_and_one_that_panics_all_the_time_ends_the_agent() {
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Poison)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let flag = |key: &str, value: &str| (key.to_owned(), value.to_owned(), format!("--set {key}"));
    let socket = directory.path().join("admin.sock");
    let flags = vec![
        flag("http.listen", "127.0.0.1:0"),
        flag("admin.socket", socket.to_str().unwrap()),
        flag("state_dir", directory.path().join("state").to_str().unwrap()),
        flag("windows.length", "1h"),
        flag("listeners.receive_buffer", "16KiB"),
        flag("agent.shards", "1"),
    ];
    let loader = Loader { file: None, flags };
    let (config, layers) = loader.load_config().unwrap();
    let log = telemetry::start(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bound = app::bind(config, ConfigSources::new(loader, layers), log).await.unwrap();
        let node = Node {
            http: Client::new(bound.http_address().to_string().parse().unwrap()),
            admin: Client::new(format!("unix:{}", socket.display()).parse().unwrap()),
        };
        let running = tokio::spawn(bound.run(|_url| ()));
        let (healthy, poison) = (node.reserve("healthy").await, node.reserve("poison").await);
        for _ in 0..20 {
            healthy.send(b"a:1|c").unwrap();
        }
        while node.counted("healthy").await["datagrams"]["received"] != 20 {}

        let sent = node.fail(&poison).await;
        // The agent is not ready until the shard has answered again.
        let mut seen = Vec::new();
        let started = Instant::now();
        while seen.last() != Some(&200) || started.elapsed() < Duration::from_millis(1_500) {
            assert!(started.elapsed() < PATIENCE, "{seen:?}");
            seen.push(node.http.get("/ready").await.unwrap().status);
        }
        assert!(seen.contains(&503), "{seen:?}");
        assert_eq!(node.failures().await, 1.0);

        // Both containers continue at their addresses; the open window of one is lost and counted.
        healthy.send(b"a:1|c").unwrap();
        poison.send(b"b:7|c").unwrap();
        while node.counted("poison").await["datagrams"]["arrived"] != sent + 1 {}
        while node.counted("healthy").await["datagrams"]["received"] != 21 {}
        let (healthy_counts, poison_counts) = (node.counted("healthy").await, node.counted("poison").await);
        assert_eq!((&healthy_counts["balanced"], &poison_counts["balanced"]), (&json!(true), &json!(true)));
        assert_eq!(healthy_counts["values"]["open"], 21, "{healthy_counts}");
        let lost = poison_counts["values"]["dropped"]["shard_failed"].as_u64().unwrap();
        assert!(lost > 0, "{poison_counts}");
        let open = poison_counts["values"]["open"].as_u64().unwrap();
        assert_eq!(Some(open + lost), poison_counts["datagrams"]["received"].as_u64(), "{poison_counts}");
        let page = node.get("/v1/tasks/poison/metrics?window=open").await;
        let records = page["metrics"].as_array().unwrap();
        assert!(records.iter().any(|record| record["name"] == "b" && record["value"] == 7.0), "{page}");

        // The tenth failure within a minute ends the agent, with another outcome than a requested end.
        let mut others = Vec::new();
        for n in 2..=10 {
            others.push(node.reserve(&format!("poison-{n}")).await);
        }
        ARMED.store(true, Ordering::Relaxed);
        let started = Instant::now();
        while !running.is_finished() {
            assert!(started.elapsed() < PATIENCE, "it goes on");
            for _ in 0..12 {
                // Sending fails once the agent has ended.
                others.iter().for_each(|other| drop(other.send(b"a:1|c")));
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        assert_eq!(running.await.unwrap().unwrap(), Ended::Otherwise);
    });
}
