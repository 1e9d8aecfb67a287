//! The client for a publisher's server, as its settings describe it.

use crate::client::outbound::{Credentials, OutboundClient, OutboundSettings, Proxy, ProxyVariables};
use crate::config::{CredentialFiles, HttpTarget, ProxyChoice};

/// How a token is sent.
#[derive(Copy, Clone, Debug)]
pub(super) enum TokenHeader {
    /// In `Authorization`, after this word.
    Scheme(&'static str),
    /// In a header of its own, by its name in lower case.
    Own(&'static str),
}

/// A client for a target. `body_limit` is the most that is kept of an answer, in bytes, and `connections` how many connections are
/// kept open.
#[must_use]
pub(super) fn build_client(
    target: &HttpTarget,
    token: TokenHeader,
    body_limit: usize,
    connections: usize,
) -> OutboundClient {
    let credentials = match target.credentials.clone() {
        CredentialFiles::None => Credentials::None,
        CredentialFiles::Token(file) => match token {
            TokenHeader::Scheme(scheme) => Credentials::Token { scheme, file },
            TokenHeader::Own(header) => Credentials::Key { header, file },
        },
        CredentialFiles::Basic { user, password_file } => Credentials::Basic { user, password_file },
    };
    let proxy = match &target.proxy {
        ProxyChoice::Direct => Proxy::Direct,
        ProxyChoice::Url(url) => Proxy::Url(url.clone()),
        ProxyChoice::Environment => Proxy::Variables(ProxyVariables::read(|name| std::env::var(name).ok())),
    };
    let certificate = target.client_certificate.clone();
    OutboundClient::new(OutboundSettings {
        proxy,
        ca: target.ca.clone(),
        client_certificate: certificate.map(|files| (files.certificate, files.key)),
        credentials,
        headers: target.headers.clone(),
        headers_file: target.headers_file.clone(),
        connect_timeout: target.timeout,
        timeout: target.timeout,
        body_limit,
        idle_connections: connections,
    })
}
