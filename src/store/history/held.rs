//! Incremental accounting of the bytes held for a container's windows and their metadata.

use std::collections::HashSet;
use std::sync::Arc;

use super::{History, Published, StoredWindow};
use crate::aggregate::{ContainerSummary, Layout, Window};

/// How much is held of one container, or of all.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub(in crate::store) struct HeldBytes {
    /// Windows, revisions included.
    pub(in crate::store) windows: usize,
    /// Their bytes.
    pub(in crate::store) bytes: usize,
    /// Other bytes: places in the sequence, layouts, and the container's summary; for a container that has ended, also
    /// what it shared with its aggregator.
    pub(in crate::store) beside: usize,
}

/// The layouts of windows, each with its number of holders. Most windows of a container share one.
#[derive(Clone, Default, Debug)]
pub(super) struct Layouts(Vec<(Layout, usize)>);

impl HeldBytes {
    pub(in crate::store) fn add(&mut self, other: Self) {
        self.windows += other.windows;
        self.bytes += other.bytes;
        self.beside += other.beside;
    }

    pub(in crate::store) fn remove(&mut self, other: Self) {
        self.windows = self.windows.saturating_sub(other.windows);
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.beside = self.beside.saturating_sub(other.beside);
    }

    /// All bytes.
    pub(in crate::store) fn total_bytes(self) -> usize {
        self.bytes + self.beside
    }
}

impl Layouts {
    /// Adds a holder of a layout; returns the bytes by which this grew.
    fn add_holder(&mut self, layout: &Layout) -> usize {
        match self.0.iter_mut().rev().find(|(known, _)| Arc::ptr_eq(known, layout)) {
            Some((_, holders)) => {
                *holders += 1;
                0
            }
            None => {
                self.0.push((Arc::clone(layout), 1));
                size_of_val(&**layout)
            }
        }
    }

    /// Removes a holder; returns the bytes by which this shrank.
    fn give_back(&mut self, layout: &Layout) -> usize {
        let Some(at) = self.0.iter().position(|(known, _)| Arc::ptr_eq(known, layout)) else { return 0 };
        match self.0.get_mut(at) {
            Some((_, holders)) if *holders > 1 => {
                *holders -= 1;
                0
            }
            _ => {
                self.0.remove(at);
                size_of_val(&**layout)
            }
        }
    }
}

impl Published {
    /// The memory it takes, without its layout.
    pub(in crate::store) fn held_bytes(&self) -> HeldBytes {
        let beside = size_of::<Self>() - size_of::<Window>() + size_of_val(&*self.kept.revs);
        let bytes = self.kept.window.bytes() + self.kept.added_bytes();
        HeldBytes { windows: 1, bytes, beside }
    }
}

impl StoredWindow {
    /// Bytes of what was added, without its layout, which is the window's.
    pub(in crate::store) fn added_bytes(&self) -> usize {
        self.added.as_ref().map_or(0, |added| added.bytes())
    }
}

impl History {
    /// How much is held, as of now.
    pub(in crate::store) fn held_bytes(&self) -> HeldBytes {
        self.held
    }

    /// Notes a window that has come.
    pub(super) fn count_in(&mut self, published: &Published) {
        self.held.add(published.held_bytes());
        self.held.beside += self.layouts.add_holder(published.window().layout());
    }

    /// Notes a window that has gone.
    pub(super) fn count_out(&mut self, published: &Published) {
        self.held.remove(published.held_bytes());
        self.held.beside -= self.layouts.give_back(published.window().layout());
    }

    /// Replaces the container's summary; returns the previous one.
    pub(in crate::store) fn set_summary(&mut self, summary: ContainerSummary) -> Option<ContainerSummary> {
        self.held.beside += summary.bytes() + self.layouts.add_holder(summary.ledger.layout());
        let before = self.summary.replace(summary);
        if let Some(before) = &before {
            let gone = before.bytes() + self.layouts.give_back(before.ledger.layout());
            self.held.beside = self.held.beside.saturating_sub(gone);
        }
        before
    }

    /// Sets whether the container has an aggregator, with which it shares series, events and outcomes of checks: `None`
    /// if it has, otherwise the bytes of these.
    pub(in crate::store) fn set_alone(&mut self, shared: Option<usize>) {
        let (now, before) = (shared.unwrap_or(0), self.alone.unwrap_or(0));
        self.held.beside = (self.held.beside + now).saturating_sub(before);
        self.alone = shared;
    }

    /// Whether its container has ended, or is not served yet after a restart.
    pub(in crate::store) fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// Whether a window or the ledger has this layout, so that its bytes are counted here.
    pub(in crate::store) fn has_layout(&self, layout: &Layout) -> bool {
        self.layouts.0.iter().any(|(known, _)| Arc::ptr_eq(known, layout))
    }

    /// Bytes that are shared with the aggregator while there is one. Walks over every series.
    pub(in crate::store) fn shared_bytes(&self) -> usize {
        let mut seen = HashSet::new();
        let layouts = self.layouts.0.iter().flat_map(|(layout, _)| layout.iter().flatten());
        let summary = self.summary.as_ref();
        let checks = summary.iter().flat_map(|summary| summary.checks.iter().map(|check| &check.series));
        let lasting = summary.iter().flat_map(|summary| summary.lasting.iter().map(|last| &last.series));
        let series = layouts.chain(checks).chain(lasting);
        let series = series.filter(|series| seen.insert(Arc::as_ptr(series).addr()));
        series.map(|series| series.bytes()).sum::<usize>() + summary.map_or(0, ContainerSummary::shared_bytes)
    }

    /// Recounts how much is held. Walks over every window.
    pub(in crate::store) fn recount_held_bytes(&self) -> HeldBytes {
        let mut held = HeldBytes::default();
        let mut seen = HashSet::new();
        let published = || self.published_windows();
        published().for_each(|published| held.add(published.held_bytes()));
        let windows = published().map(|published| published.window().layout());
        let layouts = windows.chain(self.summary.iter().map(|summary| summary.ledger.layout()));
        let layouts = layouts.filter(|layout| seen.insert(Arc::as_ptr(layout).cast::<()>().addr()));
        held.beside += layouts.map(|layout| size_of_val(&**layout)).sum::<usize>();
        held.beside += self.summary.as_ref().map_or(0, ContainerSummary::bytes);
        held.beside += if self.alone.is_some() { self.shared_bytes() } else { 0 };
        held
    }
}
