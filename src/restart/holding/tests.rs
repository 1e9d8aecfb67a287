use std::fs::File;

use super::*;
use crate::aggregate::{GaugeSign, TimerUnit};
use crate::config::ProcessEnvironment;
use crate::containers::{ContainerTable, TableSettings, UnixSettings, UnixSocketMode};
use crate::model::Labels;
use crate::net::clock::Clock;
use crate::nri::suspension_channel;
use crate::shard::ShardPlan;
use crate::shutdown::drain_channel;

/// An agent without containers.
fn holding(nri: Suspender) -> Holding {
    let config = AgentConfig::from_toml("", &ProcessEnvironment).unwrap();
    let store = Arc::new(Store::new(1, 30));
    let plan = ShardPlan {
        shards: 1,
        memory_limit: usize::MAX,
        remembered: 1000,
        gather: Duration::ZERO,
        not_before: None,
    };
    let aggregation = Arc::new(config.aggregation.clone());
    let pool = Arc::new(ShardPool::start(&plan, &store, &aggregation, Clock::default()).unwrap());
    let settings = TableSettings {
        containers: 1,
        port: 18_628,
        receive_buffer: 65_536,
        receive_buffers: 1 << 30,
        receive_buffer_max: 1 << 22,
        rest: Duration::from_mins(10),
        reservation_ttl: Duration::from_mins(1),
        tombstone: Duration::from_mins(10),
        adopt_mute: false,
        gauge_sign: GaugeSign::Delta,
        timer_unit: TimerUnit::default(),
        dcos_host: None,
        node_labels: Labels::new(),
        unix: UnixSettings {
            mode: UnixSocketMode::OptIn,
            path: "/var/run/datadog/dsd.socket".into(),
            directory: "/nowhere/sockets".into(),
            queue: 1,
        },
    };
    let (_, containers) = ContainerTable::new(settings, Arc::clone(&pool), Arc::clone(&store));
    let config = Arc::new(RwLock::new(Arc::new(config)));
    let pages = Pages::new(&config);
    let shared = AgentDescriptors(std::array::from_fn(|_| File::open("/dev/null").unwrap().into()));
    let pauser = drain_channel().0.pauser();
    Holding::new(MovableParts { store, pool, containers, pages, config }, shared, pauser, nri)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_wait_for_a_plugin_that_is_busy() {
    let (nri, _never_answered) = suspension_channel();
    let (holding, handle) = (Arc::new(holding(nri)), Handle::current());
    let stopping = Arc::clone(&holding);
    let stops = tokio::task::spawn_blocking(move || {
        stopping.claim_move()?.stop_agent(SentAhead::new(), &handle).map(|_| ())
    });
    let (stopped, told_again) = holding.unless_told_again(stops, std::future::ready(())).await;
    assert!(told_again);
    let why = stopped.unwrap().unwrap_err().to_string();
    assert!(why.contains("told to end again"), "{why}");
}
