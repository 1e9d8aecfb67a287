//! `GET /v1/metrics`: every task's records in one answer, streamed; from a cursor on, everything in order.

use std::sync::Arc;

use super::error::ApiError;
use super::metrics::append_json;
use super::pages::{Asker, BuildLane, PageRequest, PageWriter, Stop};
use super::query::{FILTERS, Filters, Query};
use super::{Api, ApiResponse, JSON, NDJSON};
use crate::aggregate::Record;
use crate::model::Origin;
use crate::net::clock;
use crate::render::record::{RecordFrame, RecordNumber};
use crate::store::{Cursor, IntervalWindows, Published};

/// The header that says where to go on.
const CURSOR: &str = "tallyport-cursor";

/// What a scraper can say in headers.
#[derive(Clone, Debug, Default)]
pub(super) struct Accept {
    /// `Accept`.
    pub(super) media: Option<String>,
    /// `Accept-Encoding`.
    pub(super) encoding: Option<String>,
}

/// One window's worth of records.
enum ScrapePart {
    /// What was published at once; records up to this place were read before.
    Published(Arc<Published>, u64),
    /// The newest revision of each record of an interval.
    Interval(IntervalWindows),
}

/// `GET /v1/metrics`
pub(super) async fn scrape_records(
    api: &Api,
    asker: Asker,
    raw: &str,
    accept: &Accept,
) -> Result<ApiResponse, ApiError> {
    let mut known = vec!["since", "format"];
    known.extend(FILTERS);
    let query = Query::read(raw, &known)?;
    let filters = Filters::read(&query)?;
    let since = query.parse_value::<Cursor>("since")?;
    let lines = match query.last_value("format") {
        Some("ndjson") => true,
        Some("json") => false,
        Some(other) => return Err(ApiError::bad_parameter("format", other, "is not json or ndjson")),
        None => accept.media.as_deref().is_some_and(|media| media.contains(NDJSON)),
    };
    let gzip = takes_gzip(accept.encoding.as_deref());
    let request = PageRequest {
        asker,
        lane: if filters.has_patterns() { BuildLane::Search } else { BuildLane::Node },
        route: "/v1/metrics",
        detail: format!("{lines}\n{gzip}\n{raw}"),
        content_type: if lines { NDJSON } else { JSON },
        gzip,
        shows: Some(api.shown_state()),
    };
    let of_node = api.clone();
    let render = move |_| async move {
        Ok(move |writer: &mut PageWriter| write_parts(&of_node, since, filters, lines, writer))
    };
    let answer = api.pages.answer_request(request, render).await?;
    let answer = answer.with_header("vary", "accept, accept-encoding".to_owned());
    Ok(if gzip { answer.with_header("content-encoding", "gzip".to_owned()) } else { answer })
}

fn write_parts(
    api: &Api,
    since: Option<Cursor>,
    filters: Filters,
    lines: bool,
    writer: &mut PageWriter,
) -> Result<(), Stop> {
    let (parts, next) = match since {
        Some(cursor) => {
            let wanted = |origin: &Origin| writer.goes_on() && filters.matches_origin(origin);
            let since = api.store.since_of(cursor, wanted).map_err(ApiError::from);
            // A build that ran out of time has not checked every container for lost windows.
            writer.ensure_wanted()?;
            let since = since?;
            let parts = since.published.into_iter().map(|p| ScrapePart::Published(p, cursor.seq));
            (parts.collect::<Vec<_>>(), since.next)
        }
        None => {
            let (newest, next) = api.store.newest_intervals();
            (newest.into_iter().map(ScrapePart::Interval).collect(), next)
        }
    };
    // Not before it is known that there is an answer.
    api.stats.record_scrape(clock::wall_time());
    writer.add_header(CURSOR, next.to_string());
    let node = api.current_config().node.clone();
    let mut records = Records { node, epoch: api.store.epoch(), filters, lines, next, any: false };
    writer.write_bytes(&records.render_head())?;
    for part in &parts {
        let part = records.render_part(part, writer)?;
        writer.write_bytes(&part)?;
    }
    writer.write_bytes(&records.render_tail())
}

/// Renders records, window by window.
struct Records {
    node: String,
    epoch: u64,
    filters: Filters,
    lines: bool,
    next: Cursor,
    any: bool,
}

impl Records {
    fn render_head(&self) -> Vec<u8> {
        if self.lines {
            return Vec::new();
        }
        let mut out = Vec::from(br#"{"node":"#);
        append_json(&mut out, &self.node);
        out.extend_from_slice(br#","cursor":"#);
        append_json(&mut out, &self.next.to_string());
        out.extend_from_slice(br#","metrics":["#);
        out
    }

    fn render_part(&mut self, part: &ScrapePart, writer: &PageWriter) -> Result<Vec<u8>, Stop> {
        writer.ensure_wanted()?;
        let mut records: Vec<(&Arc<Published>, RecordNumber, Record<'_>)> = match part {
            ScrapePart::Published(published, seen) => {
                let unread = published.numbered_records().filter(|(number, _)| number.seq > *seen);
                unread.map(|(number, record)| (published, number, record)).collect()
            }
            ScrapePart::Interval(kept) => kept.newest_records().collect(),
        };
        records.sort_by_key(|(_, number, _)| number.seq);
        records.retain(|(published, _, record)| {
            writer.goes_on()
                && self.filters.matches_origin(published.origin())
                && self.filters.matches_record(record)
        });
        writer.ensure_wanted()?;
        let mut out = Vec::new();
        for of_one in records.chunk_by(|a, b| Arc::ptr_eq(a.0, b.0)) {
            let Some((published, ..)) = of_one.first() else { continue };
            let frame = RecordFrame::new(&self.node, self.epoch, published.origin(), published.window().span);
            for (_, number, record) in of_one {
                if !self.lines && std::mem::replace(&mut self.any, true) {
                    out.push(b',');
                }
                append_json(&mut out, &frame.record_document(Some(*number), record));
                if self.lines {
                    out.push(b'\n');
                }
            }
        }
        Ok(out)
    }

    fn render_tail(&self) -> Vec<u8> {
        if !self.lines {
            return b"]}\n".to_vec();
        }
        let mut out = Vec::from(br#"{"cursor":"#);
        append_json(&mut out, &self.next.to_string());
        out.extend_from_slice(b"}\n");
        out
    }
}

/// Whether a client takes gzip: `gzip`, but not `gzip;q=0`.
pub(super) fn takes_gzip(accepted: Option<&str>) -> bool {
    accepted.is_some_and(|encodings| encodings.split(',').any(is_gzip))
}

fn is_gzip(encoding: &str) -> bool {
    let mut parts = encoding.split(';').map(str::trim);
    let named = parts.next().is_some_and(|name| name == "gzip" || name == "*");
    named && !parts.any(|part| part.replace(' ', "").trim_start_matches("q=").parse() == Ok(0.0))
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
}
