//! What one container may use, so that it cannot hurt another, and which of its tags use the most.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Series;

/// What happens at a limit.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitMode {
    /// The excess is dropped and counted.
    #[default]
    Enforce,
    /// The excess is kept and counted.
    Observe,
}

/// The limits of one container.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// What happens at them.
    pub mode: LimitMode,
    /// Datagrams a second, averaged over one; none = unlimited.
    pub datagrams_per_second: Option<u64>,
    /// Bytes a second, averaged over one; none = unlimited.
    pub bytes_per_second: Option<u64>,
    /// Series at one time.
    pub series: usize,
    /// Bytes of a raw name.
    pub name_bytes: usize,
    /// Bytes of a line's raw tags.
    pub tags_bytes: usize,
    /// Records of closed windows that late samples may revise while one window is open, counted once for each series and
    /// window.
    pub late_records: usize,
    /// Bytes of memory, kept windows included.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mode: LimitMode::Enforce,
            datagrams_per_second: None,
            bytes_per_second: None,
            series: 10_000,
            name_bytes: 1024,
            tags_bytes: 8192,
            late_records: 10_000,
            memory: 64 << 20,
        }
    }
}

/// A token bucket: admits `rate` units a second, with bursts of up to one second's units.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct TokenBucket {
    tokens: f64,
    filled_at: Duration,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: u64, now: Duration) -> Self {
        Self { tokens: rate as f64, filled_at: now }
    }

    /// Takes `cost` tokens if available. A cost above the bucket's capacity is admitted when the bucket is full;
    /// otherwise it never would be.
    pub fn try_take_tokens(&mut self, cost: u64, rate: u64, now: Duration) -> bool {
        let most = rate as f64;
        let since = now.saturating_sub(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + since * most).min(most);
        self.filled_at = self.filled_at.max(now);
        let cost = cost as f64;
        if self.tokens < cost.min(most) {
            return false;
        }
        self.tokens -= cost;
        true
    }
}

/// A tag key, or the name itself, and its number of distinct values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WideTag {
    /// The tag's key; `None` for the names of the series.
    pub key: Option<String>,
    /// Different values.
    pub values: usize,
    /// Series that have it.
    pub series: usize,
}

/// The `most` widest tags, the widest first. Tags with a single value create no series and are omitted.
#[must_use]
pub fn widest_tags<'s>(series: impl IntoIterator<Item = &'s Series>, most: usize) -> Vec<WideTag> {
    let mut found: HashMap<Option<&str>, (HashSet<&str>, usize)> = HashMap::new();
    for series in series {
        let name = std::iter::once((None, &*series.name));
        for (key, value) in name.chain(series.tags.iter().map(|(key, value)| (Some(key), value))) {
            let (values, with_it) = found.entry(key).or_default();
            values.insert(value);
            *with_it += 1;
        }
    }
    let wide = |(key, (values, series)): (Option<&str>, (HashSet<&str>, usize))| WideTag {
        key: key.map(str::to_owned),
        values: values.len(),
        series,
    };
    let mut all: Vec<_> = found.into_iter().map(wide).filter(|tag| tag.values > 1).collect();
    all.sort_by(|a, b| (b.values, b.series, &a.key).cmp(&(a.values, a.series, &b.key)));
    all.truncate(most);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MetricType, TagSet, Timestamp};

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_bucket_lets_its_rate_through_and_no_more() {
        let mut bucket = TokenBucket::new(10, at(0));
        let passed = (0..5000).filter(|millis| bucket.try_take_tokens(1, 10, at(*millis))).count();
        assert_eq!(passed, 10 + 49);
    }

    #[test]
    fn after_a_pause_a_burst_of_one_second_passes() {
        let mut bucket = TokenBucket::new(10, at(0));
        while bucket.try_take_tokens(1, 10, at(0)) {}
        assert_eq!((0..100).filter(|_| bucket.try_take_tokens(1, 10, at(60_000))).count(), 10);
    }

    #[test]
    fn what_costs_more_than_the_bucket_holds_passes_once_it_is_full() {
        let mut bucket = TokenBucket::new(100, at(0));
        assert!(bucket.try_take_tokens(300, 100, at(0)));
        assert!(!bucket.try_take_tokens(1, 100, at(1999)));
        assert!(!bucket.try_take_tokens(300, 100, at(2500)));
        assert!(bucket.try_take_tokens(300, 100, at(3001)));
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing_twice() {
        let mut bucket = TokenBucket::new(1, at(1000));
        assert!(bucket.try_take_tokens(1, 1, at(1000)));
        assert!(!bucket.try_take_tokens(1, 1, at(500)));
        assert!(!bucket.try_take_tokens(1, 1, at(1000)));
    }

    #[test]
    fn the_tags_that_make_most_series_come_first_and_names_count_too() {
        let series = |n: usize| Series {
            name: format!("requests.{}", n % 3).into(),
            tags: TagSet::from_pairs(vec![
                ("env".to_owned(), "production".to_owned()),
                ("user".to_owned(), n.to_string()),
                ("route".to_owned(), (n % 2).to_string()),
            ]),
            metric_type: MetricType::Counter,
            created: Timestamp::from_secs(0),
        };
        let all: Vec<_> = (0..60).map(series).collect();
        let wide = |key: Option<&str>, values| WideTag { key: key.map(str::to_owned), values, series: 60 };
        let wanted = [wide(Some("user"), 60), wide(None, 3), wide(Some("route"), 2)];
        assert_eq!(widest_tags(&all, 5), wanted);
        assert_eq!(widest_tags(&all, 1), wanted[..1]);
    }
}
