//! The series of the task that is open.

use super::super::args::PlotField;
use super::super::live::{LiveSeries, LiveSeriesId, SeriesWindows};
use super::listing::{SortColumn, SortKey, SortedList};
use super::updates::{StreamState, TaskUpdate};

/// A column of the list of series.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum SeriesColumn {
    /// Name and tags.
    Name,
    Type,
    /// Samples per second in the newest window.
    Rate,
    Value,
    P50,
    P95,
    P99,
}

impl SortColumn for SeriesColumn {
    const ALL: &'static [Self] =
        &[Self::Name, Self::Type, Self::Rate, Self::Value, Self::P50, Self::P95, Self::P99];

    fn is_largest_first(self) -> bool {
        !matches!(self, Self::Name | Self::Type)
    }
}

/// The open task.
#[derive(Debug)]
pub(super) struct OpenTask {
    pub(super) task_id: String,
    pub(super) series: LiveSeries,
    pub(super) list: SortedList<LiveSeriesId, SeriesColumn>,
    pub(super) connection: StreamState,
    pub(super) finished: bool,
    pub(super) gap: bool,
    /// What is plotted of the selected series, if it is open.
    pub(super) plot: Option<PlotField>,
}

impl OpenTask {
    pub(super) fn new(task_id: String) -> Self {
        Self {
            task_id,
            series: LiveSeries::default(),
            list: SortedList::new(SeriesColumn::Rate),
            connection: StreamState::Connecting,
            finished: false,
            gap: false,
            plot: None,
        }
    }

    pub(super) fn apply_update(&mut self, update: TaskUpdate) {
        match update {
            TaskUpdate::Connected(records) => {
                self.connection = StreamState::Up;
                self.series.add_records(records);
            }
            TaskUpdate::Window(records) => self.series.add_records(records),
            TaskUpdate::Gap => self.gap = true,
            TaskUpdate::Finished => self.finished = true,
            TaskUpdate::Lost(why) => self.connection = StreamState::Lost(why),
        }
    }

    pub(super) fn arrange_rows(&mut self) {
        let series = &self.series;
        self.list.arrange_rows(series.all_series().keys(), |id, column| {
            let text = format!("{} {} {}", id.name, id.tags, id.metric_type);
            let windows = series.all_series().get(id);
            (
                text,
                windows.map_or(SortKey::from_option(None), |windows| sort_key(series, id, windows, column)),
            )
        });
    }

    /// The selected series.
    pub(super) fn selected_series(&self) -> Option<(&LiveSeriesId, &SeriesWindows)> {
        let id = self.list.selected_key()?;
        Some((id, self.series.all_series().get(id)?))
    }
}

fn sort_key(
    series: &LiveSeries,
    id: &LiveSeriesId,
    windows: &SeriesWindows,
    column: SeriesColumn,
) -> SortKey {
    let newest = windows.newest_reading();
    let agg = newest.map(|reading| &reading.agg);
    match column {
        SeriesColumn::Name => SortKey::Text(format!("{} {}", id.name, id.tags)),
        SeriesColumn::Type => SortKey::Text(id.metric_type.clone()),
        SeriesColumn::Rate => SortKey::Number(series.samples_per_second(id, windows)),
        SeriesColumn::Value => SortKey::from_option(newest.and_then(|reading| reading.value)),
        SeriesColumn::P50 => SortKey::from_option(agg.and_then(|agg| agg.p50)),
        SeriesColumn::P95 => SortKey::from_option(agg.and_then(|agg| agg.p95)),
        SeriesColumn::P99 => SortKey::from_option(agg.and_then(|agg| agg.p99)),
    }
}
