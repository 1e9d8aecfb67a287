//! Which path is which handler. The only file that knows warp.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt as _};
use http::{HeaderName, HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::error::ApiError;
use super::pages::Asker;
use super::scrape::Accept;
use super::{Agent, Answer, Body, Lifecycle, Maintenance, OPENAPI, Reading, Routes};
use super::{
    accounting, admin as admin_calls, dcos, health, lifecycle as container_calls, metrics, overview, own,
    page, prometheus, scrape, tasks, v0, watch,
};
use crate::host::CpuMeter;
use crate::net::http::Peer;
use crate::query::Query;

/// Longest body that is read, in bytes.
const BODY: usize = 1 << 20;
/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What the HTTP listener serves.
#[must_use]
pub fn http(routes: &Routes) -> BoxedFilter<(Response,)> {
    answered(reading(routes, false).or(health_of_process(&routes.agent)).unify().boxed())
}

/// What the admin socket serves: everything, and more of it.
#[must_use]
pub fn admin(routes: &Routes) -> BoxedFilter<(Response,)> {
    let containers = routes.lifecycle();
    let changing =
        lifecycle(&containers).or(dcos(&containers)).unify().or(maintenance(routes)).unify().boxed();
    let others = reading(routes, true).or(health_of_process(&routes.agent)).unify().boxed();
    answered(changing.or(others).unify().boxed())
}

/// The answer to a request that gets to no route.
#[must_use]
pub fn refusal(error: ApiError) -> Response {
    Answer::from(error).into_response()
}

/// An answer for every request, whether or not there is a route for it.
fn answered(routes: BoxedFilter<(Response,)>) -> BoxedFilter<(Response,)> {
    routes.recover(rejected).unify().boxed()
}

async fn rejected(rejection: Rejection) -> Result<Response, Infallible> {
    let error = if let Some(error) = rejection.find::<Refused>() {
        error.0.clone()
    } else if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        ApiError::method()
    } else if rejection.is_not_found() {
        ApiError::unknown_route()
    } else {
        ApiError::bad_body("it did not arrive whole")
    };
    Ok(Answer::from(error).into_response())
}

/// Why a request did not reach its handler.
#[derive(Debug)]
struct Refused(ApiError);
impl warp::reject::Reject for Refused {}

impl Reply for Answer {
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
            // A header cannot hold every text that a label can.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

/// What a handler answered, as a response.
fn respond(answer: Result<Answer, ApiError>) -> Response {
    answer.unwrap_or_else(Answer::from).into_response()
}

/// A part of a path, percent-decoded. Text that is not UTF-8 then is no id of anything.
struct Segment(String);

impl std::str::FromStr for Segment {
    type Err = std::str::Utf8Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(percent_decode_str(text).decode_utf8()?.into_owned()))
    }
}

fn segment() -> impl Filter<Extract = (Segment,), Error = Rejection> + Copy {
    warp::path::param()
}

/// No query: what a route does not know is refused, as [`Query::read`] does it.
fn no_query() -> impl Filter<Extract = (), Error = Rejection> + Copy {
    query()
        .and_then(|raw: String| async move {
            Query::read(&raw, &[]).map(drop).map_err(|error| warp::reject::custom(Refused(error.into())))
        })
        .untuple_one()
}

/// The query as it came; empty where there is none.
fn query() -> impl Filter<Extract = (String,), Error = Rejection> + Copy {
    async fn none(_: Rejection) -> Result<(String,), Infallible> {
        Ok((String::new(),))
    }
    warp::query::raw().or_else(none).and_then(|raw| async move { Ok::<String, Rejection>(raw) })
}

fn header(name: &'static str) -> impl Filter<Extract = (Option<String>,), Error = Rejection> + Copy {
    // One that is not text is as good as none.
    warp::header::headers_cloned()
        .map(move |headers: http::HeaderMap| {
            headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        })
        .and_then(|value| async move { Ok::<_, Rejection>(value) })
}

/// The whole body, if it is not too long.
fn body() -> impl Filter<Extract = (Bytes,), Error = Rejection> + Copy {
    warp::body::stream().and_then(|stream| async move {
        let whole = tokio::time::timeout(BODY_WITHIN, whole(stream)).await;
        let whole = whole.unwrap_or_else(|_| Err(ApiError::slow_body(BODY_WITHIN)));
        whole.map_err(|error| warp::reject::custom(Refused(error)))
    })
}

async fn whole(stream: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Result<Bytes, ApiError> {
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
fn asker() -> impl Filter<Extract = (Asker,), Error = Infallible> + Copy {
    warp::ext::optional::<Peer>().map(Asker::new)
}

/// A part of the agent, for a handler.
fn with<T: Clone + Send + Sync>(
    part: &T,
) -> impl Filter<Extract = (T,), Error = Infallible> + Clone + use<T> {
    let part = part.clone();
    warp::any().map(move || part.clone())
}

/// A route of fixed parts.
macro_rules! at {
    ($method:ident $(/ $part:tt)*) => {
        at!(@parts warp::any().boxed(); $($part)*).and(warp::path::end()).and(warp::$method())
    };
    (@parts $so_far:expr; _ $($rest:tt)*) => { at!(@parts $so_far.and(segment()); $($rest)*) };
    (@parts $so_far:expr; $part:literal $($rest:tt)*) => { at!(@parts $so_far.and(warp::path($part)); $($rest)*) };
    (@parts $so_far:expr;) => { $so_far };
}

fn reading(routes: &Routes, raw_lines: bool) -> BoxedFilter<(Response,)> {
    of_tasks(&routes.agent.reading, raw_lines)
        .or(of_node(&routes.agent))
        .unify()
        .or(of_dcos(routes))
        .unify()
        .or(for_people(&routes.agent))
        .unify()
        .boxed()
}

fn of_tasks(reading: &Reading, raw_lines: bool) -> BoxedFilter<(Response,)> {
    let list = at!(get / "v1" / "tasks").and(query()).and(asker()).and(with(reading)).then(
        move |raw: String, asker: Asker, reading: Reading| async move {
            respond(tasks::list(&reading, asker, &raw, raw_lines).await)
        },
    );
    let show = at!(get / "v1" / "tasks" / _).and(no_query()).and(asker()).and(with(reading)).then(
        move |id: Segment, asker: Asker, reading: Reading| async move {
            respond(tasks::show(&reading, asker, &id.0, raw_lines).await)
        },
    );
    let metrics =
        at!(get / "v1" / "tasks" / _ / "metrics").and(query()).and(asker()).and(with(reading)).then(
            |id: Segment, raw: String, asker: Asker, reading: Reading| async move {
                respond(metrics::metrics(&reading, asker, &id.0, &raw).await)
            },
        );
    let events = at!(get / "v1" / "tasks" / _ / "events").and(query()).and(asker()).and(with(reading)).then(
        |id: Segment, raw: String, asker: Asker, reading: Reading| async move {
            respond(tasks::events(&reading, asker, &id.0, &raw).await)
        },
    );
    let checks = at!(get / "v1" / "tasks" / _ / "checks").and(query()).and(asker()).and(with(reading)).then(
        |id: Segment, raw: String, asker: Asker, reading: Reading| async move {
            respond(tasks::checks(&reading, asker, &id.0, &raw).await)
        },
    );
    let watch = at!(get / "v1" / "tasks" / _ / "watch")
        .and(query())
        .and(header("last-event-id"))
        .and(asker())
        .and(with(reading))
        .then(|id: Segment, raw: String, last: Option<String>, asker: Asker, reading: Reading| async move {
            respond(watch::watch(&reading, asker, &id.0, &raw, last.as_deref()).await)
        });
    list.or(show).unify().or(metrics).unify().or(events).unify().or(checks).unify().or(watch).unify().boxed()
}

fn of_node(agent: &Agent) -> BoxedFilter<(Response,)> {
    let reading = &agent.reading;
    let scrape =
        at!(get / "v1" / "metrics")
            .and(query())
            .and(header("accept"))
            .and(header("accept-encoding"))
            .and(asker())
            .and(with(reading))
            .then(
                |raw: String,
                 media: Option<String>,
                 encoding: Option<String>,
                 asker: Asker,
                 reading: Reading| async move {
                    respond(scrape::scrape(&reading, asker, &raw, &Accept { media, encoding }).await)
                },
            );
    let own = at!(get / "metrics").and(header("accept")).and(asker()).and(with(agent)).then(
        |accept: Option<String>, asker: Asker, agent: Agent| async move {
            respond(own::metrics(&agent, asker, accept.as_deref()).await)
        },
    );
    let of_tasks =
        at!(get / "metrics" / "tasks")
            .and(query())
            .and(header("accept"))
            .and(header("accept-encoding"))
            .and(asker())
            .and(with(reading))
            .then(
                |raw: String,
                 media: Option<String>,
                 encoding: Option<String>,
                 asker: Asker,
                 reading: Reading| async move {
                    respond(prometheus::tasks(&reading, asker, &raw, &Accept { media, encoding }).await)
                },
            );
    let targets = at!(get / "v1" / "sd").and(no_query()).and(header("host")).and(with(agent)).map(
        |host: Option<String>, agent: Agent| prometheus::targets(&agent, host.as_deref()).into_response(),
    );
    let accounting = at!(get / "v1" / "accounting").and(query()).and(asker()).and(with(reading)).then(
        |raw: String, asker: Asker, reading: Reading| async move {
            respond(accounting::accounting(&reading, asker, &raw).await)
        },
    );
    let node = at!(get / "v1" / "node")
        .and(no_query())
        .and(with(agent))
        .map(|agent: Agent| health::node(&agent).into_response());
    let openapi =
        at!(get / "v1" / "openapi.json").map(|| Answer::whole(200, super::JSON, OPENAPI).into_response());
    let metrics = scrape.or(own).unify().or(of_tasks).unify().or(targets).unify();
    metrics.or(accounting).unify().or(node).unify().or(openapi).unify().boxed()
}

/// The page, and the stream that it follows.
fn for_people(agent: &Agent) -> BoxedFilter<(Response,)> {
    let page = at!(get).and(header("accept-encoding")).and(header("if-none-match")).map(
        |encoding: Option<String>, known: Option<String>| {
            page::page(encoding.as_deref(), known.as_deref()).into_response()
        },
    );
    let overview = at!(get / "v1" / "watch").and(query()).and(asker()).and(with(agent)).then(
        |raw: String, asker: Asker, agent: Agent| async move {
            respond(overview::watch(&agent, asker, &raw).await)
        },
    );
    page.or(overview).unify().boxed()
}

fn of_dcos(routes: &Routes) -> BoxedFilter<(Response,)> {
    let reading = &routes.agent.reading;
    let ping = at!(get / "v0" / "ping").map(|| v0::ping().into_response());
    let containers = at!(get / "v0" / "containers").and(query()).and(asker()).and(with(reading)).then(
        |raw: String, asker: Asker, reading: Reading| async move {
            respond(v0::containers(&reading, asker, &raw).await)
        },
    );
    let app = at!(get / "v0" / "containers" / _ / "app").and(query()).and(asker()).and(with(reading)).then(
        |id: Segment, raw: String, asker: Asker, reading: Reading| async move {
            respond(v0::app(&reading, asker, &id.0, None, &raw).await)
        },
    );
    let metric =
        at!(get / "v0" / "containers" / _ / "app" / _).and(query()).and(asker()).and(with(reading)).then(
            |id: Segment, metric: Segment, raw: String, asker: Asker, reading: Reading| async move {
                respond(v0::app(&reading, asker, &id.0, Some(&metric.0), &raw).await)
            },
        );
    let container = at!(get / "v0" / "containers" / _).and(query()).and(asker()).and(with(reading)).then(
        |id: Segment, raw: String, asker: Asker, reading: Reading| async move {
            respond(v0::container(&reading, asker, &id.0, &raw).await)
        },
    );
    let node =
        at!(get / "v0" / "node").and(query()).and(asker()).and(with(reading)).and(with(&routes.cpu)).then(
            |raw: String, asker: Asker, reading: Reading, cpu: Arc<CpuMeter>| async move {
                respond(v0::node(&reading, cpu, asker, &raw).await)
            },
        );
    let resources = container.or(node).unify();
    ping.or(containers).unify().or(resources).unify().or(app).unify().or(metric).unify().boxed()
}

fn health_of_process(agent: &Agent) -> BoxedFilter<(Response,)> {
    let health =
        at!(get / "health").and(with(agent)).map(|agent: Agent| health::health(&agent).into_response());
    let ready = at!(get / "ready").and(with(agent)).map(|agent: Agent| health::ready(&agent).into_response());
    health.or(ready).unify().boxed()
}

fn lifecycle(lifecycle: &Lifecycle) -> BoxedFilter<(Response,)> {
    let reserve = at!(post / "v1" / "containers").and(body()).and(with(lifecycle)).then(
        |body: Bytes, lifecycle: Lifecycle| async move {
            respond(container_calls::reserve(&lifecycle, &body).await)
        },
    );
    let list = at!(get / "v1" / "containers").and(query()).and(asker()).and(with(lifecycle)).then(
        |raw: String, asker: Asker, lifecycle: Lifecycle| async move {
            respond(container_calls::list(&lifecycle, asker, &raw).await)
        },
    );
    let show = at!(get / "v1" / "containers" / _).and(no_query()).and(asker()).and(with(lifecycle)).then(
        |id: Segment, asker: Asker, lifecycle: Lifecycle| async move {
            respond(container_calls::show(&lifecycle, asker, &id.0).await)
        },
    );
    let release = at!(delete / "v1" / "containers" / _).and(asker()).and(with(lifecycle)).then(
        |id: Segment, asker: Asker, lifecycle: Lifecycle| async move {
            respond(container_calls::release(&lifecycle, asker, &id.0).await)
        },
    );
    let attach =
        at!(post / "v1" / "containers" / _ / "attach").and(body()).and(asker()).and(with(lifecycle)).then(
            |id: Segment, body: Bytes, asker: Asker, lifecycle: Lifecycle| async move {
                respond(container_calls::attach(&lifecycle, asker, &id.0, &body).await)
            },
        );
    reserve.or(list).unify().or(show).unify().or(release).unify().or(attach).unify().boxed()
}

fn dcos(lifecycle: &Lifecycle) -> BoxedFilter<(Response,)> {
    let reserve = at!(post / "container").and(body()).and(with(lifecycle)).then(
        |body: Bytes, lifecycle: Lifecycle| async move { respond(dcos::reserve(&lifecycle, &body).await) },
    );
    let list = at!(get / "containers").and(asker()).and(with(lifecycle)).then(
        |asker: Asker, lifecycle: Lifecycle| async move { respond(dcos::list(&lifecycle, asker).await) },
    );
    let show = at!(get / "container" / _).and(asker()).and(with(lifecycle)).then(
        |id: Segment, asker: Asker, lifecycle: Lifecycle| async move {
            respond(dcos::show(&lifecycle, asker, &id.0).await)
        },
    );
    let release = at!(delete / "container" / _).and(asker()).and(with(lifecycle)).then(
        |id: Segment, asker: Asker, lifecycle: Lifecycle| async move {
            respond(dcos::release(&lifecycle, asker, &id.0).await)
        },
    );
    reserve.or(list).unify().or(show).unify().or(release).unify().boxed()
}

fn maintenance(routes: &Routes) -> BoxedFilter<(Response,)> {
    let (maintenance, reading) = (&routes.maintenance, &routes.agent.reading);
    let reload = at!(post / "v1" / "config" / "reload").and(query()).and(with(maintenance)).then(
        |raw: String, maintenance: Maintenance| async move {
            respond(admin_calls::reload(&maintenance, &raw).await)
        },
    );
    let reconcile = at!(post / "v1" / "reconcile")
        .and(with(maintenance))
        .then(|maintenance: Maintenance| async move { respond(admin_calls::reconcile(&maintenance).await) });
    let tail = at!(get / "v1" / "tasks" / _ / "tail").and(query()).and(asker()).and(with(reading)).then(
        |id: Segment, raw: String, asker: Asker, reading: Reading| async move {
            respond(admin_calls::tail(&reading, asker, &id.0, &raw).await)
        },
    );
    reload.or(reconcile).unify().or(tail).unify().boxed()
}
