//! Servers and proxies that do as they are told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A complete answer without a body.
pub(super) const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    /// The request line and the header fields.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Arrived {
    /// The value of a header field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(super) fn first_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

/// A server on loopback, and what it was asked.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) requests: Arc<Mutex<Vec<Arrived>>>,
    pub(super) connections: Arc<AtomicUsize>,
    /// How much of the bodies of answers it has sent.
    pub(super) sent: Arc<AtomicUsize>,
}

/// What a server does with a request.
#[derive(Clone)]
pub(super) enum Act {
    /// Sends this, and waits for the next request.
    Answer(String),
    /// Sends this and closes.
    Last(String),
    /// Sends this and no more, and keeps the connection.
    Hang(String),
    /// Sends this, and then a chunk of these many bytes again and again, until the connection breaks or it has sent a GiB.
    Flood(String, usize),
}

impl Server {
    /// A server that does the same for every request.
    pub(super) async fn start(act: Act) -> Self {
        Self::start_with(act, None).await
    }

    /// The same over TLS.
    pub(super) async fn start_with(act: Act, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
            sent: Arc::default(),
        };
        let (requests, connections, sent) =
            (Arc::clone(&server.requests), Arc::clone(&server.connections), Arc::clone(&server.sent));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (act, tls, requests, sent) =
                    (act.clone(), tls.clone(), Arc::clone(&requests), Arc::clone(&sent));
                tokio::spawn(async move {
                    match tls {
                        None => converse(stream, act, &requests, &sent).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, act, &requests, &sent).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn requests(&self) -> Vec<Arrived> {
        self.requests.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    act: Act,
    requests: &Mutex<Vec<Arrived>>,
    sent: &AtomicUsize,
) {
    while let Some(request) = read_request(&mut stream).await {
        requests.lock().unwrap().push(request);
        let text = match &act {
            Act::Answer(text) | Act::Last(text) | Act::Hang(text) | Act::Flood(text, _) => text,
        };
        if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        match act {
            Act::Answer(_) => {}
            Act::Last(_) => {
                let _closed = stream.shutdown().await;
                return;
            }
            Act::Hang(_) => return std::future::pending().await,
            Act::Flood(_, chunk) => {
                let bytes = vec![b'x'; chunk];
                while sent.load(Ordering::SeqCst) < 1 << 30 && stream.write_all(&bytes).await.is_ok() {
                    sent.fetch_add(chunk, Ordering::SeqCst);
                }
                return;
            }
        }
    }
}

/// Reads a request with a content length; `None` at the end of the connection.
pub(super) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Arrived> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let mut arrived = Arrived { head: String::from_utf8(head).unwrap(), body: Vec::new() };
    let length = arrived.field("content-length").map_or(0, |length| length.parse().unwrap());
    arrived.body = vec![0; length];
    stream.read_exact(&mut arrived.body).await.ok()?;
    Some(arrived)
}

/// A proxy that connects to one server, whichever it is asked for, and what it was asked.
pub(super) async fn start_proxy(server: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<Arrived>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Arrived>>>::default());
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let Some(request) = read_request(&mut client).await else { return };
                let mut onward = TcpStream::connect(server).await.unwrap();
                if request.first_line().starts_with("CONNECT ") {
                    client.write_all(b"HTTP/1.1 200 Connection established\r\nvia: x\r\n\r\n").await.unwrap();
                } else {
                    onward.write_all(request.head.as_bytes()).await.unwrap();
                    onward.write_all(&request.body).await.unwrap();
                }
                seen.lock().unwrap().push(request);
                let _ended = tokio::io::copy_bidirectional(&mut client, &mut onward).await;
            });
        }
    });
    (address, asked)
}
