//! A receiver of the OpenTelemetry protocol over HTTP.

use super::http::{HttpPoster, prepare_body};
use crate::config::{OtlpSink, Temporality};
use crate::publish::answer::{Answer, AnswerDialect};
use crate::publish::target_client::TokenHeader;
use crate::render::publish::OtlpTemporality;

/// A receiver of metrics.
#[derive(Debug)]
pub(super) struct OtlpSender {
    poster: HttpPoster,
    temporality: OtlpTemporality,
    compress: bool,
}

impl OtlpSender {
    pub(super) fn new(sink: &OtlpSink, workers: usize) -> Self {
        let (url, token) = (sink.target.url.clone(), TokenHeader::Scheme("Bearer"));
        Self {
            poster: HttpPoster::new(&sink.target, url, token, workers),
            temporality: match sink.temporality {
                Temporality::Cumulative => OtlpTemporality::Cumulative,
                Temporality::Delta => OtlpTemporality::Delta,
            },
            compress: sink.compress,
        }
    }

    pub(super) fn encoding_temporality(&self) -> OtlpTemporality {
        self.temporality
    }

    /// Posts a message.
    pub(super) async fn post_message(&self, body: &[u8], content_type: &str) -> Answer {
        let (headers, body) = prepare_body(body, content_type, self.compress);
        match self.poster.post_body(&headers, body).await {
            Ok(reply) => reply.judge_reply(AnswerDialect::Otlp),
            Err(answer) => answer,
        }
    }
}
