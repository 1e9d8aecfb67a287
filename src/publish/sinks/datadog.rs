//! Datadog's intake: a route for each kind of record.

use super::http::{HttpPoster, prepare_body};
use crate::config::DatadogSink;
use crate::publish::answer::{Answer, AnswerDialect};
use crate::publish::target_client::TokenHeader;
use crate::render::publish::DatadogRoute;

/// Datadog's intake.
#[derive(Debug)]
pub(super) struct DatadogSender {
    poster: HttpPoster,
    compress: bool,
}

impl DatadogSender {
    pub(super) fn new(sink: &DatadogSink, workers: usize) -> Self {
        let url = sink.target.url.trim_end_matches('/').to_owned();
        let poster = HttpPoster::new(&sink.target, url, TokenHeader::Own("dd-api-key"), workers);
        Self { poster, compress: sink.compress }
    }

    /// Posts a body to the route that it was encoded for.
    pub(super) async fn post_records(&self, body: &[u8], content_type: &str) -> Answer {
        let path = DatadogRoute::for_body(body).path();
        let (headers, body) = prepare_body(body, content_type, self.compress);
        match self.poster.post_to(path, &headers, body).await {
            Ok(reply) => reply.judge_reply(AnswerDialect::Datadog),
            Err(answer) => answer,
        }
    }
}
