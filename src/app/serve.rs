//! The layer between the accept loop and the routes: refuses requests without access, ends streams whose access is
//! revoked, counts every response, and logs every call on the admin socket with its user and process. Requests
//! without a valid token are counted, and logged at most once a minute.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use warp::filters::BoxedFilter;
use warp::reply::{Reply as _, Response};

use super::entrance::{AccessReceiver, Entrance};
use crate::api::{AgentContext, ApiError, EVENT_STREAM, Routes, admin_routes, http_routes, refusal_response};
use crate::net::http::{ConnectionLimits, Listener, Peer, serve};
use crate::stats::{ListenerName, Stats, TokenFailure};

/// Serves both listeners until the drain starts.
pub(super) fn serve_listeners(
    tasks: &mut JoinSet<()>,
    routes: &Routes,
    entrance: &Entrance,
    http: TcpListener,
    admin: UnixListener,
) {
    let AgentContext { reading, connections, .. } = &routes.agent;
    let config = &reading.data.current_config().http;
    let limits = ConnectionLimits {
        connections: config.max_connections,
        per_client: config.max_connections_per_client,
        header_timeout: config.header_timeout,
        write_timeout: config.write_timeout,
        head: config.max_head,
        headers: config.max_headers,
    };
    let [http_connections, admin_connections] = connections.clone();
    let with = |routes, name, access| counting_service(routes, name, Arc::clone(&reading.stats), access);
    let service = with(http_routes(routes), ListenerName::Http, Some(entrance.subscribe_access()));
    let listener = Listener::Tcp(http, entrance.subscribe_tls());
    tasks.spawn(serve(listener, service, limits, http_connections, reading.drain.clone()));
    let service = with(admin_routes(routes), ListenerName::Admin, None);
    let listener = Listener::Unix(admin);
    tasks.spawn(serve(listener, service, limits, admin_connections, reading.drain.clone()));
}

/// Wraps routes in a service that counts requests, and logs those of the admin socket.
fn counting_service(
    routes: BoxedFilter<(Response,)>,
    listener: ListenerName,
    stats: Arc<Stats>,
    access: Option<AccessReceiver>,
) -> CountingService {
    CountingService { routes, listener, stats, access, token_failures: Arc::default() }
}

/// How long a request may take until its response begins: longer than the limit of any single step.
const DEADLINE: Duration = Duration::from_mins(1);

/// A service that counts requests, and logs those of the admin socket.
#[derive(Clone)]
struct CountingService {
    routes: BoxedFilter<(Response,)>,
    listener: ListenerName,
    stats: Arc<Stats>,
    /// `None` for the admin socket, whose file mode controls access.
    access: Option<AccessReceiver>,
    token_failures: Arc<TokenFailures>,
}

impl Service<http::Request<Incoming>> for CountingService {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        let (listener, stats) = (self.listener, Arc::clone(&self.stats));
        let peer = request.extensions().get::<Peer>().copied();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let mut access = self.access.clone();
        let asked = access.as_mut().map(|access| Arc::clone(&access.borrow_and_update()));
        if let Some(Err(error)) = asked.map(|asked| asked.check_request(request.uri(), request.headers())) {
            tracing::debug!(?peer, %method, path, code = error.code, "refused");
            stats.count_request(listener, error.status);
            self.token_failures.count_refusal(&error, peer, &stats);
            return Box::pin(std::future::ready(Ok(as_declared(refusal_response(error)))));
        }
        let visitor = access.map(|access| Visitor {
            access,
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        });
        // HEAD is served as GET; hyper leaves out the body.
        if method == Method::HEAD {
            *request.method_mut() = Method::GET;
        }
        let answered = TowerToHyperService::new(warp::service(self.routes.clone())).call(request);
        Box::pin(async move {
            let answered = tokio::time::timeout(DEADLINE, answered).await;
            let answered =
                answered.unwrap_or_else(|_| Ok(refusal_response(ApiError::deadline_exceeded(DEADLINE))));
            let mut response = as_declared(answered?);
            let status = response.status().as_u16();
            stats.count_request(listener, status);
            if status == StatusCode::METHOD_NOT_ALLOWED
                && let Ok(methods) =
                    HeaderValue::from_str(&crate::api::allowed_methods(listener.as_str(), &path))
            {
                response.headers_mut().insert(ALLOW, methods);
            }
            if let (ListenerName::Admin, Some(Peer::Unix { uid, pid })) = (listener, peer) {
                tracing::info!(target: "audit", uid, pid, %method, path, status, "admin call");
            }
            Ok(match visitor {
                Some(visitor) if is_endless(&response) => until_refused(response, visitor),
                _ => response,
            })
        })
    }
}

/// Makes browsers respect the `Content-Type` of a response, which may contain names and labels chosen by containers.
fn as_declared(mut response: Response) -> Response {
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A request that was let in, for checking it again.
struct Visitor {
    access: AccessReceiver,
    uri: Uri,
    headers: HeaderMap,
}

impl Visitor {
    /// Waits until the same request would be refused.
    async fn wait_until_refused(mut self) {
        while self.access.changed().await.is_ok() {
            let asked = Arc::clone(&self.access.borrow_and_update());
            if asked.check_request(&self.uri, &self.headers).is_err() {
                return;
            }
        }
        // It does not change any more: the agent ends, and its streams with it.
        std::future::pending::<()>().await;
    }
}

fn is_endless(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == EVENT_STREAM)
}

/// Ends a stream when its reader's token is revoked.
fn until_refused(response: Response, visitor: Visitor) -> Response {
    let (head, body) = response.into_parts();
    let chunks = BodyDataStream::new(body).take_until(Box::pin(visitor.wait_until_refused()));
    Response::from_parts(head, warp::reply::stream(chunks).into_response().into_body())
}

/// Minimum time between two log lines, so that a client that guesses tokens cannot fill the disk.
const QUIET: Duration = Duration::from_mins(1);

/// Refused requests since the last log line.
#[derive(Debug, Default)]
struct TokenFailures(Mutex<PendingFailures>);

#[derive(Debug, Default)]
struct PendingFailures {
    logged: Option<Instant>,
    missing: u64,
    unknown: u64,
}

impl TokenFailures {
    /// Counts a refused request if its token was the reason.
    fn count_refusal(&self, error: &ApiError, peer: Option<Peer>, stats: &Stats) {
        let failure = match error.code {
            "no_token" => TokenFailure::Missing,
            "unknown_token" => TokenFailure::Unknown,
            _ => return,
        };
        stats.count_token_failure(failure);
        let Some((missing, unknown)) = self.count_failure(failure, Instant::now()) else { return };
        let last = peer.map(|peer| peer.to_string());
        tracing::warn!(
            unknown,
            missing,
            last,
            "refused requests without a valid token; configure scrapers with a token from http.tokens"
        );
    }

    /// Counts a failure. Returns the numbers of missing and unknown tokens since the last log line if the next one is
    /// due.
    fn count_failure(&self, failure: TokenFailure, now: Instant) -> Option<(u64, u64)> {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            TokenFailure::Missing => pending.missing += 1,
            TokenFailure::Unknown => pending.unknown += 1,
        }
        if pending.logged.is_some_and(|logged| now.saturating_duration_since(logged) < QUIET) {
            return None;
        }
        let (missing, unknown) = (pending.missing, pending.unknown);
        *pending = PendingFailures { logged: Some(now), ..PendingFailures::default() };
        Some((missing, unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_one_line_a_minute_with_all_that_were_refused_since() {
        let (failures, start) = (TokenFailures::default(), Instant::now());
        assert_eq!(failures.count_failure(TokenFailure::Unknown, start), Some((0, 1)));
        for n in 1..60 {
            let failure = if n < 20 { TokenFailure::Missing } else { TokenFailure::Unknown };
            assert_eq!(failures.count_failure(failure, start + Duration::from_secs(n)), None);
        }
        let later = start + QUIET;
        assert_eq!(failures.count_failure(TokenFailure::Missing, later), Some((20, 40)));
        assert_eq!(failures.count_failure(TokenFailure::Missing, later), None);
    }
}
