//! `GET /v1/metrics`: every task's records in one answer, streamed; from a cursor on, everything in order.

use super::error::ApiError;
use super::pages::{Asker, BuildLane, PageRequest, PageWriter};
use super::{ApiResponse, JSON, NDJSON, ReaderContext};
use crate::net::clock;
use crate::query::{FILTERS, Filters, Query, RecordFormat, write_changes};
use crate::store::Cursor;

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

/// `GET /v1/metrics`
pub(super) async fn scrape_records(
    reading: &ReaderContext,
    asker: Asker,
    raw: &str,
    accept: &Accept,
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
        None => accept.media.as_deref().is_some_and(|media| media.contains(NDJSON)),
    };
    let format = RecordFormat { lines, hdr: query.parse_switch("hdr")? };
    let gzip = takes_gzip(accept.encoding.as_deref());
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
            // Not before it is known that there is an answer.
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
