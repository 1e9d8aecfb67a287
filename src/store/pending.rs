//! A closed window on its way to the store, while its late samples are merged part by part.

use super::live::LiveBytes;
use super::{Filed, Revised, Store};
use crate::aggregate::{ClosedWindow, Window};
use crate::model::Allocation;

/// A closed window whose late samples are being merged. Its bytes are counted as held from here until it is published.
#[derive(Debug)]
pub struct PendingWindow {
    allocation: Allocation,
    closed: ClosedWindow,
    /// Late samples that are not merged yet, in parts.
    rest: std::vec::IntoIter<Window>,
    merged: Vec<Revised>,
    /// Values of the window and of all late samples that came with it.
    values: u64,
    /// Values of parts that could not be merged.
    lost: u64,
    /// Bytes of the layout, where no window in the store has it.
    layout: usize,
    held: LiveBytes,
}

impl PendingWindow {
    /// Starts with a window that has just been closed.
    #[must_use]
    pub fn new(store: &Store, allocation: Allocation, mut closed: ClosedWindow) -> Self {
        let rest = std::mem::take(&mut closed.revisions);
        let values = closed.values + rest.iter().map(Window::count_values).sum::<u64>();
        let layout = closed.window.layout();
        let known = store.find_history(allocation).is_some_and(|history| history.has_layout(layout));
        let layout = if known { 0 } else { size_of_val(&**layout) };
        let (rest, held) = (rest.into_iter(), store.live_bytes());
        let mut new = Self { allocation, closed, rest, merged: Vec::new(), values, lost: 0, layout, held };
        new.held.set(new.recount_bytes());
        new
    }

    /// Merges one part with what the store has of its interval. Answers whether another part is left.
    pub fn merge_one(&mut self, store: &Store) -> bool {
        let allocation = self.allocation;
        self.merge_one_with(|part| store.merge_late_samples(allocation, part))
    }

    /// The same, merged by a function.
    pub(crate) fn merge_one_with(&mut self, merge: impl FnOnce(&Window) -> Option<Revised>) -> bool {
        if let Some(part) = self.rest.next() {
            // Until it is merged it counts as lost, in case merging panics.
            let values = part.count_values();
            self.lost += values;
            let mut bytes = self.held.get().saturating_sub(part.bytes());
            if let Some(revised) = merge(&part) {
                self.lost -= values;
                bytes += revised.bytes();
                self.merged.push(revised);
            }
            self.held.set(bytes);
        }
        self.rest.len() > 0
    }

    /// Gives up what is not merged yet, which [`PendingWindow::publish_to`] then reports as lost.
    pub fn give_up_rest(&mut self) {
        self.lost += self.rest.by_ref().map(|part| part.count_values()).sum::<u64>();
        self.held.set(self.recount_bytes());
    }

    /// Publishes the revisions and then the window. Parts that were not merged are lost.
    pub fn publish_to(mut self, store: &Store) -> Filed {
        self.give_up_rest();
        let Self { allocation, closed, merged, lost, held, .. } = self;
        let filed = store.publish_held(allocation, closed, merged, Some(held));
        Filed { lost: filed.lost + lost, ..filed }
    }

    /// Values of the window and of all late samples that came with it.
    #[must_use]
    pub fn value_count(&self) -> u64 {
        self.values
    }

    /// Bytes that are held for the container until this is published. Series, events and outcomes of checks are shared with the
    /// aggregator and counted there.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.held.get()
    }

    /// The same, counted anew.
    #[must_use]
    pub fn recount_bytes(&self) -> usize {
        let rest = self.rest.as_slice().iter().map(Window::bytes).sum::<usize>();
        let merged = self.merged.iter().map(Revised::bytes).sum::<usize>();
        self.closed.window.bytes() + self.closed.summary.bytes() + self.layout + rest + merged
    }
}
