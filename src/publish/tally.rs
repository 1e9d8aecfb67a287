//! What became of a publisher's records: `closed = delivered + excluded + dropped + dead + pending`.
//!
//! A record is counted when the cut that it is in has ended, together with the cursor, so the identity holds at every moment.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use crate::render::publish::LeftOutReason;

/// What became of a record.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// The backend accepted it.
    Delivered,
    /// It refused it for good.
    Dead,
    /// It was lost.
    Dropped(&'static str),
}

/// The reason of corrections of values that were sent and cannot be sent again.
pub(super) const LATE: &str = "late";
/// The reason of records that the backend refused among others without saying which.
pub(super) const REFUSED: &str = "refused";
/// The reason of records that were gone before they could be sent.
pub(super) const EXPIRED: &str = "expired";
/// The reason of records that the spool had no room for.
pub(super) const SPOOL: &str = "spool";
/// The reason of records that were too old to be sent.
pub(super) const TOO_OLD: &str = "age";

/// Every reason.
pub const DROP_REASONS: [&str; 9] = [
    EXPIRED,
    SPOOL,
    TOO_OLD,
    LATE,
    REFUSED,
    LeftOutReason::Clash.as_str(),
    LeftOutReason::TooLarge.as_str(),
    LeftOutReason::Unsupported.as_str(),
    LeftOutReason::NoValue.as_str(),
];

/// Records by what became of them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct RecordTally {
    /// Accepted by the backend.
    pub delivered: u64,
    /// Not selected by the publisher.
    pub excluded: u64,
    /// Lost, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Refused for good.
    pub dead: u64,
    /// Passed over, because an earlier process may have sent them.
    pub sent_before: u64,
}

impl RecordTally {
    /// Counts records.
    pub(super) fn add(&mut self, fate: Fate, records: u64) {
        match fate {
            Fate::Delivered => self.delivered += records,
            Fate::Dead => self.dead += records,
            Fate::Dropped(_) if records == 0 => {}
            Fate::Dropped(reason) => *self.dropped.entry(reason).or_default() += records,
        }
    }

    /// Adds another tally.
    pub(super) fn merge(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.excluded += other.excluded;
        self.dead += other.dead;
        self.sent_before += other.sent_before;
        for (reason, records) in &other.dropped {
            *self.dropped.entry(reason).or_default() += records;
        }
    }

    /// All of them.
    #[must_use]
    pub(super) fn sum(&self) -> u64 {
        let dropped: u64 = self.dropped.values().sum();
        self.delivered + self.excluded + dropped + self.dead + self.sent_before
    }
}

/// What became of the records of one round. A record may be settled again, as when a search is given up and everything is
/// repeated; the first time counts.
#[derive(Clone, Debug)]
pub(super) struct RoundTally {
    /// Of each record, how many places of the sequence it stands for, and what became of it.
    records: Vec<(u64, Option<Fate>)>,
}

impl RoundTally {
    /// For records that stand for so many places each.
    #[must_use]
    pub(super) fn new(places: impl Iterator<Item = u64>) -> Self {
        Self { records: places.map(|places| (places, None)).collect() }
    }

    /// Settles what became of these records.
    pub(super) fn settle_records(&mut self, records: Range<usize>, fate: Fate) {
        for (_, settled) in self.records.get_mut(records).into_iter().flatten() {
            settled.get_or_insert(fate);
        }
    }

    /// Settles records of which this many were refused. It is not known which, and so the first ones count as refused.
    pub(super) fn settle_partly(&mut self, records: Range<usize>, refused: u64) {
        let refused = usize::try_from(refused).unwrap_or(usize::MAX);
        let middle = records.start.saturating_add(refused).min(records.end);
        self.settle_records(records.start..middle, Fate::Dropped(REFUSED));
        self.settle_records(middle..records.end, Fate::Delivered);
    }

    /// Takes over what is settled of an earlier reading of the round, of which records may be gone since. The keys tell which
    /// records are the same, in both readings. Returns what is settled of places that are gone.
    pub(super) fn carry_settled(&mut self, keys: &[u64], before: &Self, before_keys: &[u64]) -> RecordTally {
        let mut settled: HashMap<u64, VecDeque<(u64, Fate)>> = HashMap::new();
        for (key, (places, fate)) in before_keys.iter().zip(&before.records) {
            if let Some(fate) = fate {
                settled.entry(*key).or_default().push_back((*places, *fate));
            }
        }
        let mut gone = RecordTally::default();
        for (key, (places, fate)) in keys.iter().zip(&mut self.records) {
            if let Some((stood_for, was)) = settled.get_mut(key).and_then(VecDeque::pop_front) {
                *fate = Some(was);
                gone.add(was, stood_for.saturating_sub(*places));
            }
        }
        for (places, fate) in settled.into_values().flatten() {
            gone.add(fate, places);
        }
        gone
    }

    /// The parts of a range of records that are not settled.
    pub(super) fn unsettled_ranges(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for record in range.filter(|record| self.records.get(*record).is_some_and(|(_, fate)| fate.is_none()))
        {
            match ranges.last_mut() {
                Some(last) if last.end == record => last.end = record.saturating_add(1),
                _ => ranges.push(record..record.saturating_add(1)),
            }
        }
        ranges
    }

    /// The sum of what is settled.
    #[must_use]
    pub(super) fn settled_records(&self) -> RecordTally {
        let mut tally = RecordTally::default();
        for (places, fate) in &self.records {
            if let Some(fate) = fate {
                tally.add(*fate, *places);
            }
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::publish::answer::Answer;
    use crate::publish::split::{Delivery, Outcome};

    /// An answer of each kind.
    fn answer(kind: u8) -> Answer {
        let why = String::from("no");
        match kind {
            0 => Answer::Reject { why },
            1 => Answer::Auth { why },
            2 => Answer::Gone { why },
            3 => Answer::TooLarge { why },
            4 => Answer::Retry { after: None, why, of_content: true, in_doubt: true },
            5 => Answer::Retry { after: None, why, of_content: false, in_doubt: false },
            6 => Answer::Partly { refused: 2, why },
            7 => Answer::Unspoken { why },
            _ => Answer::Ok,
        }
    }

    #[test]
    fn what_is_settled_counts_once_where_records_of_the_round_are_gone_when_it_is_read_again() {
        let mut before = RoundTally::new([2, 1, 1, 3].into_iter());
        before.settle_records(0..2, Fate::Delivered);
        before.settle_records(3..4, Fate::Dead);
        // A window is gone that had the second and the third record, and one place of the first.
        let mut now = RoundTally::new([1, 3, 1].into_iter());
        let gone = now.carry_settled(&[10, 40, 50], &before, &[10, 20, 30, 40]);
        assert_eq!((gone.delivered, gone.dead, gone.sum()), (2, 0, 2));
        let left: Vec<_> = now.unsettled_ranges(0..3).into_iter().flatten().collect();
        assert_eq!(left, [2]);
        now.settle_records(0..3, Fate::Delivered);
        let settled = now.settled_records();
        assert_eq!((settled.delivered, settled.dead), (2, 3));
    }

    proptest! {
        #[test]
        fn every_record_is_counted_once_after_every_kind_of_answer_in_any_order(
            answers in proptest::collection::vec(0_u8..12, 0..300),
            places in proptest::collection::vec(1_u64..5, 1..200),
            trusted in any::<bool>(),
        ) {
            let mut answers = answers.into_iter();
            let mut delivery = Delivery::new(places.len(), 64, trusted);
            let mut tally = RoundTally::new(places.iter().copied());
            let closed: u64 = places.iter().sum();
            while let Some(range) = delivery.next_range() {
                // Every seventh record has nothing that can be sent.
                let (left_out, sent): (Vec<_>, Vec<_>) = range.clone().partition(|n| n % 7 == 3);
                for n in left_out {
                    tally.settle_records(n..n + 1, Fate::Dropped("no_value"));
                }
                let outcomes = match sent.is_empty() {
                    true => delivery.replace_next(std::iter::empty()),
                    false => delivery.take_answer(answers.next().map_or(Answer::Ok, answer), 0.5),
                };
                for outcome in outcomes {
                    match outcome {
                        Outcome::Delivered(records) => tally.settle_records(records, Fate::Delivered),
                        Outcome::Dead { records, .. } => tally.settle_records(records, Fate::Dead),
                        Outcome::Partly { records, refused, .. } => tally.settle_partly(records, refused),
                        Outcome::Shrink | Outcome::Wait { .. } => {}
                    }
                }
                let settled = tally.settled_records();
                prop_assert!(settled.sum() <= closed);
            }
            let settled = tally.settled_records();
            prop_assert_eq!(settled.sum(), closed);
            let without_value: u64 = places.iter().skip(3).step_by(7).sum();
            prop_assert_eq!(settled.dropped.get("no_value").copied().unwrap_or(0), without_value);
        }
    }
}
