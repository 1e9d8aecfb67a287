//! Tasks: how each stands and what has changed since the last look, their events and their checks.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::data::{Data, Error};
use super::documents::{generation_document, state_of, task_short};
use super::parameters::Filters;
use super::recent::RecentWindows;
use super::sink::{Budget, append_json, format_event};
use crate::aggregate::{self, Accounting, ContainerSummary, EventRecord, LastCheck, WideTag};
use crate::containers::{ContainerInfo, Directory, TaskContainers};
use crate::model::{TaskId, Timestamp};
use crate::render::record::TagsDocument;
use crate::shard::{ContainerSelection, StatsByContainer};
use crate::store::Store;
use crate::wire;

/// Maximum number of tags listed as those with the most values.
const WIDEST_TAGS: usize = 5;

/// Containers and their summaries.
pub type Summaries = Vec<(Arc<ContainerInfo>, ContainerSummary)>;

/// The tasks with a container that matches the filters.
///
/// # Errors
/// When the budget is used up.
pub fn choose_tasks(
    directory: &Directory,
    filters: &Filters,
    budget: &impl Budget,
) -> Result<Vec<TaskContainers>, Error> {
    let wanted = |info: &Arc<ContainerInfo>| budget.goes_on() && filters.matches_origin(&info.origin);
    budget.choose_items(directory.all_tasks(), |listed| listed.containers.iter().any(wanted))
}

/// The containers of a task that filters apply to. With a filter of containers, ended ones are included.
#[must_use]
pub fn containers_of(
    directory: &Directory,
    listed: &TaskContainers,
    filters: &Filters,
) -> Vec<Arc<ContainerInfo>> {
    match filters.names_containers() {
        true => directory.every_container_of(listed.task_id.as_str()),
        false => listed.containers.clone(),
    }
}

/// The tags with the most values in a task's last closed windows.
#[must_use]
pub fn widest_tags(store: &Store, listed: &TaskContainers) -> Vec<wire::WideTagDocument> {
    let history = |info: &Arc<ContainerInfo>| store.find_history(info.allocation);
    let histories: Vec<_> = listed.containers.iter().filter_map(history).collect();
    let ledgers =
        histories.iter().filter_map(|history| history.summary()).flat_map(|summary| summary.ledger.iter());
    let widest = aggregate::widest_tags(ledgers.map(|(series, _)| series.as_ref()), WIDEST_TAGS).into_iter();
    widest.map(|WideTag { key, values, series }| wire::WideTagDocument { key, values, series }).collect()
}

/// The current events and checks of containers.
///
/// # Errors
/// When a shard has ended.
pub async fn container_summaries(data: &Data, containers: &[Arc<ContainerInfo>]) -> Result<Summaries, Error> {
    let live = containers.iter().map(|info| info.allocation).collect();
    let open = data.pool.open_windows(&ContainerSelection::These(live)).await?;
    let open: HashMap<_, _> = open.iter().map(|stats| (stats.allocation, stats)).collect();
    let summary = |info: &Arc<ContainerInfo>| {
        let now = open.get(&info.allocation).and_then(|stats| stats.open.as_ref());
        let now = now.map(|(_, summary)| summary.clone());
        let closed = || data.store.find_history(info.allocation)?.summary().cloned();
        Some((Arc::clone(info), now.or_else(closed)?))
    };
    Ok(containers.iter().filter_map(summary).collect())
}

/// The events of a task, the oldest first.
#[must_use]
pub fn events_document<'a>(
    listed: &TaskContainers,
    summaries: &'a Summaries,
) -> wire::Events<'a, TagsDocument<'a>> {
    let mut events: Vec<_> = summaries
        .iter()
        .flat_map(|(info, summary)| summary.events.iter().map(|of_one| event_document(info, of_one)))
        .collect();
    events.sort_by_key(|event| event.received_at);
    wire::Events { task: task_short(listed), events }
}

fn event_document<'a>(
    info: &'a ContainerInfo,
    event: &'a EventRecord,
) -> wire::EventDocument<'a, TagsDocument<'a>> {
    wire::EventDocument {
        container_id: info.origin.container_id.as_str().into(),
        received_at: event.received_at,
        title: (&*event.title).into(),
        text: event.text.as_deref().map(Cow::Borrowed),
        timestamp: event.timestamp,
        alert_type: event.alert_type.as_str().into(),
        priority: event.priority.as_str().into(),
        hostname: event.hostname.as_deref().map(Cow::Borrowed),
        aggregation_key: event.aggregation_key.as_deref().map(Cow::Borrowed),
        source_type: event.source_type.as_deref().map(Cow::Borrowed),
        tags: TagsDocument(&event.tags),
    }
}

/// The checks of a task, by name, tags and container.
#[must_use]
pub fn checks_document<'a>(
    listed: &TaskContainers,
    summaries: &'a Summaries,
) -> wire::Checks<'a, TagsDocument<'a>> {
    let mut checks: Vec<_> = summaries
        .iter()
        .flat_map(|(info, summary)| summary.checks.iter().map(|of_one| check_document(info, of_one)))
        .collect();
    checks.sort_by(|a, b| (&a.name, a.tags.0, &a.container_id).cmp(&(&b.name, b.tags.0, &b.container_id)));
    wire::Checks { task: task_short(listed), checks }
}

fn check_document<'a>(
    info: &'a ContainerInfo,
    check: &'a LastCheck,
) -> wire::CheckDocument<'a, TagsDocument<'a>> {
    wire::CheckDocument {
        container_id: info.origin.container_id.as_str().into(),
        name: (&*check.series.name).into(),
        tags: TagsDocument(&check.series.tags),
        status: check.outcome.status.as_str().into(),
        received_at: check.at,
        message: check.outcome.message.as_deref().map(Cow::Borrowed),
        hostname: check.outcome.hostname.as_deref().map(Cow::Borrowed),
        timestamp: check.outcome.timestamp,
    }
}

type OverviewRow = wire::TaskRow<TaskId>;

fn task_row(listed: &TaskContainers, stats_by_container: &StatsByContainer) -> OverviewRow {
    let mut counts = Accounting::default();
    let (mut series, mut last_problem) = (0, None);
    for stats in listed.containers.iter().filter_map(|info| stats_by_container.get(&info.allocation)) {
        counts.merge(&stats.accounting);
        series += stats.series;
        last_problem = last_problem.max(stats.last_problem);
    }
    let state = state_of(listed);
    OverviewRow {
        task_id: listed.task_id.clone(),
        state: state.as_str().into(),
        finished: state.is_finished(),
        generation: generation_document(listed),
        containers: listed.containers.len(),
        series,
        reserved_at: listed.containers.iter().map(|info| info.reserved_at).max().unwrap_or_default(),
        last_datagram: counts.last_datagram,
        received: counts.received,
        values: counts.values,
        kernel_drops: counts.kernel_drops,
        dropped: counts.dropped.total_count(),
        folded: counts.folded,
        rejected: counts.rejected.total_count(),
        events: counts.events,
        last_problem,
        recent_values: None,
    }
}

/// The state of tasks in the previous event, each as a hash of its row, which is enough to detect changes.
pub type Rows = BTreeMap<TaskId, u64>;

/// The state of the agent for an event.
#[derive(Clone, Debug)]
pub struct Look {
    /// The time of the event.
    pub at: Timestamp,
    /// Whether everything that the agent needs works.
    pub ready: bool,
    /// What does not work as configured.
    pub degraded: Vec<wire::DegradedDocument>,
    /// Bytes that all aggregators hold.
    pub memory: usize,
    /// When the node was scraped last.
    pub last_scrape: Option<Timestamp>,
}

/// Writes an event with the tasks that have changed since `before`, with their values in `recent` windows. Returns the rows of
/// all tasks.
pub fn write_rows(
    text: &mut Vec<u8>,
    look: Look,
    tasks: &[TaskContainers],
    stats_by_container: &StatsByContainer,
    before: &Rows,
    recent: Option<&RecentWindows>,
) -> Rows {
    let (mut rows, mut changed) = (Rows::new(), Vec::new());
    let mut row_text = Vec::new();
    for listed in tasks {
        let mut row = task_row(listed, stats_by_container);
        row_text.clear();
        append_json(&mut row_text, &row);
        let hash = xxh3_64(&row_text);
        rows.insert(row.task_id.clone(), hash);
        if before.get(&row.task_id) != Some(&hash) {
            row.recent_values = recent.map(|recent| recent.count_values(listed));
            changed.push(row);
        }
    }
    let gone = before.keys().filter(|id| !rows.contains_key(*id));
    let Look { at, ready, degraded, memory, last_scrape } = look;
    let (tasks, gone): (Vec<&OverviewRow>, Vec<&TaskId>) = (changed.iter().collect(), gone.collect());
    let recent_until = recent.map(RecentWindows::end_of_newest);
    let changes = wire::TaskChanges { at, ready, degraded, memory, last_scrape, recent_until, tasks, gone };
    text.extend_from_slice(format_event("tasks", None, &changes).as_bytes());
    rows
}
