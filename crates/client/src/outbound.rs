//! A client for the servers that publishers send to: any HTTP server, which may answer anything at all or nothing.
//!
//! A request ends within its time limit, and of its answer only the start is kept, whatever the server does. Connections are
//! kept for further requests. Redirects are reported and not followed: a body with a node's metrics goes where it was told to.
//!
//! Secrets are in files, which are read for every request, so that a changed file needs no signal. They are in no error, in no
//! `Debug` text and in no URL. Decision: `docs/adr/0074-settings-and-client-of-publishers.md`.

mod connect;
mod error;
mod proxy;
mod response;
mod secret;
mod stream;
mod trust;
mod tunnel;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

pub use error::{OutboundError, Phase};
pub use proxy::{Proxy, ProxyVariables};
pub use response::OutboundResponse;
pub use secret::Credentials;

use connect::Connector;
use proxy::{ProxyRules, Route};

/// How long a connection may be idle before it is closed. Servers and proxies close theirs after a minute or more, and a
/// request that crosses that is lost.
const IDLE: Duration = Duration::from_secs(30);
/// Maximum size of the head of an answer, in bytes.
const LONGEST_HEAD: usize = 64 << 10;
/// Maximum number of header fields of an answer.
const MOST_HEADERS: usize = 100;

/// How a server is reached. Contains no secrets, except those in the URLs of [`ProxyVariables`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboundSettings {
    /// Which proxy requests go through.
    pub proxy: Proxy,
    /// PEM file with the only authorities to trust; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// PEM files with the certificate that the client shows, and with its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// What the client proves its identity with.
    pub credentials: Credentials,
    /// Header fields of every request.
    pub headers: Vec<(String, String)>,
    /// File with further header fields, one `Name: value` on each line.
    pub headers_file: Option<PathBuf>,
    /// Time limit for connecting, including the name's resolution, a proxy's tunnel and the TLS handshake.
    pub connect_timeout: Duration,
    /// Time limit of a whole request, from connecting to the end of the answer.
    pub timeout: Duration,
    /// Maximum size of what is kept of an answer's body, in bytes.
    pub body_limit: usize,
    /// Maximum number of idle connections that are kept.
    pub idle_connections: usize,
}

impl Default for OutboundSettings {
    fn default() -> Self {
        Self {
            proxy: Proxy::Direct,
            ca: None,
            client_certificate: None,
            credentials: Credentials::None,
            headers: Vec::new(),
            headers_file: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            body_limit: 64 << 10,
            idle_connections: 1,
        }
    }
}

/// Sends requests to servers.
#[derive(Clone)]
pub struct OutboundClient {
    settings: Arc<OutboundSettings>,
    /// The header fields of the settings and the proxies, or what is wrong with them.
    prepared: Result<Arc<RequestBase>, OutboundError>,
    pool: legacy::Client<Connector, Full<Bytes>>,
}

/// What every request needs.
struct RequestBase {
    headers: HeaderMap,
    rules: Arc<ProxyRules>,
}

impl std::fmt::Debug for OutboundClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboundClient").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl OutboundClient {
    /// A client with these settings. What is wrong with them is the result of every request, as any other failure is.
    #[must_use]
    pub fn new(settings: OutboundSettings) -> Self {
        let rules = ProxyRules::new(&settings.proxy).map(Arc::new);
        let connector = Connector::new(&settings, rules.clone());
        let prepared = rules.and_then(|rules| {
            let headers = fixed_headers(&settings.headers)?;
            Ok(Arc::new(RequestBase { headers, rules }))
        });
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(settings.idle_connections)
            .http1_max_buf_size(LONGEST_HEAD)
            .http1_max_headers(MOST_HEADERS)
            .build(connector);
        Self { settings: Arc::new(settings), prepared, pool }
    }

    /// Sends a body to a URL. Any answer is a result, also a redirect or an error status.
    ///
    /// # Errors
    /// When there is no complete answer within the time limit.
    pub async fn post_body(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<OutboundResponse, OutboundError> {
        self.send(Method::POST, url, headers, body).await
    }

    /// Reads from a URL.
    ///
    /// # Errors
    /// As [`Self::post_body`].
    pub async fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<OutboundResponse, OutboundError> {
        self.send(Method::GET, url, headers, Bytes::new()).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<OutboundResponse, OutboundError> {
        let request = self.build_request(method, url, headers, body)?;
        let limit = self.settings.timeout;
        let deadline = Instant::now() + limit;
        let answer = tokio::time::timeout_at(deadline, self.pool.request(request));
        let answer = answer.await.map_err(|_| OutboundError::Timeout { phase: Phase::Answer, limit })?;
        let answer = answer.map_err(|error| error::explain_failure(&error))?;
        response::read_response(answer, deadline, limit, self.settings.body_limit).await
    }

    fn build_request(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, OutboundError> {
        let prepared = self.prepared.as_ref().map_err(Clone::clone)?;
        let uri = parse_url(url)?;
        let mut fields = prepared.headers.clone();
        if let Some(path) = &self.settings.headers_file {
            fields.extend(secret::read_header_file(path)?);
        }
        if let Some((name, value)) = self.settings.credentials.read_header()? {
            fields.insert(name, value);
        }
        for (name, value) in headers {
            let (name, value) = parse_header(name, value)?;
            fields.insert(name, value);
        }
        // In a tunnel, the proxy was asked for it when the tunnel was made.
        if let Route::Forward(proxy) = prepared.rules.route_to(&uri)
            && let Some(authorization) = proxy.authorization_value()
        {
            fields.insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let mut request = Request::new(Full::new(body));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, fields);
        Ok(request)
    }
}

/// Header fields that do not change.
fn fixed_headers(pairs: &[(String, String)]) -> Result<HeaderMap, OutboundError> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
    for (name, value) in pairs {
        let (name, value) = parse_header(name, value)?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), OutboundError> {
    let invalid = || OutboundError::Setting { why: format!("{name:?} or its value is no header field") };
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
    Ok((parsed, HeaderValue::from_str(value).map_err(|_| invalid())?))
}

/// A URL without credentials. They would be in every log that the URL is in.
fn parse_url(url: &str) -> Result<Uri, OutboundError> {
    let wrong = |why: &str| OutboundError::Setting { why: why.to_owned() };
    let uri: Uri = url.parse().map_err(|_| wrong("the URL cannot be parsed"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => Ok(uri),
        (Some("http" | "https"), Some(_)) => Err(wrong("the URL contains a user or a password")),
        _ => Err(wrong("the URL has no host, or does not start with http:// or https://")),
    }
}

#[cfg(test)]
mod tests;
