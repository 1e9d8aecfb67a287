use std::fs::File;

use super::*;
use crate::config::ProcessEnvironment;
use crate::containers::{ContainerTable, TableSettings};
use crate::net::clock::Clock;
use crate::nri::suspension_channel;
use crate::shard::ShardPlan;
use crate::shutdown::drain_channel;

/// An agent without containers.
fn holding(nri: Suspender) -> Holding {
    let config = AgentConfig::from_toml("", &ProcessEnvironment).unwrap();
    let store = Arc::new(Store::new(1, 30));
    let aggregation = Arc::new(config.aggregation.clone());
    let pool =
        Arc::new(ShardPool::start(&ShardPlan::for_tests(), &store, &aggregation, Clock::default()).unwrap());
    let settings = TableSettings::for_tests(1, 18_628);
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
