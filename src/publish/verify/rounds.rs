//! Which rounds can be compared.

use crate::model::Timestamp;

/// The places that the windows of a round have in the sequence.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct RoundPlaces {
    /// Its start (inclusive).
    pub start: Timestamp,
    /// Its end (exclusive).
    pub end: Timestamp,
    /// The first place of its windows.
    pub first: u64,
    /// The last place of its windows.
    pub last: u64,
    /// The number of records, before any are merged.
    pub records: usize,
}

/// What is known and sent.
#[derive(Copy, Clone, Debug)]
pub(super) struct PlaceLimits {
    /// Windows up to this place may be lost, or were closed before the publisher began.
    pub known: u64,
    /// Windows up to this place are sent or given up.
    pub sent: u64,
    /// Rounds end after this moment.
    pub since: Timestamp,
    /// Rounds have ended by this moment.
    pub until: Timestamp,
}

/// Chooses, of all rounds in the order of time, the oldest ones without a gap that are known whole and sent.
pub(super) fn choose_rounds(rounds: &[RoundPlaces], limits: &PlaceLimits) -> Vec<RoundPlaces> {
    let lacking = rounds.iter().rposition(|round| round.first <= limits.known);
    // Windows of a round are closed one after the other, so the round after the last of which some are lost can lack some, too.
    let first = match (lacking, limits.known) {
        (Some(lacking), _) => lacking + 2,
        (None, 0) => 0,
        (None, _) => 1,
    };
    let known = rounds.iter().skip(first).skip_while(|round| round.end <= limits.since);
    known.take_while(|round| round.last <= limits.sent && round.end <= limits.until).copied().collect()
}

/// Why older rounds are not compared.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum ReachLimit {
    /// The publisher had not begun.
    Begun,
    /// The agent had not, or had nothing to send.
    Start,
    /// Their windows are in no file any more.
    Kept,
    /// Their windows are in files that are too large.
    Files,
}

impl ReachLimit {
    const fn as_reason(self) -> &'static str {
        match self {
            Self::Begun => "the publisher began then",
            Self::Start => "the agent has no earlier windows",
            Self::Kept => "earlier windows are no longer kept, neither in memory nor in files",
            Self::Files => "the files with earlier windows are too large to be read in time",
        }
    }
}

/// What of the requested time is not compared, and why. `None` if all of it is.
pub(super) fn describe_reach(
    rounds: &[RoundPlaces],
    chosen: &[RoundPlaces],
    limits: &PlaceLimits,
    reason: ReachLimit,
) -> Option<String> {
    let (first, last) = (chosen.first()?, chosen.last()?);
    // Without a beginning, everything is requested that there is.
    let lacks_first = limits.since > Timestamp::default() && first.start > limits.since;
    let is_unsent = rounds.iter().any(|round| round.start > last.start && round.end <= limits.until);
    let before =
        lacks_first.then(|| format!("nothing before {} was compared: {}", first.start, reason.as_reason()));
    let after = is_unsent
        .then(|| format!("nothing after {} was compared: it is not sent yet, or not all of it", last.end));
    let said: Vec<_> = before.into_iter().chain(after).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of ten seconds with ten places each, from the place 1 on.
    fn rounds(count: u64) -> Vec<RoundPlaces> {
        let round = |n: u64| RoundPlaces {
            start: Timestamp::from_secs(i64::try_from(n).unwrap() * 10),
            end: Timestamp::from_secs(i64::try_from(n).unwrap() * 10 + 10),
            first: n * 10 + 1,
            last: n * 10 + 10,
            records: 10,
        };
        (0..count).map(round).collect()
    }

    const ALL: PlaceLimits =
        PlaceLimits { known: 0, sent: u64::MAX, since: Timestamp::MIN, until: Timestamp::MAX };

    fn chosen(rounds: &[RoundPlaces], limits: PlaceLimits) -> Vec<i64> {
        choose_rounds(rounds, &limits).iter().map(|round| round.start.as_secs() / 10).collect()
    }

    #[test]
    fn rounds_are_compared_that_are_whole_and_sent() {
        let rounds = rounds(6);
        assert_eq!(chosen(&rounds, ALL), [0, 1, 2, 3, 4, 5]);
        assert_eq!(chosen(&rounds, PlaceLimits { sent: 40, ..ALL }), [0, 1, 2, 3]);
        assert_eq!(chosen(&rounds, PlaceLimits { sent: 39, ..ALL }), [0, 1, 2]);
        let (since, until) = (Timestamp::from_secs(20), Timestamp::from_secs(49));
        assert_eq!(chosen(&rounds, PlaceLimits { since, until, ..ALL }), [2, 3]);
        assert_eq!(chosen(&[], ALL), [] as [i64; 0]);
    }

    #[test]
    fn what_is_not_compared_of_the_requested_time_is_said() {
        let rounds = rounds(6);
        let said = |limits: PlaceLimits, reason| {
            describe_reach(&rounds, &choose_rounds(&rounds, &limits), &limits, reason)
        };
        assert_eq!(said(ALL, ReachLimit::Kept), None, "no beginning was requested");
        let since = Timestamp::from_secs(15);
        assert_eq!(said(PlaceLimits { since, ..ALL }, ReachLimit::Kept), None);
        let lost = PlaceLimits { since, known: 15, ..ALL };
        assert_eq!(
            said(lost, ReachLimit::Kept).unwrap(),
            "nothing before 1970-01-01T00:00:30Z was compared: earlier windows are no longer kept, neither in memory nor in \
             files"
        );
        let until = Timestamp::from_secs(50);
        assert_eq!(
            said(PlaceLimits { until, ..ALL }, ReachLimit::Start),
            None,
            "what is not settled is not missing"
        );
        let unsent = said(PlaceLimits { since, known: 15, sent: 40, until }, ReachLimit::Files).unwrap();
        assert!(
            unsent.contains("too large")
                && unsent.ends_with(
                    "nothing after 1970-01-01T00:00:40Z was compared: it is not sent yet, or not all of it"
                ),
            "{unsent}"
        );
    }

    #[test]
    fn a_round_after_lost_windows_can_lack_some() {
        let mut rounds = rounds(6);
        // The places up to 15 are lost; the window of the place 16 to 20 is kept.
        rounds.remove(0);
        rounds[0].first = 16;
        assert_eq!(chosen(&rounds, PlaceLimits { known: 15, ..ALL }), [2, 3, 4, 5]);
        assert_eq!(chosen(&rounds, PlaceLimits { known: 16, ..ALL }), [3, 4, 5]);
        assert_eq!(chosen(&rounds, PlaceLimits { known: 60, ..ALL }), [] as [i64; 0]);
    }

    #[test]
    fn a_gap_of_what_is_sent_ends_the_comparison() {
        let mut rounds = rounds(6);
        // A late sample has revised a record of the round 2, and is not sent yet.
        rounds[2].last = 61;
        assert_eq!(chosen(&rounds, PlaceLimits { sent: 60, ..ALL }), [0, 1]);
    }
}
