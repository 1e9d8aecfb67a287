//! What Prometheus is served of containers, and what must be counted for that.

use super::Prometheus;
use super::values::Values;
use crate::aggregate::Counting;
use crate::render::prometheus::{Level, Naming, Timers};

/// What `/metrics/tasks` serves if the query does not say.
pub(super) fn prometheus(values: &Values) -> Prometheus {
    Prometheus {
        naming: values.choice("prometheus.naming", &Naming::ALL.map(|naming| (naming.as_str(), naming))),
        identity: values.choice("prometheus.identity", &Level::ALL.map(|level| (level.as_str(), level))),
        created: values.switch("prometheus.created"),
        timers: timers(values),
        linger: values.time("prometheus.linger"),
    }
}

/// What is counted on arrival for it.
pub(super) fn counting(values: &Values) -> Counting {
    match timers(values) {
        Timers::Histogram => Counting::Classic {
            timers: values.bounds("prometheus.timer_buckets"),
            values: values.bounds("prometheus.value_buckets"),
        },
        Timers::Native => Counting::Native,
        Timers::Summary => Counting::Off,
    }
}

fn timers(values: &Values) -> Timers {
    values.choice("prometheus.timers", &Timers::ALL.map(|timers| (timers.as_str(), timers)))
}
