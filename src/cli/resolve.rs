//! Clients of the agent, and the resolution of task names.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

use super::args::{AdminArgs, ClientArgs, FilterArgs, NamespaceArgs, PodArgs, UrlArgs};
use super::encoding::{encode_query, encode_segment};
use super::failure::{Failure, code};
use crate::client::{Client, ClientError, Response, Target};
use crate::config::{Layers, ProcessEnvironment};
use crate::wire::{Refusal, Task};

impl UrlArgs {
    /// A client without a token.
    pub(super) fn build_client(&self) -> Result<Client, ClientError> {
        let client = Client::new(self.url.clone());
        match (&self.ca, &self.url) {
            (Some(authorities), Target::Https(_)) => client.with_ca_file(authorities),
            _ => Ok(client),
        }
    }
}

impl ClientArgs {
    /// A client with the configured token.
    pub(super) fn build_client(&self) -> Result<Client, Failure> {
        let client = self.at.build_client()?;
        Ok(match self.read_token()? {
            Some(token) => client.with_token(token),
            None => client,
        })
    }

    /// The first token of the file, which may be the agent's own; else that of the environment. A token is never an
    /// argument, which every user of the machine can read.
    fn read_token(&self) -> Result<Option<String>, Failure> {
        let Some(file) = &self.token_file else {
            return Ok(std::env::var("TALLYPORT_TOKEN").ok().filter(|token| !token.is_empty()));
        };
        let unusable = |why: &str| Failure::usage_error(format!("--token-file {} {why}", file.display()));
        let text = crate::files::read_to_string(file)
            .map_err(|error| unusable(&format!("cannot be read: {error}")))?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        match lines.next() {
            Some(token) => Ok(Some(token.to_owned())),
            None => Err(unusable("has no token")),
        }
    }
}

impl AdminArgs {
    /// A client for the given admin socket, or for the default one of this user.
    pub(super) fn build_client(&self) -> Client {
        let usual = || {
            let layers = Layers::with_defaults(&ProcessEnvironment);
            layers.get("admin.socket").map(|written| PathBuf::from(&written.text)).unwrap_or_default()
        };
        Client::new(Target::Unix(self.admin_socket.clone().unwrap_or_else(usual)))
    }
}

impl FilterArgs {
    pub(super) fn query_pairs(&self) -> Vec<(&str, &str)> {
        flag_pairs(&[
            ("container", &self.container),
            ("name", &self.name),
            ("tag", &self.tag),
            ("label", &self.label),
        ])
    }
}

/// Repeated flags as keys and values.
pub(super) fn flag_pairs<'a>(flags: &[(&'a str, &'a [String])]) -> Vec<(&'a str, &'a str)> {
    flags.iter().flat_map(|(key, values)| values.iter().map(|value| (*key, value.as_str()))).collect()
}

/// Parses the body of a 2xx response.
pub(super) fn parse_response<T: DeserializeOwned>(response: &Response) -> Result<T, Failure> {
    if !(200..300).contains(&response.status) {
        return Err(Failure::from_response(response));
    }
    serde_json::from_slice(&response.body).map_err(|error| Failure::malformed_response(&error))
}

impl PodArgs {
    /// The filter for one container of the pod.
    pub(super) fn container_label(&self) -> Option<String> {
        self.pod_container.as_ref().map(|name| format!("container={name}"))
    }
}

/// Finds a task by its name or a prefix of it, or by its pod.
pub(super) async fn find_task(client: &Client, of: &NamespaceArgs, name: &str) -> Result<Task, Failure> {
    match &of.namespace {
        Some(namespace) => find_pod_task(client, namespace, name).await,
        None => by_name(client, name).await,
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
        n => return Err(ambiguous_failure(n, &format!("pods of {namespace:?} match {name:?}"), &found)),
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

fn ambiguous_failure(n: usize, what: &str, found: &[Task]) -> Failure {
    let listed = found.iter().map(|task| format!("    {}  {}", task.task_id, task.state));
    let listed = listed.collect::<Vec<_>>().join("\n");
    Failure::new(code::AMBIGUOUS, format!("{n} {what}:\n{listed}")).with_hint("give more of the name")
}

/// Finds a task by its name or a prefix of it.
async fn by_name(client: &Client, name: &str) -> Result<Task, Failure> {
    let response = client.get(&format!("/v1/tasks/{}", encode_segment(name))).await?;
    if response.status != 404 {
        return parse_response(&response);
    }
    let tasks: Vec<Task> = parse_response(&client.get("/v1/tasks").await?)?;
    let mut found: Vec<Task> = tasks.into_iter().filter(|task| task.task_id.starts_with(name)).collect();
    match found.len() {
        0 => Err(no_such_task(&response)),
        1 => Ok(found.remove(0)),
        n => Err(ambiguous_failure(n, &format!("tasks start with {name:?}"), &found)),
    }
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
}
