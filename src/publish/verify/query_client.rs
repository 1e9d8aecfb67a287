//! Queries over HTTP.

use super::comparison::VerifyError;
use crate::client::outbound::OutboundClient;
use crate::config::HttpTarget;
use crate::publish::target_client::{TokenHeader, build_client};

/// The most that is read of an answer, in bytes.
const LONGEST_ANSWER: usize = 16 << 20;
/// What is shown of an error, in characters.
const LONGEST_ERROR: usize = 512;

/// Sends queries to one URL.
#[derive(Debug)]
pub(super) struct QueryClient {
    client: OutboundClient,
    url: String,
}

impl QueryClient {
    /// For a URL on the target's server. `scheme` is the word before a token in the header.
    pub(super) fn new(target: &HttpTarget, url: String, scheme: &'static str) -> Self {
        Self { client: build_client(target, TokenHeader::Scheme(scheme), LONGEST_ANSWER, 1), url }
    }

    /// Sends a form, and returns the body of the answer.
    ///
    /// # Errors
    /// When there is no answer, or one that is an error or too long.
    pub(super) async fn post_form(&self, fields: &[(&str, &str)]) -> Result<bytes::Bytes, VerifyError> {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json")];
        let response = self.client.post_body(&self.url, &headers, form.into()).await?;
        match response.status {
            200 if response.is_cut => Err(VerifyError::TooLarge { limit: LONGEST_ANSWER }),
            200 => Ok(response.body),
            status => Err(VerifyError::Refused(describe_refusal(status, &response.body))),
        }
    }
}

/// A status and the start of what the server said, as one line without control characters.
fn describe_refusal(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..4 * LONGEST_ERROR).unwrap_or(body)).into_owned();
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let text: String = words.collect::<Vec<_>>().join(" ").chars().take(LONGEST_ERROR).collect();
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let said = [reason.map(str::to_owned), Some(text).filter(|text| !text.is_empty())];
    let said = said.into_iter().flatten().collect::<Vec<_>>().join(": ");
    format!("a query is answered with {status} {said}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_short_line_whatever_the_body_is() {
        assert_eq!(describe_refusal(401, b""), "a query is answered with 401 Unauthorized");
        let body = [b"<html>\r\n\x1b[31m\xff".as_slice(), &vec![b'x'; 1 << 16][..]].concat();
        let text = describe_refusal(502, &body);
        assert!(text.starts_with("a query is answered with 502 Bad Gateway: <html> [31m"), "{text}");
        assert!(text.len() < 1024 && !text.contains(['\x1b', '\n']));
        assert_eq!(describe_refusal(799, b""), "a query is answered with 799");
    }
}
