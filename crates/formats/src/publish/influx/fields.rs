//! The fields of a point.
//!
//! A field has one type for ever, and one value of another type can cost a whole request: numbers are floats, whole or not,
//! and the only texts are the unit of timers, the outcome of checks, and metadata.

use std::borrow::Cow;

use tallyport_core::aggregate::{PERCENTILES, View};
use tallyport_core::model::{MetricType, Origin};

use super::escape::{push_key, push_string};
use super::{InfluxFields, InfluxOptions};
use crate::number::finite_value;
use crate::publish::labels::{LabelReader, TYPE_LABEL};
use crate::publish::text::push_number;
use crate::publish::{LeftOutReason, Round, RoundRecord};
use crate::record::value;

/// The unit of timers. Kadabra's word for it.
const MILLISECONDS: &str = "milliseconds";

/// The names of fields other than percentiles.
const NAMES: [&str; 9] = ["value", "unit", "count", "sum", "min", "max", "stddev", "status", "message"];

/// Whether a point can have a field of this name that is not metadata.
pub(super) fn is_field_name(name: &str) -> bool {
    NAMES.contains(&name) || PERCENTILES.iter().any(|(_, percentile)| *percentile == name)
}

/// Writes the fields, after a space. Fails if the record has no finite number.
pub(super) fn push_fields(
    out: &mut Vec<u8>,
    round: &Round<'_>,
    record: &RoundRecord<'_>,
    labels: &LabelReader<'_>,
    options: &InfluxOptions,
) -> Result<(), LeftOutReason> {
    let mut fields = FieldWriter { out, written: 0, numbers: 0 };
    fields.put_number("value", value(&record.view));
    if record.series.metric_type == MetricType::Timer {
        fields.put_text("unit", MILLISECONDS);
    }
    if options.fields == InfluxFields::All {
        put_details(&mut fields, &record.view);
    }
    if fields.numbers == 0 {
        return Err(LeftOutReason::NoValue);
    }
    for key in options.metadata.iter().filter(|key| !key.is_empty()) {
        let known = labels.identity_labels().iter().any(|(name, _)| *name == key.as_str());
        if let Some(text) = find_metadata(key, round.node, record).filter(|_| !known) {
            fields.put_metadata(&name_metadata(key), &text);
        }
    }
    Ok(())
}

/// What Kadabra does not write.
fn put_details(fields: &mut FieldWriter<'_>, view: &View<'_>) {
    match view {
        View::Counter { counter, .. } => fields.put_number("count", Some(counter.count.as_f64())),
        View::Gauge(gauge) => {
            fields.put_number("count", Some(gauge.count.as_f64()));
            fields.put_number("min", Some(gauge.min));
            fields.put_number("max", Some(gauge.max));
        }
        View::Distribution { summary, .. } => {
            fields.put_number("count", Some(summary.count.as_f64()));
            fields.put_number("sum", Some(summary.sum));
            fields.put_number("min", Some(summary.min));
            fields.put_number("max", Some(summary.max));
            fields.put_number("stddev", summary.stddev());
            for ((_, name), value) in PERCENTILES.iter().zip(view.percentiles().iter().flatten()) {
                fields.put_number(name, Some(*value));
            }
        }
        View::Set { count, .. } => fields.put_number("count", Some(count.as_f64())),
        View::Check { samples, outcome, .. } => {
            fields.put_number("count", Some(*samples as f64));
            fields.put_text("status", outcome.status.as_str());
            if let Some(message) = &outcome.message {
                fields.put_text("message", message);
            }
        }
    }
}

/// The metadata of a record by its key. Of a merged record, only what all its containers have in common.
fn find_metadata<'r>(key: &str, node: &'r str, record: &RoundRecord<'r>) -> Option<Cow<'r, str>> {
    let of = |origin: &'r Origin| match key {
        "node" => Some(Cow::Borrowed(node)),
        "container_id" => Some(Cow::Borrowed(origin.container_id.as_str())),
        "task_id" => Some(Cow::Borrowed(origin.task_id.as_str())),
        "generation" => Some(Cow::Owned(origin.generation.to_string())),
        key => origin.labels.get(key).map(|text| Cow::Borrowed(text.as_str())),
    };
    let text = of(record.origin).filter(|text| !text.is_empty())?;
    let mut others = record.merged.iter().flat_map(|merged| merged.others.iter().copied());
    others.all(|other| of(other).as_ref() == Some(&text)).then_some(text)
}

/// The name of a metadata field. Other fields keep theirs, and a field `time` would be dropped silently.
fn name_metadata(key: &str) -> Cow<'_, str> {
    let plain = key.trim_start_matches("label_");
    let taken = is_field_name(plain) || matches!(plain, "time" | TYPE_LABEL);
    if taken { Cow::Owned(format!("label_{key}")) } else { Cow::Borrowed(key) }
}

/// Writes fields, and the characters between them.
struct FieldWriter<'o> {
    out: &'o mut Vec<u8>,
    written: usize,
    numbers: usize,
}

impl FieldWriter<'_> {
    /// Writes a number, unless it is none that InfluxDB can hold.
    fn put_number(&mut self, name: &'static str, number: Option<f64>) {
        if let Some(number) = number.and_then(finite_value) {
            self.begin_named(name);
            push_number(self.out, number);
            self.numbers += 1;
        }
    }

    fn put_text(&mut self, name: &'static str, text: &str) {
        self.begin_named(name);
        push_string(self.out, text);
    }

    fn put_metadata(&mut self, key: &str, text: &str) {
        self.begin_field();
        push_key(self.out, key);
        self.out.push(b'=');
        push_string(self.out, text);
    }

    /// Begins a field whose name needs no escape.
    fn begin_named(&mut self, name: &'static str) {
        self.begin_field();
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b'=');
    }

    fn begin_field(&mut self) {
        self.out.push(if self.written == 0 { b' ' } else { b',' });
        self.written += 1;
    }
}
