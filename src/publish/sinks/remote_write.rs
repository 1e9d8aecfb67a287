//! A receiver of Prometheus remote write.

use std::sync::atomic::{AtomicBool, Ordering};

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
    /// In the version that is tried first.
    options: RemoteWriteOptions,
    /// In 1.0, if that may be spoken where 2.0 is not understood.
    fallback: Option<RemoteWriteOptions>,
    /// Whether the fallback is used.
    falls_back: AtomicBool,
    /// Whether the receiver has shown that it understands 2.0.
    knows_v2: AtomicBool,
}

impl RemoteWriter {
    pub(super) fn new(sink: &RemoteWriteSink, workers: usize) -> Self {
        let protocol = match sink.version {
            RemoteWriteVersion::V1 => RemoteWriteProtocol::V1,
            RemoteWriteVersion::Auto | RemoteWriteVersion::V2 => RemoteWriteProtocol::V2,
        };
        let (url, token) = (sink.target.url.clone(), TokenHeader::Scheme("Bearer"));
        let options = RemoteWriteOptions {
            protocol,
            naming: sink.naming,
            escaping: Escaping::Underscores,
            timers: sink.timers,
            labels: sink.labels.clone(),
            metadata: true,
        };
        let in_v1 = RemoteWriteOptions { protocol: RemoteWriteProtocol::V1, ..options.clone() };
        Self {
            poster: HttpPoster::new(&sink.target, url, token, workers),
            options,
            fallback: (sink.version == RemoteWriteVersion::Auto).then_some(in_v1),
            falls_back: AtomicBool::new(false),
            knows_v2: AtomicBool::new(false),
        }
    }

    pub(super) fn encoding_options(&self) -> &RemoteWriteOptions {
        let fallback = self.fallback.as_ref().filter(|_| self.falls_back.load(Ordering::Relaxed));
        fallback.unwrap_or(&self.options)
    }

    /// Tries 2.0 again, which the receiver may have learnt.
    pub(super) fn try_newest_version(&self) {
        self.falls_back.store(false, Ordering::Relaxed);
    }

    /// Posts a message. If it was not understood, the next is written in 1.0.
    pub(super) async fn post_message(&self, body: &[u8], content_type: &str) -> Answer {
        let protocol = RemoteWriteProtocol::for_content_type(content_type);
        let headers =
            [("content-type", content_type), ("content-encoding", "snappy"), protocol.version_header()];
        let reply = match self.poster.post_body(&headers, body.to_vec()).await {
            Ok(reply) => reply,
            Err(answer) => return answer,
        };
        let dialect = match protocol {
            RemoteWriteProtocol::V1 => AnswerDialect::RemoteWrite1,
            RemoteWriteProtocol::V2 => {
                AnswerDialect::RemoteWrite2 { is_known: self.knows_v2.load(Ordering::Relaxed) }
            }
        };
        let answer = reply.judge_reply(dialect);
        if protocol == RemoteWriteProtocol::V2 && reply.counts_written {
            self.knows_v2.store(true, Ordering::Relaxed);
        }
        match answer {
            Answer::Unspoken { why } if self.fallback.is_some() => {
                if !self.falls_back.swap(true, Ordering::Relaxed) {
                    tracing::info!(
                        answer = why,
                        "the receiver does not understand remote write 2.0; 1.0 is used"
                    );
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
