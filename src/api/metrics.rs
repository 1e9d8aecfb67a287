//! Metrics of containers: the records of one task, those of every task for scrapers, and pages for Prometheus.

use std::sync::Arc;

use super::error::ApiError;
use super::pages::{Asker, BuildLane, Deadline, PageRequest, PageWork, PageWriter, Stop};
use super::{AgentContext, ApiResponse, JSON, NDJSON, ReaderContext};
use crate::net::clock;
use crate::query::{
    self, Budget as _, FILTERS, Filters, HISTORY, HistorySelection, Query, RecordFormat, Selection,
    Sink as _, Wanted, Windows, build_page, write_changes,
};
use crate::store::Cursor;
use crate::wire;

/// `GET /v1/tasks/{task_id}/metrics`
pub(super) async fn get_task_metrics(
    reading: &ReaderContext,
    asker: Asker,
    id: &str,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let (query, now) = (Query::read(raw, &HISTORY)?, clock::wall_time());
    if let Some(selection) = HistorySelection::read(&query, &reading.data.current_config(), now)? {
        return get_task_history(reading, asker, (id, raw), selection).await;
    }
    let selection = Selection::read(&query, now)?;
    let costly = selection.filters.has_patterns() || selection.windows == Windows::All || selection.hdr;
    let lane = if costly { BuildLane::Search } else { BuildLane::Short };
    let request = PageRequest::new(asker, lane, "/v1/tasks/{task_id}/metrics", format!("{id}\n{raw}"));
    let (of_node, id) = (reading.clone(), id.to_owned());
    let gather = move |work: PageWork| async move {
        let (listed, data) = (of_node.find_task(asker, &id).await?, of_node.data);
        let containers = query::containers_of(&data.directory, &listed, &selection.filters);
        let selection = Arc::new(selection);
        let chosen = Arc::clone(&selection);
        let choose = move |deadline: &Deadline| {
            Ok(deadline.choose_items(containers, |info| chosen.filters.matches_origin(&info.origin))?)
        };
        let sources = query::collect_sources(&data, work.run(choose).await?, selection.windows).await?;
        Ok(move |writer: &mut PageWriter| {
            let of_node = (&*data.current_config().node, data.store.epoch());
            query::write_task(writer, &listed, of_node, &sources, &selection)
        })
    };
    reading.pages.answer_request(request, gather).await
}

/// `GET /v1/tasks/{task_id}/metrics` in steps
async fn get_task_history(
    reading: &ReaderContext,
    asker: Asker,
    (id, raw): (&str, &str),
    selection: HistorySelection,
) -> Result<ApiResponse, ApiError> {
    let detail = format!("{id}\n{raw}");
    let request = PageRequest::new(asker, BuildLane::Search, "/v1/tasks/{task_id}/metrics", detail);
    let (of_node, id) = (reading.clone(), id.to_owned());
    let gather = move |work: PageWork| async move {
        let (data, archive) = (of_node.data.clone(), of_node.archive.clone());
        let (wanted, selection) = (id.clone(), Arc::new(selection));
        let chosen = Arc::clone(&selection);
        let find = move |_: &Deadline| {
            let listed = data.directory.find_task(&wanted);
            Ok(query::find_history(&data, &archive, &wanted, listed.as_ref(), &chosen)?)
        };
        let Some(mut task) = work.run(find).await? else {
            return Err(of_node.unknown_task(asker, &id).await);
        };
        let data = of_node.data;
        Ok(move |writer: &mut PageWriter| {
            let of_node = (&*data.current_config().node, data.store.epoch());
            query::write_history(writer, of_node, &mut task, &selection, clock::wall_time())
        })
    };
    reading.pages.answer_request(request, gather).await
}

/// The header with the cursor for the next request.
const CURSOR: &str = "tallyport-cursor";

/// The request headers that scrapers send.
#[derive(Clone, Debug, Default)]
pub(super) struct ScraperHeaders {
    /// `Accept`.
    pub(super) media: Option<String>,
    /// `Accept-Encoding`.
    pub(super) encoding: Option<String>,
    /// `User-Agent`.
    pub(super) user_agent: Option<String>,
}

impl ScraperHeaders {
    /// Whether a command of tallyport sent the request, which is no scrape.
    fn is_of_a_command(&self) -> bool {
        self.user_agent.as_deref().is_some_and(|program| program.starts_with("tallyport/"))
    }

    /// Whether the request names a format for scrapers. A request of a person, such as one with curl, does not.
    fn names_a_format(&self) -> bool {
        const MARKS: [&str; 4] = [
            "application/openmetrics-text",
            "application/vnd.google.protobuf",
            "version=0.0.4",
            "version=1.0.0",
        ];
        self.media.as_deref().is_some_and(|media| MARKS.iter().any(|mark| media.contains(mark)))
    }
}

/// `GET /v1/metrics`
pub(super) async fn scrape_records(
    reading: &ReaderContext,
    asker: Asker,
    raw: &str,
    headers: &ScraperHeaders,
) -> Result<ApiResponse, ApiError> {
    let mut known = vec!["since", "format", "hdr"];
    known.extend(FILTERS);
    let query = Query::read(raw, &known)?;
    let filters = Filters::read(&query)?;
    let since = query.parse_value::<Cursor>("since")?;
    let lines = match query.last_value("format") {
        Some("ndjson") => true,
        Some("json") => false,
        Some(other) => return Err(ApiError::bad_parameter("format", other, "is not json or ndjson")),
        None => headers.media.as_deref().is_some_and(|media| media.contains(NDJSON)),
    };
    let format = RecordFormat { lines, hdr: query.parse_switch("hdr")? };
    let gzip = takes_gzip(headers.encoding.as_deref());
    let request = PageRequest {
        asker,
        lane: if filters.has_patterns() || format.hdr { BuildLane::Search } else { BuildLane::Node },
        route: "/v1/metrics",
        detail: format!("{lines}\n{gzip}\n{raw}"),
        content_type: if lines { NDJSON } else { JSON },
        gzip,
        shows: Some(reading.shown_state()),
    };
    let of_node = reading.clone();
    let render = move |_| async move {
        Ok(move |writer: &mut PageWriter| {
            // Only once the request is known to succeed.
            let found = |writer: &mut PageWriter, next: Cursor| {
                of_node.stats.record_scrape(clock::wall_time());
                writer.add_header(CURSOR, next.to_string());
            };
            write_changes(writer, &of_node.data, since, filters, format, found)
        })
    };
    let answer = reading.pages.answer_request(request, render).await?;
    let answer = answer.with_header("vary", "accept, accept-encoding".to_owned());
    Ok(if gzip { answer.with_header("content-encoding", "gzip".to_owned()) } else { answer })
}

/// Whether a client accepts gzip: `gzip`, but not `gzip;q=0`.
pub(super) fn takes_gzip(accepted: Option<&str>) -> bool {
    accepted.is_some_and(|encodings| encodings.split(',').any(is_gzip))
}

fn is_gzip(encoding: &str) -> bool {
    let mut parts = encoding.split(';').map(str::trim);
    let named = parts.next().is_some_and(|name| name == "gzip" || name == "*");
    named && !parts.any(|part| part.replace(' ', "").trim_start_matches("q=").parse() == Ok(0.0))
}

/// `GET /metrics/tasks`
pub(super) async fn scrape_tasks(
    reading: &ReaderContext,
    asker: Asker,
    raw: &str,
    headers: &ScraperHeaders,
) -> Result<ApiResponse, ApiError> {
    let wanted = Wanted::read(&reading.data.current_config(), raw, headers.media.as_deref())?;
    if !headers.is_of_a_command() {
        reading.stats.record_scrape(clock::wall_time());
    }
    if headers.names_a_format() {
        reading.stats.record_scrape_style(wanted.format, wanted.escaping);
    }
    let gzip = takes_gzip(headers.encoding.as_deref());
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
    fn gzip_is_taken_unless_it_is_refused() {
        for accepted in ["gzip", "deflate, gzip;q=0.5", "*", "GZIP, gzip"] {
            assert!(takes_gzip(Some(accepted)), "{accepted}");
        }
        for refused in ["", "br", "gzip;q=0", "gzip; q = 0.0", "gzipped"] {
            assert!(!takes_gzip(Some(refused)), "{refused}");
        }
        assert!(!takes_gzip(None));
    }

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
