//! Sits between a connection and its service, and rejects requests of a connection that has lost its place.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::service::Service;

use super::Peer;
use super::answer::TrackedBody;
use super::clients::ConnectionPlace;

/// A request that arrived after its connection was told to close, because another connection needed its place. The
/// connection is closed without a response, so the client knows that nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("the connection was closed in favour of another before the request came")]
pub(super) struct NoPlace;

/// A service that handles the requests of one connection while the connection has its place.
#[derive(Debug)]
pub(super) struct Admission<S> {
    service: S,
    peer: Peer,
    place: Arc<ConnectionPlace>,
    asked: Arc<AtomicBool>,
}

impl<S> Admission<S> {
    pub(super) fn new(service: S, peer: Peer, place: Arc<ConnectionPlace>) -> Self {
        Self { service, peer, place, asked: Arc::default() }
    }

    /// A flag that is set once the connection has sent a request.
    pub(super) fn asked_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asked)
    }
}

impl<S, R, B> Service<http::Request<R>> for Admission<S>
where
    S: Service<http::Request<R>, Response = http::Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = http::Response<TrackedBody<B>>;
    type Error = NoPlace;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NoPlace>> + Send>>;

    fn call(&self, mut request: http::Request<R>) -> Self::Future {
        self.asked.store(true, Ordering::Relaxed);
        let Some(under_way) = self.place.begin_request() else {
            return Box::pin(std::future::ready(Err(NoPlace)));
        };
        request.extensions_mut().insert(self.peer);
        let answered = self.service.call(request);
        Box::pin(async move {
            let Ok(answer) = answered.await;
            Ok(answer.map(|body| TrackedBody::new(body, under_way)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::Empty;

    use super::super::{ConnectionLimits, Connections};
    use super::*;

    #[tokio::test]
    async fn a_request_is_run_only_while_its_connection_has_a_place() {
        let limits = ConnectionLimits {
            connections: 8,
            per_client: 8,
            header_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(5),
            head: 16 << 10,
            headers: 100,
        };
        let (connections, peer) = (Connections::default(), Peer::Unix { uid: 0, pid: Some(1) });
        let open = connections.admit_peer(peer, &limits).unwrap();
        let request = || http::Request::new(Empty::<Bytes>::new());
        let ran = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ran);
        let service = hyper::service::service_fn(move |_: http::Request<Empty<Bytes>>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new())) }
        });
        let admission = Admission::new(service, peer, open.clone_place());
        assert!(admission.call(request()).await.is_ok());
        while !connections.make_room() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(admission.call(request()).await.is_err(), "its place is that of another now");
        assert_eq!(ran.load(Ordering::Relaxed), 1);
    }
}
