//! How a container is named: by its id, or by the start of it that no other container has.

use std::collections::BTreeMap;

use super::super::args::PodArgs;
use super::super::encoding::{encode_query, encode_segment};
use super::super::failure::{Failure, code};
use super::parse_response;
use super::tasks::{FoundTask, ambiguous_failure};
use crate::client::Client;
use crate::model::Glob;
use crate::wire::{ContainerDocument, Task};

impl FoundTask {
    /// The filters for the containers that were named: in place of the task, with `-c`, and with `--container`.
    pub(in crate::cli) fn container_filters(
        &self,
        pod: &PodArgs,
        filters: &[String],
    ) -> Result<Vec<(&'static str, String)>, Failure> {
        let mut pairs: Vec<_> = self.container.iter().map(|id| ("container", id.clone())).collect();
        for filter in filters {
            pairs.push(("container", complete_filter(&self.task.containers, filter)?));
        }
        pairs.extend(pod.container_filter(&self.task)?);
        Ok(pairs)
    }
}

impl PodArgs {
    /// The filter for one container of the task: by its name in the pod, or by its id.
    fn container_filter(&self, task: &Task) -> Result<Option<(&'static str, String)>, Failure> {
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

/// Completes the filters of `--container` for a command that names no task.
pub(in crate::cli) async fn complete_filters(
    client: &Client,
    filters: &[String],
) -> Result<Vec<String>, Failure> {
    let mut completed = Vec::new();
    for filter in filters {
        // A pattern needs no question. What is no pattern is one for the ids that start with it.
        let listed: Vec<Task> = match is_start(filter) {
            true => {
                let query = encode_query([("container", format!("{filter}*").as_str())]);
                parse_response(&client.get(&format!("/v1/tasks{query}")).await?)?
            }
            false => Vec::new(),
        };
        completed.push(complete_filter(listed.iter().flat_map(|task| &task.containers), filter)?);
    }
    Ok(completed)
}

/// A filter of containers, with the id in place of its start. Patterns, and what starts no id, stay as they are.
fn complete_filter<'c>(
    containers: impl IntoIterator<Item = &'c ContainerDocument>,
    filter: &str,
) -> Result<String, Failure> {
    let id = if is_start(filter) { choose_container(containers, filter)? } else { None };
    Ok(id.unwrap_or(filter).to_owned())
}

/// Whether a filter is an id or the start of one, and no pattern.
fn is_start(filter: &str) -> bool {
    !filter.is_empty() && Glob::new(filter).is_literal()
}

/// Finds the id of a container by its start.
pub(in crate::cli) async fn find_container(client: &Client, given: &str) -> Result<String, Failure> {
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
pub(super) fn choose_container<'c>(
    containers: impl IntoIterator<Item = &'c ContainerDocument>,
    given: &str,
) -> Result<Option<&'c str>, Failure> {
    // A container that has lived several times is listed once, in its last state.
    let states = containers
        .into_iter()
        .map(|container| (&*container.reserved.container_id, &*container.reserved.state));
    let found: BTreeMap<&str, &str> = states.filter(|(id, _)| id.starts_with(given)).collect();
    match (found.get_key_value(given), found.len()) {
        (Some((id, _)), _) => Ok(Some(id)),
        (None, 0 | 1) => Ok(found.first_key_value().map(|(id, _)| *id)),
        (None, _) => Err(ambiguous_failure(&format!("containers start with {given:?}"), found)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::resolve) fn sample_container(id: &str, state: &'static str) -> ContainerDocument {
        let document = serde_json::json!({"container_id": id, "state": state, "env": {}});
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn a_container_is_named_by_its_whole_id_or_by_the_start_of_one() {
        let containers = ["web", "web-1", "web-2", "db"].map(|id| sample_container(id, "listening"));
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
        let twice = [sample_container("c1", "gone"), sample_container("c1", "listening")];
        assert_eq!(choose_container(&twice, "c").unwrap(), Some("c1"), "two lives of one container");
    }

    #[test]
    fn a_filter_is_a_pattern_an_id_or_the_start_of_one() {
        let generated = "0123456789abcdef".repeat(4);
        let containers =
            ["web-1", "web-2", "c", "c2", &*generated].map(|id| sample_container(id, "listening"));
        let completed = |filter: &str| complete_filter(&containers, filter).unwrap();
        assert_eq!(completed("0123"), generated);
        assert_eq!(completed("web-2"), "web-2");
        assert_eq!(completed("c"), "c", "although another starts with it");
        for unchanged in ["web-*", "web-?", "*", "", "none"] {
            assert_eq!(completed(unchanged), unchanged);
        }
        let refused = complete_filter(&containers, "web").unwrap_err().to_text();
        assert!(refused.starts_with("2 containers start with \"web\""), "{refused}");
    }
}
