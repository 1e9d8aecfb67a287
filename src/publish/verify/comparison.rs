//! What differs, and why nothing could be compared.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::outbound::OutboundError;
use crate::wire::{PublishedDifferenceDocument, Word};

/// The most differences that are listed of a part.
const MOST_LISTED: usize = 200;
/// How far two sums of the same numbers may be apart that were added in another order, as a part of their size.
const PRECISION: f64 = 1e-9;

/// Why a destination could not be compared.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerifyError {
    /// There is no answer.
    #[error(transparent)]
    Unanswered(#[from] OutboundError),
    /// It is an error.
    #[error("{0}")]
    Refused(String),
    /// It is no answer to the query.
    #[error("the destination does not answer {queries}: {why}")]
    Garbled {
        /// The language of the queries.
        queries: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It is longer than what is read of it.
    #[error("an answer is larger than {} MiB", limit >> 20)]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// It takes too long.
    #[error("the destination has not answered all queries within {} s", limit.as_secs())]
    Slow {
        /// The time limit.
        limit: Duration,
    },
    /// The URL for queries is not known.
    #[error("queries have no known address beside {url}; set query_url to it")]
    NoAddress {
        /// Where records are sent to.
        url: String,
    },
    /// The file cannot be read.
    #[error("{0}")]
    File(String),
}

/// The result of a comparison.
#[derive(Default, Debug)]
pub(super) struct DeliveryComparison {
    /// Series that were compared.
    pub series: u64,
    /// Series of which something differs.
    pub differing: u64,
    /// What differs, of the first ones.
    pub differences: Vec<PublishedDifferenceDocument>,
    /// An error that the destination answered about some of them.
    pub answer: Option<String>,
}

/// Two numbers that should be the same.
#[derive(Clone, Debug)]
pub(super) struct NumberPair {
    pub(super) what: &'static str,
    pub(super) expected: f64,
    pub(super) found: Option<f64>,
}

impl DeliveryComparison {
    /// Notes a series, and which of its numbers differ.
    pub(super) fn add_series(
        &mut self,
        name: &str,
        labels: impl IntoIterator<Item = (String, String)>,
        differing: Vec<NumberPair>,
    ) {
        self.series += 1;
        if differing.is_empty() {
            return;
        }
        self.differing += 1;
        let labels: BTreeMap<_, _> = labels.into_iter().collect();
        let room = MOST_LISTED.saturating_sub(self.differences.len());
        for NumberPair { what, expected, found } in differing.into_iter().take(room) {
            self.differences.push(PublishedDifferenceDocument {
                name: name.to_owned(),
                labels: labels.clone(),
                what: Word::Borrowed(what),
                expected,
                found,
            });
        }
    }
}

impl NumberPair {
    /// The pair, unless the numbers are the same but for rounding. `size` is the sum of what was added, without signs.
    pub(super) fn if_different(
        what: &'static str,
        expected: f64,
        found: Option<f64>,
        size: f64,
    ) -> Option<Self> {
        let near = |found: f64| (found - expected).abs() <= PRECISION * size.max(expected.abs());
        (!found.is_some_and(near)).then_some(Self { what, expected, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rounding_makes_no_difference() {
        let differs =
            |expected, found, size| NumberPair::if_different("sum", expected, found, size).is_some();
        assert!(!differs(0.3, Some(0.1 + 0.2), 0.3));
        assert!(!differs(0.0, Some(1e-12), 1e6), "what was added and taken away leaves a rest");
        assert!(differs(0.0, Some(1e-12), 0.0));
        assert!(differs(1.0, None, 1.0) && differs(1.0, Some(2.0), 1.0) && differs(1.0, Some(f64::NAN), 1.0));
    }

    #[test]
    fn all_are_counted_and_the_first_are_listed() {
        let mut comparison = DeliveryComparison::default();
        let pair = NumberPair { what: "points", expected: 1.0, found: None };
        for n in 0..300 {
            comparison.add_series(&format!("s{n}"), [], vec![pair.clone(); n % 2]);
        }
        assert_eq!((comparison.series, comparison.differing, comparison.differences.len()), (300, 150, 150));
        for _ in 0..100 {
            comparison.add_series("more", [("task".to_owned(), "web".to_owned())], vec![pair.clone()]);
        }
        assert_eq!((comparison.differing, comparison.differences.len()), (250, MOST_LISTED));
    }
}
