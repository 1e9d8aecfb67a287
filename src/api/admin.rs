//! Calls of the admin socket other than the lifecycle: the configuration, reconcile, and raw lines as they arrive.

use std::borrow::Cow;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{mpsc, oneshot};

use super::error::ApiError;
use super::pages::{Asker, Deadline};
use super::{ApiResponse, ConfigRequest, MaintenanceContext, NDJSON, ReaderContext};
use crate::containers;
use crate::model::ContainerId;
use crate::query::{self, Budget as _, Filters, Query};
use crate::shard::{LineFilter, TappedLine};
use crate::shutdown::Drain;
use crate::statsd::show_line;
use crate::wire;

/// `POST /v1/config/reload`
pub(super) async fn reload_config(
    maintenance: &MaintenanceContext,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let force = Query::read(raw, &["force"])?.parse_switch("force")?;
    let (reply, answer) = oneshot::channel();
    let request = ConfigRequest::Reload { force, reply };
    maintenance.config_requests.send(request).await.map_err(|_| ApiError::shutting_down())?;
    match answer.await {
        Ok(Ok(needs_restart)) => {
            let needs_restart = needs_restart.into_iter().map(Cow::Borrowed).collect();
            Ok(ApiResponse::with_json(200, &wire::ReloadedDocument { applied: true, needs_restart }))
        }
        Ok(Err(why)) => Err(ApiError::bad_configuration(&why)),
        Err(_) => Err(ApiError::shutting_down()),
    }
}

/// `GET /v1/config`
pub(super) async fn show_config(
    maintenance: &MaintenanceContext,
    reading: &ReaderContext,
) -> Result<ApiResponse, ApiError> {
    let (reply, answer) = oneshot::channel();
    let request = ConfigRequest::Show(reply);
    maintenance.config_requests.send(request).await.map_err(|_| ApiError::shutting_down())?;
    let layers = answer.await.map_err(|_| ApiError::shutting_down())?;
    let settings = query::setting_documents(&reading.data.current_config(), &layers);
    Ok(ApiResponse::with_json(200, &settings))
}

/// `POST /v1/reconcile`
pub(super) async fn reconcile_containers(maintenance: &MaintenanceContext) -> Result<ApiResponse, ApiError> {
    let (reply, answer) = oneshot::channel();
    maintenance.missed.send(reply).await.map_err(|_| ApiError::shutting_down())?;
    let notes = answer.await.map_err(|_| ApiError::shutting_down())?;
    let containers::ReconcileReport { checked, ended, back, lost } =
        maintenance.containers.reconcile().await.ok_or_else(ApiError::shutting_down)?;
    let notes_read = notes.is_some();
    let ids = |ids: Vec<ContainerId>| ids.iter().map(ContainerId::to_string).collect();
    let (ended, back, lost, mute) = (ids(ended), ids(back), ids(lost), ids(notes.unwrap_or_default()));
    Ok(ApiResponse::with_json(
        200,
        &wire::ReconciledDocument { checked, ended, back, lost, mute, notes_read },
    ))
}

/// Lines per container that may be queued for a slow reader.
const QUEUED_LINES: usize = 1024;

/// `GET /v1/tasks/{task_id}/tail`
pub(super) async fn tail_task(
    reading: &ReaderContext,
    asker: Asker,
    id: &str,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let query = Query::read(raw, &["container", "label", "name", "outcome"])?;
    let filters = Filters::read(&query)?;
    let rejected = match query.last_value("outcome") {
        None => None,
        Some("rejected") => Some(true),
        Some("accepted") => Some(false),
        Some(other) => return Err(ApiError::bad_parameter("outcome", other, "is not accepted or rejected")),
    };
    let wanted = LineFilter { names: filters.name_patterns().to_vec(), rejected };
    let containers = reading.find_task(asker, id).await?.containers;
    let events = reading.pages.event_renderer(asker, filters.has_patterns());
    let choose = move |deadline: &Deadline| {
        Ok(deadline
            .choose_items(containers, |info| info.last.is_none() && filters.matches_origin(&info.origin))?)
    };
    let chosen = events.run(choose).await?;
    let room = reading.data.pool.tail_room();
    let (merged, lines) = mpsc::channel::<(String, TappedLine)>(QUEUED_LINES);
    for info in chosen {
        let tapped = reading.data.pool.tap_lines(info.allocation, QUEUED_LINES, &room, &wanted).await?;
        tokio::spawn(pass_on(tapped, info.origin.container_id.to_string(), merged.clone()));
    }
    let state = (lines, reading.drain.clone());
    let chunks = stream::unfold(state, |(mut lines, mut drain): (_, Drain)| async move {
        let (container_id, line) = next(&mut lines, &mut drain).await?;
        let document = wire::TailedLine {
            at: line.at,
            container_id,
            line: show_line(&line.line).into_owned(),
            rejected: line.rejected.map(|code| code.as_str().into()),
            lost: line.lost,
        };
        let mut text = query::to_json(&document);
        text.push(b'\n');
        Some((Ok(Bytes::from(text)), (lines, drain)))
    });
    Ok(ApiResponse::with_chunks(NDJSON, Box::pin(chunks)))
}

/// Forwards a container's lines until the reader disconnects or the container ends.
async fn pass_on(
    mut tapped: mpsc::Receiver<TappedLine>,
    container: String,
    merged: mpsc::Sender<(String, TappedLine)>,
) {
    loop {
        tokio::select! {
            line = tapped.recv() => {
                let Some(line) = line else { return };
                if merged.send((container.clone(), line)).await.is_err() {
                    return;
                }
            }
            // Else the tail of a silent container would keep its share of the room after the reader has gone.
            () = merged.closed() => return,
        }
    }
}

async fn next(
    lines: &mut mpsc::Receiver<(String, TappedLine)>,
    drain: &mut Drain,
) -> Option<(String, TappedLine)> {
    tokio::select! {
        // Lines that arrived before the drain are still sent.
        biased;
        line = lines.recv() => line,
        () = drain.wait_for_start() => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tail_of_a_silent_container_ends_with_its_reader() {
        let ((silent, tapped), (merged, reader)) = (mpsc::channel(1), mpsc::channel(1));
        let mut passing = std::pin::pin!(pass_on(tapped, "c1".to_owned(), merged));
        let hour = std::time::Duration::from_hours(1);
        assert!(tokio::time::timeout(hour, passing.as_mut()).await.is_err(), "it waits for lines");
        drop(reader);
        assert!(tokio::time::timeout(hour, passing).await.is_ok(), "it holds the shard's end of the tail");
        drop(silent);
    }
}
