//! How a task is named: by its name or the start of it, by its pod, or by one of its containers.

use super::super::args::NamespaceArgs;
use super::super::encoding::{encode_query, encode_segment};
use super::super::failure::{Failure, code};
use super::super::output::Console;
use super::super::units::short_id;
use super::containers::choose_container;
use super::parse_response;
use crate::client::{Client, Response};
use crate::wire::{ContainerDocument, Refusal, Task};

/// A task, as it was named.
#[derive(Debug)]
pub(in crate::cli) struct FoundTask {
    pub(in crate::cli) task: Task,
    /// The id of the container that was named in its place.
    pub(in crate::cli) container: Option<String>,
}

impl From<Task> for FoundTask {
    fn from(task: Task) -> Self {
        Self { task, container: None }
    }
}

impl FoundTask {
    /// What is shown, as a title: the task, and its container if that was named.
    pub(in crate::cli) fn format_title(&self) -> String {
        match &self.container {
            Some(id) => format!("{}, container {}", self.task.task_id, short_id(id)),
            None => self.task.task_id.clone(),
        }
    }

    /// Reports on standard error that only the container is shown, if one was named.
    pub(in crate::cli) fn report_part(&self, out: &mut Console) {
        if let Some(id) = &self.container {
            out.write_stderr_line(format!("tallyport: only container {id} of task {}", self.task.task_id));
        }
    }

    /// Reports on standard error that the answer is about the whole task, if a container was named.
    pub(in crate::cli) fn report_whole(&self, out: &mut Console) {
        if let Some(id) = self.container.as_ref().filter(|_| self.task.containers.len() > 1) {
            out.write_stderr_line(format!(
                "tallyport: {id} is one of {} containers of task {}; this is about all of them",
                self.task.containers.len(),
                self.task.task_id
            ));
        }
    }
}

/// Finds a task by its name or a prefix of it, by its pod, or by the id of one of its containers or a prefix of it.
pub(in crate::cli) async fn find_task(
    client: &Client,
    of: &NamespaceArgs,
    name: &str,
) -> Result<FoundTask, Failure> {
    match &of.namespace {
        Some(namespace) => find_pod_task(client, namespace, name).await.map(FoundTask::from),
        None => find_named_task(client, name).await,
    }
}

/// Finds the task of a pod by its name or a prefix of it, or by its alias in the namespace.
async fn find_pod_task(client: &Client, namespace: &str, name: &str) -> Result<Task, Failure> {
    let label = format!("namespace={namespace}");
    let tasks: Vec<Task> = parse_response(
        &client.get(&format!("/v1/tasks{}", encode_query([("label", label.as_str())]))).await?,
    )?;
    let mut found = select_pods(tasks, name);
    match found.len() {
        0 => {}
        1 => return Ok(found.remove(0)),
        _ => {
            let what = format!("pods of {namespace:?} match {name:?}");
            return Err(ambiguous_failure(&what, found.iter().map(named_state)));
        }
    }
    let response =
        client.get(&format!("/v1/tasks/{}", encode_segment(&format!("{namespace}/{name}")))).await?;
    match response.status {
        404 => {
            Err(Failure::new(code::NO_TASK, format!("there is no pod {name} in {namespace} on this node"))
                .with_hint(format!(
                    "`tallyport tasks --label namespace={namespace}` lists those that are here"
                )))
        }
        _ => parse_response(&response),
    }
}

/// The tasks whose pod matches the name: exact matches before prefixes, and live ones before finished ones.
fn select_pods(tasks: Vec<Task>, name: &str) -> Vec<Task> {
    let pod = |task: &Task| task.labels.get("pod").cloned().unwrap_or_default();
    let (exact, others): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| pod(task) == name);
    let fitting = match exact.is_empty() {
        true => others.into_iter().filter(|task| pod(task).starts_with(name)).collect(),
        false => exact,
    };
    let (finished, live): (Vec<_>, Vec<_>) = fitting.into_iter().partition(|task| task.finished);
    if live.is_empty() { finished } else { live }
}

/// Maximum number of names listed where several fit.
const CANDIDATES: usize = 20;

fn named_state(task: &Task) -> (&str, &str) {
    (&task.task_id, &task.state)
}

/// Lists the names that fit, each with its state.
pub(super) fn ambiguous_failure<'n>(
    what: &str,
    found: impl IntoIterator<Item = (&'n str, &'n str)>,
) -> Failure {
    let found: Vec<_> = found.into_iter().collect();
    let mut lines = vec![format!("{} {what}:", found.len())];
    lines.extend(found.iter().take(CANDIDATES).map(|(name, state)| format!("    {name}  {state}")));
    if found.len() > CANDIDATES {
        lines.push(format!("    and {} more", found.len() - CANDIDATES));
    }
    Failure::new(code::AMBIGUOUS, lines.join("\n")).with_hint("give more of the name")
}

/// Finds a task by its name or a prefix of it, or by the id of one of its containers or a prefix of that.
async fn find_named_task(client: &Client, name: &str) -> Result<FoundTask, Failure> {
    let response = client.get(&format!("/v1/tasks/{}", encode_segment(name))).await?;
    if response.status != 404 {
        return parse_response::<Task>(&response).map(FoundTask::from);
    }
    let tasks: Vec<Task> = parse_response(&client.get("/v1/tasks").await?)?;
    let mut found = select_tasks(tasks, name)?;
    match found.len() {
        0 => Err(no_such_task(&response)),
        1 => Ok(found.remove(0)),
        _ => {
            let states = found.iter().map(|found| named_state(&found.task));
            Err(ambiguous_failure(&format!("tasks start with {name:?}"), states))
        }
    }
}

/// The tasks whose name starts so; if there are none, those of the only container whose id does.
fn select_tasks(tasks: Vec<Task>, name: &str) -> Result<Vec<FoundTask>, Failure> {
    let (named, others): (Vec<_>, Vec<_>) =
        tasks.into_iter().partition(|task| task.task_id.starts_with(name));
    if !named.is_empty() {
        return Ok(named.into_iter().map(FoundTask::from).collect());
    }
    let containers = others.iter().flat_map(|task| &task.containers);
    let Some(id) = choose_container(containers, name)?.map(str::to_owned) else { return Ok(Vec::new()) };
    let is_this = |container: &ContainerDocument| container.reserved.container_id == id;
    let with_it = others.into_iter().filter(|task| task.containers.iter().any(is_this));
    Ok(with_it.map(|task| FoundTask { task, container: Some(id.clone()) }).collect())
}

fn no_such_task(response: &Response) -> Failure {
    let hint = "`tallyport tasks` lists the tasks of this node";
    match serde_json::from_slice::<Refusal>(&response.body) {
        Ok(Refusal { message, nearest, .. }) if nearest.len() > 1 => {
            Failure::new(code::NO_TASK, message).with_hint(format!("nearest: {}; {hint}", nearest.join(", ")))
        }
        Ok(Refusal { message, .. }) => Failure::new(code::NO_TASK, message).with_hint(hint),
        Err(_) => Failure::new(code::NO_TASK, "there is no such task on this node").with_hint(hint),
    }
}

#[cfg(test)]
mod tests {
    use super::super::containers::tests::sample_container;
    use super::*;

    fn task(pod: &str, uid: &str, finished: bool) -> Task {
        let document = serde_json::json!({
            "task_id": format!("shop_{pod}_{uid}"), "state": "listening", "finished": finished, "containers": [],
            "labels": {"namespace": "shop", "pod": pod}, "last_datagram": null, "series": 0,
            "totals": {
                "datagrams": {"received": 0, "kernel_drops": 0, "dropped": {}},
                "lines": {"received": 0, "accepted": 0, "rejected": {}},
                "values": {"accepted": 0, "in_records": 0, "open": 0, "folded": 0, "dropped": {}},
                "events": 0, "over_limit": {}, "balanced": true,
            }, "recent_rejected": [], "last_scrape": null,
        });
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn a_pods_name_means_the_one_that_lives() {
        let tasks =
            || vec![task("web-0", "u1", true), task("web-0", "u2", false), task("web-01", "u3", false)];
        let named = |name: &str| -> Vec<String> {
            select_pods(tasks(), name).into_iter().map(|t| t.task_id).collect()
        };
        assert_eq!(named("web-0"), ["shop_web-0_u2"]);
        assert_eq!(named("web-01"), ["shop_web-01_u3"]);
        assert_eq!(named("web"), ["shop_web-0_u2", "shop_web-01_u3"]);
        assert!(named("db").is_empty());
        assert_eq!(
            select_pods(vec![task("web-0", "u1", true)], "web").len(),
            1,
            "one that has ended can still be read"
        );
    }

    #[test]
    fn the_id_of_a_container_names_it_and_its_task_unless_a_task_has_that_name() {
        let id = "0123456789abcdef".repeat(4);
        let with = |name: &str, containers: &[&str]| {
            let mut task = task("web-0", "u1", false);
            task.task_id = name.to_owned();
            task.containers = containers.iter().map(|id| sample_container(id, "listening")).collect();
            task
        };
        let tasks = || {
            vec![
                with("web.1", &[&id, "run-7"]),
                with("web.2", &["c-2"]),
                with("c-29", &["run-8", "0123f"]),
                with("again", &["c-2x"]),
            ]
        };
        let selected = |name: &str| -> Vec<String> {
            select_tasks(tasks(), name).unwrap().iter().map(FoundTask::format_title).collect()
        };
        for given in [&*id, "0123456789ab", "01234"] {
            assert_eq!(selected(given), ["web.1, container 0123456789ab"], "{given}");
        }
        assert_eq!(selected("run-7"), ["web.1, container run-7"]);
        assert_eq!(selected("c-2"), ["c-29"], "the start of a task's name comes first");
        assert_eq!(selected("web"), ["web.1", "web.2"]);
        assert!(selected("nope").is_empty());
        let refused = select_tasks(tasks(), "run").unwrap_err().to_text();
        assert!(refused.starts_with("2 containers start with \"run\""), "{refused}");
        assert!(select_tasks(tasks(), "0123").is_err(), "two ids of two tasks");
    }
}
