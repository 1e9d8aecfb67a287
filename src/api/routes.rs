//! Which path is which handler. Only this module knows warp.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt as _};
use http::{HeaderName, HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::error::ApiError;
use super::metrics::ScraperHeaders;
use super::pages::Asker;
use super::{AgentContext, ApiResponse, Body, LifecycleContext, MaintenanceContext, ReaderContext, Routes};
use super::{
    admin as admin_calls, health, lifecycle as container_calls, metrics, openapi, overview, own,
    publishers as publisher_calls, tasks, watch,
};
use crate::net::http::Peer;
use crate::query::Query;

/// Maximum length of a request body, in bytes.
const BODY: usize = 1 << 20;
/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What the HTTP listener serves.
#[must_use]
pub fn http_routes(routes: &Routes) -> BoxedFilter<(Response,)> {
    recover_rejections(read_routes(routes, false).or(health_routes(&routes.agent)).unify().boxed())
}

/// What the admin socket serves: the routes of the HTTP listener and those that change state.
#[must_use]
pub fn admin_routes(routes: &Routes) -> BoxedFilter<(Response,)> {
    let containers = routes.lifecycle_context();
    let changing = lifecycle_routes(&containers).or(maintenance_routes(routes)).unify().boxed();
    let others = read_routes(routes, true).or(health_routes(&routes.agent)).unify().boxed();
    recover_rejections(changing.or(others).unify().boxed())
}

/// An error response made outside the routes: before a request is routed, or when its time is over.
#[must_use]
pub fn refusal_response(error: ApiError) -> Response {
    ApiResponse::from(error).into_response()
}

/// An answer for every request, whether or not there is a route for it.
fn recover_rejections(routes: BoxedFilter<(Response,)>) -> BoxedFilter<(Response,)> {
    routes.recover(handle_rejection).unify().boxed()
}

async fn handle_rejection(rejection: Rejection) -> Result<Response, Infallible> {
    let error = if let Some(error) = rejection.find::<ApiRejection>() {
        error.0.clone()
    } else if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        ApiError::method_not_allowed()
    } else if rejection.is_not_found() {
        ApiError::unknown_route()
    } else {
        ApiError::bad_body("it did not arrive whole")
    };
    Ok(ApiResponse::from(error).into_response())
}

/// Why a request did not reach its handler.
#[derive(Debug)]
struct ApiRejection(ApiError);
impl warp::reject::Reject for ApiRejection {}

impl Reply for ApiResponse {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Body::Empty => Response::default(),
            Body::Whole(bytes) => Response::new(bytes.into()),
            Body::Chunks(chunks) => warp::reply::stream(chunks).into_response(),
        };
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        if !self.content_type.is_empty() {
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        for (name, value) in self.headers {
            // Not every text of a label is a valid header value.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

/// The result of a handler as a response.
fn build_response(answer: Result<ApiResponse, ApiError>) -> Response {
    answer.unwrap_or_else(ApiResponse::from).into_response()
}

/// A segment of a path, percent-decoded. Text that is not UTF-8 is not a valid id.
struct PathSegment(String);

impl std::str::FromStr for PathSegment {
    type Err = std::str::Utf8Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(percent_decode_str(text).decode_utf8()?.into_owned()))
    }
}

fn path_segment() -> impl Filter<Extract = (PathSegment,), Error = Rejection> + Copy {
    warp::path::param()
}

/// For routes without parameters: any parameter is refused, as by [`Query::read`].
fn no_query() -> impl Filter<Extract = (), Error = Rejection> + Copy {
    raw_query()
        .and_then(|raw: String| async move {
            Query::read(&raw, &[]).map(drop).map_err(|error| warp::reject::custom(ApiRejection(error.into())))
        })
        .untuple_one()
}

/// The raw query; empty if there is none.
fn raw_query() -> impl Filter<Extract = (String,), Error = Rejection> + Copy {
    async fn empty_query(_: Rejection) -> Result<(String,), Infallible> {
        Ok((String::new(),))
    }
    warp::query::raw().or_else(empty_query).and_then(|raw| async move { Ok::<String, Rejection>(raw) })
}

fn optional_header(name: &'static str) -> impl Filter<Extract = (Option<String>,), Error = Rejection> + Copy {
    // A value that is not text is ignored.
    warp::header::headers_cloned()
        .map(move |headers: http::HeaderMap| {
            headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        })
        .and_then(|value| async move { Ok::<_, Rejection>(value) })
}

/// The headers that answers to scrapers depend on.
fn scraper_headers() -> impl Filter<Extract = (ScraperHeaders,), Error = Rejection> + Copy {
    optional_header("accept")
        .and(optional_header("accept-encoding"))
        .and(optional_header("user-agent"))
        .map(|media, encoding, user_agent| ScraperHeaders { media, encoding, user_agent })
}

/// The whole body, if it is not too long.
fn limited_body() -> impl Filter<Extract = (Bytes,), Error = Rejection> + Copy {
    warp::body::stream().and_then(|stream| async move {
        let whole = tokio::time::timeout(BODY_WITHIN, read_body(stream)).await;
        let whole = whole.unwrap_or_else(|_| Err(ApiError::slow_body(BODY_WITHIN)));
        whole.map_err(|error| warp::reject::custom(ApiRejection(error)))
    })
}

async fn read_body(stream: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Result<Bytes, ApiError> {
    let mut stream = std::pin::pin!(stream);
    let mut whole = Vec::new();
    while let Some(chunk) = stream.next().await {
        let mut chunk = chunk.map_err(|_| ApiError::bad_body("it did not arrive whole"))?;
        if whole.len() + chunk.remaining() > BODY {
            return Err(ApiError::body_too_long(BODY));
        }
        whole.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
    }
    Ok(whole.into())
}

/// Who sent the request.
fn request_asker() -> impl Filter<Extract = (Asker,), Error = Infallible> + Copy {
    warp::ext::optional::<Peer>().map(Asker::new)
}

/// Passes a part of the agent to a handler.
fn with_api<T: Clone + Send + Sync>(
    part: &T,
) -> impl Filter<Extract = (T,), Error = Infallible> + Clone + use<T> {
    let part = part.clone();
    warp::any().map(move || part.clone())
}

/// A route of a method and path segments; `_` is a parameter.
macro_rules! at {
    ($method:ident $(/ $part:tt)*) => {
        at!(@parts warp::any().boxed(); $($part)*).and(warp::path::end()).and(warp::$method())
    };
    (@parts $so_far:expr; _ $($rest:tt)*) => { at!(@parts $so_far.and(path_segment()); $($rest)*) };
    (@parts $so_far:expr; $part:literal $($rest:tt)*) => { at!(@parts $so_far.and(warp::path($part)); $($rest)*) };
    (@parts $so_far:expr;) => { $so_far };
}

// Below the macro, which they use.
#[cfg(feature = "dcos")]
mod dcos;
#[cfg(feature = "page")]
mod page;

/// What both listeners serve. On the admin socket, clients may see raw lines and change containers.
fn read_routes(routes: &Routes, on_admin_socket: bool) -> BoxedFilter<(Response,)> {
    let always = task_routes(&routes.agent.reading, on_admin_socket).or(node_routes(&routes.agent));
    let of_products: Vec<BoxedFilter<(Response,)>> = Vec::from([
        #[cfg(feature = "dcos")]
        dcos::dcos_routes(routes, on_admin_socket),
        #[cfg(feature = "page")]
        page::page_routes(),
    ]);
    of_products.into_iter().fold(always.unify().boxed(), |all, more| all.or(more).unify().boxed())
}

fn task_routes(reading: &ReaderContext, raw_lines: bool) -> BoxedFilter<(Response,)> {
    let list = at!(get / "v1" / "tasks").and(raw_query()).and(request_asker()).and(with_api(reading)).then(
        move |raw: String, asker: Asker, reading: ReaderContext| async move {
            build_response(tasks::list_tasks(&reading, asker, &raw, raw_lines).await)
        },
    );
    let show =
        at!(get / "v1" / "tasks" / _).and(no_query()).and(request_asker()).and(with_api(reading)).then(
            move |id: PathSegment, asker: Asker, reading: ReaderContext| async move {
                build_response(tasks::show_task(&reading, asker, &id.0, raw_lines).await)
            },
        );
    let metrics = at!(get / "v1" / "tasks" / _ / "metrics")
        .and(raw_query())
        .and(request_asker())
        .and(with_api(reading))
        .then(|id: PathSegment, raw: String, asker: Asker, reading: ReaderContext| async move {
            build_response(metrics::get_task_metrics(&reading, asker, &id.0, &raw).await)
        });
    let names = at!(get / "v1" / "tasks" / _ / "names")
        .and(raw_query())
        .and(request_asker())
        .and(with_api(reading))
        .then(|id: PathSegment, raw: String, asker: Asker, reading: ReaderContext| async move {
            build_response(tasks::list_names(&reading, asker, &id.0, &raw).await)
        });
    let events = at!(get / "v1" / "tasks" / _ / "events")
        .and(raw_query())
        .and(request_asker())
        .and(with_api(reading))
        .then(|id: PathSegment, raw: String, asker: Asker, reading: ReaderContext| async move {
            build_response(tasks::list_events(&reading, asker, &id.0, &raw).await)
        });
    let checks = at!(get / "v1" / "tasks" / _ / "checks")
        .and(raw_query())
        .and(request_asker())
        .and(with_api(reading))
        .then(|id: PathSegment, raw: String, asker: Asker, reading: ReaderContext| async move {
            build_response(tasks::list_checks(&reading, asker, &id.0, &raw).await)
        });
    let watch = at!(get / "v1" / "tasks" / _ / "watch")
        .and(raw_query())
        .and(optional_header("last-event-id"))
        .and(request_asker())
        .and(with_api(reading))
        .then(|id: PathSegment, raw: String, last: Option<String>, asker: Asker, reading: ReaderContext| async move {
            build_response(watch::watch_task(&reading, asker, &id.0, &raw, last.as_deref()).await)
        });
    let lists = list.or(show).unify().or(metrics).unify().or(names).unify();
    lists.or(events).unify().or(checks).unify().or(watch).unify().boxed()
}

fn node_routes(agent: &AgentContext) -> BoxedFilter<(Response,)> {
    let reading = &agent.reading;
    let scrape = at!(get / "v1" / "metrics")
        .and(raw_query())
        .and(scraper_headers())
        .and(request_asker())
        .and(with_api(reading))
        .then(|raw: String, headers: ScraperHeaders, asker: Asker, reading: ReaderContext| async move {
            build_response(metrics::scrape_records(&reading, asker, &raw, &headers).await)
        });
    let own =
        at!(get / "metrics").and(optional_header("accept")).and(request_asker()).and(with_api(agent)).then(
            |accept: Option<String>, asker: Asker, agent: AgentContext| async move {
                build_response(own::get_agent_metrics(&agent, asker, accept.as_deref()).await)
            },
        );
    let of_tasks = at!(get / "metrics" / "tasks")
        .and(raw_query())
        .and(scraper_headers())
        .and(request_asker())
        .and(with_api(reading))
        .then(|raw: String, headers: ScraperHeaders, asker: Asker, reading: ReaderContext| async move {
            build_response(metrics::scrape_tasks(&reading, asker, &raw, &headers).await)
        });
    let targets =
        at!(get / "v1" / "sd").and(no_query()).and(optional_header("host")).and(with_api(agent)).map(
            |host: Option<String>, agent: AgentContext| {
                metrics::list_targets(&agent, host.as_deref()).into_response()
            },
        );
    let accounting =
        at!(get / "v1" / "accounting").and(raw_query()).and(request_asker()).and(with_api(reading)).then(
            |raw: String, asker: Asker, reading: ReaderContext| async move {
                build_response(overview::get_accounting(&reading, asker, &raw).await)
            },
        );
    let node = at!(get / "v1" / "node")
        .and(no_query())
        .and(with_api(agent))
        .map(|agent: AgentContext| health::get_node(&agent).into_response());
    let publishers = at!(get / "v1" / "publishers")
        .and(no_query())
        .and(with_api(agent))
        .map(|agent: AgentContext| publisher_calls::list_publishers(&agent).into_response());
    let overview = at!(get / "v1" / "watch").and(raw_query()).and(request_asker()).and(with_api(agent)).then(
        |raw: String, asker: Asker, agent: AgentContext| async move {
            build_response(overview::watch_node(&agent, asker, &raw).await)
        },
    );
    let openapi = at!(get / "v1" / "openapi.json")
        .map(|| ApiResponse::with_body(200, super::JSON, openapi::served_document()).into_response());
    let metrics = scrape.or(own).unify().or(of_tasks).unify().or(targets).unify();
    let metrics = metrics.or(publishers).unify();
    metrics.or(accounting).unify().or(node).unify().or(overview).unify().or(openapi).unify().boxed()
}

fn health_routes(agent: &AgentContext) -> BoxedFilter<(Response,)> {
    let health = at!(get / "health")
        .and(with_api(agent))
        .map(|agent: AgentContext| health::get_health(&agent).into_response());
    let ready = at!(get / "ready")
        .and(with_api(agent))
        .map(|agent: AgentContext| health::get_readiness(&agent).into_response());
    health.or(ready).unify().boxed()
}

fn lifecycle_routes(lifecycle: &LifecycleContext) -> BoxedFilter<(Response,)> {
    let reserve = at!(post / "v1" / "containers").and(limited_body()).and(with_api(lifecycle)).then(
        |body: Bytes, lifecycle: LifecycleContext| async move {
            build_response(container_calls::reserve_container(&lifecycle, &body).await)
        },
    );
    let list =
        at!(get / "v1" / "containers").and(raw_query()).and(request_asker()).and(with_api(lifecycle)).then(
            |raw: String, asker: Asker, lifecycle: LifecycleContext| async move {
                build_response(container_calls::list_containers(&lifecycle, asker, &raw).await)
            },
        );
    let show = at!(get / "v1" / "containers" / _)
        .and(no_query())
        .and(request_asker())
        .and(with_api(lifecycle))
        .then(|id: PathSegment, asker: Asker, lifecycle: LifecycleContext| async move {
            build_response(container_calls::show_container(&lifecycle, asker, &id.0).await)
        });
    let release = at!(delete / "v1" / "containers" / _).and(request_asker()).and(with_api(lifecycle)).then(
        |id: PathSegment, asker: Asker, lifecycle: LifecycleContext| async move {
            build_response(container_calls::release_container(&lifecycle, asker, &id.0).await)
        },
    );
    let attach = at!(post / "v1" / "containers" / _ / "attach")
        .and(limited_body())
        .and(request_asker())
        .and(with_api(lifecycle))
        .then(|id: PathSegment, body: Bytes, asker: Asker, lifecycle: LifecycleContext| async move {
            build_response(container_calls::attach_container(&lifecycle, asker, &id.0, &body).await)
        });
    reserve.or(list).unify().or(show).unify().or(release).unify().or(attach).unify().boxed()
}

fn maintenance_routes(routes: &Routes) -> BoxedFilter<(Response,)> {
    let (maintenance, reading) = (&routes.maintenance, &routes.agent.reading);
    let config =
        at!(get / "v1" / "config").and(no_query()).and(with_api(maintenance)).and(with_api(reading)).then(
            |maintenance: MaintenanceContext, reading: ReaderContext| async move {
                build_response(admin_calls::show_config(&maintenance, &reading).await)
            },
        );
    let reload = at!(post / "v1" / "config" / "reload").and(raw_query()).and(with_api(maintenance)).then(
        |raw: String, maintenance: MaintenanceContext| async move {
            build_response(admin_calls::reload_config(&maintenance, &raw).await)
        },
    );
    let reconcile = at!(post / "v1" / "reconcile").and(with_api(maintenance)).then(
        |maintenance: MaintenanceContext| async move {
            build_response(admin_calls::reconcile_containers(&maintenance).await)
        },
    );
    let check = at!(post / "v1" / "publishers" / _ / "check").and(with_api(maintenance)).then(
        |name: PathSegment, maintenance: MaintenanceContext| async move {
            build_response(publisher_calls::check_publisher(&maintenance, &name.0).await)
        },
    );
    let dead = at!(get / "v1" / "publishers" / _ / "dead").and(with_api(maintenance)).map(
        |name: PathSegment, maintenance: MaintenanceContext| {
            build_response(publisher_calls::list_dead_letters(&maintenance, &name.0))
        },
    );
    let replay = at!(post / "v1" / "publishers" / _ / "replay")
        .and(raw_query())
        .and(with_api(maintenance))
        .then(|name: PathSegment, raw: String, maintenance: MaintenanceContext| async move {
            build_response(publisher_calls::replay_publisher(&maintenance, &name.0, &raw).await)
        });
    let verify = at!(post / "v1" / "publishers" / _ / "verify")
        .and(raw_query())
        .and(with_api(maintenance))
        .then(|name: PathSegment, raw: String, maintenance: MaintenanceContext| async move {
            build_response(publisher_calls::verify_publisher(&maintenance, &name.0, &raw).await)
        });
    let tail = at!(get / "v1" / "tasks" / _ / "tail")
        .and(raw_query())
        .and(request_asker())
        .and(with_api(reading))
        .then(|id: PathSegment, raw: String, asker: Asker, reading: ReaderContext| async move {
            build_response(admin_calls::tail_task(&reading, asker, &id.0, &raw).await)
        });
    let publishers = check.or(dead).unify().or(replay).unify().or(verify).unify();
    let config = config.or(reload).unify();
    config.or(reconcile).unify().or(tail).unify().or(publishers).unify().boxed()
}
