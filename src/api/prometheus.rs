//! `GET /metrics/tasks`: what containers report, for Prometheus.

use super::error::ApiError;
use super::pages::{Asker, BuildLane, PageRequest, PageWriter, Stop};
use super::scrape::{Accept, takes_gzip};
use super::{AgentContext, ApiResponse, ReaderContext};
use crate::net::clock;
use crate::query::{Sink as _, Wanted, build_page};
use crate::wire;

/// `GET /metrics/tasks`
pub(super) async fn scrape_tasks(
    reading: &ReaderContext,
    asker: Asker,
    raw: &str,
    accept: &Accept,
) -> Result<ApiResponse, ApiError> {
    let wanted = Wanted::read(&reading.data.current_config(), raw, accept.media.as_deref())?;
    reading.stats.record_scrape(clock::wall_time());
    let gzip = takes_gzip(accept.encoding.as_deref());
    let content_type = wanted.format.content_type(wanted.escaping);
    let request = PageRequest {
        asker,
        lane: if wanted.filters.has_patterns() { BuildLane::Search } else { BuildLane::Node },
        route: "/metrics/tasks",
        detail: format!("{content_type}\n{gzip}\n{raw}"),
        content_type,
        gzip,
        shows: Some(reading.shown_state()),
    };
    let of_node = reading.clone();
    let render =
        move |_| async move { Ok(move |writer: &mut PageWriter| write_page(&of_node, &wanted, writer)) };
    let answer = reading.pages.answer_request(request, render).await?;
    let answer = answer.with_header("vary", "accept, accept-encoding".to_owned());
    Ok(if gzip { answer.with_header("content-encoding", "gzip".to_owned()) } else { answer })
}

fn write_page(reading: &ReaderContext, wanted: &Wanted, writer: &mut PageWriter) -> Result<(), Stop> {
    let mut page = build_page(&reading.data, wanted, clock::wall_time(), writer)?;
    writer.hold_bytes(page.held_bytes());
    while let Some(piece) = page.next_piece() {
        writer.write_bytes(&piece)?;
    }
    reading.stats.count_clashes(page.clash_count());
    Ok(())
}

/// `GET /v1/sd`: this agent's two targets, at the address it was asked by where that has a port.
pub(super) fn list_targets(agent: &AgentContext, host: Option<&str>) -> ApiResponse {
    let listening = agent.http_address.to_string();
    let address = host.filter(|host| is_address(host)).unwrap_or(&listening);
    let config = agent.reading.data.current_config();
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    let target = |path: &'static str| wire::TargetDocument {
        targets: [address.into()],
        labels: wire::TargetLabels {
            scheme: scheme.into(),
            path: path.into(),
            metrics_path: path.into(),
            node: (&*config.node).into(),
        },
    };
    ApiResponse::with_json(200, &["/metrics", "/metrics/tasks"].map(target))
}

fn is_address(host: &str) -> bool {
    let name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte))
    };
    host.rsplit_once(':')
        .is_some_and(|(host, port)| name(host) && port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_only_with_a_port() {
        for host in ["127.0.0.1:9725", "node-1.example:80", "[::1]:9725"] {
            assert!(is_address(host), "{host}");
        }
        for host in ["localhost", "", ":80", "a/b:80", "a b:80", "x:0", "x:http"] {
            assert!(!is_address(host), "{host}");
        }
    }
}
