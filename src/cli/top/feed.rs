//! Follows the streams of the node and of a task.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::super::encoding::{encode_query, encode_segment};
use super::super::events::{EventStream, FollowedStream, StreamChange, StreamEvent};
use super::super::failure::Failure;
use super::super::live::LiveRecord;
use super::super::resolve::parse_response;
use super::super::watch::confirm_finished;
use super::updates::{NodeUpdate, TaskUpdate};
use crate::client::Client;
use crate::wire::{NodeDocument, TaskChanges, TaskMetrics, WindowEvent};

/// The stream of the node has an event every two seconds.
const NODE_SILENCE: Duration = Duration::from_secs(10);
/// The stream of a task has a sign of life every 15 seconds.
const TASK_SILENCE: Duration = Duration::from_secs(40);
/// The interval at which a finished task is looked at again.
const FINISHED_POLL: Duration = Duration::from_secs(5);
/// Updates that may wait for the screen.
const WAITING: usize = 16;
/// Series up to which all kept windows of a task are read when it is opened. Of a larger one only the newest are, since all of
/// them would be hundreds of megabytes.
const WITH_HISTORY: usize = 1000;

/// Follows all tasks, beginning with a stream that is open.
pub(super) fn follow_node(stream: EventStream) -> mpsc::Receiver<NodeUpdate> {
    let (updates, received) = mpsc::channel(WAITING);
    let mut stream = FollowedStream::from_stream(stream, NODE_SILENCE);
    tokio::spawn(async move {
        loop {
            let update = match stream.next_change().await {
                StreamChange::Connected => NodeUpdate::Connected,
                StreamChange::Lost(why) => NodeUpdate::Lost(why),
                StreamChange::Event(event) => match read_node_event(&event) {
                    Ok(Some(update)) => update,
                    Ok(None) => continue,
                    Err(failure) => NodeUpdate::Lost(failure.to_string()),
                },
            };
            if updates.send(update).await.is_err() {
                return;
            }
        }
    });
    received
}

fn read_node_event(event: &StreamEvent) -> Result<Option<NodeUpdate>, Failure> {
    Ok(match event.name.as_str() {
        "node" => Some(NodeUpdate::Named(parse_event::<NodeDocument>(event)?.node)),
        "tasks" => Some(NodeUpdate::Tasks(parse_event::<TaskChanges>(event)?)),
        // Of a later version.
        _ => None,
    })
}

fn parse_event<T: DeserializeOwned>(event: &StreamEvent) -> Result<T, Failure> {
    serde_json::from_str(&event.data).map_err(|error| Failure::malformed_response(&error))
}

/// Follows one task, or only one container of it, until the receiver is dropped.
pub(super) fn follow_task(
    client: Client,
    task_id: &str,
    container: Option<&str>,
    series: usize,
) -> mpsc::Receiver<TaskUpdate> {
    let (updates, received) = mpsc::channel(WAITING);
    let path = format!("/v1/tasks/{}", encode_segment(task_id));
    let filter = container.map(|id| ("container", id));
    let windows = ("window", if series > WITH_HISTORY { "last" } else { "all" });
    let history = format!("{path}/metrics{}", encode_query(filter.into_iter().chain([windows])));
    let watch = format!("{path}/watch{}", encode_query(filter));
    let mut stream = FollowedStream::new(client.clone(), watch, TASK_SILENCE);
    let task_id = task_id.to_owned();
    tokio::spawn(async move {
        loop {
            let update = tokio::select! {
                change = stream.next_change() => match change {
                    StreamChange::Connected => read_history(&client, &history).await,
                    StreamChange::Lost(why) => TaskUpdate::Lost(why),
                    StreamChange::Event(event) => match read_task_event(&event) {
                        Ok(Some(update)) => update,
                        Ok(None) => continue,
                        Err(failure) => TaskUpdate::Lost(failure.to_string()),
                    },
                },
                () = updates.closed() => return,
            };
            let finished = matches!(update, TaskUpdate::Finished);
            if updates.send(update).await.is_err() {
                return;
            }
            // It can begin again, and an agent that ends calls every task finished.
            while finished && confirm_finished(&client, &task_id).await {
                if tokio::time::timeout(FINISHED_POLL, updates.closed()).await.is_ok() {
                    return;
                }
            }
        }
    });
    received
}

async fn read_history(client: &Client, path: &str) -> TaskUpdate {
    let read = async {
        let TaskMetrics::<LiveRecord> { metrics, .. } = parse_response(&client.get(path).await?)?;
        Ok::<_, Failure>(metrics)
    };
    match read.await {
        Ok(records) => TaskUpdate::Connected(records),
        Err(failure) => TaskUpdate::Lost(failure.to_string()),
    }
}

fn read_task_event(event: &StreamEvent) -> Result<Option<TaskUpdate>, Failure> {
    Ok(match event.name.as_str() {
        "window" => Some(TaskUpdate::Window(parse_event::<WindowEvent<LiveRecord>>(event)?.metrics)),
        "gap" => Some(TaskUpdate::Gap),
        "finished" => Some(TaskUpdate::Finished),
        _ => None,
    })
}
