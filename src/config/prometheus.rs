//! What Prometheus is served of containers, and what must be counted for that.

use super::PrometheusConfig;
use super::values::SettingValues;
use crate::aggregate::Counting;
use crate::render::prometheus::{Level, Naming, Timers};

/// What `/metrics/tasks` serves if the query does not say.
pub(super) fn build_prometheus(values: &SettingValues) -> PrometheusConfig {
    PrometheusConfig {
        naming: values
            .choice_value("prometheus.naming", &Naming::ALL.map(|naming| (naming.as_str(), naming))),
        identity: values
            .choice_value("prometheus.identity", &Level::ALL.map(|level| (level.as_str(), level))),
        created: values.bool_value("prometheus.created"),
        timers: timers(values),
        linger: values.duration_value("prometheus.linger"),
    }
}

/// What is counted on arrival for it.
pub(super) fn required_counting(values: &SettingValues) -> Counting {
    match timers(values) {
        Timers::Histogram => Counting::Classic {
            timers: values.bucket_bounds("prometheus.timer_buckets"),
            values: values.bucket_bounds("prometheus.value_buckets"),
        },
        Timers::Native => Counting::Native,
        Timers::Summary => Counting::Off,
    }
}

fn timers(values: &SettingValues) -> Timers {
    values.choice_value("prometheus.timers", &Timers::ALL.map(|timers| (timers.as_str(), timers)))
}
