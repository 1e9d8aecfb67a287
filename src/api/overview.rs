//! `GET /v1/watch`: server-sent events about the node as a whole, for whoever watches many tasks at one time.
//!
//! The first events say what the agent runs with and how every task stands; later ones have only what changed. A rate
//! is the difference of two counts, which are exact, over that of their moments.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::documents::state_of;
use super::error::ApiError;
use super::health::{Degraded, Detail, Node, degraded};
use super::query::{Filters, Query};
use super::watch::{EVENT_STREAM, event};
use super::{Answer, Api};
use crate::aggregate::Accounting;
use crate::containers::{ContainerInfo, Containers, Listed, State};
use crate::model::{Allocation, Timestamp};
use crate::net::clock;
use crate::shard::Glimpse;
use crate::shutdown::Drain;

/// How often it looks: often enough to seem live, seldom enough that a thousand tasks cost next to nothing.
const EVERY: Duration = Duration::from_secs(2);

/// How a task stands, in a few numbers that count since its containers began.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Row {
    task_id: String,
    state: State,
    finished: bool,
    generation: u32,
    containers: usize,
    series: usize,
    last_datagram: Option<Timestamp>,
    received: u64,
    values: u64,
    kernel_drops: u64,
    dropped: u64,
    rejected: u64,
    events: u64,
}

impl Row {
    fn new(listed: &Listed, glimpses: &HashMap<Allocation, Arc<Glimpse>>) -> Self {
        let mut counts = Accounting::default();
        let mut series = 0;
        for glimpse in listed.containers.iter().filter_map(|info| glimpses.get(&info.allocation)) {
            counts.merge(&glimpse.accounting);
            series += glimpse.series;
        }
        let state = state_of(listed);
        Self {
            task_id: listed.task_id.to_string(),
            state,
            finished: state.is_finished(),
            generation: listed.containers.iter().map(|info| info.origin.generation.0).max().unwrap_or(0),
            containers: listed.containers.len(),
            series,
            last_datagram: counts.last_datagram,
            received: counts.received,
            values: counts.values,
            kernel_drops: counts.kernel_drops,
            dropped: counts.dropped.total(),
            rejected: counts.rejected.total(),
            events: counts.events,
        }
    }
}

/// What changed since the last event.
#[derive(Debug, Serialize)]
struct Changes<'a> {
    at: Timestamp,
    ready: bool,
    degraded: Vec<Degraded>,
    memory: usize,
    last_scrape: Option<Timestamp>,
    tasks: Vec<&'a Row>,
    gone: Vec<&'a str>,
}

/// Tasks as they stood at the last look.
type Rows = BTreeMap<String, Row>;

/// One stream of events.
struct Overview {
    api: Api,
    filters: Arc<Filters>,
    rows: Rows,
    every: Interval,
    drain: Drain,
    ready: VecDeque<String>,
}

/// `GET /v1/watch`
pub(super) async fn watch(api: &Api, raw: &str) -> Result<Answer, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["task", "container", "label"])?)?;
    let mut every = interval_at(Instant::now() + EVERY, EVERY);
    // Who reads slowly gets fewer events, not all of them at one time.
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut overview = Overview {
        api: api.clone(),
        filters: Arc::new(filters),
        rows: Rows::new(),
        every,
        drain: api.drain.clone(),
        ready: VecDeque::from([event("node", None, &Node::of(api))]),
    };
    let whole = overview.look().await?;
    overview.ready.push_back(whole);
    let chunks = stream::unfold(overview, |mut overview| async move {
        let text = overview.next().await?;
        Some((Ok(Bytes::from(text)), overview))
    });
    Ok(Answer::chunks(EVENT_STREAM, Box::pin(chunks)).with_header("cache-control", "no-store".to_owned()))
}

impl Overview {
    async fn next(&mut self) -> Option<String> {
        if let Some(text) = self.ready.pop_front() {
            return Some(text);
        }
        tokio::select! {
            _ = self.every.tick() => {}
            () = self.drain.started() => return None,
        }
        // A shard that is gone takes the agent with it.
        self.look().await.ok()
    }

    /// Looks at every task, and makes an event of what is not as it was.
    async fn look(&mut self) -> Result<String, ApiError> {
        let (containers, filters) = (self.api.containers.clone(), Arc::clone(&self.filters));
        let tasks = self.api.pages.aside(move || chosen(&containers, &filters)).await?;
        let containers: Vec<Arc<ContainerInfo>> =
            tasks.iter().flat_map(|listed| listed.containers.iter().cloned()).collect();
        let glimpses = self.api.counts(&containers).await?;
        let (api, before) = (self.api.clone(), std::mem::take(&mut self.rows));
        let (text, rows) = self.api.pages.aside(move || changes(&api, &tasks, &glimpses, &before)).await?;
        self.rows = rows;
        Ok(text)
    }
}

fn chosen(containers: &Containers, filters: &Filters) -> Vec<Listed> {
    let wanted = |listed: &Listed| listed.containers.iter().any(|info| filters.origin(&info.origin));
    containers.directory().tasks().into_iter().filter(|listed| wanted(listed)).collect()
}

/// An event of the tasks that are not as they were, and all of them as they are.
fn changes(
    api: &Api,
    tasks: &[Listed],
    glimpses: &HashMap<Allocation, Arc<Glimpse>>,
    before: &Rows,
) -> (String, Rows) {
    let rows = tasks.iter().map(|listed| Row::new(listed, glimpses));
    let rows: Rows = rows.map(|row| (row.task_id.clone(), row)).collect();
    let changed = rows.iter().filter(|(id, row)| before.get(*id) != Some(*row));
    let gone = before.keys().filter(|id| !rows.contains_key(*id));
    let changes = Changes {
        at: clock::wall(),
        ready: api.readiness.pending().is_empty(),
        degraded: degraded(api, Detail::Reason),
        memory: api.pool.gauges().memory,
        last_scrape: api.stats.last_scrape(),
        tasks: changed.map(|(_, row)| row).collect(),
        gone: gone.map(String::as_str).collect(),
    };
    (event("tasks", None, &changes), rows)
}
