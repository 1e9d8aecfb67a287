//! `GET /v1/watch`: server-sent events about the node as a whole, for readers that follow many tasks at one time.
//!
//! The first events say what the agent runs with and how every task stands; later ones have only what changed. A rate
//! is the difference of two counts, which are exact, over that of their moments.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use xxhash_rust::xxh3::xxh3_64;

use super::documents::{generation, state_of};
use super::error::ApiError;
use super::health::{Detail, degraded, node_document};
use super::metrics::write;
use super::pages::{Asker, Deadline, Events, Reader};
use super::query::{Filters, Query};
use super::watch::{EVENT_STREAM, event};
use super::{Answer, Api};
use crate::aggregate::Accounting;
use crate::containers::{ContainerInfo, Containers, Listed};
use crate::model::{Allocation, TaskId};
use crate::net::clock;
use crate::shard::ContainerStats;
use crate::shutdown::Drain;
use crate::wire;

/// How often it looks: often enough to seem live, seldom enough that a thousand tasks cost next to nothing.
const EVERY: Duration = Duration::from_secs(2);

type Row = wire::TaskRow<TaskId>;

fn row(listed: &Listed, stats_by_container: &HashMap<Allocation, Arc<ContainerStats>>) -> Row {
    let mut counts = Accounting::default();
    let mut series = 0;
    for stats in listed.containers.iter().filter_map(|info| stats_by_container.get(&info.allocation)) {
        counts.merge(&stats.accounting);
        series += stats.series;
    }
    let state = state_of(listed);
    Row {
        task_id: listed.task_id.clone(),
        state: state.as_str().into(),
        finished: state.is_finished(),
        generation: generation(listed),
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

/// How tasks stood at the last look, each as a hash of its row: all that a stream needs to see that a task has changed.
type Rows = BTreeMap<TaskId, u64>;

/// One stream of events.
struct Overview {
    api: Api,
    filters: Arc<Filters>,
    rows: Arc<Rows>,
    every: Interval,
    drain: Drain,
    events: Events,
    /// What is left of the event that is being sent.
    sending: Option<Reader>,
    /// The first event.
    first: Option<String>,
}

/// `GET /v1/watch`
pub(super) async fn watch(api: &Api, asker: Asker, raw: &str) -> Result<Answer, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["task", "container", "label"])?)?;
    let mut every = interval_at(Instant::now() + EVERY, EVERY);
    // A slow reader gets fewer events, not all of them at once.
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut overview = Overview {
        api: api.clone(),
        events: api.pages.events(asker, filters.has_patterns()),
        filters: Arc::new(filters),
        rows: Arc::default(),
        every,
        drain: api.drain.clone(),
        sending: None,
        first: Some(event("node", None, &node_document(api))),
    };
    overview.look().await?;
    let chunks =
        stream::unfold(overview, |mut overview| async move { Some((overview.next().await?, overview)) });
    Ok(Answer::chunks(EVENT_STREAM, Box::pin(chunks)).with_header("cache-control", "no-store".to_owned()))
}

impl Overview {
    /// The next part of the stream; nothing once the agent ends. An error breaks the connection.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first.into()));
        }
        loop {
            if let Some(sending) = &mut self.sending {
                if let Some(chunk) = sending.next().await {
                    return Some(chunk);
                }
                self.sending = None;
            }
            tokio::select! {
                _ = self.every.tick() => {}
                () = self.drain.started() => return None,
            }
            if let Err(error) = self.look().await {
                return Some(Err(io::Error::other(error.message)));
            }
        }
    }

    /// Looks at every task, and renders an event of those that have changed.
    async fn look(&mut self) -> Result<(), ApiError> {
        self.events.wait_for_room().await;
        let (containers, filters) = (self.api.containers.clone(), Arc::clone(&self.filters));
        let choose = move |deadline: &Deadline| chosen(&containers, &filters, deadline);
        let tasks = self.events.run(choose).await?;
        let containers: Vec<Arc<ContainerInfo>> =
            tasks.iter().flat_map(|listed| listed.containers.iter().cloned()).collect();
        let stats_by_container = self.api.counts(&containers).await?;
        let (api, before) = (self.api.clone(), Arc::clone(&self.rows));
        let render = move |text: &mut Vec<u8>, _: &Deadline| {
            Ok(write_changes(text, &api, &tasks, &stats_by_container, &before))
        };
        let (rows, sending) = self.events.render(render).await?;
        (self.rows, self.sending) = (Arc::new(rows), sending);
        Ok(())
    }
}

fn chosen(containers: &Containers, filters: &Filters, deadline: &Deadline) -> Result<Vec<Listed>, ApiError> {
    let wanted = |info: &Arc<ContainerInfo>| deadline.goes_on() && filters.origin(&info.origin);
    deadline.choose(containers.directory().tasks(), |listed| listed.containers.iter().any(wanted))
}

/// Writes an event of the tasks that have changed; answers the rows of all of them.
fn write_changes(
    text: &mut Vec<u8>,
    api: &Api,
    tasks: &[Listed],
    stats_by_container: &HashMap<Allocation, Arc<ContainerStats>>,
    before: &Rows,
) -> Rows {
    let (mut rows, mut changed) = (Rows::new(), Vec::new());
    let mut row_text = Vec::new();
    for row in tasks.iter().map(|listed| row(listed, stats_by_container)) {
        row_text.clear();
        write(&mut row_text, &row);
        let hash = xxh3_64(&row_text);
        rows.insert(row.task_id.clone(), hash);
        if before.get(&row.task_id) != Some(&hash) {
            changed.push(row);
        }
    }
    let gone = before.keys().filter(|id| !rows.contains_key(*id));
    let changes = wire::TaskChanges {
        at: clock::wall(),
        ready: api.readiness.pending().is_empty(),
        degraded: degraded(api, Detail::Reason),
        memory: api.pool.gauges().memory,
        last_scrape: api.stats.last_scrape(),
        tasks: changed.iter().collect::<Vec<&Row>>(),
        gone: gone.collect::<Vec<&TaskId>>(),
    };
    text.extend_from_slice(event("tasks", None, &changes).as_bytes());
    rows
}
