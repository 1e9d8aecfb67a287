//! A client of the API server, for use in a pod: uses its service account and the address in its environment.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::super::encoding::encode_segment;
use super::node::KubernetesNode;
use crate::client::{Client, ClientError, Response, Target};

/// How long a whole response may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a request to the API server failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClusterError {
    /// The process is not in a pod, or its environment was changed.
    #[error("{0} is not set, which Kubernetes sets in every pod")]
    NoPod(&'static str),
    /// The service account's files cannot be read.
    #[error("cannot read the service account's {}: {source}; the pod needs automountServiceAccountToken", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The API server does not respond, or the response is not valid.
    #[error("the API server at {target} does not answer: {why}")]
    NoAnswer {
        /// Where.
        target: Target,
        why: String,
    },
    /// Another client has changed the node since it was read.
    #[error("the node has changed meanwhile")]
    Conflict,
    /// The service account lacks permission.
    #[error(
        "the API server refuses it with {status}: {message}; the service account must be allowed to get and patch nodes"
    )]
    Forbidden {
        /// 401 or 403.
        status: u16,
        /// What it says.
        message: String,
    },
    /// The API server responds with another error.
    #[error("the API server answers {status}: {message}")]
    Refused {
        status: u16,
        /// What it says.
        message: String,
    },
}

/// Whether a response may be slightly older than the last change.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Freshness {
    /// It may: the API server responds from memory, which costs the cluster next to nothing.
    Cached,
    /// It may not.
    Newest,
}

/// The API server of the cluster that this pod is in.
#[derive(Debug)]
pub(super) struct Cluster {
    target: Target,
    credentials: PathBuf,
}

impl Cluster {
    /// The API server named in the environment, with the directory of the service account's files.
    ///
    /// # Errors
    /// Outside of a pod.
    pub(super) fn of_this_pod(credentials: &Path) -> Result<Self, ClusterError> {
        let variable =
            |name| std::env::var(name).ok().filter(|it| !it.is_empty()).ok_or(ClusterError::NoPod(name));
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Ok(Self { target: Target::Https(format!("{host}:{port}")), credentials: credentials.to_owned() })
    }

    /// The node with this name.
    pub(super) async fn fetch_node(
        &self,
        name: &str,
        freshness: Freshness,
    ) -> Result<KubernetesNode, ClusterError> {
        let query = if freshness == Freshness::Cached { "?resourceVersion=0" } else { "" };
        let path = format!("/api/v1/nodes/{}{query}", encode_segment(name));
        let response = self.send_request("GET", &path, Vec::new()).await?;
        serde_json::from_slice(&response.body)
            .map_err(|error| self.no_answer(format!("what it sends is not a Node: {error}")))
    }

    /// Applies a merge patch to the node with this name.
    pub(super) async fn patch_node(&self, name: &str, patch: &Value) -> Result<(), ClusterError> {
        let path = format!("/api/v1/nodes/{}", encode_segment(name));
        self.send_request("PATCH", &path, patch.to_string().into_bytes()).await.map(drop)
    }

    async fn send_request(&self, method: &str, path: &str, body: Vec<u8>) -> Result<Response, ClusterError> {
        let client = self.build_client()?;
        let asked = client.request_of("application/merge-patch+json", method, path, body);
        let Ok(answer) = tokio::time::timeout(RESPONSE_TIMEOUT, asked).await else {
            return Err(self.no_answer(format!("nothing within {} s", RESPONSE_TIMEOUT.as_secs())));
        };
        match answer {
            Ok(response) if (200..300).contains(&response.status) => Ok(response),
            Ok(response) => Err(error_from_response(&response)),
            Err(ClientError::Unreachable { source, .. }) => Err(self.no_answer(source.to_string())),
            Err(ClientError::Garbled { why, .. }) => Err(self.no_answer(why)),
            Err(ClientError::Closed { .. }) => Err(self.no_answer("it closed the connection".to_owned())),
            Err(error @ (ClientError::Authorities { .. } | ClientError::Broken { .. })) => {
                Err(self.no_answer(error.to_string()))
            }
        }
    }

    /// Creates a client for each request: the kubelet replaces the token long before it expires.
    fn build_client(&self) -> Result<Client, ClusterError> {
        let path = self.credentials.join("token");
        let token = crate::files::read_to_string(&path)
            .map_err(|source| ClusterError::Credentials { path, source })?;
        let client = Client::new(self.target.clone()).with_ca_file(&self.credentials.join("ca.crt"));
        Ok(client.map_err(|error| self.no_answer(error.to_string()))?.with_token(token.trim().to_owned()))
    }

    fn no_answer(&self, why: String) -> ClusterError {
        ClusterError::NoAnswer { target: self.target.clone(), why }
    }
}

/// The error of an unsuccessful response. The body of an API server is a Kubernetes Status.
fn error_from_response(response: &Response) -> ClusterError {
    #[derive(Deserialize)]
    struct KubernetesStatus {
        message: String,
    }
    let status = response.status;
    let message = serde_json::from_slice::<KubernetesStatus>(&response.body)
        .map_or_else(|_| "no reason".to_owned(), |it| it.message);
    match status {
        409 => ClusterError::Conflict,
        401 | 403 => ClusterError::Forbidden { status, message },
        status => ClusterError::Refused { status, message },
    }
}
