//! The HTTP API of the agent.
//!
//! Handlers are functions from a request and the parts of the agent they need ([`ReaderContext`], [`AgentContext`],
//! [`LifecycleContext`], [`MaintenanceContext`]) to an [`ApiResponse`]; only `routes` knows warp. Documents are built
//! in `query`. The HTTP listener is read-only; the admin socket serves the same routes, raw lines, and the calls that
//! change state.

mod access;
mod admin;
mod allow;
#[cfg(feature = "dcos")]
mod dcos;
mod descriptors;
mod error;
mod health;
mod lifecycle;
mod metrics;
mod openapi;
mod overview;
mod own;
#[cfg(feature = "page")]
mod page;
mod pages;
mod parts;
mod publishers;
mod routes;
mod tasks;
#[cfg(feature = "dcos")]
mod v0;
mod watch;

use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;

pub use access::{Access, Mistake, Tokens};
pub use allow::allowed_methods;
pub use descriptors::serve_descriptors as descriptors;
pub use error::ApiError;
pub use lifecycle::read_reservation;
pub use pages::Pages;
pub use parts::{
    AgentContext, ConfigRequest, LifecycleContext, MaintenanceContext, MissedRequest, ReaderContext, Routes,
};
pub use routes::{admin_routes, http_routes, refusal_response};
pub use watch::EVENT_STREAM;

use crate::wire::Refusal;

/// A body that is generated while it is sent.
pub type Chunks = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send + Sync>>;

/// An answer, independent of the server that sends it.
pub struct ApiResponse {
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

impl std::fmt::Debug for ApiResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

impl ApiResponse {
    fn with_json(status: u16, value: &impl serde::Serialize) -> Self {
        Self::with_body(status, JSON, crate::query::to_json(value))
    }

    fn with_body(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: Body::Whole(body.into()) }
    }

    fn without_body(status: u16) -> Self {
        Self { status, content_type: "", headers: Vec::new(), body: Body::Empty }
    }

    fn with_chunks(content_type: &'static str, chunks: Chunks) -> Self {
        Self { status: 200, content_type, headers: Vec::new(), body: Body::Chunks(chunks) }
    }

    fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl From<ApiError> for ApiResponse {
    fn from(error: ApiError) -> Self {
        let code = error.code;
        let answer = Self::with_json(error.status, &Refusal::from(error));
        match code {
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
