//! The answer to a request: its start, however long it is.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, LOCATION};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::error::{OutboundError, Phase};

/// An answer, with any status.
#[derive(Clone, Debug)]
pub struct OutboundResponse {
    /// The HTTP status code, 100 to 999.
    pub status: u16,
    /// Its header fields.
    pub headers: HeaderMap,
    /// The body, up to the limit of the settings.
    pub body: Bytes,
    /// Whether there was more of it. Then its connection was closed.
    pub is_cut: bool,
}

impl OutboundResponse {
    /// Where a redirect points to; `None` for other answers.
    #[must_use]
    pub fn redirect_target(&self) -> Option<&str> {
        if !(300..400).contains(&self.status) {
            return None;
        }
        self.headers.get(LOCATION).and_then(|location| location.to_str().ok())
    }

    /// The value of a header field, if it is text.
    #[must_use]
    pub fn header_text(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Reads an answer, up to `most` bytes of its body.
pub(super) async fn read_response(
    answer: http::Response<Incoming>,
    deadline: Instant,
    limit: Duration,
    most: usize,
) -> Result<OutboundResponse, OutboundError> {
    let (head, body) = answer.into_parts();
    let status = head.status.as_u16();
    let read = tokio::time::timeout_at(deadline, read_body(body, most));
    let read = read.await.map_err(|_| OutboundError::Timeout { phase: Phase::Body, limit })?;
    let (body, is_cut) = read.map_err(|(received, why)| OutboundError::Body { status, received, why })?;
    Ok(OutboundResponse { status, headers: head.headers, body, is_cut })
}

/// Reads a body, up to `most` bytes, and says whether there was more. Dropping what is left of it closes the connection. An
/// error comes with the number of bytes before it.
async fn read_body(mut body: Incoming, most: usize) -> Result<(Bytes, bool), (usize, String)> {
    let mut kept = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| (kept.len(), error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        let room = most.saturating_sub(kept.len());
        kept.extend_from_slice(data.get(..room).unwrap_or(&data));
        if data.len() > room {
            return Ok((kept.freeze(), true));
        }
    }
    Ok((kept.freeze(), false))
}
