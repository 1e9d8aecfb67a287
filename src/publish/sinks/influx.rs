//! `InfluxDB`'s write routes, over HTTP.

use std::collections::BTreeSet;

use super::http::{HttpPoster, prepare_body};
use crate::config::{InfluxApi, InfluxSink};
use crate::publish::answer::{Answer, AnswerDialect};
use crate::publish::target_client::TokenHeader;
use crate::render::publish::InfluxOptions;

/// How a token is named in the header of a request.
const fn token_scheme(api: &InfluxApi) -> &'static str {
    match api {
        InfluxApi::V1 { .. } | InfluxApi::V2 { .. } => "Token",
        InfluxApi::V3 { .. } => "Bearer",
    }
}

/// A write route of `InfluxDB`.
#[derive(Debug)]
pub(super) struct InfluxWriter {
    poster: HttpPoster,
    options: InfluxOptions,
    compress: bool,
}

impl InfluxWriter {
    pub(super) fn new(sink: &InfluxSink, workers: usize) -> Self {
        let url = format!("{}{}", sink.target.url.trim_end_matches('/'), write_route(&sink.api));
        Self {
            poster: HttpPoster::new(&sink.target, url, TokenHeader::Scheme(token_scheme(&sink.api)), workers),
            options: InfluxOptions { fields: sink.fields, metadata: BTreeSet::new() },
            compress: sink.compress,
        }
    }

    pub(super) fn encoding_options(&self) -> &InfluxOptions {
        &self.options
    }

    /// The headers and the body that are sent for lines.
    pub(super) fn prepare_lines<'h>(
        &self,
        body: &[u8],
        content_type: &'h str,
    ) -> (Vec<(&'h str, &'h str)>, Vec<u8>) {
        prepare_body(body, content_type, self.compress)
    }

    /// Posts lines.
    pub(super) async fn post_lines(&self, body: &[u8], content_type: &str) -> Answer {
        let (headers, body) = self.prepare_lines(body, content_type);
        match self.poster.post_body(&headers, body).await {
            Ok(reply) => reply.judge_reply(AnswerDialect::Influxdb),
            Err(answer) => answer,
        }
    }
}

/// The path and the query of writing with timestamps in milliseconds.
fn write_route(api: &InfluxApi) -> String {
    let query = |pairs: &[(&str, &str)]| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs.iter().filter(|(_, value)| !value.is_empty()));
        query.finish()
    };
    match api {
        InfluxApi::V1 { database } => format!("/write?{}", query(&[("db", database), ("precision", "ms")])),
        InfluxApi::V2 { org, bucket } => {
            format!("/api/v2/write?{}", query(&[("org", org), ("bucket", bucket), ("precision", "ms")]))
        }
        InfluxApi::V3 { database } => {
            format!("/api/v3/write_lp?{}", query(&[("db", database), ("precision", "millisecond")]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_has_its_route_and_names_are_encoded() {
        let text = |text: &str| text.to_owned();
        assert_eq!(
            write_route(&InfluxApi::V1 { database: text("kadabra") }),
            "/write?db=kadabra&precision=ms"
        );
        let v2 = InfluxApi::V2 { org: text("a&b"), bucket: text("db/rp") };
        assert_eq!(write_route(&v2), "/api/v2/write?org=a%26b&bucket=db%2Frp&precision=ms");
        let v2 = InfluxApi::V2 { org: String::new(), bucket: text("b") };
        assert_eq!(write_route(&v2), "/api/v2/write?bucket=b&precision=ms");
        let v3 = InfluxApi::V3 { database: text("k") };
        assert_eq!(write_route(&v3), "/api/v3/write_lp?db=k&precision=millisecond");
    }
}
