//! Taking in windows of an earlier life of the agent.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{History, Inner, Published, Store};
use crate::model::{Allocation, Timestamp};

impl Store {
    /// Takes in windows of an earlier life of the agent, as of `now`. They get places in this life's sequence, in the order
    /// of those they had. A container that is here already stays as it is. Answers the windows, each with the place it had.
    ///
    /// Windows that start after `now` come from a clock that was ahead. They are kept and can be read, and never stand before
    /// windows of this life.
    pub fn adopt_histories(
        &self,
        histories: Vec<(Allocation, History)>,
        now: Timestamp,
    ) -> Vec<(u64, Arc<Published>)> {
        let mut adopted = Vec::new();
        let last = {
            let mut guard = self.write();
            let inner = &mut *guard;
            let (mut all, mut came) = (Vec::new(), BTreeSet::new());
            for (allocation, mut history) in histories {
                if inner.containers.contains_key(&allocation) {
                    continue;
                }
                let _gone = history.drop_beyond(self.keep);
                all.extend(history.take_windows().into_iter().map(|published| (allocation, published)));
                inner.past.add_container(history.origin());
                inner.name_all(&history);
                inner.containers.insert(allocation, Arc::new(history));
                came.insert(allocation);
            }
            all.sort_by_key(|(_, published)| published.first_seq());
            for (allocation, published) in all {
                let Some(history) = inner.containers.get_mut(&allocation) else { continue };
                let old = published.first_seq();
                let published = Arc::new(published.with_place(allocation, inner.last + 1));
                adopted.push((old, Arc::clone(&published)));
                inner.last = published.last_seq();
                inner.log.insert(published.first_seq(), Arc::clone(&published));
                let history = Arc::make_mut(history);
                if published.window().span.start > now {
                    history.keep_ahead(published);
                } else {
                    history.keep_window(published);
                }
            }
            inner.count_alone(came);
            inner.last
        };
        self.newest.send_if_modified(|newest| std::mem::replace(newest, last) != last);
        adopted
    }
}

impl Inner {
    /// Counts what containers hold that came from elsewhere and have no aggregator yet.
    fn count_alone(&mut self, came: BTreeSet<Allocation>) {
        for allocation in came {
            let Some(history) = self.containers.get_mut(&allocation) else { continue };
            let history = Arc::make_mut(history);
            history.set_alone(Some(history.shared_bytes()));
            self.held.add(history.held_bytes());
        }
    }
}
