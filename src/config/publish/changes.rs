//! What a reload changes about publishers.

use super::PublisherConfig;
use super::read::PublisherValues;
use super::setting::PublisherEffect;

/// What turns the publishers of one configuration into those of another. Publishers are compared by name: one of the same
/// name goes on at its cursor, whatever else has changed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PublisherChanges {
    /// The names of those that are no longer configured.
    pub stopped: Vec<String>,
    /// New ones.
    pub started: Vec<PublisherConfig>,
    /// Those that are configured differently.
    pub changed: Vec<PublisherChange>,
}

/// A publisher that is configured differently.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublisherChange {
    /// How it is to be.
    pub config: PublisherConfig,
    /// Whether it sends other series, or the same ones with other values: totals start again, and a round that was not
    /// confirmed cannot be repeated byte for byte. If not, requests are only made in another way.
    pub series: bool,
}

/// A publisher, and the values that its configuration was built from.
pub(super) type Configured<'a> = (&'a PublisherValues, &'a PublisherConfig);

impl PublisherChanges {
    /// What to do to get from `old` to `new`.
    pub(in crate::config) fn find_changes(old: &[Configured<'_>], new: &[Configured<'_>]) -> Self {
        let named = |publishers: &[Configured<'_>], name: &str| {
            publishers.iter().position(|(_, config)| config.name == name)
        };
        let gone = old.iter().filter(|(_, config)| named(new, &config.name).is_none());
        let mut changes =
            Self { stopped: gone.map(|(_, config)| config.name.clone()).collect(), ..Self::default() };
        for configured @ (_, config) in new {
            match named(old, &config.name).and_then(|at| old.get(at)) {
                None => changes.started.push((*config).clone()),
                Some(before) => changes.changed.extend(change(before, configured)),
            }
        }
        changes
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stopped.is_empty() && self.started.is_empty() && self.changed.is_empty()
    }
}

/// The change of a publisher, unless nothing follows from it.
fn change((old, before): &Configured<'_>, (new, config): &Configured<'_>) -> Option<PublisherChange> {
    // Its default is the length of a window, so its text is not compared.
    let rows = new.changed_from(old).filter(|row| row.key != "interval");
    let effects: Vec<_> = rows.map(|row| row.effect).collect();
    let series = effects.contains(&PublisherEffect::Series) || before.interval != config.interval;
    let requests = effects.contains(&PublisherEffect::Requests);
    (series || requests).then(|| PublisherChange { config: (*config).clone(), series })
}
