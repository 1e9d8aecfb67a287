//! The client for a publisher's server, as its settings describe it.

use crate::client::outbound::{Credentials, OutboundClient, OutboundSettings, Proxy, ProxyVariables};
use crate::config::{CredentialFiles, HttpTarget, ProxyChoice};

/// A client for a target. `scheme` is the word before a token in the header, `body_limit` the most that is kept of an answer, in
/// bytes.
#[must_use]
pub(super) fn build_client(target: &HttpTarget, scheme: &'static str, body_limit: usize) -> OutboundClient {
    let credentials = match target.credentials.clone() {
        CredentialFiles::None => Credentials::None,
        CredentialFiles::Token(file) => Credentials::Token { scheme, file },
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
        idle_connections: 1,
    })
}
