//! Tasks, their events and their checks.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::documents::{TaskDocument, TaskShort};
use super::error::ApiError;
use super::pages::{Asker, BuildLane, Deadline, PageRequest, PageWork, PageWriter};
use super::query::{Filters, Query};
use super::{Api, ApiResponse};
use crate::aggregate::{ContainerSummary, EventRecord, LastCheck, WideTag, widest_tags};
use crate::containers::{ContainerInfo, TaskContainers, suggest_names};
use crate::model::Timestamp;
use crate::render::record::TagsDocument;
use crate::shard::Of;
use crate::statsd::{AlertType, Priority};

/// The most ids that an unknown one is compared with: a third of a second of work where all of them are long.
const COMPARED: usize = 1024;
/// Tags that are named as those that make most series.
const WIDEST_TAGS: usize = 5;

/// Containers and their summaries.
type Summaries = Vec<(Arc<ContainerInfo>, ContainerSummary)>;

impl Api {
    /// The task with exactly this id.
    ///
    /// # Errors
    /// With 404 where there is none.
    pub(super) async fn find_task(&self, asker: Asker, id: &str) -> Result<TaskContainers, ApiError> {
        if let Some(listed) = self.containers.directory().find_task(id) {
            return Ok(listed);
        }
        let (containers, unknown) = (self.containers.clone(), id.to_owned());
        let compare = move || suggest_names(&unknown, containers.directory().task_ids(COMPARED));
        Err(ApiError::unknown_task(id, self.pages.suggest_names(asker, compare).await))
    }

    /// The error for an unknown container, with similar ids.
    pub(super) async fn unknown_container(&self, asker: Asker, id: &str) -> ApiError {
        let (containers, unknown) = (self.containers.clone(), id.to_owned());
        let compare = move || suggest_names(&unknown, containers.directory().container_ids(COMPARED));
        ApiError::unknown_container(id, self.pages.suggest_names(asker, compare).await)
    }

    /// Events and checks of a task's containers, as they are now; the query chooses among these.
    async fn summaries_of(
        &self,
        work: &PageWork,
        (asker, id): (Asker, &str),
        filters: Filters,
    ) -> Result<(TaskContainers, Summaries), ApiError> {
        let listed = self.find_task(asker, id).await?;
        let containers = match filters.names_containers() {
            true => self.containers.directory().every_container_of(id),
            false => listed.containers.clone(),
        };
        let choose = move |deadline: &Deadline| {
            deadline.choose_items(containers, |info| filters.matches_origin(&info.origin))
        };
        let wanted = work.run(choose).await?;
        let summaries = self.container_summaries(&wanted).await?;
        Ok((listed, summaries))
    }

    /// What makes the series of a task, as of the last closed windows.
    fn widest_tags(&self, listed: &TaskContainers) -> Vec<WideTag> {
        let history = |info: &Arc<ContainerInfo>| self.store.find_history(info.allocation);
        let histories: Vec<_> = listed.containers.iter().filter_map(history).collect();
        let ledgers = histories
            .iter()
            .filter_map(|history| history.summary())
            .flat_map(|summary| summary.ledger.iter());
        widest_tags(ledgers.map(|(series, _)| series.as_ref()), WIDEST_TAGS)
    }

    async fn container_summaries(&self, containers: &[Arc<ContainerInfo>]) -> Result<Summaries, ApiError> {
        let live = containers.iter().map(|info| info.allocation).collect();
        let open = self.pool.open_windows(&Of::These(live)).await?;
        let open: HashMap<_, _> = open.iter().map(|stats| (stats.allocation, stats)).collect();
        let summary = |info: &Arc<ContainerInfo>| {
            let now = open.get(&info.allocation).and_then(|stats| stats.open.as_ref());
            let now = now.map(|(_, summary)| summary.clone());
            let closed = || self.store.find_history(info.allocation)?.summary().cloned();
            Some((Arc::clone(info), now.or_else(closed)?))
        };
        Ok(containers.iter().filter_map(summary).collect())
    }
}

/// The filters of a list of tasks.
const LISTED: [&str; 3] = ["task", "container", "label"];

/// `GET /v1/tasks`
pub(super) async fn list_tasks(
    api: &Api,
    asker: Asker,
    raw: &str,
    raw_lines: bool,
) -> Result<ApiResponse, ApiError> {
    let filters = Filters::read(&Query::read(raw, &LISTED)?)?;
    let lane = if filters.has_patterns() { BuildLane::Search } else { BuildLane::Short };
    let request = PageRequest::new(asker, lane, "/v1/tasks", raw.to_owned());
    let of_node = api.clone();
    let gather = move |work: PageWork| async move {
        let containers = of_node.containers.clone();
        let choose = move |deadline: &Deadline| {
            let wanted =
                |info: &Arc<ContainerInfo>| deadline.goes_on() && filters.matches_origin(&info.origin);
            deadline.choose_items(containers.directory().all_tasks(), |listed| {
                listed.containers.iter().any(wanted)
            })
        };
        let tasks = work.run(choose).await?;
        let containers: Vec<_> = tasks.iter().flat_map(|listed| listed.containers.iter().cloned()).collect();
        let counts = of_node.collect_container_stats(&containers).await?;
        Ok(move |writer: &mut PageWriter| {
            let (presets, last_scrape) = (&of_node.current_config().presets, of_node.stats.last_scrape());
            let document = |listed| TaskDocument::new(listed, presets, &counts, last_scrape, raw_lines);
            writer.write_array(tasks.iter().map(document))
        })
    };
    api.pages.answer_request(request, gather).await
}

/// `GET /v1/tasks/{task_id}`
pub(super) async fn show_task(
    api: &Api,
    asker: Asker,
    id: &str,
    raw_lines: bool,
) -> Result<ApiResponse, ApiError> {
    let request = PageRequest::new(asker, BuildLane::Short, "/v1/tasks/{task_id}", id.to_owned());
    let (of_node, id) = (api.clone(), id.to_owned());
    let gather = move |_| async move {
        let listed = of_node.find_task(asker, &id).await?;
        let counts = of_node.collect_container_stats(&listed.containers).await?;
        Ok(move |writer: &mut PageWriter| {
            let (presets, last_scrape) = (&of_node.current_config().presets, of_node.stats.last_scrape());
            let document = TaskDocument::new(&listed, presets, &counts, last_scrape, raw_lines);
            writer.write_json(&document.with_widest_tags(of_node.widest_tags(&listed)))
        })
    };
    api.pages.answer_request(request, gather).await
}

#[derive(Serialize)]
struct EventsDocument<'a> {
    task: TaskShort,
    events: Vec<EventDocument<'a>>,
}

#[derive(Serialize)]
struct EventDocument<'a> {
    container_id: &'a str,
    received_at: Timestamp,
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    alert_type: AlertType,
    priority: Priority,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregation_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_type: Option<&'a str>,
    tags: TagsDocument<'a>,
}

impl<'a> EventDocument<'a> {
    fn new(info: &'a ContainerInfo, event: &'a EventRecord) -> Self {
        Self {
            container_id: info.origin.container_id.as_str(),
            received_at: event.received_at,
            title: &event.title,
            text: event.text.as_deref(),
            timestamp: event.timestamp,
            alert_type: event.alert_type,
            priority: event.priority,
            hostname: event.hostname.as_deref(),
            aggregation_key: event.aggregation_key.as_deref(),
            source_type: event.source_type.as_deref(),
            tags: TagsDocument(&event.tags),
        }
    }
}

/// `GET /v1/tasks/{task_id}/events`
pub(super) async fn list_events(
    api: &Api,
    asker: Asker,
    id: &str,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["container", "label"])?)?;
    let lane = if filters.has_patterns() { BuildLane::Search } else { BuildLane::Short };
    let request = PageRequest::new(asker, lane, "/v1/tasks/{task_id}/events", format!("{id}\n{raw}"));
    let (of_node, id) = (api.clone(), id.to_owned());
    let gather = move |work: PageWork| async move {
        let (listed, summaries) = of_node.summaries_of(&work, (asker, &id), filters).await?;
        Ok(move |writer: &mut PageWriter| {
            let mut events: Vec<_> = summaries
                .iter()
                .flat_map(|(info, summary)| {
                    summary.events.iter().map(|event| EventDocument::new(info, event))
                })
                .collect();
            events.sort_by_key(|event| event.received_at);
            writer.write_json(&EventsDocument { task: (&listed).into(), events })
        })
    };
    api.pages.answer_request(request, gather).await
}

#[derive(Serialize)]
struct ChecksDocument<'a> {
    task: TaskShort,
    checks: Vec<CheckDocument<'a>>,
}

#[derive(Serialize)]
struct CheckDocument<'a> {
    container_id: &'a str,
    name: &'a str,
    tags: TagsDocument<'a>,
    status: &'static str,
    received_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
}

impl<'a> CheckDocument<'a> {
    fn new(info: &'a ContainerInfo, check: &'a LastCheck) -> Self {
        Self {
            container_id: info.origin.container_id.as_str(),
            name: &check.series.name,
            tags: TagsDocument(&check.series.tags),
            status: check.outcome.status.as_str(),
            received_at: check.at,
            message: check.outcome.message.as_deref(),
            hostname: check.outcome.hostname.as_deref(),
            timestamp: check.outcome.timestamp,
        }
    }
}

/// `GET /v1/tasks/{task_id}/checks`
pub(super) async fn list_checks(
    api: &Api,
    asker: Asker,
    id: &str,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["container", "label"])?)?;
    let lane = if filters.has_patterns() { BuildLane::Search } else { BuildLane::Short };
    let request = PageRequest::new(asker, lane, "/v1/tasks/{task_id}/checks", format!("{id}\n{raw}"));
    let (of_node, id) = (api.clone(), id.to_owned());
    let gather = move |work: PageWork| async move {
        let (listed, summaries) = of_node.summaries_of(&work, (asker, &id), filters).await?;
        Ok(move |writer: &mut PageWriter| {
            let mut checks: Vec<_> = summaries
                .iter()
                .flat_map(|(info, summary)| {
                    summary.checks.iter().map(|check| CheckDocument::new(info, check))
                })
                .collect();
            checks
                .sort_by(|a, b| (a.name, a.tags.0, a.container_id).cmp(&(b.name, b.tags.0, b.container_id)));
            writer.write_json(&ChecksDocument { task: (&listed).into(), checks })
        })
    };
    api.pages.answer_request(request, gather).await
}
