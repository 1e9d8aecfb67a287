//! A TCP connection that lines are written to. The receiver acknowledges nothing: what is accepted by the connection counts as
//! delivered.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::config::GraphiteSink;
use crate::publish::answer::Answer;

/// A connection to a server that takes lines. It is made by the first request.
#[derive(Debug)]
pub(super) struct LineSender {
    host: String,
    port: u16,
    timeout: Duration,
    /// Not there while it is written to.
    stream: Mutex<Option<TcpStream>>,
}

impl LineSender {
    pub(super) fn new(sink: &GraphiteSink) -> Self {
        Self { host: sink.host.clone(), port: sink.port, timeout: sink.timeout, stream: Mutex::default() }
    }

    /// Connects again at the next request.
    pub(super) fn close_connection(&self) {
        *self.lock_stream() = None;
    }

    // Poisoning is ignored: the connection is only ever put there or taken.
    fn lock_stream(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends lines. After a failure the connection is made anew, so that a half line is not continued.
    pub(super) async fn send_lines(&self, body: &[u8]) -> Answer {
        let stream = self.lock_stream().take();
        let why = match tokio::time::timeout(self.timeout, self.send_over(stream, body)).await {
            Ok(Ok(stream)) => {
                *self.lock_stream() = Some(stream);
                return Answer::Ok;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the server took nothing within {}", humantime::format_duration(self.timeout)),
        };
        Answer::Retry {
            after: None,
            why: format!("{}:{}: {why}", self.host, self.port),
            of_content: false,
            in_doubt: false,
        }
    }

    async fn send_over(&self, stream: Option<TcpStream>, body: &[u8]) -> io::Result<TcpStream> {
        let mut stream = match stream.filter(is_open) {
            Some(stream) => stream,
            None => TcpStream::connect((self.host.as_str(), self.port)).await?,
        };
        stream.write_all(body).await?;
        Ok(stream)
    }
}

/// Whether the server has not closed its side, as one does that restarts. Otherwise the first request after that would be lost.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    fn writer(port: u16) -> LineSender {
        let timeout = Duration::from_secs(5);
        LineSender { host: "127.0.0.1".to_owned(), port, timeout, stream: Mutex::default() }
    }

    #[tokio::test]
    async fn a_server_that_closes_is_connected_again_before_anything_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let writer = writer(listener.local_addr().unwrap().port());
        for line in [b"a 1 0\n", b"b 2 0\n"] {
            let (sent, accepted) = tokio::join!(writer.send_lines(line), listener.accept());
            assert_eq!(sent, Answer::Ok);
            let (mut stream, _) = accepted.unwrap();
            let mut got = [0; 6];
            stream.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, line);
            drop(stream);
            // The end of the connection arrives after the last byte of it was read.
            let stream = writer.lock_stream().take().unwrap();
            tokio::time::timeout(Duration::from_secs(5), stream.readable()).await.unwrap().unwrap();
            *writer.lock_stream() = Some(stream);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert!(matches!(writer(port).send_lines(b"a 1 0\n").await, Answer::Retry { after: None, .. }));
    }
}
