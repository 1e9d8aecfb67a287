//! The paths of the DC/OS metrics isolator and of the DC/OS metrics API.

use std::sync::Arc;

use bytes::Bytes;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter as _, Reply as _};

use super::{PathSegment, build_response, limited_body, path_segment, raw_query, request_asker, with_api};
use crate::api::pages::Asker;
use crate::api::{LifecycleContext, ReaderContext, Routes, dcos, v0};
use crate::host::CpuMeter;

/// The metrics API, and on the admin socket the isolator's calls as well.
pub(super) fn dcos_routes(routes: &Routes, on_admin_socket: bool) -> BoxedFilter<(Response,)> {
    let metrics = metrics_routes(routes);
    if on_admin_socket {
        metrics.or(isolator_routes(&routes.lifecycle_context())).unify().boxed()
    } else {
        metrics
    }
}

/// The metrics API, which both listeners serve.
fn metrics_routes(routes: &Routes) -> BoxedFilter<(Response,)> {
    let reading = &routes.agent.reading;
    let ping = at!(get / "v0" / "ping").map(|| v0::ping().into_response());
    let containers =
        at!(get / "v0" / "containers").and(raw_query()).and(request_asker()).and(with_api(reading)).then(
            |raw: String, asker: Asker, reading: ReaderContext| async move {
                build_response(v0::list_containers(&reading, asker, &raw).await)
            },
        );
    let app = at!(get / "v0" / "containers" / _ / "app")
        .and(raw_query())
        .and(request_asker())
        .and(with_api(reading))
        .then(|id: PathSegment, raw: String, asker: Asker, reading: ReaderContext| async move {
            build_response(v0::get_app_metrics(&reading, asker, &id.0, None, &raw).await)
        });
    let metric =
        at!(get / "v0" / "containers" / _ / "app" / _).and(raw_query()).and(request_asker()).and(with_api(reading)).then(
            |id: PathSegment, metric: PathSegment, raw: String, asker: Asker, reading: ReaderContext| async move {
                build_response(v0::get_app_metrics(&reading, asker, &id.0, Some(&metric.0), &raw).await)
            },
        );
    let container =
        at!(get / "v0" / "containers" / _).and(raw_query()).and(request_asker()).and(with_api(reading)).then(
            |id: PathSegment, raw: String, asker: Asker, reading: ReaderContext| async move {
                build_response(v0::get_container_resources(&reading, asker, &id.0, &raw).await)
            },
        );
    let node = at!(get / "v0" / "node")
        .and(raw_query())
        .and(request_asker())
        .and(with_api(reading))
        .and(with_api(&routes.cpu))
        .then(|raw: String, asker: Asker, reading: ReaderContext, cpu: Arc<CpuMeter>| async move {
            build_response(v0::get_node_resources(&reading, cpu, asker, &raw).await)
        });
    let resources = container.or(node).unify();
    ping.or(containers).unify().or(resources).unify().or(app).unify().or(metric).unify().boxed()
}

/// The calls of the isolator.
fn isolator_routes(lifecycle: &LifecycleContext) -> BoxedFilter<(Response,)> {
    let reserve = at!(post / "container").and(limited_body()).and(with_api(lifecycle)).then(
        |body: Bytes, lifecycle: LifecycleContext| async move {
            build_response(dcos::reserve_container(&lifecycle, &body).await)
        },
    );
    let list = at!(get / "containers").and(request_asker()).and(with_api(lifecycle)).then(
        |asker: Asker, lifecycle: LifecycleContext| async move {
            build_response(dcos::list_containers(&lifecycle, asker).await)
        },
    );
    let show = at!(get / "container" / _).and(request_asker()).and(with_api(lifecycle)).then(
        |id: PathSegment, asker: Asker, lifecycle: LifecycleContext| async move {
            build_response(dcos::show_container(&lifecycle, asker, &id.0).await)
        },
    );
    let release = at!(delete / "container" / _).and(request_asker()).and(with_api(lifecycle)).then(
        |id: PathSegment, asker: Asker, lifecycle: LifecycleContext| async move {
            build_response(dcos::release_container(&lifecycle, asker, &id.0).await)
        },
    );
    reserve.or(list).unify().or(show).unify().or(release).unify().boxed()
}
