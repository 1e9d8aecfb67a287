//! Opens an accepted connection for reading and writing, with a TLS handshake if the listener uses TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::Connections;
use super::writing::WriteTimeoutStream;

/// A bidirectional byte stream, with or without TLS.
pub(super) type BoxedStream = Box<dyn ReadWrite>;

pub(super) trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

/// A connection as it was accepted.
pub(super) enum Socket {
    Tcp(TcpStream, Option<Arc<ServerConfig>>),
    Unix(UnixStream),
}

/// The first byte from a TLS client (RFC 8446 §5.1, a handshake).
const HANDSHAKE: u8 = 22;

/// The response to plain HTTP on a TLS listener.
const PLAIN: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
                     x-content-type-options: nosniff\r\nconnection: close\r\n\r\n\
                     this port speaks HTTPS only: ask by https://\n";

impl Socket {
    /// Opens the stream. Its writes fail after `write_timeout` without progress.
    ///
    /// # Errors
    /// When the TLS handshake fails.
    pub(super) async fn open_stream(
        self,
        write_timeout: Duration,
        connections: &Connections,
    ) -> io::Result<BoxedStream> {
        let connections = connections.clone();
        match self {
            Self::Unix(stream) => Ok(Box::new(WriteTimeoutStream::new(stream, write_timeout, connections))),
            Self::Tcp(stream, None) => {
                Ok(Box::new(WriteTimeoutStream::new(stream, write_timeout, connections)))
            }
            Self::Tcp(stream, Some(tls)) => {
                let stream = expect_tls_handshake(stream).await?;
                let stream = WriteTimeoutStream::new(stream, write_timeout, connections);
                Ok(Box::new(TlsAcceptor::from(tls).accept(stream).await?))
            }
        }
    }
}

/// Returns the connection if its client starts a TLS handshake.
async fn expect_tls_handshake(mut stream: TcpStream) -> io::Result<TcpStream> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first.first().is_some_and(u8::is_ascii_alphabetic) {
        stream.write_all(PLAIN.as_bytes()).await?;
        // Closing with unread data would reset the connection, and the response could be lost.
        let mut rest = [0; 4096];
        stream.try_read(&mut rest)?;
        stream.shutdown().await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the client sent plain HTTP"));
    }
    if first != [HANDSHAKE] {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the client did not start a TLS handshake"));
    }
    Ok(stream)
}
