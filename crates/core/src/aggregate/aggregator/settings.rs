//! Settings of aggregators, and changing them.

use std::sync::Arc;
use std::time::Duration;

use super::Aggregator;
use super::histograms::Histograms;
use crate::aggregate::histogram::Counting;
use crate::aggregate::limits::Limits;
use crate::model::Timestamp;
use crate::statsd::TagStyles;

/// Settings shared by all aggregators of a node.
#[derive(Clone, PartialEq, Debug)]
pub struct AggregatorSettings {
    /// Length of a window, at most an hour. Fixed while the agent runs.
    pub window: Duration,
    /// How many closed windows of a container are kept; late samples can revise these.
    pub keep: usize,
    /// How long a gauge that is no longer sent appears in new windows.
    pub gauge_carry: Duration,
    /// How long a series may be silent before its place can be given to a new one.
    pub series_idle: Duration,
    /// Tag styles that are read in names.
    pub tag_styles: TagStyles,
    /// The limits of one container.
    pub limits: Limits,
    /// Whether histograms are kept as well, and in which buckets.
    pub counting: Counting,
}

impl Default for AggregatorSettings {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            keep: 30,
            gauge_carry: Duration::from_mins(5),
            series_idle: Duration::from_hours(1),
            tag_styles: TagStyles::NONE,
            limits: Limits::default(),
            counting: Counting::Off,
        }
    }
}

impl Aggregator {
    /// Changes limits, idle times, tag styles and buckets. Windows keep their length and number.
    pub fn apply_settings(&mut self, settings: &AggregatorSettings) {
        let (window, keep) = (self.settings.window, self.settings.keep);
        let settings = AggregatorSettings { window, keep, ..settings.clone() };
        // Otherwise a container would get full token buckets whenever it moves.
        if settings == *self.settings {
            return;
        }
        self.sent_ahead = None;
        if settings.tag_styles != self.settings.tag_styles {
            self.table.forget_spellings();
            self.columns.forget_spellings();
        }
        if settings.counting != self.settings.counting {
            // Histograms restart: counts with other bounds cannot be continued.
            self.histograms = Histograms::default();
        }
        self.settings = Arc::new(settings);
        self.none_idle_before = Timestamp::MIN;
        self.ample = self.unchecked_memory_limit();
        (self.datagrams, self.bytes) = (None, None);
    }

    /// The memory below which values of a known series need no further checks: one comparison covers the limit and
    /// histograms.
    pub(super) fn unchecked_memory_limit(&self) -> usize {
        match self.settings.counting {
            Counting::Off => self.settings.limits.memory,
            Counting::Classic { .. } | Counting::Native => 0,
        }
    }
}
