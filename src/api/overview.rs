//! `GET /v1/watch`: server-sent events about the node as a whole, for readers that follow many tasks at one time.
//!
//! The first events describe the agent and every task; later ones contain only changes. A rate is the difference of two
//! exact counts, divided by the time between them.
//!
//! `GET /v1/accounting` answers the identities of these counts, per container and in total.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::error::ApiError;
use super::health::{DetailLevel, degraded_parts, node_document};
use super::pages::{
    Asker, BuildLane, Deadline, EventRenderer, PageReader, PageRequest, PageWork, PageWriter,
};
use super::watch::EVENT_STREAM;
use super::{AgentContext, ApiResponse, ReaderContext};
use crate::aggregate::Accounting;
use crate::containers::{ContainerInfo, TaskContainers};
use crate::net::clock;
use crate::query::{
    self, Budget as _, Data, Filters, Look, Query, RecentWindows, Rows, Sink as _, choose_tasks,
    format_event, write_rows,
};
use crate::shutdown::Drain;

/// The interval of events: short enough to seem live, long enough that a thousand tasks cost next to nothing.
const EVERY: Duration = Duration::from_secs(2);

/// One stream of events.
struct Overview {
    agent: AgentContext,
    filters: Arc<Filters>,
    rows: Arc<Rows>,
    /// Whether the next event has the values of kept windows.
    with_recent: bool,
    every: Interval,
    drain: Drain,
    events: EventRenderer,
    /// The unsent rest of the current event.
    sending: Option<PageReader>,
    /// The first event.
    first: Option<String>,
}

/// `GET /v1/watch`
pub(super) async fn watch_node(
    agent: &AgentContext,
    asker: Asker,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let query = Query::read(raw, &["task", "container", "label", "recent"])?;
    let filters = Filters::read(&query)?;
    let mut every = interval_at(Instant::now() + EVERY, EVERY);
    // A slow reader gets fewer events, not a burst of overdue ones.
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut overview = Overview {
        agent: agent.clone(),
        events: agent.reading.pages.event_renderer(asker, filters.has_patterns()),
        filters: Arc::new(filters),
        rows: Arc::default(),
        with_recent: query.parse_switch("recent")?,
        every,
        drain: agent.reading.drain.clone(),
        sending: None,
        first: Some(format_event("node", None, &node_document(agent))),
    };
    overview.render_changes().await?;
    let chunks =
        stream::unfold(overview, |mut overview| async move { Some((overview.next().await?, overview)) });
    Ok(ApiResponse::with_chunks(EVENT_STREAM, Box::pin(chunks))
        .with_header("cache-control", "no-store".to_owned()))
}

impl Overview {
    /// The next part of the stream; `None` once the agent ends. An error breaks the connection.
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
                () = self.drain.wait_for_start() => return None,
            }
            if let Err(error) = self.render_changes().await {
                return Some(Err(io::Error::other(error.message)));
            }
        }
    }

    /// Compares every task with its last state, and renders an event with those that have changed.
    async fn render_changes(&mut self) -> Result<(), ApiError> {
        self.events.wait_for_room().await;
        let (data, filters) = (self.agent.reading.data.clone(), Arc::clone(&self.filters));
        let directory = Arc::clone(&data.directory);
        let choose = move |deadline: &Deadline| Ok(choose_tasks(&directory, &filters, deadline)?);
        let tasks = self.events.run(choose).await?;
        let containers: Vec<Arc<ContainerInfo>> =
            tasks.iter().flat_map(|listed| listed.containers.iter().cloned()).collect();
        let stats_by_container = data.collect_container_stats(&containers).await?;
        let (agent, before) = (self.agent.clone(), Arc::clone(&self.rows));
        let with_recent = std::mem::take(&mut self.with_recent);
        let render = move |text: &mut Vec<u8>, deadline: &Deadline| {
            let recent = with_recent.then(|| count_recent(&agent.reading.data, &tasks, deadline)).flatten();
            let look = Look {
                at: clock::wall_time(),
                ready: agent.readiness.pending_conditions().is_empty(),
                degraded: degraded_parts(&agent, DetailLevel::Reason),
                memory: agent.reading.data.pool.read_measurements().memory,
                last_scrape: agent.reading.stats.last_scrape(),
            };
            Ok(write_rows(text, look, &tasks, &stats_by_container, &before, recent.as_ref()))
        };
        let (rows, sending) = self.events.render_event(render).await?;
        (self.rows, self.sending) = (Arc::new(rows), sending);
        Ok(())
    }
}

/// The values in the kept windows of these tasks.
fn count_recent(data: &Data, tasks: &[TaskContainers], deadline: &Deadline) -> Option<RecentWindows> {
    let settings = data.current_config();
    let windows = (settings.aggregation.window, settings.aggregation.keep);
    RecentWindows::count(&data.store, tasks, windows, clock::wall_time(), deadline)
}

/// `GET /v1/accounting`
pub(super) async fn get_accounting(
    reading: &ReaderContext,
    asker: Asker,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let query = Query::read(raw, &["task", "container", "label"])?;
    let filters = Filters::read(&query)?;
    let lane = if filters.has_patterns() { BuildLane::Search } else { BuildLane::Short };
    let request = PageRequest::new(asker, lane, "/v1/accounting", raw.to_owned());
    // With a filter, the sum is that of what is shown; the node's whole includes what is forgotten.
    let everything = raw.is_empty();
    let of_node = reading.data.clone();
    let gather = move |work: PageWork| async move {
        let all = of_node.directory.all_containers();
        let choose = move |deadline: &Deadline| {
            Ok(deadline.choose_items(all, |info| filters.matches_origin(&info.origin))?)
        };
        let wanted = work.run(choose).await?;
        let stats_by_container = of_node.collect_container_stats(&wanted).await?;
        let forgotten =
            if everything { of_node.directory.forgotten_accounting() } else { Accounting::default() };
        let node = of_node.current_config().node.clone();
        Ok(move |writer: &mut PageWriter| {
            writer.write_json(&query::accounting_document(node, &wanted, &stats_by_container, forgotten))
        })
    };
    reading.pages.answer_request(request, gather).await
}
