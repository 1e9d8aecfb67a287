//! Makes connections: to the server itself, or through a proxy; plain, or encrypted.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower_service::Service;

use super::OutboundSettings;
use super::error::{OutboundError, Phase, explain_handshake};
use super::proxy::{ProxyRules, ProxyServer, Route};
use super::stream::Stream;
use super::trust::Trust;
use super::tunnel::open_tunnel;

/// Makes the connections of a client.
#[derive(Clone)]
pub(super) struct Connector(Arc<Parts>);

struct Parts {
    rules: Result<Arc<ProxyRules>, OutboundError>,
    trust: Trust,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(settings: &OutboundSettings, rules: Result<Arc<ProxyRules>, OutboundError>) -> Self {
        let trust = Trust::new(settings.ca.clone(), settings.client_certificate.clone());
        Self(Arc::new(Parts { rules, trust, timeout: settings.connect_timeout }))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = OutboundError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let parts = Arc::clone(&self.0);
        Box::pin(async move {
            let limit = parts.timeout;
            let deadline = Instant::now() + limit;
            let connected = tokio::time::timeout_at(deadline, parts.connect(&uri, deadline)).await;
            connected
                .unwrap_or(Err(OutboundError::Timeout { phase: Phase::Connect, limit }))
                .map(TokioIo::new)
        })
    }
}

/// The host, without the brackets of an IPv6 address, and the port of a URL.
pub(super) fn host_and_port(uri: &Uri) -> (&str, u16) {
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    (host, uri.port_u16().unwrap_or(usual))
}

/// A host and a port as one text.
pub(super) fn join_address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Parts {
    async fn connect(&self, uri: &Uri, deadline: Instant) -> Result<Stream, OutboundError> {
        let rules = self.rules.as_ref().map_err(Clone::clone)?;
        let (host, port) = host_and_port(uri);
        let is_encrypted = uri.scheme_str() == Some("https");
        let stream = match rules.route_to(uri) {
            Route::Direct => connect_host(host, port, deadline).await?,
            Route::Forward(proxy) => {
                return Ok(Stream::new(connect_proxy(proxy, deadline).await?, true));
            }
            Route::Tunnel(proxy) => {
                let stream = connect_proxy(proxy, deadline).await?;
                open_tunnel(stream, proxy, &join_address(host, port)).await?
            }
        };
        if !is_encrypted {
            return Ok(Stream::new(stream, false));
        }
        let (name, connector) = (Trust::server_name(host)?, self.trust.load_connector()?);
        let encrypted = connector.connect(name, stream).await.map_err(|error| OutboundError::Tls {
            host: join_address(host, port),
            why: explain_handshake(&error),
        })?;
        Ok(Stream::new(encrypted, false))
    }
}

/// Connects to a proxy; a failure is the proxy's, so that the server is not searched for it.
async fn connect_proxy(proxy: &ProxyServer, deadline: Instant) -> Result<TcpStream, OutboundError> {
    let connected = connect_host(proxy.host_name(), proxy.port_number(), deadline).await;
    connected.map_err(|error| OutboundError::Proxy { proxy: proxy.to_string(), why: error.to_string() })
}

/// Connects to the first address of a host that answers. Each gets an equal share of the time that is left, so that one that
/// does not answer leaves some for the others. The caller stops it at the deadline.
async fn connect_host(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, OutboundError> {
    let no_address = |why: String| OutboundError::Dns { host: host.to_owned(), why };
    let found = tokio::net::lookup_host((host, port)).await.map_err(|error| no_address(error.to_string()))?;
    let addresses: Vec<SocketAddr> = found.collect();
    let mut failure = no_address("its name has none".to_owned());
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = match u32::try_from(addresses.len() - tried) {
            Ok(others @ 2..) => left / others,
            // The last one has until the deadline, at which the caller names the limit.
            _ => left * 2,
        };
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests are written whole, and waiting for more would only delay their ends.
                let _as_well_without = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => failure = connect_error(*address, &error),
            Err(_) => {
                let why = "it does not answer".to_owned();
                failure = OutboundError::Unreachable { address: address.to_string(), why };
            }
        }
    }
    Err(failure)
}

fn connect_error(address: SocketAddr, error: &io::Error) -> OutboundError {
    let address = address.to_string();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => OutboundError::Refused { address },
        _ => OutboundError::Unreachable { address, why: error.to_string() },
    }
}
