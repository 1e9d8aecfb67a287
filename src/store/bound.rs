//! How many entries of a kind are remembered, where that number can change while the agent runs.

/// How many entries are forgotten at once beyond those that are too many: forgetting happens under the store's lock, for which shards
/// wait.
const STEP: usize = 1000;

/// A bound on remembered entries. One that is lowered comes into force in steps, each with the next entries that come.
#[derive(Debug)]
pub(super) struct RememberedBound {
    in_force: usize,
    configured: usize,
}

impl RememberedBound {
    pub(super) const fn new(most: usize) -> Self {
        Self { in_force: most, configured: most }
    }

    pub(super) fn set(&mut self, most: usize) {
        self.configured = most;
        self.in_force = self.in_force.max(most);
    }

    /// How many to keep of `len` entries if they are too many: fewer than the bound, so that this is rare.
    pub(super) fn target(&mut self, len: usize) -> Option<usize> {
        self.in_force = self.configured.max(self.in_force.min(len).saturating_sub(STEP));
        (len > self.in_force).then(|| self.in_force - (self.in_force / 10).min(STEP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_goes_at_once_and_never_more_than_a_step_beyond_what_is_too_much() {
        assert_eq!(RememberedBound::new(100).target(100), None);
        assert_eq!(RememberedBound::new(100).target(101), Some(90));
        assert_eq!(RememberedBound::new(100_000).target(100_010), Some(99_000));
    }

    #[test]
    fn a_bound_that_is_lowered_comes_into_force_in_steps() {
        let mut bound = RememberedBound::new(100_000);
        bound.set(100);
        let mut len = 5000;
        let mut steps = 0;
        while let Some(target) = bound.target(len) {
            assert!(len - target <= 2 * STEP, "{len} to {target}");
            len = target;
            steps += 1;
        }
        assert!((80..=100).contains(&len) && steps >= 3, "{len} after {steps}");
        bound.set(10_000);
        assert_eq!(bound.target(9000), None, "one that is raised is in force at once");
    }
}
