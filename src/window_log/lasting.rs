//! What has to be known of a container beside its windows, as it was last written.

use std::collections::HashMap;
use std::sync::Arc;

use crate::aggregate::{CheckOutcome, Habits, LastCheck, Lasting, View, Window};
use crate::model::{ByIdentity, MetricType, Series, Timestamp};

/// The newest of what was written, by series.
#[derive(Default, Debug)]
pub(super) struct Lasts {
    lasting: HashMap<ByIdentity, Lasting>,
    checks: HashMap<ByIdentity, LastCheck>,
    habits: Habits,
}

impl Lasts {
    /// Adds an entry; `None` when it makes no sense.
    pub(super) fn add(
        &mut self,
        lasting: Vec<Lasting>,
        checks: Vec<(Arc<Series>, Timestamp, Arc<CheckOutcome>)>,
        habits: Habits,
    ) -> Option<()> {
        let sound = lasting.iter().all(Lasting::is_plausible)
            && checks.iter().all(|(series, ..)| series.metric_type == MetricType::ServiceCheck);
        if !sound {
            return None;
        }
        for last in lasting {
            let known =
                self.lasting.entry(ByIdentity(Arc::clone(&last.series))).or_insert_with(|| last.clone());
            if known.at <= last.at {
                *known = last;
            }
        }
        for (series, at, outcome) in checks {
            self.add_check(LastCheck { series, at, outcome });
        }
        self.habits = habits;
        Some(())
    }

    /// Adds what was written of the same container under another key that is void.
    pub(super) fn merge(&mut self, older: Self) {
        for (key, last) in older.lasting {
            self.lasting.entry(key).or_insert(last);
        }
        older.checks.into_values().for_each(|check| self.add_check(check));
        if self.habits == Habits::default() {
            self.habits = older.habits;
        }
    }

    /// Adds the outcomes of checks that a window has.
    pub(super) fn checks_of(&mut self, window: &Window) {
        for record in window.records() {
            if let View::Check { last_at: at, outcome, .. } = record.view {
                let (series, outcome) = (Arc::clone(record.series), Arc::clone(outcome));
                self.add_check(LastCheck { series, at, outcome });
            }
        }
    }

    fn add_check(&mut self, check: LastCheck) {
        let known = self.checks.entry(ByIdentity(Arc::clone(&check.series))).or_insert_with(|| check.clone());
        if known.at <= check.at {
            *known = check;
        }
    }

    /// All of it, in the order of names.
    pub(super) fn into_parts(self) -> (Vec<LastCheck>, Vec<Lasting>, Habits) {
        let mut checks: Vec<_> = self.checks.into_values().collect();
        checks.sort_by(|a, b| (&a.series.name, &a.series.tags).cmp(&(&b.series.name, &b.series.tags)));
        (checks, self.lasting.into_values().collect(), self.habits)
    }
}
