//! Which steps of a task's history a query asks for.

use std::time::Duration;

use crate::archive::{Granularity, POLICY};
use crate::config::AgentConfig;
use crate::model::Timestamp;
use crate::query::data::Error;
use crate::query::parameters::{Filters, Query, SELECTION, parse_moment};

/// The steps of a history, the finest first.
const STEPS: [(&str, Duration); 3] =
    [("1m", Duration::from_mins(1)), ("10m", Duration::from_mins(10)), ("1h", Duration::from_hours(1))];
/// The number of steps up to which `auto` takes a finer one.
const AUTO_STEPS: u64 = 400;
/// The number of steps before `until` that a query without `since` gets.
const USUAL_STEPS: u32 = 60;

/// The parameters of a task's metrics: those of a selection, and those of a history.
pub(crate) const HISTORY: [&str; 13] = {
    let [window, since, merge, by, hdr, task, container, name, tag, label] = SELECTION;
    [window, since, merge, by, hdr, task, container, name, tag, label, "until", "step", "at"]
};

/// Steps of a history.
#[derive(Clone, Debug)]
pub struct HistorySelection {
    /// The start of the first step.
    pub from: Timestamp,
    /// The end of the last one.
    pub until: Timestamp,
    /// The length of each.
    pub step: Duration,
    /// The slots that steps are made of.
    pub granularity: Granularity,
    /// Whether distributions are added in HdrHistogram's encoding.
    pub hdr: bool,
    /// Which records.
    pub filters: Filters,
}

/// What bounds a history.
#[derive(Copy, Clone, Debug)]
struct HistoryBounds {
    now: Timestamp,
    /// The length of windows.
    window: Duration,
    /// Whether there is an archive.
    is_archived: bool,
    /// How far back memory goes.
    memory: Duration,
}

impl HistoryBounds {
    fn of(config: &AgentConfig, now: Timestamp) -> Self {
        let window = config.aggregation.window;
        let keep = u32::try_from(config.aggregation.keep).unwrap_or(u32::MAX);
        let is_archived = config.archive.enabled;
        Self { now, window, is_archived, memory: window.saturating_mul(keep) }
    }

    /// Whether memory no longer has all windows that end after this.
    fn is_beyond_memory(&self, since: Timestamp) -> bool {
        since < self.now.saturating_sub(self.memory)
    }
}

impl HistorySelection {
    /// Reads a query. `None` if it asks for windows instead of steps.
    ///
    /// # Errors
    /// When a parameter is invalid or does not go with another, or there is no archive and memory has nothing of the time.
    pub fn read(query: &Query, config: &AgentConfig, now: Timestamp) -> Result<Option<Self>, Error> {
        Self::read_within(query, HistoryBounds::of(config, now))
    }

    fn read_within(query: &Query, bounds: HistoryBounds) -> Result<Option<Self>, Error> {
        let moment = |key| query.last_value(key).map(|text| parse_moment(key, text, bounds.now)).transpose();
        let (since, until, at) = (moment("since")?, moment("until")?, moment("at")?);
        let step = query.last_value("step");
        let other = ["window", "merge", "by"].into_iter().find(|key| query.last_value(key).is_some());
        if step.is_none() && until.is_none() && at.is_none() {
            // Windows of that time are not there; their steps may be.
            let is_wanted = bounds.is_archived
                && other.is_none()
                && since.is_some_and(|since| bounds.is_beyond_memory(since));
            if !is_wanted {
                return Ok(None);
            }
        }
        if let Some(other) = other {
            let value = query.last_value(other).unwrap_or_default();
            return Err(Error::bad_parameter(
                other,
                value,
                "cannot be combined with step, until and at; leave it out",
            ));
        }
        if at.is_some() && (since.is_some() || until.is_some()) {
            let value = query.last_value("at").unwrap_or_default();
            return Err(Error::bad_parameter(
                "at",
                value,
                "cannot be combined with since and until; leave them out",
            ));
        }
        let until = at.or(until).unwrap_or(bounds.now).min(bounds.now);
        let (step, since) = match read_step(step, bounds)? {
            Some(step) => (step, at.or(since).unwrap_or_else(|| until.saturating_sub(step * USUAL_STEPS))),
            None => {
                let since = at.or(since).unwrap_or_else(|| until.saturating_sub(STEPS[0].1 * USUAL_STEPS));
                (bounds.choose_step(since, until), since)
            }
        };
        if since > until {
            let (key, why) = match (at, query.last_value("until")) {
                (Some(_), _) => ("at", "is in the future; give a time before now"),
                (None, None) => ("since", "is in the future; give a time before now"),
                (None, Some(_)) => ("since", "is after until; exchange them"),
            };
            return Err(Error::bad_parameter(key, query.last_value(key).unwrap_or_default(), why));
        }
        if !bounds.is_archived && bounds.is_beyond_memory(until) {
            return Err(Error::ArchiveOff { memory: bounds.memory });
        }
        let granularity = Granularity::for_step(step).unwrap_or(POLICY[0]);
        let from = since.floor_to_window(step);
        let last = until.floor_to_window(step);
        // The moment `at` is in the step that begins with it; the moment `until` is not.
        let until = if at.is_some() || last < until { last.saturating_add(step) } else { last };
        let (hdr, filters) = (query.parse_switch("hdr")?, Filters::read(query)?);
        Ok(Some(Self { from, until, step, granularity, hdr, filters }))
    }
}

/// The step that a query names; `None` if it is to be chosen.
fn read_step(text: Option<&str>, bounds: HistoryBounds) -> Result<Option<Duration>, Error> {
    let Some(text) = text.filter(|text| *text != "auto") else { return Ok(None) };
    let named = STEPS.into_iter().find(|(name, _)| *name == text);
    let Some((_, step)) = named else {
        return Err(Error::bad_parameter("step", text, "is not 1m, 10m, 1h or auto"));
    };
    if bounds.window > step {
        let window = humantime::format_duration(bounds.window);
        let why = format!("is shorter than a window, which has {window}; use a longer step");
        return Err(Error::bad_parameter("step", text, &why));
    }
    Ok(Some(step))
}

impl HistoryBounds {
    /// The finest step that has the whole time and not too many parts.
    fn choose_step(&self, since: Timestamp, until: Timestamp) -> Duration {
        let has_all = |step: Duration| {
            let kept =
                Granularity::for_step(step).map_or(since, |granularity| granularity.oldest_start(self.now));
            !self.is_archived || kept <= since
        };
        let parts = |step: Duration| until.duration_since(since).as_secs() / step.as_secs().max(1);
        let mut steps = STEPS.into_iter().map(|(_, step)| step).filter(|step| self.window <= *step);
        steps.find(|step| has_all(*step) && parts(*step) <= AUTO_STEPS).unwrap_or(STEPS[2].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01T12:00:30Z
    const NOW: i64 = 1_767_225_600 + 43_230;

    fn bounds(is_archived: bool) -> HistoryBounds {
        let window = Duration::from_secs(10);
        HistoryBounds { now: Timestamp::from_secs(NOW), window, is_archived, memory: Duration::from_mins(5) }
    }

    fn read(raw: &str, bounds: HistoryBounds) -> Result<Option<HistorySelection>, Error> {
        HistorySelection::read_within(&Query::read(raw, &HISTORY)?, bounds)
    }

    /// The start and the end relative to now, and the step, in seconds.
    fn range(raw: &str) -> (i64, i64, u64) {
        let found = read(raw, bounds(true)).unwrap().unwrap();
        (found.from.as_secs() - NOW, found.until.as_secs() - NOW, found.step.as_secs())
    }

    #[test]
    fn steps_are_whole_and_cover_the_time_that_is_asked_for() {
        assert_eq!(range("since=2h&step=10m"), (-7_230, 570, 600));
        assert_eq!(range("since=2h&until=1h&step=10m"), (-7_230, -3_030, 600));
        assert_eq!(range("step=1m"), (-3_630, 30, 60));
        assert_eq!(range("at=2026-01-01T03:07:00Z"), (-32_010, -31_950, 60), "a minute that is kept");
        assert_eq!(range("at=2025-12-25T03:07:00Z").2, 600, "minutes of that day are gone");
    }

    #[test]
    fn the_step_is_the_finest_that_has_the_time_and_not_too_many_parts() {
        let step = |since: &str| range(&format!("since={since}&step=auto")).2;
        assert_eq!(["1h", "6h", "12h", "2d", "7d"].map(step), [60, 60, 600, 600, 3_600]);
        let long = HistoryBounds { window: Duration::from_mins(5), ..bounds(true) };
        assert_eq!(read("since=1h&step=auto", long).unwrap().unwrap().step.as_secs(), 600);
        let error = read("since=1h&step=1m", long).unwrap_err().to_string();
        assert!(error.contains("5m") && error.contains("longer step"), "{error}");
    }

    #[test]
    fn windows_stay_windows_unless_memory_has_lost_them() {
        for raw in ["", "since=4m", "window=all&since=2d", "merge&since=2d"] {
            assert!(read(raw, bounds(true)).unwrap().is_none(), "{raw}");
        }
        assert!(read("since=2d", bounds(true)).unwrap().is_some());
        assert!(read("since=2d", bounds(false)).unwrap().is_none());
        assert!(read("since=2d&step=1m", bounds(false)).unwrap().is_some(), "what memory has");
        let error = read("at=2026-01-01T03:00:00Z", bounds(false)).unwrap_err();
        assert!(
            matches!(error, Error::ArchiveOff { .. }) && error.to_string().contains("archive.enabled"),
            "{error}"
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for raw in [
            "step=5m",
            "step=1m&window=all",
            "step=1m&merge",
            "step=1m&by=route",
            "at=5m&since=10m",
            "until=soon",
            "since=5m&until=10m&step=1m",
        ] {
            assert!(matches!(read(raw, bounds(true)), Err(Error::BadParameter { .. })), "{raw}");
        }
    }
}
