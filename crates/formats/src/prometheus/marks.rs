//! Marks of names whose plain spelling was already taken by another name.
//!
//! In each of the two escaping schemes, a name claims the names of its samples that have no label of their own. The
//! claims are kept in the agent's store; a page needs only the marks, and these are few.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tallyport_core::model::{MetricType, SharedMap};
use xxhash_rust::xxh3::xxh3_64;

use super::Naming;
use super::SeriesIdentity;
use super::name::{NameSpelling, sanitize_label};
use super::shape::{Declared, Shape, openmetrics_suffix};
use crate::exposition::Escaping;

/// A name as sent by an application.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Name {
    /// What it names.
    pub kind: NameKind,
    /// The name of a metric, or the key of a tag.
    pub text: Arc<str>,
}

/// What a name is of.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum NameKind {
    /// Every series of a name and type.
    Metric(MetricType),
    /// A tag of any series.
    Label,
}

/// The mark that a name carries in each [`Escaping`]; `None` if it is plain.
pub type Spelled = [Option<u8>; Escaping::ALL.len()];

/// The marks of one workload.
#[derive(Clone, Default, Debug)]
pub struct Marks {
    metrics: HashMap<(Box<str>, MetricType), Spelled>,
    labels: HashMap<Box<str>, Spelled>,
}

/// The marks of every workload that has any.
pub type MarksOfAll = SharedMap<SeriesIdentity, Arc<Marks>>;

impl Name {
    /// Hashes of what it claims: the names of its samples, or its label. Names of different kinds never collide.
    #[must_use]
    pub fn claim_hashes(&self, spelling: NameSpelling) -> Vec<u64> {
        let NameKind::Metric(metric_type) = self.kind else {
            return vec![hash("label", &sanitize_label(&self.text, spelling), "")];
        };
        let name = Naming::Openmetrics.metric_name(&self.text, metric_type, spelling);
        let added = openmetrics_suffix(metric_type);
        let shape = Shape::for_metric_type(Naming::Openmetrics, metric_type);
        let values = shape.is_some_and(|shape| shape.declared == Declared::Summary);
        let ends: &[&str] = if values { &["_sum", "_count"] } else { &[""] };
        ends.iter().map(|end| hash(&name, added, end)).collect()
    }

    /// Its spelling on a page.
    #[must_use]
    pub fn exposed_name(&self, spelling: NameSpelling) -> String {
        match self.kind {
            NameKind::Metric(metric_type) => {
                let name = Naming::Openmetrics.metric_name(&self.text, metric_type, spelling);
                format!("{name}{}", openmetrics_suffix(metric_type))
            }
            NameKind::Label => sanitize_label(&self.text, spelling).into_owned(),
        }
    }
}

fn hash(name: &str, added: &str, end: &str) -> u64 {
    xxh3_64(format!("{name}{added}{end}").as_bytes())
}

impl Marks {
    /// Sets the spelling of a name.
    pub fn set_spelling(&mut self, name: &Name, spelled: Spelled) {
        let text: Box<str> = (&*name.text).into();
        match name.kind {
            NameKind::Metric(metric_type) => drop(self.metrics.insert((text, metric_type), spelled)),
            NameKind::Label => drop(self.labels.insert(text, spelled)),
        }
    }

    /// Forgets a name.
    pub fn remove(&mut self, name: &Name) {
        let text: Box<str> = (&*name.text).into();
        match name.kind {
            NameKind::Metric(metric_type) => drop(self.metrics.remove(&(text, metric_type))),
            NameKind::Label => drop(self.labels.remove(&text)),
        }
    }

    /// Every name that carries a mark, and how it is spelled.
    pub fn iter(&self) -> impl Iterator<Item = (Name, Spelled)> {
        let name = |kind, text: &str| Name { kind, text: text.into() };
        let metrics = self.metrics.iter();
        let metrics = metrics.map(move |((text, of), spelled)| (name(NameKind::Metric(*of), text), *spelled));
        metrics.chain(self.labels.iter().map(move |(text, spelled)| (name(NameKind::Label, text), *spelled)))
    }

    /// How many names carry a mark.
    #[must_use]
    pub fn len(&self) -> usize {
        self.metrics.len() + self.labels.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty() && self.labels.is_empty()
    }

    pub(super) fn metric_mark(&self, name: &str, metric_type: MetricType, escaping: Escaping) -> Option<u8> {
        if self.metrics.is_empty() {
            return None;
        }
        *self.metrics.get(&(name.into(), metric_type))?.get(escaping as usize)?
    }

    /// The mark of a tag.
    pub(super) fn label_mark(&self, key: &str, escaping: Escaping) -> Option<u8> {
        *self.labels.get(key)?.get(escaping as usize)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(kind: NameKind, text: &str, escaping: Escaping) -> Vec<u64> {
        Name { kind, text: text.into() }.claim_hashes(NameSpelling { escaping, mark: None })
    }

    #[test]
    fn names_meet_where_their_samples_would_have_one_name() {
        use MetricType::{Counter, Distribution, Gauge, Histogram, Set, Timer};
        let meet = |(a, x): (MetricType, &str), (b, y): (MetricType, &str)| {
            let of = |kind, text| claims(NameKind::Metric(kind), text, Escaping::Underscores);
            of(a, x).iter().any(|claim| of(b, y).contains(claim))
        };
        for (one, other) in [
            ((Counter, "a.b"), (Counter, "a_b")),
            ((Counter, "a"), (Gauge, "a_total")),
            ((Timer, "a"), (Histogram, "a.seconds")),
            ((Timer, "a"), (Gauge, "a_seconds_count")),
            ((Histogram, "a"), (Gauge, "a.sum")),
            ((Set, "a"), (Gauge, "a.unique")),
            ((Distribution, "a"), (Histogram, "a_distribution")),
        ] {
            assert!(meet(one, other) && meet(other, one), "{one:?} {other:?}");
        }
        for (one, other) in [
            ((Counter, "a"), (Gauge, "a")),
            ((Counter, "a"), (Counter, "a_total")),
            ((Gauge, "a"), (Histogram, "a")),
            ((Timer, "a"), (Counter, "a")),
            ((Counter, "a"), (Gauge, "a_created")),
            ((Gauge, "A"), (Gauge, "a")),
        ] {
            assert!(!meet(one, other), "{one:?} {other:?}");
        }
    }

    #[test]
    fn names_that_meet_in_underscores_do_not_where_they_are_as_they_are() {
        let counter = NameKind::Metric(MetricType::Counter);
        assert_ne!(claims(counter, "a.b", Escaping::Utf8), claims(counter, "a_b", Escaping::Utf8));
        let gauge = NameKind::Metric(MetricType::Gauge);
        assert_eq!(claims(counter, "a", Escaping::Utf8), claims(gauge, "a_total", Escaping::Utf8));
        assert_eq!(
            claims(NameKind::Label, "a.b", Escaping::Underscores),
            claims(NameKind::Label, "a_b", Escaping::Underscores)
        );
        assert_ne!(
            claims(NameKind::Label, "a_b", Escaping::Underscores),
            claims(NameKind::Metric(MetricType::Gauge), "a_b", Escaping::Underscores)
        );
    }
}
