//! `GET /v1/metrics`: every task's records in one answer, streamed; from a cursor on, everything in order.

use std::sync::Arc;

use super::error::ApiError;
use super::metrics::write;
use super::query::{FILTERS, Filters, Query};
use super::stream::{streamed, takes_gzip};
use super::{Answer, Api, JSON, NDJSON};
use crate::aggregate::Record;
use crate::net::clock;
use crate::render::record::{Frame, Number};
use crate::store::{Cursor, Kept, Published};

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
    Kept(Kept),
}

/// `GET /v1/metrics`
pub(super) fn scrape(api: &Api, raw: &str, accept: &Accept) -> Result<Answer, ApiError> {
    let mut known = vec!["since", "format"];
    known.extend(FILTERS);
    let query = Query::read(raw, &known)?;
    let filters = Filters::read(&query)?;
    let (parts, next) = match query.parsed::<Cursor>("since")? {
        Some(cursor) => {
            let since = api.store.since_of(cursor, |origin| filters.origin(origin))?;
            (
                since.published.into_iter().map(|p| Part::Published(p, cursor.seq)).collect::<Vec<_>>(),
                since.next,
            )
        }
        None => {
            let (newest, next) = api.store.newest();
            (newest.into_iter().map(Part::Kept).collect(), next)
        }
    };
    let lines = match query.last("format") {
        Some("ndjson") => true,
        Some("json") => false,
        Some(other) => return Err(ApiError::bad_parameter("format", other, "is not json or ndjson")),
        None => accept.media.as_deref().is_some_and(|media| media.contains(NDJSON)),
    };
    // Not before everything that was asked could be read.
    api.stats.scraped(clock::wall());
    let config = api.config();
    let writer =
        Writer { node: config.node.clone(), epoch: api.store.epoch(), filters, lines, next, any: false };
    let gzip = takes_gzip(accept.encoding.as_deref());
    let mut answer = Answer::chunks(if lines { NDJSON } else { JSON }, streamed(pieces(writer, parts), gzip))
        .with_header(CURSOR, next.to_string())
        .with_header("vary", "accept, accept-encoding".to_owned());
    if gzip {
        answer = answer.with_header("content-encoding", "gzip".to_owned());
    }
    Ok(answer)
}

/// Writes records as they are asked for, so that an answer never lies whole in memory.
struct Writer {
    node: String,
    epoch: u64,
    filters: Filters,
    lines: bool,
    next: Cursor,
    any: bool,
}

impl Writer {
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

    fn part(&mut self, part: &Part) -> Vec<u8> {
        let mut records: Vec<(&Arc<Published>, Number, Record<'_>)> = match part {
            Part::Published(published, seen) => {
                let unread = published.records().filter(|(number, _)| number.seq > *seen);
                unread.map(|(number, record)| (published, number, record)).collect()
            }
            Part::Kept(kept) => kept.records().collect(),
        };
        records.sort_by_key(|(_, number, _)| number.seq);
        records.retain(|(published, _, record)| {
            self.filters.origin(published.origin()) && self.filters.record(record)
        });
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
        out
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

/// What is to be sent next.
enum Stage {
    Head,
    Parts(std::vec::IntoIter<Part>),
    Done,
}

fn pieces(mut writer: Writer, parts: Vec<Part>) -> impl FnMut() -> Option<Vec<u8>> {
    let mut parts = Some(parts);
    let mut stage = Stage::Head;
    move || match &mut stage {
        Stage::Head => {
            stage = Stage::Parts(parts.take().unwrap_or_default().into_iter());
            Some(writer.head())
        }
        Stage::Parts(parts) => Some(match parts.next() {
            Some(part) => writer.part(&part),
            None => {
                stage = Stage::Done;
                writer.tail()
            }
        }),
        Stage::Done => None,
    }
}
