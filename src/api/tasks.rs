//! Tasks, their events and their checks.

use std::sync::Arc;

use super::error::ApiError;
use super::pages::{Asker, Deadline, Lane, Request, Work, Writer};
use super::{Answer, Reading};
use crate::containers::{Listed, nearest};
use crate::query::{self, Budget as _, Filters, Query, Sink as _, Summaries};
use crate::wire;

/// The most ids that an unknown one is compared with: a third of a second of work where all of them are long.
const COMPARED: usize = 1024;

impl Reading {
    /// The task with exactly this id.
    ///
    /// # Errors
    /// With 404 where there is none.
    pub(super) async fn task(&self, asker: Asker, id: &str) -> Result<Listed, ApiError> {
        if let Some(listed) = self.data.directory.task(id) {
            return Ok(listed);
        }
        let (directory, unknown) = (Arc::clone(&self.data.directory), id.to_owned());
        let compare = move || nearest(&unknown, directory.task_ids(COMPARED));
        Err(ApiError::unknown_task(id, self.pages.suggest(asker, compare).await))
    }

    /// The error for an unknown container, with similar ids.
    pub(super) async fn unknown_container(&self, asker: Asker, id: &str) -> ApiError {
        let (directory, unknown) = (Arc::clone(&self.data.directory), id.to_owned());
        let compare = move || nearest(&unknown, directory.container_ids(COMPARED));
        ApiError::unknown_container(id, self.pages.suggest(asker, compare).await)
    }

    /// Events and checks of a task's containers that the filters want, as they are now.
    async fn summaries_of(
        &self,
        work: &Work,
        (asker, id): (Asker, &str),
        filters: Filters,
    ) -> Result<(Listed, Summaries), ApiError> {
        let (listed, data) = (self.task(asker, id).await?, &self.data);
        let containers = query::containers_of(&data.directory, &listed, &filters);
        let choose =
            move |deadline: &Deadline| Ok(deadline.choose(containers, |info| filters.origin(&info.origin))?);
        let summaries = query::summaries(data, &work.run(choose).await?).await?;
        Ok((listed, summaries))
    }
}

/// The filters of a list of tasks.
const LISTED: [&str; 3] = ["task", "container", "label"];

/// `GET /v1/tasks`
pub(super) async fn list(
    reading: &Reading,
    asker: Asker,
    raw: &str,
    raw_lines: bool,
) -> Result<Answer, ApiError> {
    let filters = Filters::read(&Query::read(raw, &LISTED)?)?;
    let lane = if filters.has_patterns() { Lane::Search } else { Lane::Short };
    let request = Request::new(asker, lane, "/v1/tasks", raw.to_owned());
    let of_node = reading.clone();
    let gather = move |work: Work| async move {
        let data = of_node.data.clone();
        let directory = Arc::clone(&data.directory);
        let choose = move |deadline: &Deadline| Ok(query::chosen(&directory, &filters, deadline)?);
        let tasks = work.run(choose).await?;
        let containers: Vec<_> = tasks.iter().flat_map(|listed| listed.containers.iter().cloned()).collect();
        let counts = data.counts(&containers).await?;
        Ok(move |writer: &mut Writer| {
            let (presets, last_scrape) = (&data.config().presets, of_node.stats.last_scrape());
            let document = |listed| query::task(listed, presets, &counts, last_scrape, raw_lines);
            writer.array(tasks.iter().map(document))
        })
    };
    reading.pages.answer(request, gather).await
}

/// `GET /v1/tasks/{task_id}`
pub(super) async fn show(
    reading: &Reading,
    asker: Asker,
    id: &str,
    raw_lines: bool,
) -> Result<Answer, ApiError> {
    let request = Request::new(asker, Lane::Short, "/v1/tasks/{task_id}", id.to_owned());
    let (of_node, id) = (reading.clone(), id.to_owned());
    let gather = move |_| async move {
        let listed = of_node.task(asker, &id).await?;
        let data = of_node.data.clone();
        let counts = data.counts(&listed.containers).await?;
        Ok(move |writer: &mut Writer| {
            let (presets, last_scrape) = (&data.config().presets, of_node.stats.last_scrape());
            let document = query::task(&listed, presets, &counts, last_scrape, raw_lines);
            writer.json(&wire::Task { widest_tags: Some(query::widest(&data.store, &listed)), ..document })
        })
    };
    reading.pages.answer(request, gather).await
}

/// `GET /v1/tasks/{task_id}/events`
pub(super) async fn events(reading: &Reading, asker: Asker, id: &str, raw: &str) -> Result<Answer, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["container", "label"])?)?;
    let lane = if filters.has_patterns() { Lane::Search } else { Lane::Short };
    let request = Request::new(asker, lane, "/v1/tasks/{task_id}/events", format!("{id}\n{raw}"));
    let (of_node, id) = (reading.clone(), id.to_owned());
    let gather = move |work: Work| async move {
        let (listed, summaries) = of_node.summaries_of(&work, (asker, &id), filters).await?;
        Ok(move |writer: &mut Writer| writer.json(&query::events(&listed, &summaries)))
    };
    reading.pages.answer(request, gather).await
}

/// `GET /v1/tasks/{task_id}/checks`
pub(super) async fn checks(reading: &Reading, asker: Asker, id: &str, raw: &str) -> Result<Answer, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["container", "label"])?)?;
    let lane = if filters.has_patterns() { Lane::Search } else { Lane::Short };
    let request = Request::new(asker, lane, "/v1/tasks/{task_id}/checks", format!("{id}\n{raw}"));
    let (of_node, id) = (reading.clone(), id.to_owned());
    let gather = move |work: Work| async move {
        let (listed, summaries) = of_node.summaries_of(&work, (asker, &id), filters).await?;
        Ok(move |writer: &mut Writer| writer.json(&query::checks(&listed, &summaries)))
    };
    reading.pages.answer(request, gather).await
}
