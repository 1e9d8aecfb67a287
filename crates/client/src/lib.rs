//! A client for the agent's API, over HTTP, HTTPS or its admin socket; and one for the servers that an agent sends to
//! ([`outbound`]).

mod lines;
pub mod outbound;
mod tls;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

pub use lines::LineStream;
use lines::explain_disconnect;

/// Time limit for connecting, and for receiving the head of a response.
const PATIENCE: Duration = Duration::from_secs(10);
/// The content type of request bodies.
const JSON: &str = "application/json";
/// The name of this client.
const USER_AGENT: &str = concat!("tallyport/", env!("CARGO_PKG_VERSION"));

/// Where an agent listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// `http://HOST:PORT`
    Http(String),
    /// `https://HOST:PORT`
    Https(String),
    /// The admin socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Https(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.trim_start_matches("//").into()));
        }
        let (kind, rest): (fn(String) -> Self, &str) = match text.strip_prefix("https://") {
            Some(rest) => (Self::Https, rest),
            None => (Self::Http, text.strip_prefix("http://").unwrap_or(text)),
        };
        let rest = rest.trim_end_matches('/');
        match rest.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !rest.contains('/') && port.parse::<u16>().is_ok() => {
                Ok(kind(rest.to_owned()))
            }
            _ => Err("write http://HOST:PORT, https://HOST:PORT or unix:PATH".to_owned()),
        }
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No process listens there.
    #[error("no agent answers at {target}: {source}")]
    Unreachable {
        /// Where.
        target: Target,
        /// Why.
        source: io::Error,
    },
    /// Something listens there, but it does not respond like an agent.
    #[error("{target} does not respond like an agent: {why}")]
    Garbled {
        /// Where.
        target: Target,
        /// Why.
        why: String,
    },
    /// The connection was closed without a response, as an agent does with late requests when it hands over or ends.
    #[error("{target} closed the connection without an answer")]
    Closed {
        /// Where.
        target: Target,
    },
    /// A response that is read line by line ended before the agent completed it.
    #[error("{target} closed the stream before its end: {}", explain_disconnect(*pause, why))]
    Broken {
        /// The address of the agent.
        target: Target,
        /// The longest time for which the stream was not read.
        pause: Duration,
        /// The error of the connection.
        why: String,
    },
    /// The file of trusted certificate authorities cannot be read.
    #[error("{} has no certificates of authorities to trust: {why}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// A complete response.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status code, 100 to 999. An error status is still a response.
    pub status: u16,
    /// The whole body, decoded from its transfer encoding.
    pub body: Bytes,
}

/// Sends requests to one agent.
#[derive(Clone)]
pub struct Client {
    target: Target,
    /// Sent with every request over HTTP and HTTPS.
    token: Option<String>,
    /// The TLS configuration, if the target uses TLS.
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Client {
    /// A client for this agent, which trusts the system's certificate authorities.
    #[must_use]
    pub fn new(target: Target) -> Self {
        let tls = matches!(target, Target::Https(_)).then(tls::connector_from_system_roots).flatten();
        Self { target, token: None, tls }
    }

    /// The same, trusting only the authorities in a PEM file.
    ///
    /// # Errors
    /// When the file has none.
    pub fn with_ca_file(self, authorities: &Path) -> Result<Self, ClientError> {
        let read = tls::connector_from_ca_file(authorities);
        let tls = read.map_err(|why| ClientError::Authorities { path: authorities.to_owned(), why })?;
        Ok(Self { tls: Some(tls), ..self })
    }

    /// Sends a token with each request. The admin socket does not require one.
    #[must_use]
    pub fn with_token(self, token: String) -> Self {
        Self { token: Some(token), ..self }
    }

    /// The agent that requests are sent to.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Sends a `GET` request and reads the whole response. If the connection is closed without a response, the request
    /// is sent once more, as RFC 9110 §9.2.2 allows for safe methods: after a hand-over another process answers.
    ///
    /// # Errors
    /// When no agent answers.
    pub async fn get(&self, path: &str) -> Result<Response, ClientError> {
        match self.send_request("GET", path, Vec::new()).await {
            Err(ClientError::Closed { .. }) => self.send_request("GET", path, Vec::new()).await,
            answer => answer,
        }
    }

    /// Any request, its answer read whole.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send_request(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response, ClientError> {
        self.request_of(JSON, method, path, body).await
    }

    /// Sends a request with a body of this media type, and reads the whole response.
    ///
    /// # Errors
    /// As [`Self::send_request`].
    pub async fn request_of(
        &self,
        media: &str,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response, ClientError> {
        let request = http::Request::builder().method(method).uri(path).header("content-type", media);
        let answer = self.send(request, body).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(|error| self.garbled_error(&error))?;
        Ok(Response { status, body: body.to_bytes() })
    }

    /// `GET`, line by line as they come.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn stream_lines(&self, path: &str) -> Result<LineStream, ClientError> {
        self.stream_lines_after(path, None).await
    }

    /// Like [`Self::stream_lines`], for a stream of events, starting after the event with this ID.
    ///
    /// # Errors
    /// As [`Self::stream_lines`].
    pub async fn stream_lines_after(
        &self,
        path: &str,
        event: Option<&str>,
    ) -> Result<LineStream, ClientError> {
        let mut request = http::Request::builder().uri(path);
        if let Some(id) = event {
            request = request.header("last-event-id", id);
        }
        Ok(LineStream::new(self.target.clone(), self.send(request, Vec::new()).await?))
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<http::Response<Incoming>, ClientError> {
        let sent = async {
            match &self.target {
                Target::Http(authority) => {
                    let stream =
                        TcpStream::connect(authority).await.map_err(|error| self.unreachable_error(error))?;
                    self.send_over_stream(stream, authority, request, body).await
                }
                Target::Https(authority) => {
                    let stream =
                        TcpStream::connect(authority).await.map_err(|error| self.unreachable_error(error))?;
                    let spoken = tls::wrap_stream(self.tls.clone(), authority, stream).await;
                    let stream = spoken.map_err(|error| self.unreachable_error(error))?;
                    self.send_over_stream(stream, authority, request, body).await
                }
                Target::Unix(socket) => {
                    let stream =
                        UnixStream::connect(socket).await.map_err(|error| self.unreachable_error(error))?;
                    self.send_over_stream(stream, "localhost", request, body).await
                }
            }
        };
        let late =
            || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, sent).await.unwrap_or_else(|_| Err(self.unreachable_error(late())))
    }

    async fn send_over_stream(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        host: &str,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<http::Response<Incoming>, ClientError> {
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.garbled_error(&error))?;
        tokio::spawn(connection);
        let mut request = request.header("host", host).header("user-agent", USER_AGENT);
        if let (Some(token), Target::Http(_) | Target::Https(_)) = (&self.token, &self.target) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request =
            request.body(Full::new(Bytes::from(body))).map_err(|error| self.garbled_error(&error))?;
        sender.send_request(request).await.map_err(|error| match error.is_incomplete_message() {
            true => ClientError::Closed { target: self.target.clone() },
            false => self.garbled_error(&error),
        })
    }

    fn unreachable_error(&self, source: io::Error) -> ClientError {
        ClientError::Unreachable { target: self.target.clone(), source }
    }

    fn garbled_error(&self, error: &dyn std::error::Error) -> ClientError {
        ClientError::Garbled { target: self.target.clone(), why: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// An agent that closes this many connections without a response. Returns the number of requests it has read.
    async fn closes(listener: TcpListener, most: usize) -> usize {
        let mut requests = 0;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            requests += 1;
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            if requests > most {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
                return requests;
            }
            if requests == 2 {
                return requests;
            }
        }
    }

    #[tokio::test]
    async fn what_changes_nothing_is_asked_once_more_where_a_connection_is_closed_without_an_answer() {
        for (closed, method, status, requests) in
            [(0, "GET", Some(200), 1), (1, "GET", Some(200), 2), (2, "GET", None, 2), (1, "POST", None, 1)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = Client::new(Target::Http(listener.local_addr().unwrap().to_string()));
            let agent = tokio::spawn(closes(listener, closed));
            let answer = match method {
                "GET" => client.get("/").await,
                _ => client.send_request(method, "/", Vec::new()).await,
            };
            assert_eq!(answer.as_ref().ok().map(|answer| answer.status), status, "{closed} {method}");
            if let Err(error) = answer {
                assert!(matches!(error, ClientError::Closed { .. }), "{error}");
            }
            match method {
                "GET" => assert_eq!(agent.await.unwrap(), requests),
                _ => agent.abort(),
            }
        }
    }

    #[test]
    fn a_target_is_a_url_or_a_socket() {
        assert_eq!("http://127.0.0.1:9725/".parse(), Ok(Target::Http("127.0.0.1:9725".to_owned())));
        assert_eq!("[::1]:9725".parse(), Ok(Target::Http("[::1]:9725".to_owned())));
        assert_eq!("unix:///run/a.sock".parse(), Ok(Target::Unix("/run/a.sock".into())));
        assert_eq!("https://node-1:9725/".parse(), Ok(Target::Https("node-1:9725".to_owned())));
        for wrong in ["", "localhost", "http://", "http://:1", "https://h", "http://h:1/path", "h:99999"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
