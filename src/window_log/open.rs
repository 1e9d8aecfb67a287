//! Open windows, as checkpoints left them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::aggregate::{Layout, SeriesState, View, Window, WindowBuilder, WindowSpan};
use crate::model::Timestamp;

/// An open window, put together from what each checkpoint says has changed. Each says all there is of a series, so the
/// last word counts.
#[derive(Debug)]
pub(super) struct OpenWindow {
    /// The life of the agent that it was open in; 0 where that is not known.
    pub(super) epoch: u64,
    span: WindowSpan,
    layout: Layout,
    states: BTreeMap<u32, (SeriesState, f64)>,
}

impl OpenWindow {
    pub(super) fn new(epoch: u64, window: &Window) -> Self {
        let span = WindowSpan { covered: Duration::ZERO, ..window.span };
        let mut open = Self { epoch, span, layout: window.layout().clone(), states: BTreeMap::new() };
        open.add(epoch, window);
        open
    }

    /// Adds what a checkpoint says; a later window takes the place of an earlier one.
    pub(super) fn add(&mut self, epoch: u64, window: &Window) {
        if (epoch, window.span.start) < (self.epoch, self.span.start) {
            return;
        }
        if (epoch, window.span.start) != (self.epoch, self.span.start) {
            *self = Self::new(epoch, window);
            return;
        }
        self.span.covered = self.span.covered.max(window.span.covered);
        self.layout = window.layout().clone();
        for record in window.records() {
            let total = match record.view {
                View::Counter { total, .. } => total,
                _ => 0.0,
            };
            if let Some(state) = record.view.to_state() {
                self.states.insert(record.place, (state, total));
            }
        }
    }

    /// When it started.
    pub(super) fn start(&self) -> Timestamp {
        self.span.start
    }

    /// What it is known to have held.
    pub(super) fn close(self) -> Window {
        let mut builder = WindowBuilder::new(self.span);
        for (place, (state, total)) in &self.states {
            builder.push(*place, state, *total);
        }
        builder.build(self.layout)
    }
}
