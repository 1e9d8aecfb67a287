//! When windows are complete, and which round and which batch they are sent in.

use std::time::Duration;

use crate::aggregate::WindowSpan;
use crate::model::Timestamp;

/// When windows are complete.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(in crate::publish) struct RoundRules {
    /// The length of a round.
    pub interval: Duration,
    /// For how long rounds are gathered, so that they can share requests; zero if each is sent by itself.
    pub batch: Duration,
    /// How long after its end a round, or a batch, is waited for.
    pub settle: Duration,
    /// Records after which a cut ends with its interval.
    pub records: usize,
    /// For receivers that accept only what is newer: no round starts before this, and what would is part of the first that
    /// can.
    pub floor: Option<Timestamp>,
}

/// A window, as far as it matters for where a cut ends.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(in crate::publish) struct PlacedWindow {
    /// Its interval.
    pub span: WindowSpan,
    /// Its number of records.
    pub records: usize,
}

impl RoundRules {
    /// How many of these windows, which are in the order of the sequence, make up the next cut, and when there may be more if
    /// there are none.
    ///
    /// Windows that start further ahead than a clock that was corrected can explain are not waited for: what the clock says
    /// then is not known. Receivers that accept only what is newer would then accept nothing until that time, so for them
    /// windows are waited for.
    pub(in crate::publish) fn count_due(
        &self,
        windows: impl IntoIterator<Item = PlacedWindow>,
        now: Timestamp,
    ) -> Result<usize, Option<Timestamp>> {
        let (mut taken, mut records, mut newest) = (0, 0_usize, None::<Timestamp>);
        for window in windows {
            let (start, due) = (self.round_start(window.span), self.due_at(window.span));
            let ahead = self.floor.is_none() && start > now.saturating_add(self.interval.saturating_mul(2));
            if due > now && !ahead {
                return if taken > 0 { Ok(taken) } else { Err(Some(due)) };
            }
            let is_new = newest.is_some_and(|newest| start > newest);
            if records >= self.records && is_new || records >= self.records.saturating_mul(8) {
                return Ok(taken);
            }
            newest = newest.max(Some(start));
            records = records.saturating_add(window.records);
            taken += 1;
        }
        if taken > 0 { Ok(taken) } else { Err(None) }
    }

    /// When the round that a window is sent in starts.
    #[must_use]
    pub(in crate::publish) fn round_start(&self, span: WindowSpan) -> Timestamp {
        let start = self.interval_start(span);
        self.floor.map_or(start, |floor| start.max(floor))
    }

    /// When the interval that a window belongs to starts.
    #[must_use]
    pub(in crate::publish) fn interval_start(&self, span: WindowSpan) -> Timestamp {
        if self.is_one_window(span) { span.start } else { span.start.floor_to_window(self.interval) }
    }

    /// Whether a window comes after the round of its interval was sent, to a receiver that accepts only what is newer.
    pub(super) fn is_late(&self, span: WindowSpan) -> bool {
        self.round_start(span) > self.interval_start(span)
    }

    /// When the round ends that a window is sent in.
    #[must_use]
    pub(in crate::publish) fn round_end(&self, span: WindowSpan) -> Timestamp {
        if self.is_one_window(span) && !self.is_late(span) {
            return span.end;
        }
        span.end.max(self.round_start(span).saturating_add(self.interval))
    }

    pub(in crate::publish) fn due_at(&self, span: WindowSpan) -> Timestamp {
        self.batch_end(span).saturating_add(self.settle)
    }

    /// When the batch of the round with this start starts. Batches are aligned as intervals are, so that the same rounds share
    /// requests also where they are sent again after a restart.
    #[must_use]
    pub(in crate::publish) fn batch_start(&self, round_start: Timestamp) -> Timestamp {
        if self.batch.is_zero() { round_start } else { round_start.floor_to_window(self.batch) }
    }

    /// When the batch ends that a window is sent in; the end of its round if rounds are not gathered.
    #[must_use]
    pub(in crate::publish) fn batch_end(&self, span: WindowSpan) -> Timestamp {
        let start = self.batch_start(self.round_start(span));
        self.round_end(span).max(start.saturating_add(self.batch))
    }

    /// Whether a window is a round of its own, because it is as long as one.
    fn is_one_window(&self, span: WindowSpan) -> bool {
        span.nominal_length() >= self.interval
    }
}
