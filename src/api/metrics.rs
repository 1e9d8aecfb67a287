//! `GET /v1/tasks/{task_id}/metrics`: a task's records.

use std::sync::Arc;

use super::error::ApiError;
use super::pages::{Asker, Deadline, Lane, Request, Work, Writer};
use super::{Answer, Reading};
use crate::net::clock;
use crate::query::{self, Budget as _, Query, SELECTION, Selection, Windows};

/// `GET /v1/tasks/{task_id}/metrics`
pub(super) async fn metrics(
    reading: &Reading,
    asker: Asker,
    id: &str,
    raw: &str,
) -> Result<Answer, ApiError> {
    let selection = Selection::read(&Query::read(raw, &SELECTION)?, clock::wall())?;
    let costly = selection.filters.has_patterns() || selection.windows == Windows::All;
    let lane = if costly { Lane::Search } else { Lane::Short };
    let request = Request::new(asker, lane, "/v1/tasks/{task_id}/metrics", format!("{id}\n{raw}"));
    let (of_node, id) = (reading.clone(), id.to_owned());
    let gather = move |work: Work| async move {
        let (listed, data) = (of_node.task(asker, &id).await?, of_node.data);
        let containers = query::containers_of(&data.directory, &listed, &selection.filters);
        let selection = Arc::new(selection);
        let chosen = Arc::clone(&selection);
        let choose = move |deadline: &Deadline| {
            Ok(deadline.choose(containers, |info| chosen.filters.origin(&info.origin))?)
        };
        let sources = query::sources(&data, work.run(choose).await?, selection.windows).await?;
        Ok(move |writer: &mut Writer| {
            let of_node = (&*data.config().node, data.store.epoch());
            query::write_task(writer, &listed, of_node, &sources, &selection)
        })
    };
    reading.pages.answer(request, gather).await
}
