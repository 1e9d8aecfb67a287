//! From a connection to bytes that can be read: TLS first, where the listener speaks it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::Connections;
use super::writing::WriteTimeoutStream;

/// Bytes both ways, whatever they go through.
pub(super) type BoxedStream = Box<dyn ReadWrite>;

pub(super) trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

/// A connection as it was accepted.
pub(super) enum Socket {
    Tcp(TcpStream, Option<Arc<ServerConfig>>),
    Unix(UnixStream),
}

/// What the first byte of a client that speaks TLS is (RFC 8446 §5.1, a handshake).
const HANDSHAKE: u8 = 22;

/// What somebody gets who speaks plain HTTP where TLS is spoken.
const PLAIN: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
                     x-content-type-options: nosniff\r\nconnection: close\r\n\r\n\
                     this port speaks HTTPS only: ask by https://\n";

impl Socket {
    /// The bytes that are meant. Their writes fail after `write_timeout` without progress.
    ///
    /// # Errors
    /// When the other end does not come to speak TLS.
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

/// The same connection, if its client begins to speak TLS.
async fn expect_tls_handshake(mut stream: TcpStream) -> io::Result<TcpStream> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first.first().is_some_and(u8::is_ascii_alphabetic) {
        stream.write_all(PLAIN.as_bytes()).await?;
        // What was sent and not read would have the kernel take the answer back.
        let mut rest = [0; 4096];
        stream.try_read(&mut rest)?;
        stream.shutdown().await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it speaks plain HTTP"));
    }
    if first != [HANDSHAKE] {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it speaks something else"));
    }
    Ok(stream)
}
