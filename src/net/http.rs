//! Our own accept loop for both HTTP listeners: limits on connections and heads, TLS, peer credentials, graceful end.
//!
//! What answers is a [`warp`] service. warp's own server has no header timeout, no limit on connections, and does not
//! say who is at the other end.

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

/// How long to wait for a place before looking again for an idle connection.
const FULL: Duration = Duration::from_millis(20);
/// How long to wait when the process has no descriptors left for a connection.
const EXHAUSTED: Duration = Duration::from_millis(200);
/// How long a connection that is closed in favour of another may take for what is under way on it.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// How long a client that has connected and not asked yet may still ask when the drain starts: the request is on its way, and
/// the client would take the end of the connection for a failure. Less than a process has that hands over.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// Who is at the other end of a connection. Each request has it as an extension.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// Somebody who reached the HTTP listener.
    Tcp(SocketAddr),
    /// A process on this machine, on the admin socket.
    Unix {
        uid: u32,
        /// Its number when it connected.
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

/// How a listener speaks TLS at the moment; plain HTTP where there is nothing. A connection takes what holds as it comes,
/// and keeps it.
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
    /// Most connections at one time. Beyond them the oldest idle one is closed; more wait in the backlog while none is idle.
    pub connections: usize,
    /// Most of them from one address; more are closed. On the admin socket a process may have half of all; more wait a moment, and
    /// then get 503.
    pub per_client: usize,
    /// How long the head of a request may take, and a handshake of TLS.
    pub header_timeout: Duration,
    /// How long a client may take nothing of an answer that is ready for it.
    pub write_timeout: Duration,
    /// Longest head of a request, in bytes, from 8,192 upward.
    pub head: usize,
    /// Most header fields of a request.
    pub headers: usize,
}

/// Serves connections until the drain starts, then lets those that are open finish what they are at.
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
            // Who connects meanwhile waits in the kernel, for us or for the process that takes over.
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
                // While it waits, others are served at its place.
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
    // From here on, connecting is refused rather than left waiting.
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// Waits for a place and then for a client. While no client comes, the place is given to an accepted connection that waits for
/// one, if any does.
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

/// Waits for a place. While a client waits in the backlog, an idle connection gives its place up.
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

/// A connection that failed before it was accepted is its client's matter; running out of descriptors is ours, and
/// trying again at once would only burn a core.
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
    // Whoever has connected just before the drain is not hung up on: what is ready goes first, here and below.
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
            tracing::debug!(%error, %peer, "a connection did not come to speak TLS");
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
            // The end of its last answer may still be on its way out.
            served.as_mut().graceful_shutdown();
            tokio::time::timeout(LAST_BYTES, served).await.unwrap_or(Ok(()))
        }
        () = to_end => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection broke");
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
                // A peer that is gone already cannot be told not to wait; reading will notice.
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
