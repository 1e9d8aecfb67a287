//! A receiver of Prometheus remote write.

use super::http::HttpPoster;
use crate::config::{RemoteWriteSink, RemoteWriteVersion};
use crate::publish::answer::{Answer, AnswerDialect};
use crate::publish::target_client::TokenHeader;
use crate::render::exposition::Escaping;
use crate::render::publish::{RemoteWriteOptions, RemoteWriteProtocol};

/// A receiver of remote write.
#[derive(Debug)]
pub(super) struct RemoteWriter {
    poster: HttpPoster,
    options: RemoteWriteOptions,
    /// Whether 1.0 may be spoken where 2.0 is not understood.
    may_fall_back: bool,
    /// Whether the receiver has shown that it understands 2.0.
    knows_v2: bool,
}

impl RemoteWriter {
    pub(super) fn new(sink: &RemoteWriteSink) -> Self {
        let protocol = match sink.version {
            RemoteWriteVersion::V1 => RemoteWriteProtocol::V1,
            RemoteWriteVersion::Auto | RemoteWriteVersion::V2 => RemoteWriteProtocol::V2,
        };
        let (url, token) = (sink.target.url.clone(), TokenHeader::Scheme("Bearer"));
        Self {
            poster: HttpPoster::new(&sink.target, url, token),
            options: RemoteWriteOptions {
                protocol,
                naming: sink.naming,
                escaping: Escaping::Underscores,
                timers: sink.timers,
                labels: sink.labels.clone(),
                metadata: true,
            },
            may_fall_back: sink.version == RemoteWriteVersion::Auto,
            knows_v2: false,
        }
    }

    pub(super) fn encoding_options(&self) -> &RemoteWriteOptions {
        &self.options
    }

    /// Tries 2.0 again, which the receiver may have learnt.
    pub(super) fn try_newest_version(&mut self) {
        if self.may_fall_back {
            self.options.protocol = RemoteWriteProtocol::V2;
        }
    }

    /// Posts a message. If it was not understood, the next is written in 1.0.
    pub(super) async fn post_message(&mut self, body: &[u8], content_type: &str) -> Answer {
        let protocol = RemoteWriteProtocol::for_content_type(content_type);
        let headers =
            [("content-type", content_type), ("content-encoding", "snappy"), protocol.version_header()];
        let reply = match self.poster.post_body(&headers, body.to_vec()).await {
            Ok(reply) => reply,
            Err(answer) => return answer,
        };
        let dialect = match protocol {
            RemoteWriteProtocol::V1 => AnswerDialect::RemoteWrite1,
            RemoteWriteProtocol::V2 => AnswerDialect::RemoteWrite2 { is_known: self.knows_v2 },
        };
        let answer = reply.judge_reply(dialect);
        self.knows_v2 |= protocol == RemoteWriteProtocol::V2 && reply.counts_written;
        match answer {
            Answer::Unspoken { why } if self.may_fall_back => {
                if self.options.protocol == RemoteWriteProtocol::V2 {
                    tracing::info!(
                        answer = why,
                        "the receiver does not understand remote write 2.0; 1.0 is used"
                    );
                    self.options.protocol = RemoteWriteProtocol::V1;
                }
                Answer::Unspoken { why }
            }
            // Nothing was stored, and nothing else may be spoken.
            Answer::Unspoken { why } => {
                Answer::Gone { why: format!("{why}; the receiver does not understand remote write 2.0") }
            }
            answer => answer,
        }
    }
}
