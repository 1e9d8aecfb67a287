//! Graphite's plain text protocol: `path value seconds`, one line for each number of a record.
//!
//! Receivers do not answer, and a path that is written again overwrites its slot. Series without tags carry their labels in the
//! path, those with tags (Graphite 1.1 and later) after it.

mod path;

use std::borrow::Cow;
use std::io::Write as _;
use std::ops::Range;

use tallyport_core::aggregate::{PERCENTILES, View};

use super::body::{BodyFormat, split_records};
use super::labels::{LabelReader, TYPE_LABEL};
use super::text::push_number;
use super::{Encoded, Framing, LeftOutReason, RequestRoom, Round, RoundRecord};
use crate::number::{finite_value, to_seconds};
use path::{PathPlace, push_node, push_tag_key, push_tag_value};
pub use path::{PathTemplate, TemplateError};

const FORMAT: BodyFormat = BodyFormat { content_type: "text/plain; charset=utf-8", framing: Framing::BARE };

/// How records become lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GraphiteOptions {
    /// The path of a series. The names of its numbers follow, and its tags before them unless `tags` is set.
    pub template: PathTemplate,
    /// Whether labels are written as Graphite's tags.
    pub tags: bool,
}

impl GraphiteOptions {
    /// The options with the default template for series with or without tags.
    #[must_use]
    pub fn with_default_template(tags: bool) -> Self {
        Self { template: PathTemplate::default_for(tags), tags }
    }
}

/// Encodes records as lines. The lines of a record are always in one body. Bodies can be joined with [`Framing::BARE`].
#[must_use]
pub fn encode_graphite(
    round: &Round<'_>,
    records: Range<usize>,
    options: &GraphiteOptions,
    room: RequestRoom,
) -> Encoded {
    let mut labels = LabelReader::with_plain_names(round);
    let mut path = Vec::new();
    let mut tags = Vec::new();
    let mut place = PathPlace::default();
    split_records(round, records, room, FORMAT, |record, out| {
        if labels.enter_identity(record) {
            place = PathPlace::new(round, record, &labels);
        }
        path.clear();
        tags.clear();
        options.template.push_path(&mut path, &place, record.series);
        if options.tags {
            push_tags(&mut tags, &labels, record);
        } else {
            push_tag_nodes(&mut path, &labels, record);
        }
        let start = out.len();
        let mut lines = LineWriter { out, path: &path, tags: &tags, seconds: round.end.as_secs() };
        put_numbers(&mut lines, record);
        if out.len() == start { Err(LeftOutReason::NoValue) } else { Ok(()) }
    })
}

/// The numbers of a record. Their names are those of its JSON document, except that a gauge is its path alone.
fn put_numbers(lines: &mut LineWriter<'_>, record: &RoundRecord<'_>) {
    match &record.view {
        View::Counter { counter, .. } => {
            let covered = to_seconds(record.span.covered);
            lines.put_number("sum", counter.sum);
            if covered > 0.0 {
                lines.put_number("rate", counter.sum / covered);
            }
        }
        View::Gauge(gauge) => lines.put_number("", gauge.last),
        View::Distribution { summary, .. } => {
            lines.put_number("count", summary.count.as_f64());
            lines.put_number("sum", summary.sum);
            lines.put_number("min", summary.min);
            lines.put_number("max", summary.max);
            for (name, value) in [("mean", summary.mean()), ("stddev", summary.stddev())] {
                if let Some(value) = value {
                    lines.put_number(name, value);
                }
            }
            for ((_, name), value) in PERCENTILES.iter().zip(record.view.percentiles().iter().flatten()) {
                lines.put_number(name, *value);
            }
        }
        View::Set { .. } => {
            if let Some(cardinality) = record.view.cardinality() {
                lines.put_number("cardinality", cardinality);
            }
        }
        View::Check { outcome, .. } => lines.put_number("status", f64::from(outcome.status as u8)),
    }
}

/// Writes the tags of the series as two nodes of its path each.
fn push_tag_nodes(path: &mut Vec<u8>, labels: &LabelReader<'_>, record: &RoundRecord<'_>) {
    for (name, value) in labels.tag_labels(&record.series.tags) {
        for node in [name, value] {
            path.push(b'.');
            push_node(path, &node);
        }
    }
}

/// Writes the labels as Graphite's tags, sorted by key.
fn push_tags(out: &mut Vec<u8>, labels: &LabelReader<'_>, record: &RoundRecord<'_>) {
    let mut tags: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    for (name, value) in labels.identity_labels() {
        tags.push((Cow::Borrowed(*name), Cow::Borrowed(value)));
    }
    tags.push((TYPE_LABEL.into(), record.series.metric_type.as_str().into()));
    for (name, value) in labels.tag_labels(&record.series.tags) {
        // `name` is Graphite's own tag, for the path. Names that already look renamed are renamed once more.
        let plain = name.trim_start_matches("client_");
        let taken = matches!(plain, "name" | TYPE_LABEL);
        tags.push((if taken { format!("client_{name}").into() } else { name }, value));
    }
    tags.sort_unstable();
    for (key, value) in &tags {
        out.push(b';');
        push_tag_key(out, key);
        out.push(b'=');
        push_tag_value(out, value);
    }
}

/// Writes the lines of a series.
struct LineWriter<'o> {
    out: &'o mut Vec<u8>,
    path: &'o [u8],
    tags: &'o [u8],
    seconds: i64,
}

impl LineWriter<'_> {
    /// Writes a number, if it is finite.
    fn put_number(&mut self, name: &str, number: f64) {
        let Some(number) = finite_value(number) else { return };
        self.out.extend_from_slice(self.path);
        if !name.is_empty() {
            self.out.push(b'.');
            self.out.extend_from_slice(name.as_bytes());
        }
        self.out.extend_from_slice(self.tags);
        self.out.push(b' ');
        push_number(self.out, number);
        let _infallible = writeln!(self.out, " {}", self.seconds);
    }
}
