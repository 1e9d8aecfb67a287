//! Draws one series as a line over time.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Widget as _};

use super::super::documents::format_number;
use super::super::scale::{find_scale, find_share};
use crate::model::Timestamp;

/// Columns that a label of the time axis takes, with a gap.
const TIME_LABEL: u16 = 14;
/// Lines between two labels of the value axis.
const VALUE_GAP: u16 = 4;

/// The number of one window.
#[derive(Copy, Clone, Debug)]
pub(in super::super) struct PlotPoint {
    pub(in super::super) start: Timestamp,
    pub(in super::super) end: Timestamp,
    /// Finite.
    pub(in super::super) value: f64,
    /// Whether the window is still open.
    pub(in super::super) open: bool,
}

/// The points and axes of a plot.
pub(in super::super) struct SeriesPlot {
    /// Points of windows that follow each other, as shares of both axes: the chart cannot draw the largest numbers. A missing
    /// window is a gap.
    runs: Vec<Vec<(f64, f64)>>,
    open: Vec<(f64, f64)>,
    time_labels: Vec<String>,
    value_labels: Vec<String>,
}

impl SeriesPlot {
    /// A plot of these points, the oldest first, with as many labels as fit the area.
    pub(in super::super) fn new(points: &[PlotPoint], area: Rect) -> Self {
        let (closed, open): (Vec<PlotPoint>, Vec<PlotPoint>) = points.iter().partition(|point| !point.open);
        let times = find_time_bounds(points);
        let (values, value_labels) = find_value_bounds(points, usize::from((area.height / VALUE_GAP).max(1)));
        let place =
            |point: &PlotPoint| (find_share(to_seconds(point.end), times), find_share(point.value, values));
        Self {
            runs: closed
                .chunk_by(|a, b| b.start.duration_since(a.end).is_zero())
                .map(|run| run.iter().map(place).collect())
                .collect(),
            open: open.iter().map(place).collect(),
            time_labels: label_times(times, usize::from((area.width / TIME_LABEL).clamp(2, 8))),
            value_labels,
        }
    }

    pub(in super::super) fn render_plot(&self, area: Rect, buffer: &mut Buffer) {
        let dimmed = Style::new().add_modifier(Modifier::DIM);
        let line = |data| {
            Dataset::default()
                .data(data)
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(Style::new().fg(Color::Green))
        };
        let mut datasets: Vec<Dataset<'_>> = self.runs.iter().map(|run| line(run.as_slice())).collect();
        // Drawn last, so that the line does not cover it.
        datasets.push(
            Dataset::default()
                .data(&self.open)
                .marker(Marker::Dot)
                .graph_type(GraphType::Scatter)
                .style(Style::new().fg(Color::Yellow)),
        );
        let axis =
            |labels: &[String]| Axis::default().bounds([0.0, 1.0]).labels(labels.to_vec()).style(dimmed);
        Chart::new(datasets)
            .x_axis(axis(&self.time_labels))
            .y_axis(axis(&self.value_labels))
            .legend_position(None)
            .render(area, buffer);
    }
}

fn to_seconds(at: Timestamp) -> f64 {
    at.as_micros() as f64 / 1e6
}

/// The first and the last moment; a single window gets its length on both sides.
fn find_time_bounds(points: &[PlotPoint]) -> [f64; 2] {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return [0.0, 1.0] };
    if first.end < last.end {
        return [to_seconds(first.end), to_seconds(last.end)];
    }
    let length = first.end.duration_since(first.start).as_secs_f64().max(1.0);
    [to_seconds(first.end) - length, to_seconds(first.end) + length]
}

/// Bounds that are multiples of a round step and contain all values and zero, and the labels of the steps.
fn find_value_bounds(points: &[PlotPoint], steps: usize) -> ([f64; 2], Vec<String>) {
    let [low, mut high] = find_scale(points.iter().map(|point| point.value));
    if low >= high {
        high = 1.0;
    }
    let step = round_step((high - low) / steps as f64);
    let bounds = [(low / step).floor() * step, (high / step).ceil() * step];
    // The largest and the smallest numbers have no round steps.
    match bounds.iter().all(|bound| bound.is_finite()) && step.is_finite() {
        true => (bounds, label_values(bounds, step)),
        false => ([low, high], vec![format_number(low), format_number(high)]),
    }
}

/// The smallest of 1, 2, 5 and 10 times a power of ten that is not below this.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= least);
    step.filter(|step| step.is_finite() && *step > 0.0).unwrap_or(least)
}

fn label_values([low, high]: [f64; 2], step: f64) -> Vec<String> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few labels")]
    let count = ((high - low) / step).round().clamp(1.0, 100.0) as usize;
    let label = |n: usize| {
        let value = low + n as f64 * step;
        // A sum of steps can miss zero by a little.
        format_number(if value.abs() < step / 1e6 { 0.0 } else { value })
    };
    (0..=count).map(label).collect()
}

/// Times of day, spread evenly; with the date if the plot covers more than a day.
fn label_times([first, last]: [f64; 2], labels: usize) -> Vec<String> {
    let range = if last - first > 86_400.0 { 5..16 } else { 11..19 };
    (0..labels)
        .map(|n| {
            let at = first + (last - first) * n as f64 / (labels - 1) as f64;
            #[expect(clippy::cast_possible_truncation, reason = "a moment, which is in range")]
            let text = Timestamp::from_secs(at.round() as i64).to_string();
            text.get(range.clone()).unwrap_or_default().replace('T', " ")
        })
        .collect()
}
