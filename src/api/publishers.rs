//! Publishers: what they have sent, and calls to try one, to read what was refused, to send something again, and to compare what
//! was sent with what a destination holds.

use super::error::ApiError;
use super::{AgentContext, ApiResponse, MaintenanceContext};
use crate::net::clock;
use crate::publish::{MOST_PARTS, VerifyRequest};
use crate::query::{Error, Query};

/// `GET /v1/publishers`
pub(super) fn list_publishers(agent: &AgentContext) -> ApiResponse {
    ApiResponse::with_json(200, &agent.publishers.list_documents())
}

/// `POST /v1/publishers/{name}/check`
pub(super) async fn check_publisher(
    maintenance: &MaintenanceContext,
    name: &str,
) -> Result<ApiResponse, ApiError> {
    let checked = maintenance.publishers.check_publisher(name).await;
    checked
        .map(|checked| ApiResponse::with_json(200, &checked))
        .ok_or_else(|| ApiError::unknown_publisher(name))
}

/// `GET /v1/publishers/{name}/dead`
pub(super) fn list_dead_letters(
    maintenance: &MaintenanceContext,
    name: &str,
) -> Result<ApiResponse, ApiError> {
    let letters = maintenance.publishers.read_dead_letters(name);
    let letters = letters.map_err(|error| ApiError::unreadable_letters(name, &error))?;
    letters
        .map(|letters| ApiResponse::with_json(200, &letters))
        .ok_or_else(|| ApiError::unknown_publisher(name))
}

/// `POST /v1/publishers/{name}/replay`
pub(super) async fn replay_publisher(
    maintenance: &MaintenanceContext,
    name: &str,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let query = Query::read(raw, &["since"])?;
    let since = query.parse_since(clock::wall_time())?;
    let replayed = maintenance.publishers.replay_publisher(name, since).await;
    replayed
        .map(|replayed| ApiResponse::with_json(200, &replayed))
        .ok_or_else(|| ApiError::unknown_publisher(name))
}

/// `POST /v1/publishers/{name}/verify`
pub(super) async fn verify_publisher(
    maintenance: &MaintenanceContext,
    name: &str,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let query = Query::read(raw, &["since", "until", "part", "parts"])?;
    let parts = query.parse_value("parts")?;
    if let Some(parts) = parts.filter(|parts| !(1..=MOST_PARTS).contains(parts)) {
        return Err(Error::bad_parameter("parts", &parts.to_string(), "is not a number of parts").into());
    }
    let part = query.parse_value("part")?.unwrap_or(0);
    if part >= parts.unwrap_or(1) {
        return Err(Error::bad_parameter("part", &part.to_string(), "is not less than parts").into());
    }
    let since = query.parse_since(clock::wall_time())?.unwrap_or_default();
    let request = VerifyRequest { since, until: query.parse_value("until")?, part, parts };
    let verified = maintenance.publishers.verify_publisher(name, request).await;
    verified
        .map(|verified| ApiResponse::with_json(200, &verified))
        .ok_or_else(|| ApiError::unknown_publisher(name))
}
