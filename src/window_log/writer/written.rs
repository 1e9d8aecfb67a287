//! What the log has of a container beside its windows, to write only what is new.

use std::collections::HashSet;
use std::sync::Arc;

use crate::aggregate::{ContainerSummary, Habits, LastCheck, Lasting};
use crate::model::Timestamp;

/// What is written of one container.
#[derive(Debug)]
pub(super) struct WrittenSummary {
    lasting: Arc<[Lasting]>,
    /// The outcomes that came before the newest window.
    checks: Vec<LastCheck>,
    pub(super) habits: Habits,
}

impl WrittenSummary {
    /// What there is to write. Outcomes in the newest window, which starts at `newest`, are written with it.
    pub(super) fn from_summary(summary: &ContainerSummary, newest: Option<Timestamp>) -> Self {
        let before = |check: &&LastCheck| newest.is_none_or(|start| check.at < start);
        let checks = summary.checks.iter().filter(before).cloned().collect();
        Self { lasting: Arc::clone(&summary.lasting), checks, habits: summary.habits }
    }

    /// Whether there is nothing to say of the container.
    pub(super) fn is_nothing(&self) -> bool {
        self.lasting.is_empty() && self.checks.is_empty() && self.habits.is_equivalent_to(&Habits::default())
    }

    /// Whether both say the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lasting, &other.lasting)
            && self.habits.is_equivalent_to(&other.habits)
            && self.checks.len() == other.checks.len()
            && self.checks.iter().map(check_key).eq(other.checks.iter().map(check_key))
    }

    /// What is in this and not in what was written before.
    pub(super) fn changes_since(&self, before: Option<&Self>) -> (Vec<Lasting>, Vec<LastCheck>) {
        let lasting = before.into_iter().flat_map(|before| before.lasting.iter()).map(lasting_key);
        let lasting: HashSet<_> = lasting.collect();
        let checks = before.into_iter().flat_map(|before| before.checks.iter()).map(check_key);
        let checks: HashSet<_> = checks.collect();
        (
            self.lasting.iter().filter(|last| !lasting.contains(&lasting_key(last))).cloned().collect(),
            self.checks.iter().filter(|check| !checks.contains(&check_key(check))).cloned().collect(),
        )
    }
}

/// Series are held by both sides that are compared, so an address is that of one series alone.
fn lasting_key(last: &Lasting) -> (usize, u64, Timestamp) {
    (Arc::as_ptr(&last.series).addr(), last.value.to_bits(), last.at)
}

fn check_key(check: &LastCheck) -> (usize, Timestamp) {
    (Arc::as_ptr(&check.series).addr(), check.at)
}
