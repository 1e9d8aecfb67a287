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

impl PublisherChanges {
    /// What to do to get from `old` to `new`, whose configurations are `configs`.
    pub(in crate::config) fn between(
        old: &[PublisherValues],
        new: &[PublisherValues],
        configs: &[PublisherConfig],
    ) -> Self {
        let named = |publishers: &[PublisherValues], name: &str| publishers.iter().any(|it| it.name == name);
        let gone = old.iter().filter(|publisher| !named(new, &publisher.name));
        let mut changes = Self { stopped: gone.map(|gone| gone.name.clone()).collect(), ..Self::default() };
        for config in configs {
            let found =
                |publishers: &'_ [PublisherValues]| publishers.iter().position(|it| it.name == config.name);
            let Some(values) = found(new).and_then(|at| new.get(at)) else { continue };
            let Some(before) = found(old).and_then(|at| old.get(at)) else {
                changes.started.push(config.clone());
                continue;
            };
            let effects: Vec<_> = values.changed_from(before).map(|row| row.effect).collect();
            let series = effects.contains(&PublisherEffect::Series);
            if series || effects.contains(&PublisherEffect::Requests) {
                changes.changed.push(PublisherChange { config: config.clone(), series });
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
