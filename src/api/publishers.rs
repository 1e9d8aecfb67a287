//! Publishers: what they have sent, and calls to try one, to read what was refused, and to send something again.

use super::error::ApiError;
use super::{AgentContext, ApiResponse, MaintenanceContext};
use crate::net::clock;
use crate::query::Query;

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
