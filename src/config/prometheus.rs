//! What Prometheus is served of containers, and what must be counted for that.

use super::PrometheusConfig;
use super::read::SettingReader;
use crate::aggregate::{Bounds, Counting};
use crate::render::prometheus::{Level, Naming, Timers};

/// Reads both.
pub(super) fn read(reader: &mut SettingReader<'_>) -> (PrometheusConfig, Counting) {
    let prometheus = PrometheusConfig {
        naming: reader.read_choice("prometheus.naming", &Naming::ALL.map(|naming| (naming.as_str(), naming))),
        identity: reader.read_choice("prometheus.identity", &Level::ALL.map(|level| (level.as_str(), level))),
        created: reader.read_bool("prometheus.created"),
        timers: reader.read_choice("prometheus.timers", &Timers::ALL.map(|timers| (timers.as_str(), timers))),
        linger: reader.read_duration("prometheus.linger"),
    };
    // Bounds are checked even where nothing is counted by them. Timers are sent in milliseconds.
    let bounds = (
        read_bounds(reader, "prometheus.timer_buckets", 3),
        read_bounds(reader, "prometheus.value_buckets", 0),
    );
    let counting = match (prometheus.timers, bounds) {
        (Timers::Histogram, (Some(timers), Some(values))) => Counting::Classic { timers, values },
        (Timers::Native, _) => Counting::Native,
        _ => Counting::Off,
    };
    (prometheus, counting)
}

/// Bounds of values that are sent in a unit of which 10^`places` are the bounds' own.
fn read_bounds(reader: &mut SettingReader<'_>, key: &str, places: i8) -> Option<Bounds> {
    reader.read_with(key, |text| {
        let number = |word: &str| {
            word.trim().parse::<f64>().map_err(|_| format!("has {word:?}, which is not a number"))
        };
        let numbers = text.split(',').map(number).collect::<Result<Vec<_>, _>>()?;
        Bounds::new(&numbers, places).map(Some).map_err(|error| error.to_string())
    })
}
