//! What only the admin socket does beside the lifecycle: reload, reconcile, and raw lines as they arrive.

use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::error::ApiError;
use super::pages::{Asker, Deadline};
use super::query::{Filters, Query};
use super::{Answer, Api, NDJSON, ReloadRequest};
use crate::containers;
use crate::model::{ContainerId, Timestamp};
use crate::shard::TappedLine;
use crate::shutdown::Drain;

#[derive(Serialize)]
struct Reloaded {
    applied: bool,
    needs_restart: Vec<&'static str>,
}

/// `POST /v1/config/reload`
pub(super) async fn reload(api: &Api, raw: &str) -> Result<Answer, ApiError> {
    let force = Query::read(raw, &["force"])?.switch("force")?;
    let (reply, answer) = oneshot::channel();
    api.reloads.send(ReloadRequest { force, reply }).await.map_err(|_| ApiError::ending())?;
    match answer.await {
        Ok(Ok(needs_restart)) => Ok(Answer::json(200, &Reloaded { applied: true, needs_restart })),
        Ok(Err(why)) => Err(ApiError::bad_configuration(&why)),
        Err(_) => Err(ApiError::ending()),
    }
}

#[derive(Serialize)]
struct Reconciled {
    checked: usize,
    ended: Vec<ContainerId>,
    back: Vec<ContainerId>,
    lost: Vec<ContainerId>,
    mute: Vec<ContainerId>,
    notes_read: bool,
}

/// `POST /v1/reconcile`
pub(super) async fn reconcile(api: &Api) -> Result<Answer, ApiError> {
    let (reply, answer) = oneshot::channel();
    api.missed.send(reply).await.map_err(|_| ApiError::ending())?;
    let notes = answer.await.map_err(|_| ApiError::ending())?;
    let containers::Reconciled { checked, ended, back, lost } =
        api.containers.reconcile().await.ok_or_else(ApiError::ending)?;
    let notes_read = notes.is_some();
    let mute = notes.unwrap_or_default();
    Ok(Answer::json(200, &Reconciled { checked, ended, back, lost, mute, notes_read }))
}

/// Lines of one container that may wait for a slow reader.
const ROOM: usize = 1024;

#[derive(Serialize)]
struct Line {
    at: Timestamp,
    container_id: String,
    line: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<&'static str>,
    #[serde(skip_serializing_if = "is_zero")]
    lost: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// `GET /v1/tasks/{task_id}/tail`
pub(super) async fn tail(api: &Api, asker: Asker, id: &str, raw: &str) -> Result<Answer, ApiError> {
    let filters = Filters::read(&Query::read(raw, &["container", "label"])?)?;
    let containers = api.task(asker, id).await?.containers;
    let events = api.pages.events(asker, filters.has_patterns());
    let choose = move |deadline: &Deadline| {
        deadline.choose(containers, |info| info.last.is_none() && filters.origin(&info.origin))
    };
    let chosen = events.run(choose).await?;
    let room = api.pool.tail_room();
    let (merged, lines) = mpsc::channel::<(String, TappedLine)>(ROOM);
    for info in chosen {
        let tapped = api.pool.tap(info.allocation, ROOM, &room).await?;
        tokio::spawn(pass_on(tapped, info.origin.container_id.to_string(), merged.clone()));
    }
    let state = (lines, api.drain.clone());
    let chunks = stream::unfold(state, |(mut lines, mut drain): (_, Drain)| async move {
        let (container_id, line) = next(&mut lines, &mut drain).await?;
        let document = Line {
            at: line.at,
            container_id,
            line: String::from_utf8_lossy(&line.line).into_owned(),
            rejected: line.rejected.map(crate::statsd::Rejected::code),
            lost: line.lost,
        };
        let mut text = super::to_json(&document);
        text.push(b'\n');
        Some((Ok(Bytes::from(text)), (lines, drain)))
    });
    Ok(Answer::chunks(NDJSON, Box::pin(chunks)))
}

/// Passes a container's lines on until the reader goes, or the container does.
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
            // A container that sends nothing must not keep what its tails held.
            () = merged.closed() => return,
        }
    }
}

async fn next(
    lines: &mut mpsc::Receiver<(String, TappedLine)>,
    drain: &mut Drain,
) -> Option<(String, TappedLine)> {
    tokio::select! {
        // Lines that came before the drain are part of the stream.
        biased;
        line = lines.recv() => line,
        () = drain.started() => None,
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
