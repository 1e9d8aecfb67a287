//! Our own accept loop for both HTTP listeners: limits on connections and heads, peer credentials, graceful end.
//!
//! What answers is a [`warp`] service. warp's own server has no header timeout, no limit on connections, and does not
//! say who is at the other end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::shutdown::Drain;

/// Longest head of a request, in bytes.
const HEAD: usize = 16 << 10;
/// How long to wait when the process has no descriptors left for a connection.
const EXHAUSTED: Duration = Duration::from_millis(200);

/// Who is at the other end of a connection. Each request has it as an extension.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// Somebody who reached the HTTP listener.
    Tcp(SocketAddr),
    /// A process on this machine, on the admin socket.
    Unix {
        /// Its user.
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

/// Either kind of listener.
#[derive(Debug)]
pub enum Listener {
    /// The HTTP listener.
    Tcp(TcpListener),
    /// The admin socket.
    Unix(UnixListener),
}

/// The limits of a listener.
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// Most connections at one time.
    pub connections: usize,
    /// How long the head of a request may take.
    pub header_timeout: Duration,
}

/// Open connections, for whoever wants to know.
#[derive(Clone, Default, Debug)]
pub struct Connections(Arc<AtomicUsize>);

impl Connections {
    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves connections until the drain starts, then lets those that are open finish what they are at.
pub async fn serve<S, B>(
    listener: Listener,
    service: S,
    limits: Limits,
    connections: Connections,
    mut drain: Drain,
) where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = std::convert::Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    let (mut open, mut holding) = (JoinSet::new(), drain.clone());
    loop {
        while open.try_join_next().is_some() {}
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            // Who connects meanwhile waits in the kernel, for us or for the process that takes over.
            () = holding.paused(true) => {
                tokio::select! {
                    () = holding.paused(false) => continue,
                    () = drain.started() => break,
                }
            }
            () = drain.started() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let served = connection(stream, peer, service.clone(), limits, drain.clone());
                let counted = connections.clone();
                counted.0.fetch_add(1, Ordering::Relaxed);
                open.spawn(async move {
                    served.await;
                    counted.0.fetch_sub(1, Ordering::Relaxed);
                    drop(place);
                });
            }
            Err(error) => after_error(&error).await,
        }
    }
    // From here on, connecting is refused rather than left waiting.
    drop(listener);
    while open.join_next().await.is_some() {}
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

async fn connection<S, B>(stream: Stream, peer: Peer, service: S, limits: Limits, mut drain: Drain)
where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = std::convert::Infallible>,
    S: Send + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let with_peer = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        service.call(request)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(HEAD);
    let served = builder.serve_connection(TokioIo::new(stream), with_peer);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = drain.started() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection broke");
    }
}

/// Bytes both ways, whatever they go through.
type Stream = Box<dyn ReadWrite>;

trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // A peer that is gone already cannot be told not to wait; reading will notice.
                let _either_way = stream.set_nodelay(true);
                Ok((Box::new(stream), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let credentials = stream.peer_cred()?;
                Ok((Box::new(stream), Peer::Unix { uid: credentials.uid(), pid: credentials.pid() }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::shutdown::{DrainTrigger, drain};

    async fn start(limits: Limits) -> (SocketAddr, DrainTrigger, Connections) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, drain) = drain();
        let connections = Connections::default();
        let answer = hyper::service::service_fn(|request: http::Request<Incoming>| async move {
            let peer = request.extensions().get::<Peer>().copied();
            if request.uri().path() == "/slow" {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Ok::<_, Infallible>(http::Response::new(Full::new(bytes::Bytes::from(format!("{peer:?}")))))
        });
        tokio::spawn(serve(Listener::Tcp(listener), answer, limits, connections.clone(), drain));
        (address, trigger, connections)
    }

    const LIMITS: Limits = Limits { connections: 10, header_timeout: Duration::from_secs(5) };

    async fn get(stream: &mut TcpStream, path: &str) -> String {
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_request_knows_who_asks() {
        let (address, _trigger, _) = start(LIMITS).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let me = stream.local_addr().unwrap();
        assert!(get(&mut stream, "/").await.ends_with(&format!("Some(Tcp({me}))")));
    }

    #[tokio::test]
    async fn a_client_that_does_not_finish_its_head_is_disconnected() {
        let limits = Limits { header_timeout: Duration::from_millis(100), ..LIMITS };
        let (address, _trigger, _) = start(limits).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let (address, _trigger, _) = start(LIMITS).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let answer = get(&mut stream, &format!("/{}", "x".repeat(HEAD))).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }

    #[tokio::test]
    async fn one_connection_too_many_waits_until_another_ends() {
        let (address, _trigger, connections) = start(Limits { connections: 1, ..LIMITS }).await;
        let first = TcpStream::connect(address).await.unwrap();
        while connections.open() == 0 {
            tokio::task::yield_now().await;
        }
        let mut second = TcpStream::connect(address).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(100), get(&mut second, "/")).await;
        assert!(waiting.is_err(), "only one connection is served");
        drop(first);
        let mut answer = String::new();
        tokio::time::timeout(Duration::from_secs(5), second.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn a_drain_lets_an_answer_finish_and_then_refuses() {
        let (address, trigger, _) = start(LIMITS).await;
        let mut busy = TcpStream::connect(address).await.unwrap();
        let mut idle = TcpStream::connect(address).await.unwrap();
        let answer = tokio::spawn(async move { get(&mut busy, "/slow").await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(trigger.start(Duration::from_secs(5)).await);
        assert!(answer.await.unwrap().starts_with("HTTP/1.1 200"));
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "an idle connection is closed");
        assert!(TcpStream::connect(address).await.is_err());
    }
}
