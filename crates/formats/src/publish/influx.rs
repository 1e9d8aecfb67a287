//! InfluxDB's line protocol, for versions 1 to 3: one point per record, with timestamps in milliseconds.
//!
//! A point is known by its measurement, its tags and its timestamp, and a point that is written again overwrites itself. The
//! measurement is the name as the application sent it. Tags are the labels of the identity and the tags of the series, so
//! that the same series from two containers are two.

mod escape;
mod fields;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use tallyport_core::model::MetricType;

use super::body::{BodyFormat, split_records};
use super::labels::{LabelReader, TYPE_LABEL};
use super::{Encoded, Framing, RequestRoom, Round, RoundRecord};
use escape::{push_key, push_measurement};
use fields::{is_field_name, push_fields};

const FORMAT: BodyFormat = BodyFormat { content_type: "text/plain; charset=utf-8", framing: Framing::BARE };

/// How records become points.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct InfluxOptions {
    /// Which fields a point has.
    pub fields: InfluxFields,
    /// Labels of the container that become fields, not tags: those with so many values that they would make too many
    /// series. Besides the container's own labels these can be `container_id`, `generation`, `node` and `task_id`. A label
    /// that is part of the identity stays a tag, and one in which the containers of a merged record differ is left out.
    pub metadata: BTreeSet<String>,
}

/// The fields of a point.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum InfluxFields {
    /// Every number of the record, and the series' type as the tag `metric_type`.
    #[default]
    All,
    /// Those that Kadabra writes: `value`, of timers also `unit`, and the metadata. Series of one name and one set of tags
    /// that differ only in their type are then one, and overwrite each other.
    Kadabra,
}

impl InfluxFields {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::All, Self::Kadabra];

    /// How it is written in settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Kadabra => "kadabra",
        }
    }
}

/// Encodes records as lines for a write request with a precision of milliseconds. Bodies can be joined with
/// [`Framing::BARE`].
#[must_use]
pub fn encode_influx(
    round: &Round<'_>,
    records: Range<usize>,
    options: &InfluxOptions,
    room: RequestRoom,
) -> Encoded {
    let mut labels = LabelReader::with_plain_names(round);
    let mut untagged = UntaggedSeries::default();
    let end = format!(" {}\n", round.end.as_micros().div_euclid(1000));
    split_records(round, records, room, FORMAT, |record, out| {
        if labels.enter_identity(record) {
            untagged = UntaggedSeries::default();
        }
        push_measurement(out, &record.series.name);
        if record.series.tags.is_empty() {
            out.extend_from_slice(untagged.find_tags(&labels, record, options));
        } else {
            push_tags(out, &labels, record, options);
        }
        push_fields(out, round, record, &labels, options)?;
        out.extend_from_slice(end.as_bytes());
        Ok(())
    })
}

/// The tags that series of one identity have which have none of their own, for each type.
#[derive(Default)]
struct UntaggedSeries([Vec<u8>; MetricType::ALL.len()]);

impl UntaggedSeries {
    fn find_tags(
        &mut self,
        labels: &LabelReader<'_>,
        record: &RoundRecord<'_>,
        options: &InfluxOptions,
    ) -> &[u8] {
        let Some(tags) = self.0.get_mut(record.series.metric_type as usize) else { return &[] };
        if tags.is_empty() {
            push_tags(tags, labels, record, options);
        }
        tags
    }
}

/// Writes the tags, sorted by key, which InfluxDB asks for.
fn push_tags(out: &mut Vec<u8>, labels: &LabelReader<'_>, record: &RoundRecord<'_>, options: &InfluxOptions) {
    let mut tags: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    for (name, value) in labels.identity_labels() {
        tags.push((Cow::Borrowed(*name), Cow::Borrowed(value)));
    }
    if options.fields == InfluxFields::All {
        tags.push((TYPE_LABEL.into(), record.series.metric_type.as_str().into()));
    }
    for (name, value) in labels.tag_labels(&record.series.tags) {
        tags.push((rename_tag(name, options), value));
    }
    tags.sort_unstable();
    tags.dedup_by(|(a, _), (b, _)| a == b);
    // None is empty, which InfluxDB would refuse: a label without a value has the value "true".
    for (key, value) in &tags {
        out.push(b',');
        push_key(out, key);
        out.push(b'=');
        push_key(out, value);
    }
}

/// The key of a client's tag, without backslashes: a tag that is given twice is an error. A column `time` is refused or dropped, InfluxDB 3 refuses a tag with the name of a field, and two
/// names are its own. Names that already look renamed are renamed once more, so that different keys stay different.
fn rename_tag<'t>(name: Cow<'t, str>, options: &InfluxOptions) -> Cow<'t, str> {
    const PREFIX: &str = "client_";
    let name = if name.contains('\\') { Cow::Owned(name.replace('\\', "/")) } else { name };
    let plain = name.trim_start_matches(PREFIX);
    let taken = matches!(plain, "time" | TYPE_LABEL | "_field" | "_measurement")
        || is_field_name(plain)
        || options.metadata.contains(plain);
    if taken { Cow::Owned(format!("{PREFIX}{name}")) } else { name }
}
