//! A response that is read line by line as it arrives.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{ClientError, Target};

/// If a stream was not read for at least this long, that is the most likely reason why it was closed.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a stream was closed, as far as its reader can tell.
pub(super) fn explain_disconnect(pause: Duration, why: &str) -> String {
    if pause < PAUSE {
        return format!("{why}; the agent's log may say more");
    }
    let seconds = pause.as_secs();
    format!(
        "it was not read for {seconds} s; the agent disconnects readers that take nothing for http.write_timeout, or while \
         http.page_memory is used up"
    )
}

/// A response whose body is still arriving.
#[derive(Debug)]
pub struct LineStream {
    /// HTTP status code of the response, 100 to 999.
    pub status: u16,
    target: Target,
    body: Incoming,
    buffer: Vec<u8>,
    /// When the last line was returned.
    handed_out: Option<Instant>,
    /// The longest time between a line and the call that asked for the next.
    pause: Duration,
}

impl LineStream {
    pub(super) fn new(target: Target, answer: http::Response<Incoming>) -> Self {
        let status = answer.status().as_u16();
        let body = answer.into_body();
        Self { status, target, body, buffer: Vec::new(), handed_out: None, pause: Duration::ZERO }
    }

    /// The next line without its line end; `None` at the end of the stream.
    ///
    /// # Errors
    /// When the connection broke before the end of the stream: lines are missing.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        if let Some(handed_out) = self.handed_out.take() {
            self.pause = self.pause.max(handed_out.elapsed());
        }
        let line = self.read_line().await;
        self.handed_out = Some(Instant::now());
        line
    }

    async fn read_line(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], Bytes::as_ref)),
                Some(Err(error)) => {
                    let (target, pause) = (self.target.clone(), self.pause);
                    return Err(ClientError::Broken { target, pause, why: error.to_string() });
                }
                None => return Ok(None),
            }
        }
    }

    /// Everything that is left, up to a failure of the connection.
    pub async fn read_remaining(mut self) -> Vec<u8> {
        while let Some(Ok(frame)) = self.body.frame().await {
            self.buffer.extend_from_slice(frame.data_ref().map_or(&[], Bytes::as_ref));
        }
        self.buffer
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::super::Client;
    use super::*;

    /// The lines that a client reads from a stream with this body, and how the stream ended.
    async fn read(body: &'static str) -> (Vec<String>, Result<(), ClientError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string().parse().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _whole = stream.read(&mut request).await.unwrap();
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        });
        let mut lines = Client::new(target).stream_lines("/").await.unwrap();
        let mut read = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => read.push(line),
                Ok(None) => return (read, Ok(())),
                Err(error) => return (read, Err(error)),
            }
        }
    }

    #[tokio::test]
    async fn a_stream_that_breaks_is_told_from_one_that_ends() {
        let (lines, ended) = read("4\r\na\nb\n\r\n0\r\n\r\n").await;
        assert!(lines == ["a", "b"] && ended.is_ok(), "{lines:?} {ended:?}");
        let (lines, broke) = read("4\r\na\nb\n\r\n").await;
        assert!(lines == ["a", "b"] && matches!(broke, Err(ClientError::Broken { .. })), "{broke:?}");
    }

    #[test]
    fn a_pause_in_reading_is_given_as_the_reason() {
        let broken = |seconds| ClientError::Broken {
            target: "127.0.0.1:9725".parse().unwrap(),
            pause: Duration::from_secs(seconds),
            why: "connection reset".to_owned(),
        };
        let (paused, read) = (broken(42).to_string(), broken(0).to_string());
        assert!(paused.contains("not read for 42 s") && paused.contains("http.write_timeout"), "{paused}");
        assert!(read.contains("connection reset") && !read.contains("write_timeout"), "{read}");
    }
}
