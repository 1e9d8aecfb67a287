//! What a reader looks at when asking for an expression: a whole metric, one series, the same series of several containers, or
//! sums over tags. From that follow the labels that select its samples and those that group them.

use tallyport_core::model::{Origin, SeriesId};

use super::super::family::PageItem;
use super::super::gathered::Gathered;
use super::super::identity::{Level, SeriesIdentity, format_label_name, push_label};
use super::labels::{find_differing_labels, format_common_labels};

/// A statistic of timers, histograms and distributions.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Statistic {
    /// The sum by the count.
    Mean,
    /// The median.
    P50,
    /// The 0.95 quantile.
    P95,
    /// The 0.99 quantile.
    #[default]
    P99,
    /// The largest value.
    Max,
}

/// Which series an expression puts together.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Grouping {
    /// None: the series of the view, or all series of a metric.
    #[default]
    None,
    /// The series of the view in each container of the task.
    Containers,
    /// All series of a metric, over containers and over every tag but these.
    Tags(Vec<String>),
}

/// What the expressions of a list of names are about.
#[derive(Debug)]
pub struct NameView<'v> {
    /// The containers whose series are wanted.
    pub origins: Vec<&'v Origin>,
    /// The node's name, which is part of the ids of series.
    pub node: &'v str,
    /// The detail of the page's labels.
    pub level: Level,
    /// Only the metric of this series and, unless tags are added up, only its tags.
    pub series: Option<SeriesId>,
    /// What is put together.
    pub grouping: Grouping,
    /// The statistic of timers, histograms and distributions.
    pub statistic: Statistic,
}

/// What selects and groups the samples of a metric.
#[derive(Debug, Default)]
pub(super) struct SampleSelection {
    /// The labels of the selector, as they are written.
    pub(super) labels: String,
    /// The labels that groups keep, as they are written.
    pub(super) keys: Vec<String>,
    pub(super) notes: Vec<&'static str>,
}

/// Labels of other series of a metric that a selector excludes. Few metrics have more keys, and selectors stay readable.
const MOST_EXCLUDED: usize = 16;

const SHARED: &str =
    "Prometheus has one series for all containers with these labels; prometheus.identity sets the labels.";
const MANY_KEYS: &str =
    "The expression also reads series with further tags, of which this metric has too many to exclude.";

impl Statistic {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Mean, Self::P50, Self::P95, Self::P99, Self::Max];

    /// How it is written in queries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Max => "max",
        }
    }
}

impl<'v> NameView<'v> {
    /// The items that the view is about, and the containers that its selectors name.
    pub(super) fn find_items<'g, W>(
        &self,
        gathered: &'g Gathered<W>,
    ) -> (Vec<&'v Origin>, Vec<&'g PageItem>) {
        let Some(id) = self.series else { return (self.origins.clone(), gathered.items.iter().collect()) };
        let found = gathered.items.iter().find_map(|item| {
            let identity = gathered.identities.get(item.identity)?;
            let is_its_own = |origin: &&&Origin| {
                SeriesIdentity::from_origin(origin, self.level) == *identity
                    && SeriesId::new(self.node, origin, &item.series) == id
            };
            Some((*self.origins.iter().find(is_its_own)?, item))
        });
        match (found, &self.grouping) {
            (None, _) => (Vec::new(), Vec::new()),
            (Some((origin, item)), Grouping::None) => (vec![origin], vec![item]),
            (Some((_, item)), _) => (self.origins.clone(), vec![item]),
        }
    }

    /// What selects and groups the samples of an item's metric.
    pub(super) fn select_samples<W>(
        &self,
        gathered: &Gathered<W>,
        item: &PageItem,
        origins: &[&Origin],
    ) -> SampleSelection {
        let mut selection = SampleSelection {
            labels: format_common_labels(origins.iter().copied(), self.level),
            ..SampleSelection::default()
        };
        match &self.grouping {
            Grouping::Tags(keys) => {
                let name =
                    |key: &String| format_label_name(&gathered.label_name(item.identity, key)).into_owned();
                selection.keys = keys.iter().map(name).collect();
            }
            Grouping::Containers => {
                selection.keys = find_differing_labels(origins.iter().copied(), self.level);
                if selection.keys.is_empty() && origins.len() > 1 {
                    selection.notes.push(SHARED);
                }
            }
            Grouping::None if self.series.is_some() => self.tell_apart(origins, &mut selection),
            Grouping::None => {}
        }
        if self.series.is_some() && !matches!(self.grouping, Grouping::Tags(_)) {
            selection.select_tags(gathered, item);
        }
        selection
    }

    /// Adds the container's id if other containers of the task have the same labels.
    fn tell_apart(&self, origins: &[&Origin], selection: &mut SampleSelection) {
        let Some(own) = origins.first() else { return };
        let labels = |origin: &Origin| format_common_labels([origin], self.level);
        let shared = self.origins.iter().any(|other| {
            (&other.container_id, other.generation) != (&own.container_id, own.generation)
                && labels(other) == labels(own)
        });
        if self.level == Level::High && shared {
            push_label(&mut selection.labels, "container_id", own.container_id.as_str());
        } else if shared || self.level == Level::Low {
            selection.notes.push(SHARED);
        }
    }
}

impl SampleSelection {
    /// Selects the tags of an item, and excludes series of its metric that have further ones: a selector also fits series with
    /// labels that it does not name.
    fn select_tags<W>(&mut self, gathered: &Gathered<W>, item: &PageItem) {
        let own = gathered.tag_labels(item);
        for (name, value) in &own {
            push_label(&mut self.labels, name, value);
        }
        let others = gathered.families.get(item.family).map_or(&[][..], |family| &family.items);
        let others = others.iter().filter_map(|index| gathered.items.get(*index));
        let mut excluded: Vec<_> = others
            .flat_map(|other| other.series.tags.iter().map(|(key, _)| (other.identity, key)))
            .filter(|(_, key)| item.series.tags.get(key).is_none())
            .map(|(identity, key)| gathered.label_name(identity, key).into_owned())
            .filter(|name| own.iter().all(|(known, _)| *known != **name))
            .collect();
        excluded.sort_unstable();
        excluded.dedup();
        if excluded.len() > MOST_EXCLUDED {
            self.notes.push(MANY_KEYS);
            return;
        }
        for name in excluded {
            // Not `push_label`, for which an empty value is a tag without one.
            if !self.labels.is_empty() {
                self.labels.push(',');
            }
            self.labels.push_str(&format_label_name(&name));
            self.labels.push_str("=\"\"");
        }
    }
}
