//! Data kept for a container besides windows: events, and the last rejected lines.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{TagSet, Timestamp};
use crate::statsd::{AlertType, Event, Priority, Rejected, tags};

/// Events kept of one container.
pub const EVENTS: usize = 100;
/// Rejected lines kept of one container.
pub const REJECTED_LINES: usize = 8;
/// Bytes kept of a rejected line.
pub const REJECTED_BYTES: usize = 256;

/// An event as it is kept and shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventRecord {
    /// When it arrived.
    pub received_at: Timestamp,
    /// The title.
    pub title: String,
    /// The text.
    pub text: Option<String>,
    /// When the client says it happened.
    pub timestamp: Option<Timestamp>,
    /// Its severity.
    pub alert_type: AlertType,
    /// Its priority.
    pub priority: Priority,
    /// The host the client says it happened on.
    pub hostname: Option<String>,
    /// The key that related events have in common.
    pub aggregation_key: Option<String>,
    /// The type of its source.
    pub source_type: Option<String>,
    /// Its tags.
    pub tags: TagSet,
}

impl EventRecord {
    /// An owned copy of an event, and whether bytes had to be replaced.
    #[must_use]
    pub fn new(event: &Event<'_>, at: Timestamp) -> (Self, bool) {
        let mut replaced = false;
        let mut text = |bytes: &[u8]| {
            replaced |= std::str::from_utf8(bytes).is_err();
            String::from_utf8_lossy(bytes).into_owned()
        };
        text(event.raw_title);
        let hostname = event.hostname.map(&mut text);
        let aggregation_key = event.aggregation_key.map(&mut text);
        let source_type = event.source_type.map(&mut text);
        text(event.raw_text);
        let (tags, tags_replaced) = tags::canonical_tags(event.tags);
        let record = Self {
            received_at: at,
            title: event.unescaped_title().into_owned(),
            text: event.unescaped_text().map(std::borrow::Cow::into_owned),
            timestamp: event.timestamp.map(Timestamp::from_secs),
            alert_type: event.alert_type,
            priority: event.priority,
            hostname,
            aggregation_key,
            source_type,
            tags,
        };
        (record, replaced | tags_replaced)
    }

    /// Bytes of memory, including this struct.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.heap_bytes()
    }

    fn heap_bytes(&self) -> usize {
        let optional = [&self.text, &self.hostname, &self.aggregation_key, &self.source_type];
        self.title.len()
            + self.tags.heap_bytes()
            + optional.iter().map(|text| text.as_ref().map_or(0, String::len)).sum::<usize>()
    }
}

/// The last [`EVENTS`] events, oldest first.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub(super) struct RecentEvents(VecDeque<Arc<EventRecord>>);

impl RecentEvents {
    /// Adds an event; drops the oldest if there are too many.
    pub(super) fn push(&mut self, event: EventRecord) {
        self.push_shared(Arc::new(event));
    }

    /// Adds a shared event; drops the oldest if there are too many.
    pub(super) fn push_shared(&mut self, event: Arc<EventRecord>) {
        if self.0.len() == EVENTS {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<EventRecord>> {
        self.0.iter()
    }

    /// Bytes they cost.
    #[must_use]
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.iter().map(|event| event.bytes()).sum()
    }
}

/// A line that could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RejectedLine {
    /// When it came.
    pub at: Timestamp,
    /// Why.
    pub code: Rejected,
    /// At most its first [`REJECTED_BYTES`] bytes. Served on the admin socket only: it can hold anything.
    pub line: Vec<u8>,
}

/// The last [`REJECTED_LINES`] rejected lines. A line whose code no other has is kept while others can go, so that one kind of
/// mistake does not hide the rest. Buffers are reused, so that a container that only sends invalid lines causes no allocations.
#[derive(Clone, Default, Debug)]
pub struct RejectedLines {
    /// Oldest first.
    lines: Vec<RejectedLine>,
}

impl RejectedLines {
    /// Adds a line; drops an old one if there are too many.
    pub fn push(&mut self, at: Timestamp, code: Rejected, line: &[u8]) {
        let line = line.get(..REJECTED_BYTES).unwrap_or(line);
        if self.lines.len() < REJECTED_LINES {
            self.lines.push(RejectedLine { at, code, line: line.to_vec() });
            return;
        }
        let from = self.find_replaceable(code);
        let Some(newer) = self.lines.get_mut(from..) else { return };
        newer.rotate_left(1);
        if let Some(old) = newer.last_mut() {
            (old.at, old.code) = (at, code);
            old.line.clear();
            old.line.extend_from_slice(line);
        }
    }

    /// The oldest line whose code the new line or a later one has as well, or else the oldest.
    fn find_replaceable(&self, code: Rejected) -> usize {
        let has_later = |index: usize, line: &RejectedLine| {
            let later = self.lines.get(index + 1..).unwrap_or_default();
            line.code == code || later.iter().any(|other| other.code == line.code)
        };
        self.lines.iter().enumerate().position(|(index, line)| has_later(index, line)).unwrap_or_default()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &RejectedLine> {
        self.lines.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_in_order_and_cut() {
        let mut lines = RejectedLines::default();
        for n in 0..20_i64 {
            lines.push(Timestamp::from_secs(n), Rejected::MissingType, &[b'x'; 1000]);
        }
        let kept: Vec<_> = lines.iter().map(|line| line.at.as_secs()).collect();
        assert_eq!(kept, (12..20).collect::<Vec<_>>());
        assert!(lines.iter().all(|line| line.line.len() == REJECTED_BYTES));
    }

    #[test]
    fn a_flood_of_one_code_leaves_a_line_of_every_other() {
        let mut lines = RejectedLines::default();
        for (n, code) in (0..).zip([Rejected::MissingValue, Rejected::UnknownType]) {
            lines.push(Timestamp::from_secs(n), code, b"x");
        }
        for n in 2..100 {
            lines.push(Timestamp::from_secs(n), Rejected::MissingType, b"x");
        }
        let kept: Vec<_> = lines.iter().map(|line| line.at.as_secs()).collect();
        assert_eq!(kept, [0, 1, 94, 95, 96, 97, 98, 99]);
        for (n, code) in (100..).zip(Rejected::ALL) {
            lines.push(Timestamp::from_secs(n), code, b"x");
        }
        let kept: Vec<_> = lines.iter().map(|line| line.at.as_secs()).collect();
        assert_eq!(kept, (109..117).collect::<Vec<_>>(), "more codes than there is room");
    }

    #[test]
    fn the_last_hundred_events_are_kept() {
        let mut events = RecentEvents::default();
        for n in 0..150 {
            let line = format!("_e{{{},0}}:{n}|", n.to_string().len());
            match crate::statsd::parse(line.as_bytes(), crate::statsd::TagStyles::NONE) {
                Ok(crate::statsd::ParsedLine::Event(event)) => {
                    events.push(EventRecord::new(&event, Timestamp::MIN).0);
                }
                other => panic!("{other:?}"),
            }
        }
        let titles: Vec<_> = events.iter().map(|event| event.title.clone()).collect();
        assert_eq!((titles.len(), titles[0].as_str(), titles[99].as_str()), (100, "50", "149"));
    }
}
