//! `GET /v1/metrics`: every task's records in one answer, streamed; from a cursor on, everything in order.

use std::sync::Arc;

use super::error::ApiError;
use super::metrics::write;
use super::pages::{Asker, Lane, Request, Stop, Writer};
use super::query::{FILTERS, Filters, Query};
use super::{Answer, Api, JSON, NDJSON};
use crate::aggregate::Record;
use crate::model::Origin;
use crate::net::clock;
use crate::render::record::{Frame, Number};
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
enum Part {
    /// What was published at once; records up to this place were read before.
    Published(Arc<Published>, u64),
    /// The newest revision of each record of an interval.
    Interval(IntervalWindows),
}

/// `GET /v1/metrics`
pub(super) async fn scrape(api: &Api, asker: Asker, raw: &str, accept: &Accept) -> Result<Answer, ApiError> {
    let mut known = vec!["since", "format"];
    known.extend(FILTERS);
    let query = Query::read(raw, &known)?;
    let filters = Filters::read(&query)?;
    let since = query.parsed::<Cursor>("since")?;
    let lines = match query.last("format") {
        Some("ndjson") => true,
        Some("json") => false,
        Some(other) => return Err(ApiError::bad_parameter("format", other, "is not json or ndjson")),
        None => accept.media.as_deref().is_some_and(|media| media.contains(NDJSON)),
    };
    let gzip = takes_gzip(accept.encoding.as_deref());
    let request = Request {
        asker,
        lane: if filters.has_patterns() { Lane::Search } else { Lane::Node },
        route: "/v1/metrics",
        detail: format!("{lines}\n{gzip}\n{raw}"),
        content_type: if lines { NDJSON } else { JSON },
        gzip,
        shows: Some(api.shows()),
    };
    let of_node = api.clone();
    let render = move |_| async move {
        Ok(move |writer: &mut Writer| write_parts(&of_node, since, filters, lines, writer))
    };
    let answer = api.pages.answer(request, render).await?;
    let answer = answer.with_header("vary", "accept, accept-encoding".to_owned());
    Ok(if gzip { answer.with_header("content-encoding", "gzip".to_owned()) } else { answer })
}

fn write_parts(
    api: &Api,
    since: Option<Cursor>,
    filters: Filters,
    lines: bool,
    writer: &mut Writer,
) -> Result<(), Stop> {
    let (parts, next) = match since {
        Some(cursor) => {
            let wanted = |origin: &Origin| writer.goes_on() && filters.origin(origin);
            let since = api.store.since_of(cursor, wanted).map_err(ApiError::from);
            // A build that ran out of time has not checked every container for lost windows.
            writer.check()?;
            let since = since?;
            let parts = since.published.into_iter().map(|p| Part::Published(p, cursor.seq));
            (parts.collect::<Vec<_>>(), since.next)
        }
        None => {
            let (newest, next) = api.store.newest();
            (newest.into_iter().map(Part::Interval).collect(), next)
        }
    };
    // Not before it is known that there is an answer.
    api.stats.scraped(clock::wall());
    writer.add_header(CURSOR, next.to_string());
    let node = api.config().node.clone();
    let mut records = Records { node, epoch: api.store.epoch(), filters, lines, next, any: false };
    writer.put(&records.head())?;
    for part in &parts {
        let part = records.part(part, writer)?;
        writer.put(&part)?;
    }
    writer.put(&records.tail())
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
    fn head(&self) -> Vec<u8> {
        if self.lines {
            return Vec::new();
        }
        let mut out = Vec::from(br#"{"node":"#);
        write(&mut out, &self.node);
        out.extend_from_slice(br#","cursor":"#);
        write(&mut out, &self.next.to_string());
        out.extend_from_slice(br#","metrics":["#);
        out
    }

    fn part(&mut self, part: &Part, writer: &Writer) -> Result<Vec<u8>, Stop> {
        writer.check()?;
        let mut records: Vec<(&Arc<Published>, Number, Record<'_>)> = match part {
            Part::Published(published, seen) => {
                let unread = published.records().filter(|(number, _)| number.seq > *seen);
                unread.map(|(number, record)| (published, number, record)).collect()
            }
            Part::Interval(kept) => kept.records().collect(),
        };
        records.sort_by_key(|(_, number, _)| number.seq);
        records.retain(|(published, _, record)| {
            writer.goes_on() && self.filters.origin(published.origin()) && self.filters.record(record)
        });
        writer.check()?;
        let mut out = Vec::new();
        for of_one in records.chunk_by(|a, b| Arc::ptr_eq(a.0, b.0)) {
            let Some((published, ..)) = of_one.first() else { continue };
            let frame = Frame::new(&self.node, self.epoch, published.origin(), published.window().span);
            for (_, number, record) in of_one {
                if !self.lines && std::mem::replace(&mut self.any, true) {
                    out.push(b',');
                }
                write(&mut out, &frame.record(Some(*number), record));
                if self.lines {
                    out.push(b'\n');
                }
            }
        }
        Ok(out)
    }

    fn tail(&self) -> Vec<u8> {
        if !self.lines {
            return b"]}\n".to_vec();
        }
        let mut out = Vec::from(br#"{"cursor":"#);
        write(&mut out, &self.next.to_string());
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
