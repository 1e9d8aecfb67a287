//! Writes with a timeout: a client that does not read is disconnected.

use std::future::Future as _;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::Connections;
use super::clients::CloseReason;

/// Maximum number of unsent bytes in the kernel for a client that does not read. Without it, each such connection can
/// use up to `tcp_wmem` (4 MiB), which no limit of this process counts. It does not limit bytes in flight to a client
/// that reads.
const UNSENT: u32 = 128 << 10;

/// A stream whose writes fail if the peer reads nothing for too long. Reads are not affected, and a stream of events
/// may be silent as long as there is nothing to send.
pub(super) struct WriteTimeoutStream<S> {
    inner: S,
    timeout: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    connections: Connections,
}

impl<S: AsFd + Unpin> WriteTimeoutStream<S> {
    pub(super) fn new(inner: S, timeout: Duration, connections: Connections) -> Self {
        // Not on Unix sockets, whose buffers do not grow.
        let _only_tcp = socket2::SockRef::from(&inner).set_tcp_notsent_lowat(UNSENT);
        Self { inner, timeout, waiting: None, connections }
    }

    fn poll_timeout<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let timeout = self.timeout;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(waiting.as_mut().poll(context));
        self.connections.count_closed(CloseReason::Slow);
        // Closing must reset the connection; otherwise the kernel would keep trying to send the rest.
        let _either_way = socket2::SockRef::from(&self.inner).set_linger(Some(Duration::ZERO));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }

    fn enforce_timeout<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_pending() {
            return self.poll_timeout(context);
        }
        self.waiting = None;
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeoutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + AsFd + Unpin> AsyncWrite for WriteTimeoutStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.enforce_timeout(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.enforce_timeout(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.enforce_timeout(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
