//! Clients of the agent, and the resolution of the names of tasks and containers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::{AdminArgs, ClientArgs, FilterArgs, NamespaceArgs, PodArgs, UrlArgs};
use super::encoding::{encode_query, encode_segment};
use super::failure::{Failure, code};
use super::output::Console;
use super::units::{GENERATED, SHORT};
use crate::client::{Client, ClientError, Response, Target};
use crate::config::{Layers, ProcessEnvironment};
use crate::wire::{ContainerDocument, Refusal, Task};

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
        Client::new(Target::Unix(self.admin_socket.clone().unwrap_or_else(default_socket)))
    }
}

/// The admin socket of an agent that this user starts without settings.
pub(super) fn default_socket() -> PathBuf {
    let layers = Layers::with_defaults(&ProcessEnvironment);
    layers.get("admin.socket").map(|written| PathBuf::from(&written.text)).unwrap_or_default()
}

impl FilterArgs {
    /// The names that series must have, whether given with `--name` or without.
    pub(super) fn list_names(&self) -> impl Iterator<Item = &str> {
        self.metric.iter().chain(&self.name).map(String::as_str)
    }

    pub(super) fn query_pairs(&self) -> Vec<(&str, &str)> {
        let mut pairs =
            flag_pairs(&[("container", &self.container), ("tag", &self.tag), ("label", &self.label)]);
        pairs.extend(self.list_names().map(|name| ("name", name)));
        pairs
    }
}

/// Parses a filter of containers. A shortened id, as tables show it, becomes a pattern that matches the ids that begin with it.
#[expect(clippy::unnecessary_wraps, reason = "the type of a parser of arguments")]
pub(super) fn parse_container_filter(filter: &str) -> Result<String, Infallible> {
    Ok(if is_shortened_id(filter) { format!("{filter}*") } else { filter.to_owned() })
}

/// Whether this is the start of a generated id, at least as long as container engines show it.
fn is_shortened_id(text: &str) -> bool {
    (SHORT..GENERATED).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
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

/// Parses the body of a 2xx response that is a list: each document as it is, and as a value of its type.
pub(super) fn parse_list<T: DeserializeOwned>(response: &Response) -> Result<Vec<(Value, T)>, Failure> {
    let parse = |json: Value| {
        let document = serde_json::from_value(json.clone());
        document.map(|document| (json, document)).map_err(|error| Failure::malformed_response(&error))
    };
    parse_response::<Vec<Value>>(response)?.into_iter().map(parse).collect()
}

impl PodArgs {
    /// The filter for one container of the task: by its name in the pod, or by its id.
    pub(super) fn container_filter(&self, task: &Task) -> Result<Option<(&'static str, String)>, Failure> {
        let Some(given) = &self.pod_container else { return Ok(None) };
        let is_named = |container: &ContainerDocument| container.labels.get("container") == Some(given);
        if !task.containers.iter().any(is_named)
            && let Some(id) = choose_container(&task.containers, given)?
        {
            return Ok(Some(("container", id.to_owned())));
        }
        // Also where no container is named so now: one that has ended can still be read.
        Ok(Some(("label", format!("container={given}"))))
    }
}

/// Finds the id of a container by its start.
pub(super) async fn find_container(client: &Client, given: &str) -> Result<String, Failure> {
    let response = client.get(&format!("/v1/containers/{}", encode_segment(given))).await?;
    if response.status != 404 {
        return parse_response::<ContainerDocument>(&response).map(|_exists| given.to_owned());
    }
    let listed: Vec<ContainerDocument> = parse_response(&client.get("/v1/containers").await?)?;
    match choose_container(&listed, given)? {
        Some(id) => Ok(id.to_owned()),
        None => Err(Failure::from_response(&response)
            .with_hint("`tallyport containers list` lists the containers of this node")
            .with_code(code::NO_TASK)),
    }
}

/// The id that equals the given text or, if there is none, the only one that starts with it.
fn choose_container<'c>(
    containers: &'c [ContainerDocument],
    given: &str,
) -> Result<Option<&'c str>, Failure> {
    // A container that has lived several times is listed once, in its last state.
    let states =
        containers.iter().map(|container| (&*container.reserved.container_id, &*container.reserved.state));
    let found: BTreeMap<&str, &str> = states.filter(|(id, _)| id.starts_with(given)).collect();
    match (found.get_key_value(given), found.len()) {
        (Some((id, _)), _) => Ok(Some(id)),
        (None, 0 | 1) => Ok(found.first_key_value().map(|(id, _)| *id)),
        (None, _) => Err(ambiguous_failure(&format!("containers start with {given:?}"), found)),
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
fn ambiguous_failure<'n>(what: &str, found: impl IntoIterator<Item = (&'n str, &'n str)>) -> Failure {
    let found: Vec<_> = found.into_iter().collect();
    let mut lines = vec![format!("{} {what}:", found.len())];
    lines.extend(found.iter().take(CANDIDATES).map(|(name, state)| format!("    {name}  {state}")));
    if found.len() > CANDIDATES {
        lines.push(format!("    and {} more", found.len() - CANDIDATES));
    }
    Failure::new(code::AMBIGUOUS, lines.join("\n")).with_hint("give more of the name")
}

/// Finds a task by its name or a prefix of it, or by the id of one of its containers: whole, or as container engines shorten it.
async fn by_name(client: &Client, name: &str) -> Result<Task, Failure> {
    let response = client.get(&format!("/v1/tasks/{}", encode_segment(name))).await?;
    if response.status != 404 {
        return parse_response(&response);
    }
    let tasks: Vec<Task> = parse_response(&client.get("/v1/tasks").await?)?;
    let mut found = select_tasks(tasks, name);
    match found.len() {
        0 => Err(no_such_task(&response)),
        1 => Ok(found.remove(0)),
        _ => Err(ambiguous_failure(&format!("tasks start with {name:?}"), found.iter().map(named_state))),
    }
}

/// The tasks whose name starts so; if there are none, those with a container of this id.
fn select_tasks(tasks: Vec<Task>, name: &str) -> Vec<Task> {
    let (named, others): (Vec<_>, Vec<_>) =
        tasks.into_iter().partition(|task| task.task_id.starts_with(name));
    if !named.is_empty() {
        return named;
    }
    let is_this = |container: &ContainerDocument| is_id(&container.reserved.container_id, name);
    others.into_iter().filter(|task| task.containers.iter().any(is_this)).collect()
}

/// The container whose id was given in place of the task's name.
pub(super) fn find_container_meant<'t>(task: &'t Task, of: &NamespaceArgs, given: &str) -> Option<&'t str> {
    if of.namespace.is_some() || task.task_id.starts_with(given) {
        return None;
    }
    let mut ids = task.containers.iter().map(|container| &*container.reserved.container_id);
    ids.find(|id| is_id(id, given))
}

/// Reports on standard error that the answer is about the whole task, if a container was given.
pub(super) fn report_container_meant(task: &Task, of: &NamespaceArgs, given: &str, out: &mut Console) {
    if let Some(id) = find_container_meant(task, of, given).filter(|_| task.containers.len() > 1) {
        out.write_stderr_line(format!(
            "tallyport: {id} is one of {} containers of task {}; this is about all of them",
            task.containers.len(),
            task.task_id
        ));
    }
}

/// Whether an id was given, whole or as container engines shorten it.
fn is_id(id: &str, given: &str) -> bool {
    id == given || (is_shortened_id(given) && id.starts_with(given))
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

    fn container(id: &str, state: &'static str) -> ContainerDocument {
        let document = serde_json::json!({"container_id": id, "state": state, "env": {}});
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn a_container_is_named_by_its_whole_id_or_by_the_start_of_one() {
        let containers = ["web", "web-1", "web-2", "db"].map(|id| container(id, "listening"));
        let chosen = |given: &str| choose_container(&containers, given).ok().flatten();
        assert_eq!(chosen("web"), Some("web"), "although others start with it");
        assert_eq!(chosen("web-2"), Some("web-2"));
        assert_eq!(chosen("d"), Some("db"));
        assert_eq!(chosen("x"), None);
        let refused = format!("{:?}", choose_container(&containers, "web-").unwrap_err());
        assert!(
            refused.contains("2 containers start with") && refused.contains("web-1  listening"),
            "{refused}"
        );
        let twice = [container("c1", "gone"), container("c1", "listening")];
        assert_eq!(choose_container(&twice, "c").unwrap(), Some("c1"), "two lives of one container");
    }

    #[test]
    fn the_id_of_a_container_means_its_task_unless_a_task_has_that_name() {
        let id = "0123456789abcdef".repeat(4);
        let with = |name: &str, containers: &[&str]| {
            let mut task = task("web-0", "u1", false);
            task.task_id = name.to_owned();
            task.containers = containers.iter().map(|id| container(id, "listening")).collect();
            task
        };
        let tasks =
            || vec![with("web.1", &[&id, "run-7"]), with("web.2", &["c-2"]), with("c-29", &["run-8"])];
        let selected = |name: &str| -> Vec<String> {
            select_tasks(tasks(), name).into_iter().map(|task| task.task_id).collect()
        };
        assert_eq!(selected(&id), ["web.1"]);
        assert_eq!(selected("0123456789ab"), ["web.1"]);
        assert_eq!(selected("run-7"), ["web.1"]);
        assert_eq!(selected("c-2"), ["c-29"], "the start of a task's name comes first");
        assert!(
            selected("run").is_empty() && selected("0123456789a").is_empty(),
            "that is too little of an id"
        );
        assert_eq!(selected("web"), ["web.1", "web.2"]);
    }

    #[test]
    fn the_id_of_a_container_means_that_one_of_its_task() {
        let id = "0123456789abcdef".repeat(4);
        let mut task = task("web-0", "u1", false);
        task.task_id = "web.1".to_owned();
        task.containers = ["run-7", &id].map(|id| container(id, "listening")).into();
        let of = NamespaceArgs { namespace: None };
        let meant = |given: &str| find_container_meant(&task, &of, given).map(str::to_owned);
        assert_eq!(meant("run-7").as_deref(), Some("run-7"));
        assert_eq!(meant("0123456789ab"), Some(id.clone()));
        assert_eq!((meant("web"), meant("web.1"), meant("run")), (None, None, None));
        let of = NamespaceArgs { namespace: Some("shop".to_owned()) };
        assert_eq!(find_container_meant(&task, &of, "run-7"), None);
    }

    #[test]
    fn a_shortened_id_is_a_filter_for_the_ids_that_begin_with_it() {
        let (whole, short) = ("0123456789abcdef".repeat(4), "0123456789ab");
        let filters = [&*whole, short, "0123456789a", "web*", "added-number"];
        let parsed = filters.map(|filter| parse_container_filter(filter).unwrap());
        assert_eq!(parsed, [&*whole, "0123456789ab*", "0123456789a", "web*", "added-number"]);
    }
}
