//! At which steps the archive keeps windows, and for how long.

use std::time::Duration;

use crate::model::Timestamp;

/// Slots of one length.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Granularity {
    /// The length of a slot.
    pub length: Duration,
    /// How long after its end a slot is kept.
    pub kept: Duration,
}

/// The archive policy of every container, the finest granularity first. No length is above an hour: offsets within a window are
/// microseconds in 32 bits.
pub const POLICY: [Granularity; 2] = [
    Granularity { length: Duration::from_mins(1), kept: Duration::from_hours(24) },
    Granularity { length: Duration::from_mins(10), kept: Duration::from_hours(30 * 24) },
];

/// How far ahead of the clock a window may start. One further ahead comes from a clock that was wrong, and its slot would
/// outlive all others.
pub const FURTHEST_AHEAD: Duration = Duration::from_mins(10);

impl Granularity {
    /// Whether windows of a length are folded at this granularity: a longer window would be spread over slots that it says nothing
    /// about.
    #[must_use]
    pub fn takes_windows(self, length: Duration) -> bool {
        length <= self.length
    }

    /// The start of the slot that a window belongs to: the one that contains its start. A window of a length that does not divide
    /// the slot's is in one slot all the same.
    #[must_use]
    pub fn slot_start(self, window: Timestamp) -> Timestamp {
        window.floor_to_window(self.length)
    }

    /// Slots that start before this are no longer kept.
    #[must_use]
    pub fn oldest_start(self, now: Timestamp) -> Timestamp {
        now.saturating_sub(self.kept).saturating_sub(self.length)
    }

    /// Its length in seconds, by which slots are stored.
    #[must_use]
    pub fn slot_seconds(self) -> i64 {
        i64::try_from(self.length.as_secs()).unwrap_or(i64::MAX)
    }

    /// The coarsest granularity whose slots make up steps of a length; `None` if there is none.
    #[must_use]
    pub fn for_step(step: Duration) -> Option<Self> {
        let divides = |length: Duration| length <= step && step.as_secs().is_multiple_of(length.as_secs());
        POLICY.into_iter().rev().find(|granularity| divides(granularity.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_in_the_slot_that_contains_its_start_whatever_its_length() {
        let [minute, ten] = POLICY;
        let at = Timestamp::from_secs;
        // Windows of 45 seconds start at 0, 45, 90, 135 and 180 seconds.
        let starts = [0, 45, 90, 135, 180].map(|start| minute.slot_start(at(start)).as_secs());
        assert_eq!(starts, [0, 0, 60, 120, 180]);
        assert_eq!(ten.slot_start(at(1_199)), at(600));
        assert!(
            minute.takes_windows(Duration::from_mins(1)) && !minute.takes_windows(Duration::from_secs(61))
        );
    }

    #[test]
    fn a_step_is_made_of_the_coarsest_slots_that_fit_into_it() {
        let of = |secs| Granularity::for_step(Duration::from_secs(secs)).map(|found| found.length.as_secs());
        assert_eq!(
            [of(60), of(600), of(3600), of(120), of(30)],
            [Some(60), Some(600), Some(600), Some(60), None]
        );
    }
}
