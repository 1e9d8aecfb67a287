//! Names of tasks, containers and metrics, from the running agent.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::CompletionCandidate;

use super::typed::TypedLine;
use crate::cli::encoding::{encode_query, encode_segment};
use crate::client::{Client, Response};
use crate::config::SETTINGS;
use crate::wire::{ContainerDocument, PublisherDocument, RecordDocument, Task, TaskMetrics, TaskNames};

/// How long a shell may wait for names.
const PATIENCE: Duration = Duration::from_millis(300);
/// Maximum number of names that are offered.
const MOST: usize = 1000;

/// An agent to ask, and what has been typed.
struct NameRequest {
    line: TypedLine,
    client: Client,
}

/// Names of tasks, or of the pods in the namespace in the line.
pub(super) fn complete_task(current: &OsStr) -> Vec<CompletionCandidate> {
    offer_names(current, &async |request, prefix| {
        if request.line.argument_text("namespace").is_some() {
            let tasks = request.pod_tasks().await?;
            return Some(tasks.into_iter().filter_map(|mut task| task.labels.remove("pod")).collect());
        }
        let tasks = request.tasks(&[("task", &format!("{prefix}*"))]).await?;
        Some(tasks.into_iter().map(|task| task.task_id).collect())
    })
}

/// Ids of the containers of the task in the line, or of all of them.
pub(super) fn complete_container(current: &OsStr) -> Vec<CompletionCandidate> {
    offer_names(current, &async |request, prefix| {
        let containers: Vec<ContainerDocument> = match request.line.argument_text("task_id") {
            Some(task) => request.find_task(&task).await?.containers,
            None => {
                let tasks = request.tasks(&[("container", &format!("{prefix}*"))]).await?;
                tasks.into_iter().flat_map(|task| task.containers).collect()
            }
        };
        Some(containers.into_iter().map(|container| container.reserved.container_id).collect())
    })
}

/// Names of the containers of the pod in the line.
pub(super) fn complete_pod_container(current: &OsStr) -> Vec<CompletionCandidate> {
    offer_names(current, &async |request, _| {
        let pod = request.line.argument_text("task_id");
        let tasks = request.pod_tasks().await?;
        let of_pod = |task: &Task| {
            pod.as_ref().is_none_or(|pod| task.labels.get("pod").is_some_and(|name| name.starts_with(pod)))
        };
        let containers = tasks.into_iter().filter(of_pod).flat_map(|task| task.containers);
        Some(containers.filter_map(|mut container| container.labels.remove("container")).collect())
    })
}

/// Names of the metrics of the task in the line.
pub(super) fn complete_metric(current: &OsStr) -> Vec<CompletionCandidate> {
    offer_names(current, &async |request, prefix| {
        let task = request.find_task(&request.line.argument_text("task_id")?).await?;
        let path = format!("/v1/tasks/{}", encode_segment(&task.task_id));
        let query = encode_query([("name", format!("{prefix}*").as_str())]);
        let TaskNames { names, .. } = request.ask(&format!("{path}/names{query}")).await?;
        if !names.is_empty() {
            return Some(names.into_iter().map(|name| name.name).collect());
        }
        // A task that has just started has only an open window.
        let TaskMetrics::<RecordDocument> { metrics, .. } =
            request.ask(&format!("{path}/metrics{query}")).await?;
        Some(metrics.into_iter().map(|record| record.name).collect())
    })
}

/// Tags of the series of the task in the line, as `key=value`.
pub(super) fn complete_tag(current: &OsStr) -> Vec<CompletionCandidate> {
    offer_names(current, &async |request, _| {
        let task = request.find_task(&request.line.argument_text("task_id")?).await?;
        let path = format!("/v1/tasks/{}/metrics", encode_segment(&task.task_id));
        let TaskMetrics::<TaggedRecord> { metrics, .. } = request.ask(&path).await?;
        let tags = metrics.into_iter().flat_map(|record| record.tags);
        Some(tags.filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect())
    })
}

/// The part of a record that completes tags.
#[derive(serde::Deserialize)]
struct TaggedRecord {
    tags: serde_json::Map<String, serde_json::Value>,
}

/// Names of the agent's publishers.
pub(super) fn complete_publisher(current: &OsStr) -> Vec<CompletionCandidate> {
    offer_names(current, &async |request, _| {
        let publishers: Vec<PublisherDocument> = request.ask("/v1/publishers").await?;
        Some(publishers.into_iter().map(|publisher| publisher.name).collect())
    })
}

/// Keys of settings.
pub(super) fn complete_setting(current: &OsStr) -> Vec<CompletionCandidate> {
    offer_keys(current, "")
}

/// Keys of settings with the sign that a value follows.
pub(super) fn complete_assignment(current: &OsStr) -> Vec<CompletionCandidate> {
    offer_keys(current, "=")
}

fn offer_keys(current: &OsStr, suffix: &str) -> Vec<CompletionCandidate> {
    let Some(prefix) = current.to_str() else { return Vec::new() };
    let keys = SETTINGS.iter().map(|setting| setting.key).filter(|key| key.starts_with(prefix));
    keys.map(|key| CompletionCandidate::new(format!("{key}{suffix}"))).collect()
}

impl NameRequest {
    async fn ask<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<T> {
        let Response { status: 200, body } = self.client.get(path).await.ok()? else { return None };
        serde_json::from_slice(&body).ok()
    }

    async fn tasks(&self, filters: &[(&str, &str)]) -> Option<Vec<Task>> {
        self.ask(&format!("/v1/tasks{}", encode_query(filters.iter().copied()))).await
    }

    /// The tasks of the namespace in the line.
    async fn pod_tasks(&self) -> Option<Vec<Task>> {
        let namespace = self.line.argument_text("namespace")?;
        self.tasks(&[("label", &format!("namespace={namespace}"))]).await
    }

    /// The task that the line names, whole or by its start, or by its pod.
    async fn find_task(&self, name: &str) -> Option<Task> {
        let mut tasks = match self.line.argument_text("namespace") {
            Some(_) => {
                let mut tasks = self.pod_tasks().await?;
                tasks.retain(|task| task.labels.get("pod").is_some_and(|pod| pod.starts_with(name)));
                tasks
            }
            None => self.tasks(&[("task", &format!("{name}*"))]).await?,
        };
        let exact = tasks.iter().position(|task| task.task_id == name);
        match exact {
            Some(exact) => Some(tasks.swap_remove(exact)),
            None if tasks.len() == 1 => tasks.pop(),
            None => None,
        }
    }
}

/// Asks the agent and offers the names that begin as typed. Nothing is offered, and nothing is said, if it does not answer in
/// time.
fn offer_names(
    current: &OsStr,
    ask: &impl AsyncFn(&NameRequest, &str) -> Option<Vec<String>>,
) -> Vec<CompletionCandidate> {
    let (Some(prefix), Ok(runtime)) =
        (current.to_str(), tokio::runtime::Builder::new_current_thread().enable_all().build())
    else {
        return Vec::new();
    };
    let asked = async {
        let line = TypedLine::from_arguments()?;
        let client = line.build_client()?;
        ask(&NameRequest { line, client }, prefix).await
    };
    let names = runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await });
    let names = names.ok().flatten().unwrap_or_default();
    let offered: BTreeSet<String> =
        names.into_iter().filter(|name| name.starts_with(prefix) && is_safe(name)).collect();
    offered.into_iter().take(MOST).map(CompletionCandidate::new).collect()
}

/// Whether a name means only itself in every shell. Containers choose names, and some shells insert candidates into the
/// line as they are, where `$(…)` would be executed and a leading `-` would be an option.
fn is_safe(name: &str) -> bool {
    let begins = name.starts_with(|first: char| first.is_alphanumeric() || "./_".contains(first));
    begins && name.chars().all(|c| c.is_alphanumeric() || "._-/:@+=,".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_shell_could_take_for_anything_else_is_not_offered() {
        for safe in ["web.1", "shop_web-0_u-1", "/prod/web", "a:b", "käse", "x=1", "a@b", "run,2"] {
            assert!(is_safe(safe), "{safe}");
        }
        for unsafe_name in [
            "",
            "-rf",
            "--url=http://evil",
            "$(reboot)",
            "`reboot`",
            "a b",
            "a;b",
            "a\nb",
            "a\u{1b}[2J",
            "a'b",
            "a\"b",
            "a\\b",
            "~root",
            "a*",
            "a?",
            "[a]",
            "{a,b}",
            "!!",
            "#x",
            "a|b",
            "a&b",
            "a<b",
            "a>b",
            "a(b)",
            "=cat",
            "\u{202e}a",
            "a\u{b}b",
            "%1",
        ] {
            assert!(!is_safe(unsafe_name), "{unsafe_name:?}");
        }
    }
}
