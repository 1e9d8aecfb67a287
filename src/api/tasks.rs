//! Tasks, their events and their checks.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::documents::{task, task_short};
use super::error::ApiError;
use super::pages::{Asker, Deadline, Lane, Request, Work, Writer};
use super::query::{Filters, Query};
use super::{Answer, Api};
use crate::aggregate::{ContainerSummary, EventRecord, LastCheck, WideTag, widest_tags};
use crate::containers::{ContainerInfo, Listed, nearest};
use crate::render::record::TagsDocument;
use crate::shard::Of;
use crate::wire;

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
    pub(super) async fn task(&self, asker: Asker, id: &str) -> Result<Listed, ApiError> {
        if let Some(listed) = self.containers.directory().task(id) {
            return Ok(listed);
        }
        let (containers, unknown) = (self.containers.clone(), id.to_owned());
        let compare = move || nearest(&unknown, containers.directory().task_ids(COMPARED));
        Err(ApiError::unknown_task(id, self.pages.suggest(asker, compare).await))
    }

    /// The error for an unknown container, with similar ids.
    pub(super) async fn unknown_container(&self, asker: Asker, id: &str) -> ApiError {
        let (containers, unknown) = (self.containers.clone(), id.to_owned());
        let compare = move || nearest(&unknown, containers.directory().container_ids(COMPARED));
        ApiError::unknown_container(id, self.pages.suggest(asker, compare).await)
    }

    /// Events and checks of a task's containers, as they are now; the query chooses among these.
    async fn summaries_of(
        &self,
        work: &Work,
        (asker, id): (Asker, &str),
        filters: Filters,
    ) -> Result<(Listed, Summaries), ApiError> {
        let listed = self.task(asker, id).await?;
        let containers = match filters.names_containers() {
            true => self.containers.directory().every_container_of(id),
            false => listed.containers.clone(),
        };
        let choose =
            move |deadline: &Deadline| deadline.choose(containers, |info| filters.origin(&info.origin));
        let wanted = work.run(choose).await?;
        let summaries = self.summaries(&wanted).await?;
        Ok((listed, summaries))
    }

    /// What makes the series of a task, as of the last closed windows.
    fn widest_tags(&self, listed: &Listed) -> Vec<wire::WideTag> {
        let history = |info: &Arc<ContainerInfo>| self.store.history(info.allocation);
        let histories: Vec<_> = listed.containers.iter().filter_map(history).collect();
        let ledgers = histories
            .iter()
            .filter_map(|history| history.summary())
            .flat_map(|summary| summary.ledger.iter());
        let widest = widest_tags(ledgers.map(|(series, _)| series.as_ref()), WIDEST_TAGS).into_iter();
        widest.map(|WideTag { key, values, series }| wire::WideTag { key, values, series }).collect()
    }

    async fn summaries(&self, containers: &[Arc<ContainerInfo>]) -> Result<Summaries, ApiError> {
        let live = containers.iter().map(|info| info.allocation).collect();
        let open = self.pool.open_windows(&Of::These(live)).await?;
        let open: HashMap<_, _> = open.iter().map(|stats| (stats.allocation, stats)).collect();
        let summary = |info: &Arc<ContainerInfo>| {
            let now = open.get(&info.allocation).and_then(|stats| stats.open.as_ref());
            let now = now.map(|(_, summary)| summary.clone());
            let closed = || self.store.history(info.allocation)?.summary().cloned();
            Some((Arc::clone(info), now.or_else(closed)?))
        };
        Ok(containers.iter().filter_map(summary).collect())
    }
}

/// The filters of a list of tasks.
const LISTED: [&str; 3] = ["task", "container", "label"];

/// `GET /v1/tasks`
pub(super) async fn list(api: &Api, asker: Asker, raw: &str, raw_lines: bool) -> Result<Answer, ApiError> {
    let filters = Filters::read(&Query::read(raw, &LISTED)?)?;
    let lane = if filters.has_patterns() { Lane::Search } else { Lane::Short };
    let request = Request::new(asker, lane, "/v1/tasks", raw.to_owned());
    let of_node = api.clone();
    let gather = move |work: Work| async move {
        let containers = of_node.containers.clone();
        let choose = move |deadline: &Deadline| {
            let wanted = |info: &Arc<ContainerInfo>| deadline.goes_on() && filters.origin(&info.origin);
            deadline.choose(containers.directory().tasks(), |listed| listed.containers.iter().any(wanted))
        };
        let tasks = work.run(choose).await?;
        let containers: Vec<_> = tasks.iter().flat_map(|listed| listed.containers.iter().cloned()).collect();
        let counts = of_node.counts(&containers).await?;
        Ok(move |writer: &mut Writer| {
            let (presets, last_scrape) = (&of_node.config().presets, of_node.stats.last_scrape());
            let document = |listed| task(listed, presets, &counts, last_scrape, raw_lines);
            writer.array(tasks.iter().map(document))
        })
    };
    api.pages.answer(request, gather).await
}

/// `GET /v1/tasks/{task_id}`
pub(super) async fn show(api: &Api, asker: Asker, id: &str, raw_lines: bool) -> Result<Answer, ApiError> {
    let request = Request::new(asker, Lane::Short, "/v1/tasks/{task_id}", id.to_owned());
    let (of_node, id) = (api.clone(), id.to_owned());
    let gather = move |_| async move {
        let listed = of_node.task(asker, &id).await?;
        let counts = of_node.counts(&listed.containers).await?;
        Ok(move |writer: &mut Writer| {
            let (presets, last_scrape) = (&of_node.config().presets, of_node.stats.last_scrape());
            let document = task(&listed, presets, &counts, last_scrape, raw_lines);
            writer.json(&wire::Task { widest_tags: Some(of_node.widest_tags(&listed)), ..document })
        })
    };
    api.pages.answer(request, gather).await
}

fn event<'a>(info: &'a ContainerInfo, event: &'a EventRecord) -> wire::Event<'a, TagsDocument<'a>> {
    wire::Event {
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

/// `GET /v1/tasks/{task_id}/events`
pub(super) async fn events(api: &Api, asker: Asker, id: &str, raw: &str) -> Result<Answer, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["container", "label"])?)?;
    let lane = if filters.has_patterns() { Lane::Search } else { Lane::Short };
    let request = Request::new(asker, lane, "/v1/tasks/{task_id}/events", format!("{id}\n{raw}"));
    let (of_node, id) = (api.clone(), id.to_owned());
    let gather = move |work: Work| async move {
        let (listed, summaries) = of_node.summaries_of(&work, (asker, &id), filters).await?;
        Ok(move |writer: &mut Writer| {
            let mut events: Vec<_> = summaries
                .iter()
                .flat_map(|(info, summary)| summary.events.iter().map(|of_one| event(info, of_one)))
                .collect();
            events.sort_by_key(|event| event.received_at);
            writer.json(&wire::Events { task: task_short(&listed), events })
        })
    };
    api.pages.answer(request, gather).await
}

fn check<'a>(info: &'a ContainerInfo, check: &'a LastCheck) -> wire::Check<'a, TagsDocument<'a>> {
    wire::Check {
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

/// `GET /v1/tasks/{task_id}/checks`
pub(super) async fn checks(api: &Api, asker: Asker, id: &str, raw: &str) -> Result<Answer, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["container", "label"])?)?;
    let lane = if filters.has_patterns() { Lane::Search } else { Lane::Short };
    let request = Request::new(asker, lane, "/v1/tasks/{task_id}/checks", format!("{id}\n{raw}"));
    let (of_node, id) = (api.clone(), id.to_owned());
    let gather = move |work: Work| async move {
        let (listed, summaries) = of_node.summaries_of(&work, (asker, &id), filters).await?;
        Ok(move |writer: &mut Writer| {
            let mut checks: Vec<_> = summaries
                .iter()
                .flat_map(|(info, summary)| summary.checks.iter().map(|of_one| check(info, of_one)))
                .collect();
            checks.sort_by(|a, b| {
                (&a.name, a.tags.0, &a.container_id).cmp(&(&b.name, b.tags.0, &b.container_id))
            });
            writer.json(&wire::Checks { task: task_short(&listed), checks })
        })
    };
    api.pages.answer(request, gather).await
}
