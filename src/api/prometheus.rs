//! `GET /metrics/tasks`: what containers report, for Prometheus.

use super::error::ApiError;
use super::pages::{Asker, Lane, Request, Stop, Writer};
use super::scrape::{Accept, takes_gzip};
use super::{Agent, Answer, Reading};
use crate::net::clock;
use crate::query::{Sink as _, Wanted, gather};
use crate::wire;

/// `GET /metrics/tasks`
pub(super) async fn tasks(
    reading: &Reading,
    asker: Asker,
    raw: &str,
    accept: &Accept,
) -> Result<Answer, ApiError> {
    let wanted = Wanted::read(&reading.data.config(), raw, accept.media.as_deref())?;
    reading.stats.scraped(clock::wall());
    let gzip = takes_gzip(accept.encoding.as_deref());
    let content_type = wanted.format.content_type(wanted.escaping);
    let request = Request {
        asker,
        lane: if wanted.filters.has_patterns() { Lane::Search } else { Lane::Node },
        route: "/metrics/tasks",
        detail: format!("{content_type}\n{gzip}\n{raw}"),
        content_type,
        gzip,
        shows: Some(reading.shows()),
    };
    let of_node = reading.clone();
    let render = move |_| async move { Ok(move |writer: &mut Writer| write_page(&of_node, &wanted, writer)) };
    let answer = reading.pages.answer(request, render).await?;
    let answer = answer.with_header("vary", "accept, accept-encoding".to_owned());
    Ok(if gzip { answer.with_header("content-encoding", "gzip".to_owned()) } else { answer })
}

fn write_page(reading: &Reading, wanted: &Wanted, writer: &mut Writer) -> Result<(), Stop> {
    let mut page = gather(&reading.data, wanted, clock::wall(), writer)?;
    writer.hold(page.held_bytes());
    while let Some(piece) = page.piece() {
        writer.put(&piece)?;
    }
    reading.stats.count_clashes(page.clashes());
    Ok(())
}

/// `GET /v1/sd`: this agent's two targets, at the address it was asked by where that has a port.
pub(super) fn targets(agent: &Agent, host: Option<&str>) -> Answer {
    let listening = agent.http_address.to_string();
    let address = host.filter(|host| is_address(host)).unwrap_or(&listening);
    let config = agent.reading.data.config();
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    let target = |path: &'static str| wire::Target {
        targets: [address.into()],
        labels: wire::TargetLabels {
            scheme: scheme.into(),
            path: path.into(),
            metrics_path: path.into(),
            node: (&*config.node).into(),
        },
    };
    Answer::json(200, &["/metrics", "/metrics/tasks"].map(target))
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
