//! A server that takes requests over HTTP, as a publisher's settings describe it.

use bytes::Bytes;

use crate::client::outbound::{
    Credentials, OutboundClient, OutboundError, OutboundSettings, Proxy, ProxyVariables,
};
use crate::config::{CredentialFiles, HttpTarget, ProxyChoice};
use crate::publish::answer::Answer;

/// What is read of an answer's body, in bytes: enough for what the answer says, whatever the server sends.
const LONGEST_BODY: usize = 16 << 10;

/// Posts bodies to one URL.
#[derive(Debug)]
pub(super) struct HttpPoster {
    client: OutboundClient,
    url: String,
}

/// The part of an answer that decides.
#[derive(Debug)]
pub(super) struct HttpReply {
    pub(super) status: u16,
    pub(super) retry_after: Option<String>,
    pub(super) body: Bytes,
}

impl HttpPoster {
    /// For a URL on the target's server. `scheme` is the word before a token in the header.
    pub(super) fn new(target: &HttpTarget, url: String, scheme: &'static str) -> Self {
        let credentials = match target.credentials.clone() {
            CredentialFiles::None => Credentials::None,
            CredentialFiles::Token(file) => Credentials::Token { scheme, file },
            CredentialFiles::Basic { user, password_file } => Credentials::Basic { user, password_file },
        };
        let proxy = match &target.proxy {
            ProxyChoice::Direct => Proxy::Direct,
            ProxyChoice::Url(url) => Proxy::Url(url.clone()),
            ProxyChoice::Environment => {
                Proxy::Variables(ProxyVariables::read(|name| std::env::var(name).ok()))
            }
        };
        let certificate = target.client_certificate.clone();
        let client = OutboundClient::new(OutboundSettings {
            proxy,
            ca: target.ca.clone(),
            client_certificate: certificate.map(|files| (files.certificate, files.key)),
            credentials,
            headers: target.headers.clone(),
            headers_file: target.headers_file.clone(),
            connect_timeout: target.timeout,
            timeout: target.timeout,
            body_limit: LONGEST_BODY,
            idle_connections: 1,
        });
        Self { client, url }
    }

    /// Posts a body.
    ///
    /// # Errors
    /// When there is no whole answer, with what that means.
    pub(super) async fn post_body(
        &self,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<HttpReply, Answer> {
        let response = self
            .client
            .post_body(&self.url, headers, body.into())
            .await
            .map_err(|error| judge_failure(&error))?;
        let retry_after = response.header_text("retry-after").map(str::to_owned);
        Ok(HttpReply { status: response.status, retry_after, body: response.body })
    }
}

/// What it means that there is no answer: a file that cannot be used has to be changed, all else may pass.
fn judge_failure(error: &OutboundError) -> Answer {
    let why = error.to_string();
    match error {
        OutboundError::File { .. } => Answer::Auth { why },
        OutboundError::Setting { .. } => Answer::Gone { why },
        _ => Answer::Retry { after: None, why, of_content: false },
    }
}
