//! A server that takes requests over HTTP, as a publisher's settings describe it.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::client::outbound::{OutboundClient, OutboundError, Phase};
use crate::config::HttpTarget;
use crate::net::clock;
use crate::publish::answer::{Answer, AnswerDialect, HttpAnswer, judge_answer};
use crate::publish::target_client::{TokenHeader, build_client};

/// What is read of an answer's body, in bytes: enough for what the answer says, whatever the server sends.
const LONGEST_BODY: usize = 16 << 10;

/// The headers of remote write 2.0 that count what was written.
const WRITTEN: [&str; 3] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
    "x-prometheus-remote-write-exemplars-written",
];

/// Posts bodies to one server.
#[derive(Debug)]
pub(super) struct HttpPoster {
    client: OutboundClient,
    url: String,
}

/// The part of an answer that decides.
#[derive(Debug)]
pub(super) struct HttpReply {
    status: u16,
    retry_after: Option<String>,
    pub(super) counts_written: bool,
    body: Bytes,
}

impl HttpReply {
    /// What the answer means.
    pub(super) fn judge_reply(&self, dialect: AnswerDialect) -> Answer {
        let Self { status, retry_after, counts_written, body } = self;
        let (status, counts_written) = (*status, *counts_written);
        let answer = HttpAnswer { status, retry_after: retry_after.as_deref(), counts_written, body };
        judge_answer(dialect, answer, clock::wall_time())
    }
}

impl HttpPoster {
    /// For URLs that begin with this one, with a connection for each worker.
    pub(super) fn new(target: &HttpTarget, url: String, token: TokenHeader, workers: usize) -> Self {
        let client = build_client(target, token, LONGEST_BODY, workers);
        Self { client, url }
    }

    /// Posts a body to the URL.
    ///
    /// # Errors
    /// When there is no whole answer, with what that means.
    pub(super) async fn post_body(
        &self,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<HttpReply, Answer> {
        self.post_to("", headers, body).await
    }

    /// Posts a body to a path below the URL.
    ///
    /// # Errors
    /// As [`Self::post_body`].
    pub(super) async fn post_to(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<HttpReply, Answer> {
        let url = format!("{}{path}", self.url);
        let response = self.client.post_body(&url, headers, body.into()).await;
        let response = response.map_err(|error| judge_failure(&error))?;
        let retry_after = response.header_text("retry-after").map(str::to_owned);
        let counts_written = WRITTEN.iter().any(|name| response.headers.contains_key(*name));
        Ok(HttpReply { status: response.status, retry_after, counts_written, body: response.body })
    }
}

/// The headers of a body, and the body, compressed with gzip if that is wanted.
pub(super) fn prepare_body<'h>(
    body: &[u8],
    content_type: &'h str,
    compress: bool,
) -> (Vec<(&'h str, &'h str)>, Vec<u8>) {
    let mut headers = vec![("content-type", content_type)];
    if !compress {
        return (headers, body.to_vec());
    }
    headers.push(("content-encoding", "gzip"));
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    // Writing to memory does not fail.
    let _infallible = encoder.write_all(body);
    (headers, encoder.finish().unwrap_or_default())
}

/// What it means that there is no answer: a file that cannot be used has to be changed, all else may pass.
fn judge_failure(error: &OutboundError) -> Answer {
    let why = error.to_string();
    let in_doubt = match error {
        OutboundError::File { .. } => return Answer::Auth { why },
        OutboundError::Setting { .. } => return Answer::Gone { why },
        OutboundError::Dns { .. }
        | OutboundError::Refused { .. }
        | OutboundError::Unreachable { .. }
        | OutboundError::Tls { .. }
        | OutboundError::Proxy { .. }
        | OutboundError::Timeout { phase: Phase::Connect, .. } => false,
        OutboundError::Timeout { .. }
        | OutboundError::Closed
        | OutboundError::Garbled { .. }
        | OutboundError::Broken { .. }
        | OutboundError::Body { .. } => true,
    };
    Answer::Retry { after: None, why, of_content: false, in_doubt }
}
