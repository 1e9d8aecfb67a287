//! `GET /v1/tasks/{task_id}/metrics`: a task's records.

use std::sync::Arc;

use super::error::ApiError;
use super::pages::{Asker, BuildLane, Deadline, PageRequest, PageWork, PageWriter};
use super::{ApiResponse, ReaderContext};
use crate::net::clock;
use crate::query::{self, Budget as _, Query, SELECTION, Selection, Windows};

/// `GET /v1/tasks/{task_id}/metrics`
pub(super) async fn get_task_metrics(
    reading: &ReaderContext,
    asker: Asker,
    id: &str,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let selection = Selection::read(&Query::read(raw, &SELECTION)?, clock::wall_time())?;
    let costly = selection.filters.has_patterns() || selection.windows == Windows::All || selection.hdr;
    let lane = if costly { BuildLane::Search } else { BuildLane::Short };
    let request = PageRequest::new(asker, lane, "/v1/tasks/{task_id}/metrics", format!("{id}\n{raw}"));
    let (of_node, id) = (reading.clone(), id.to_owned());
    let gather = move |work: PageWork| async move {
        let (listed, data) = (of_node.find_task(asker, &id).await?, of_node.data);
        let containers = query::containers_of(&data.directory, &listed, &selection.filters);
        let selection = Arc::new(selection);
        let chosen = Arc::clone(&selection);
        let choose = move |deadline: &Deadline| {
            Ok(deadline.choose_items(containers, |info| chosen.filters.matches_origin(&info.origin))?)
        };
        let sources = query::collect_sources(&data, work.run(choose).await?, selection.windows).await?;
        Ok(move |writer: &mut PageWriter| {
            let of_node = (&*data.current_config().node, data.store.epoch());
            query::write_task(writer, &listed, of_node, &sources, &selection)
        })
    };
    reading.pages.answer_request(request, gather).await
}
