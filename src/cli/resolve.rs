//! Clients of the agent, and the resolution of the names of tasks and containers.

mod containers;
mod tasks;

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) use containers::{complete_filters, find_container};
pub(super) use tasks::{FoundTask, find_task};

use super::args::{AdminArgs, ClientArgs, FilterArgs, UrlArgs};
use super::failure::Failure;
use crate::client::{Client, ClientError, Response, Target};
use crate::config::{Layers, ProcessEnvironment};

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

    /// The filters of series. Those of containers need the task: [`FoundTask::container_filters`].
    pub(super) fn series_pairs(&self) -> Vec<(&str, &str)> {
        let mut pairs = flag_pairs(&[("tag", &self.tag), ("label", &self.label)]);
        pairs.extend(self.list_names().map(|name| ("name", name)));
        pairs
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

/// Parses the body of a 2xx response that is a list: each document as it is, and as a value of its type.
pub(super) fn parse_list<T: DeserializeOwned>(response: &Response) -> Result<Vec<(Value, T)>, Failure> {
    let parse = |json: Value| {
        let document = serde_json::from_value(json.clone());
        document.map(|document| (json, document)).map_err(|error| Failure::malformed_response(&error))
    };
    parse_response::<Vec<Value>>(response)?.into_iter().map(parse).collect()
}
