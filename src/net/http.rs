//! The accept loop of both HTTP listeners: limits on connections and heads, TLS, peer credentials, graceful shutdown.
//!
//! Requests are handled by a [`warp`] service. warp's own server has no header timeout and no limit on connections, and
//! does not report the peer.

mod admission;
mod answer;
mod clients;
mod opening;
mod overflow;
mod writing;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::rustls::ServerConfig;

use admission::Admission;
use clients::Open;
pub use clients::{ClientKey, CloseReason, Connections, RefusalReason};
use opening::Socket;
use overflow::Overflow;

use crate::shutdown::Drain;

/// How long to wait for a place before checking for an idle connection again.
const FULL: Duration = Duration::from_millis(20);
/// How long to wait when the process has no descriptors left for a connection.
const EXHAUSTED: Duration = Duration::from_millis(200);
/// How long a connection that is closed in favour of another may take to finish a response.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// When the drain starts, how long a connection without a request so far may still send one: it may be on its way, and
/// the client would report a closed connection as a failure. Shorter than the time limit of a hand-over.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// The peer of a connection. Each request has it as an extension.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A client of the HTTP listener.
    Tcp(SocketAddr),
    /// A process on this machine, on the admin socket.
    Unix {
        uid: u32,
        /// Its pid when it connected.
        pid: Option<i32>,
    },
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { uid, pid: Some(pid) } => write!(f, "uid {uid} pid {pid}"),
            Self::Unix { uid, pid: None } => write!(f, "uid {uid}"),
        }
    }
}

/// The current TLS configuration of a listener; `None` for plain HTTP. A connection keeps the configuration that was
/// current when it was accepted.
pub type Tls = watch::Receiver<Option<Arc<ServerConfig>>>;

/// Either kind of listener.
#[derive(Debug)]
pub enum Listener {
    /// The HTTP listener.
    Tcp(TcpListener, Tls),
    /// The admin socket.
    Unix(UnixListener),
}

/// The limits of a listener.
#[derive(Copy, Clone, Debug)]
pub struct ConnectionLimits {
    /// Maximum number of open connections. Beyond it the oldest idle one is closed; if none is idle, further
    /// connections wait in the backlog.
    pub connections: usize,
    /// Maximum number per address; further ones are closed. On the admin socket a process may have half of all
    /// connections; further ones wait briefly, and then get a 503.
    pub per_client: usize,
    /// Time limit for the head of a request, and for the TLS handshake.
    pub header_timeout: Duration,
    /// How long a client may leave a response unread before it is disconnected.
    pub write_timeout: Duration,
    /// Longest head of a request, in bytes; at least 8,192.
    pub head: usize,
    /// Maximum number of header fields of a request.
    pub headers: usize,
}

/// Serves connections until the drain starts, then lets open ones finish their current request.
pub async fn serve<S, B>(
    listener: Listener,
    service: S,
    limits: ConnectionLimits,
    connections: Connections,
    mut drain: Drain,
) where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = std::convert::Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    let overflow = Overflow::new(connections.clone(), limits, Arc::clone(&places));
    let (mut open, mut holding) = (JoinSet::new(), drain.clone());
    loop {
        while open.try_join_next().is_some() {}
        let (place, accepted) = tokio::select! {
            next = next(&places, &listener, &connections, &overflow) => next,
            // New connections wait in the kernel meanwhile, for this process or the one that takes over.
            () = holding.wait_for_paused(true) => {
                tokio::select! {
                    () = holding.wait_for_paused(false) => continue,
                    () = drain.wait_for_start() => break,
                }
            }
            () = drain.wait_for_start() => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                let (service, mut drain) = (service.clone(), drain.clone());
                if let Ok(counted) = connections.admit_peer(peer, &limits) {
                    open.spawn(async move {
                        serve_connection(socket, peer, counted, service, limits, drain).await;
                        drop(place);
                    });
                    continue;
                }
                // Other connections can use its place while it waits.
                drop(place);
                let Some(waiting) = overflow.queue_connection(socket, peer) else { continue };
                open.spawn(async move {
                    if let Some((socket, counted, place)) = waiting.for_room(&mut drain).await {
                        serve_connection(socket, peer, counted, service, limits, drain).await;
                        drop(place);
                    }
                });
            }
            Err(error) => after_error(&error).await,
        }
    }
    // From here on, new connections are refused instead of waiting.
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// Waits for a place and then for a client. While no client connects, the place is given to an accepted connection that
/// waits for one, if there is any.
async fn next(
    places: &Arc<Semaphore>,
    listener: &Listener,
    connections: &Connections,
    overflow: &Overflow,
) -> (Option<OwnedSemaphorePermit>, io::Result<(Socket, Peer)>) {
    loop {
        let place = acquire_place(places, listener, connections).await;
        tokio::select! {
            biased;
            () = overflow.needs_place() => drop(place),
            accepted = listener.accept() => return (place, accepted),
        }
    }
}

/// Waits for a place. If a client waits in the backlog, an idle connection is closed to free one.
async fn acquire_place(
    places: &Arc<Semaphore>,
    listener: &Listener,
    connections: &Connections,
) -> Option<OwnedSemaphorePermit> {
    loop {
        if places.available_permits() == 0 && listener.has_waiting() {
            connections.make_room();
        }
        if let Ok(place) = tokio::time::timeout(FULL, Arc::clone(places).acquire_owned()).await {
            return place.ok();
        }
    }
}

/// Handles an error of `accept`. A connection that failed before it was accepted is ignored. Running out of descriptors
/// is logged, and delays the next attempt: retrying at once would only use CPU time.
async fn after_error(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "cannot accept a connection");
        tokio::time::sleep(EXHAUSTED).await;
    }
}

async fn serve_connection<S, B>(
    socket: Socket,
    peer: Peer,
    counted: Open,
    service: S,
    limits: ConnectionLimits,
    mut drain: Drain,
) where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = std::convert::Infallible>,
    S: Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let opening = socket.open_stream(limits.write_timeout, counted.connections());
    // Data that is ready takes precedence over the drain, here and below, so that clients that connected just before it
    // are still served.
    let opened = tokio::select! {
        biased;
        opened = tokio::time::timeout(limits.header_timeout, opening) => opened,
        () = counted.close.notified() => return,
        () = drain.wait_for_start() => return,
    };
    let stream = match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => stream,
        Err(error) => {
            counted.count_refused(RefusalReason::Handshake);
            tracing::debug!(%error, %peer, "the TLS handshake of a connection failed");
            return;
        }
    };
    let admission = Admission::new(service, peer, counted.clone_place());
    let asked = admission.asked_flag();
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    builder.max_buf_size(limits.head).max_headers(limits.headers);
    let served = builder.serve_connection(TokioIo::new(stream), admission);
    tokio::pin!(served);
    let to_end = async {
        drain.wait_for_start().await;
        if !asked.load(Ordering::Relaxed) {
            tokio::time::sleep(FIRST_REQUEST).await;
        }
    };
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => ended,
        () = counted.close.notified() => {
            if !asked.load(Ordering::Relaxed) {
                return;
            }
            // The end of its last response may not have been sent yet.
            served.as_mut().graceful_shutdown();
            tokio::time::timeout(LAST_BYTES, served).await.unwrap_or(Ok(()))
        }
        () = to_end => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection failed");
    }
}

impl Listener {
    /// Whether a client waits in the backlog.
    fn has_waiting(&self) -> bool {
        let socket = match self {
            Self::Tcp(listener, _) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        };
        let mut asked = [PollFd::new(socket, PollFlags::POLLIN)];
        nix::poll::poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener, tls) => {
                let (stream, address) = listener.accept().await?;
                // Fails if the peer is already gone, which reading will report.
                let _either_way = stream.set_nodelay(true);
                Ok((Socket::Tcp(stream, tls.borrow().clone()), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let credentials = stream.peer_cred()?;
                Ok((Socket::Unix(stream), Peer::Unix { uid: credentials.uid(), pid: credentials.pid() }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
