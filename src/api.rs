//! What the agent answers over HTTP.
//!
//! Handlers are functions from the agent's parts and a request to an [`Answer`]; only `routes` knows warp. The HTTP
//! listener reads; the admin socket reads the same and more (raw lines), and changes things.

mod access;
mod accounting;
mod admin;
mod allow;
mod dcos;
mod descriptors;
mod documents;
mod error;
mod health;
mod lifecycle;
mod metrics;
mod overview;
mod own;
mod page;
mod pages;
mod prometheus;
mod query;
mod routes;
mod scrape;
mod tasks;
mod v0;
mod watch;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{mpsc, oneshot};

pub use access::{Access, Mistake, Tokens};
pub use allow::allowed;
pub use descriptors::serve as descriptors;
pub use error::ApiError;
pub use lifecycle::read_reservation;
pub use pages::Pages;
pub use query::{Filters, Glob, Query, Selection, Windows};
pub use routes::{admin as admin_routes, http as http_routes, refusal};
pub use watch::EVENT_STREAM;

use self::pages::Shows;
use crate::config::Config;
use crate::containers::{ContainerInfo, Containers, Guarded};
use crate::host::CpuMeter;
use crate::model::{Allocation, ContainerId, Timestamp};
use crate::net::http::Connections;
use crate::shard::{ContainerStats, Of, ShardPool};
use crate::shutdown::{Drain, Readiness};
use crate::stats::Stats;
use crate::store::Store;

/// The OpenAPI document that describes all of it.
pub const OPENAPI: &str = include_str!("../proto/openapi.json");

/// The parts of the agent that answers come from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    /// Closed windows.
    pub store: Arc<Store>,
    /// Open windows and counts.
    pub pool: Arc<ShardPool>,
    /// Who is here.
    pub containers: Containers,
    /// Whether everything that must be is ready.
    pub readiness: Readiness,
    /// What nothing else counts.
    pub stats: Arc<Stats>,
    /// How the window log is doing, where there is one.
    pub window_log: Option<Arc<crate::window_log::Status>>,
    /// The configuration that holds.
    pub config: Arc<RwLock<Arc<Config>>>,
    /// Asks for the configuration to be read again.
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// Asks for the wrapper's notes to be read now.
    pub missed: mpsc::Sender<MissedRequest>,
    /// Answers that are being built or sent.
    pub pages: Pages,
    /// Open connections of the HTTP listener and of the admin socket.
    pub connections: [Connections; 2],
    /// Where the HTTP listener is.
    pub http_address: SocketAddr,
    /// Whether the kernel guards containers on the host's network.
    pub guarding: Guarded,
    /// How the node's processors were used lately.
    pub cpu: Arc<CpuMeter>,
    /// When the agent started.
    pub started: Timestamp,
    /// Hears of the agent's end, so that streams end with it.
    pub drain: Drain,
}

/// Asks for the configuration to be read again.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Whether it may take protection away from the HTTP listener.
    pub force: bool,
    /// Where the outcome goes: the settings that need a restart, or why it was refused.
    pub reply: oneshot::Sender<Result<Vec<&'static str>, String>>,
}

/// Asks for the wrapper's notes to be read now; the answer is who was found by them, and nothing where they cannot be read.
pub type MissedRequest = oneshot::Sender<Option<Vec<ContainerId>>>;

/// A body that is made while it is sent.
pub type Chunks = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send + Sync>>;

/// An answer, whoever carries it.
pub struct Answer {
    status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

enum Body {
    Empty,
    Whole(Bytes),
    Chunks(Chunks),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// A document as JSON.
///
/// # Panics
/// If JSON cannot express the type: maps whose keys are not strings are the one case. That is a mistake in the type, which the first
/// test of it finds. The connection then ends without an answer, which no reader can take for an empty one.
#[expect(clippy::expect_used, reason = "memory takes everything, so only a mistake in a type can fail")]
fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("a type that JSON can express")
}

impl Answer {
    fn json(status: u16, value: &impl serde::Serialize) -> Self {
        Self::whole(status, JSON, to_json(value))
    }

    fn whole(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: Body::Whole(body.into()) }
    }

    fn empty(status: u16) -> Self {
        Self { status, content_type: "", headers: Vec::new(), body: Body::Empty }
    }

    fn chunks(content_type: &'static str, chunks: Chunks) -> Self {
        Self { status: 200, content_type, headers: Vec::new(), body: Body::Chunks(chunks) }
    }

    fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        let answer = Self::json(error.status, &error);
        match error.code {
            "no_token" => answer.with_header("www-authenticate", "Bearer realm=\"tallyport\"".to_owned()),
            "unknown_token" => answer.with_header(
                "www-authenticate",
                "Bearer realm=\"tallyport\", error=\"invalid_token\"".to_owned(),
            ),
            "busy" => answer.with_header("retry-after", "2".to_owned()),
            _ => answer,
        }
    }
}

impl Api {
    /// The state that pages show which depend on published windows, containers and configuration alone.
    fn shows(&self) -> Shows {
        Shows {
            published: self.store.end(),
            containers: self.containers.directory().version(),
            config: self.config(),
        }
    }

    /// The configuration that holds.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How containers stand: those that live are asked, of the others it is known.
    async fn counts(
        &self,
        containers: &[Arc<ContainerInfo>],
    ) -> Result<HashMap<Allocation, Arc<ContainerStats>>, ApiError> {
        let live = containers.iter().filter(|info| info.last.is_none()).map(|info| info.allocation).collect();
        let asked = self.pool.counts(&Of::These(live)).await?;
        let asked = asked.into_iter().map(|stats| (stats.allocation, stats));
        let known =
            containers.iter().filter_map(|info| Some((info.allocation, Arc::clone(info.last.as_ref()?))));
        let mut counts: HashMap<_, _> = asked.chain(known).collect();
        // The counts of a container that was drained meanwhile are known by now.
        for info in containers {
            if !counts.contains_key(&info.allocation)
                && let Some(now) = self.containers.directory().get(info.allocation)
                && let Some(last) = &now.last
            {
                counts.insert(info.allocation, Arc::clone(last));
            }
        }
        Ok(counts)
    }
}
