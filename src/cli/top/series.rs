//! The series of the task that is open.

use super::super::args::PlotField;
use super::super::listing::SortCell;
use super::super::live::{LiveSeries, LiveSeriesId, SeriesWindows};
use super::listing::{SortColumn, SortedList};
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
    /// The only container that is shown, if that was named in place of the task.
    pub(super) container: Option<String>,
    pub(super) series: LiveSeries,
    pub(super) list: SortedList<LiveSeriesId, SeriesColumn>,
    pub(super) connection: StreamState,
    pub(super) finished: bool,
    pub(super) gap: bool,
    /// Whether no window has arrived on this connection yet.
    reconnected: bool,
    /// What is plotted of the selected series, if it is open.
    pub(super) plot: Option<PlotField>,
}

impl OpenTask {
    pub(super) fn new(task_id: String, container: Option<String>) -> Self {
        Self {
            task_id,
            container,
            series: LiveSeries::default(),
            list: SortedList::new(SeriesColumn::Rate),
            connection: StreamState::Connecting,
            finished: false,
            gap: false,
            reconnected: false,
            plot: None,
        }
    }

    pub(super) fn apply_update(&mut self, update: TaskUpdate) {
        match update {
            TaskUpdate::Connected(records) => {
                self.connection = StreamState::Up;
                self.finished = false;
                self.reconnected = true;
                self.series.add_records(records);
            }
            TaskUpdate::Window(records) => {
                self.reconnected = false;
                self.series.add_records(records);
            }
            // The windows that are kept have just been read.
            TaskUpdate::Gap => self.gap |= !self.reconnected,
            TaskUpdate::Finished => self.finished = true,
            TaskUpdate::Lost(why) => self.connection = StreamState::Lost(why),
        }
    }

    pub(super) fn arrange_rows(&mut self) {
        let series = &self.series;
        self.list.arrange_rows(series.all_series().keys(), |id, column| {
            let text = format!("{} {} {}", id.name, id.tags, id.metric_type);
            let windows = series.all_series().get(id);
            (text, windows.map_or(SortCell::Missing, |windows| sort_cell(series, id, windows, column)))
        });
    }

    /// The selected series.
    pub(super) fn selected_series(&self) -> Option<(&LiveSeriesId, &SeriesWindows)> {
        let id = self.list.selected_key()?;
        Some((id, self.series.all_series().get(id)?))
    }
}

fn sort_cell(
    series: &LiveSeries,
    id: &LiveSeriesId,
    windows: &SeriesWindows,
    column: SeriesColumn,
) -> SortCell<'static> {
    let newest = windows.newest_reading();
    let agg = newest.map(|reading| &reading.agg);
    match column {
        SeriesColumn::Name => SortCell::Text(format!("{} {}", id.name, id.tags).into()),
        SeriesColumn::Type => SortCell::Text(id.metric_type.clone().into()),
        SeriesColumn::Rate => SortCell::Number(series.samples_per_second(id, windows)),
        SeriesColumn::Value => SortCell::from_number(newest.and_then(|reading| reading.value)),
        SeriesColumn::P50 => SortCell::from_number(agg.and_then(|agg| agg.p50)),
        SeriesColumn::P95 => SortCell::from_number(agg.and_then(|agg| agg.p95)),
        SeriesColumn::P99 => SortCell::from_number(agg.and_then(|agg| agg.p99)),
    }
}

/// Whether any series has something to show in this column: a name, or a number that is not zero.
pub(super) fn has_content(series: &LiveSeries, column: SeriesColumn) -> bool {
    let mut all = series.all_series().iter();
    all.any(|(id, windows)| sort_cell(series, id, windows, column).has_content())
}
