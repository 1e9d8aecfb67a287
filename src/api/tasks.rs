//! Tasks, their events and their checks.

use std::sync::Arc;

use super::error::ApiError;
use super::pages::{Asker, BuildLane, Deadline, PageRequest, PageWork, PageWriter};
use super::{ApiResponse, JSON, ReaderContext};
use crate::containers::{TaskContainers, suggest_names};
use crate::net::clock;
use crate::query::{self, Budget as _, Filters, Query, Sink as _, Summaries, WantedNames};
use crate::wire;

/// Maximum number of ids that an unknown one is compared with: a third of a second of work if all of them are long.
const COMPARED: usize = 1024;

impl ReaderContext {
    /// The task with exactly this id.
    ///
    /// # Errors
    /// With 404 where there is none.
    pub(super) async fn find_task(&self, asker: Asker, id: &str) -> Result<TaskContainers, ApiError> {
        if let Some(listed) = self.data.directory.find_task(id) {
            return Ok(listed);
        }
        Err(self.unknown_task(asker, id).await)
    }

    /// The error for an unknown task, with similar ids.
    pub(super) async fn unknown_task(&self, asker: Asker, id: &str) -> ApiError {
        let (directory, unknown) = (Arc::clone(&self.data.directory), id.to_owned());
        let compare = move || suggest_names(&unknown, directory.task_ids(COMPARED));
        ApiError::unknown_task(id, self.pages.suggest_names(asker, compare).await)
    }

    /// The error for an unknown container, with similar ids.
    pub(super) async fn unknown_container(&self, asker: Asker, id: &str) -> ApiError {
        let (directory, unknown) = (Arc::clone(&self.data.directory), id.to_owned());
        let compare = move || suggest_names(&unknown, directory.container_ids(COMPARED));
        ApiError::unknown_container(id, self.pages.suggest_names(asker, compare).await)
    }

    /// Current events and checks of a task's containers that match the filters.
    async fn summaries_of(
        &self,
        work: &PageWork,
        (asker, id): (Asker, &str),
        filters: Filters,
    ) -> Result<(TaskContainers, Summaries), ApiError> {
        let (listed, data) = (self.find_task(asker, id).await?, &self.data);
        let containers = query::containers_of(&data.directory, &listed, &filters);
        let choose = move |deadline: &Deadline| {
            Ok(deadline.choose_items(containers, |info| filters.matches_origin(&info.origin))?)
        };
        let summaries = query::container_summaries(data, &work.run(choose).await?).await?;
        Ok((listed, summaries))
    }
}

/// The filters of a list of tasks.
const LISTED: [&str; 3] = ["task", "container", "label"];

/// `GET /v1/tasks`
pub(super) async fn list_tasks(
    reading: &ReaderContext,
    asker: Asker,
    raw: &str,
    raw_lines: bool,
) -> Result<ApiResponse, ApiError> {
    let filters = Filters::read(&Query::read(raw, &LISTED)?)?;
    let lane = if filters.has_patterns() { BuildLane::Search } else { BuildLane::Short };
    let request = PageRequest::new(asker, lane, "/v1/tasks", raw.to_owned());
    let of_node = reading.clone();
    let gather = move |work: PageWork| async move {
        let data = of_node.data.clone();
        let directory = Arc::clone(&data.directory);
        let choose = move |deadline: &Deadline| Ok(query::choose_tasks(&directory, &filters, deadline)?);
        let tasks = work.run(choose).await?;
        let containers: Vec<_> = tasks.iter().flat_map(|listed| listed.containers.iter().cloned()).collect();
        let counts = data.collect_container_stats(&containers).await?;
        Ok(move |writer: &mut PageWriter| {
            let (presets, last_scrape) = (&data.current_config().presets, of_node.stats.last_scrape());
            let document = |listed| query::task_document(listed, presets, &counts, last_scrape, raw_lines);
            writer.write_array(tasks.iter().map(document))
        })
    };
    reading.pages.answer_request(request, gather).await
}

/// `GET /v1/tasks/{task_id}`
pub(super) async fn show_task(
    reading: &ReaderContext,
    asker: Asker,
    id: &str,
    raw_lines: bool,
) -> Result<ApiResponse, ApiError> {
    let request = PageRequest::new(asker, BuildLane::Short, "/v1/tasks/{task_id}", id.to_owned());
    let (of_node, id) = (reading.clone(), id.to_owned());
    let gather = move |_| async move {
        let listed = of_node.find_task(asker, &id).await?;
        let data = of_node.data.clone();
        let counts = data.collect_container_stats(&listed.containers).await?;
        Ok(move |writer: &mut PageWriter| {
            let (presets, last_scrape) = (&data.current_config().presets, of_node.stats.last_scrape());
            let document = query::task_document(&listed, presets, &counts, last_scrape, raw_lines);
            writer.write_json(&wire::Task {
                widest_tags: Some(query::widest_tags(&data.store, &listed)),
                ..document
            })
        })
    };
    reading.pages.answer_request(request, gather).await
}

/// `GET /v1/tasks/{task_id}/names`
pub(super) async fn list_names(
    reading: &ReaderContext,
    asker: Asker,
    id: &str,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let listed = reading.find_task(asker, id).await?;
    let config = reading.data.current_config();
    let wanted = WantedNames::read(&config, raw, reading.stats.last_scrape_style(), &listed)?;
    let page = &wanted.page;
    let request = PageRequest {
        asker,
        lane: if page.filters.has_patterns() { BuildLane::Search } else { BuildLane::Node },
        route: "/v1/tasks/{task_id}/names",
        detail: format!("{}\n{id}\n{raw}", page.format.content_type(page.escaping)),
        content_type: JSON,
        gzip: false,
        shows: Some(reading.shown_state()),
    };
    let of_node = reading.clone();
    let render = move |_| async move {
        Ok(move |writer: &mut PageWriter| {
            query::write_names(&of_node.data, &wanted, &listed, clock::wall_time(), writer)
        })
    };
    reading.pages.answer_request(request, render).await
}

/// `GET /v1/tasks/{task_id}/events`
pub(super) async fn list_events(
    reading: &ReaderContext,
    asker: Asker,
    id: &str,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["container", "label"])?)?;
    let lane = if filters.has_patterns() { BuildLane::Search } else { BuildLane::Short };
    let request = PageRequest::new(asker, lane, "/v1/tasks/{task_id}/events", format!("{id}\n{raw}"));
    let (of_node, id) = (reading.clone(), id.to_owned());
    let gather = move |work: PageWork| async move {
        let (listed, summaries) = of_node.summaries_of(&work, (asker, &id), filters).await?;
        Ok(move |writer: &mut PageWriter| writer.write_json(&query::events_document(&listed, &summaries)))
    };
    reading.pages.answer_request(request, gather).await
}

/// `GET /v1/tasks/{task_id}/checks`
pub(super) async fn list_checks(
    reading: &ReaderContext,
    asker: Asker,
    id: &str,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["container", "label"])?)?;
    let lane = if filters.has_patterns() { BuildLane::Search } else { BuildLane::Short };
    let request = PageRequest::new(asker, lane, "/v1/tasks/{task_id}/checks", format!("{id}\n{raw}"));
    let (of_node, id) = (reading.clone(), id.to_owned());
    let gather = move |work: PageWork| async move {
        let (listed, summaries) = of_node.summaries_of(&work, (asker, &id), filters).await?;
        Ok(move |writer: &mut PageWriter| writer.write_json(&query::checks_document(&listed, &summaries)))
    };
    reading.pages.answer_request(request, gather).await
}
