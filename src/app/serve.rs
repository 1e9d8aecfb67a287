//! Between the accept loop and the routes: who may not ask is refused, every answer is counted, and every call on the admin
//! socket is logged with who made it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{ALLOW, HeaderValue};
use http::{Method, StatusCode};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::api::{Access, refusal};
use crate::net::http::Peer;
use crate::stats::{ListenerName, Stats};

/// Routes as a service that counts, and on the admin socket logs.
pub(super) fn counted(
    routes: BoxedFilter<(Response,)>,
    listener: ListenerName,
    stats: Arc<Stats>,
    access: Option<Doorkeeper>,
) -> Counted {
    Counted { routes, listener, stats, access }
}

/// What is asked of those who come, at the moment.
pub(super) type Doorkeeper = watch::Receiver<Arc<Access>>;

/// A service that counts, and on the admin socket logs.
#[derive(Clone)]
pub(super) struct Counted {
    routes: BoxedFilter<(Response,)>,
    listener: ListenerName,
    stats: Arc<Stats>,
    /// Nothing is asked of those who reach the admin socket.
    access: Option<Doorkeeper>,
}

impl Service<http::Request<Incoming>> for Counted {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        let (listener, stats) = (self.listener, Arc::clone(&self.stats));
        let peer = request.extensions().get::<Peer>().copied();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let access = self.access.as_ref().map(|access| Arc::clone(&access.borrow()));
        if let Some(Err(error)) = access.map(|access| access.check(request.uri(), request.headers())) {
            tracing::debug!(?peer, %method, path, code = error.code, "refused");
            stats.count_request(listener, error.status);
            return Box::pin(std::future::ready(Ok(refusal(error))));
        }
        // HEAD is GET without the body, which hyper leaves out.
        if method == Method::HEAD {
            *request.method_mut() = Method::GET;
        }
        let answered = TowerToHyperService::new(warp::service(self.routes.clone())).call(request);
        Box::pin(async move {
            let mut response = answered.await?;
            let status = response.status().as_u16();
            stats.count_request(listener, status);
            if status == StatusCode::METHOD_NOT_ALLOWED
                && let Ok(methods) = HeaderValue::from_str(&crate::api::allowed(listener.as_str(), &path))
            {
                response.headers_mut().insert(ALLOW, methods);
            }
            if let (ListenerName::Admin, Some(Peer::Unix { uid, pid })) = (listener, peer) {
                tracing::info!(target: "audit", uid, pid, %method, path, status, "admin call");
            }
            Ok(response)
        })
    }
}
