//! `tallyport metrics plot`: one series over its kept windows and the open one.

mod drawing;

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

pub(super) use drawing::{PlotPoint, SeriesPlot};

use super::args::{PlotArgs, PlotField};
use super::documents::{format_number, render_sparkline};
use super::encoding::{encode_query, encode_segment};
use super::failure::{Failure, code};
use super::live::{LiveRecord, LiveSeries, LiveSeriesId, SeriesWindows, WindowReading};
use super::output::Console;
use super::resolve::{FoundTask, find_task, parse_response};
use super::screen::{cut_text, read_screen_size};
use super::text::SafeText;
use crate::wire::TaskMetrics;

/// Columns and lines of a plot in a pipe.
const IN_A_PIPE: (usize, usize) = (80, 20);
/// Lines of a plot on a high terminal.
const HIGHEST: usize = 30;
/// Columns and lines below which a sparkline takes the place of the plot.
const SMALLEST: (usize, usize) = (30, 9);
/// The share of its length after which an open window has a rate. Before, a single burst divided by a fraction of a second is far
/// from the rate of the window, and sets the scale of the plot.
const RATED_FROM: f64 = 0.25;
/// Maximum number of series listed if several match.
const LISTED: usize = 20;

pub(super) async fn plot_series(args: &PlotArgs, out: &mut Console) -> Result<(), Failure> {
    let client = args.client.build_client()?;
    let found = find_task(&client, &args.pod.of, &args.task_id).await?;
    let filters = plot_query(args, &found)?;
    let task = &found.task;
    let mut live = LiveSeries::default();
    for window in ["all", "open"] {
        let filters = filters.iter().map(|(key, value)| (*key, value.as_str()));
        let query = encode_query(filters.chain([("window", window)]));
        let path = format!("/v1/tasks/{}/metrics{query}", encode_segment(&task.task_id));
        let TaskMetrics::<LiveRecord> { metrics, .. } = parse_response(&client.get(&path).await?)?;
        live.add_records(metrics);
    }
    let fits = |id: &LiveSeriesId| args.metric_type.as_deref().is_none_or(|wanted| id.metric_type == wanted);
    let matching: Vec<_> = live.all_series().iter().filter(|(id, _)| fits(id)).collect();
    let (id, windows) = choose_series(args, &task.task_id, &matching)?;
    let points = collect_points(args.field, id, windows)?;
    if matching.len() > 1 {
        out.write_stderr_line(format!(
            "{} more series of this name have other tags; --tag chooses one of them",
            matching.len() - 1
        ));
    }
    print_plot(args.field, id, windows, &points, out)?;
    found.report_part(out);
    Ok(())
}

fn plot_query(args: &PlotArgs, found: &FoundTask) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut pairs = vec![("name", args.name.clone())];
    pairs.extend(args.tag.iter().map(|tag| ("tag", tag.clone())));
    pairs.extend(found.container_filters(&args.pod, &args.container)?);
    Ok(pairs)
}

type Match<'a> = (&'a LiveSeriesId, &'a SeriesWindows);

/// The only series that matches; of several, the one that has the requested tags and no others.
fn choose_series<'a>(args: &PlotArgs, task_id: &str, matching: &[Match<'a>]) -> Result<Match<'a>, Failure> {
    match matching {
        [] => {
            let message = format!("task {task_id} has no series that matches {:?}", args.name);
            Err(Failure::new(code::NO_DATA, message)
                .with_hint(format!("`tallyport explain {task_id} {}` shows how far it gets", args.name)))
        }
        [only] => Ok(*only),
        several => {
            let requested: Vec<String> = args.tag.iter().map(|tag| tag.replacen('=', ":", 1)).collect();
            let has_these = |id: &LiveSeriesId| {
                let mut tags: Vec<&str> = id.tags.split(',').filter(|tag| !tag.is_empty()).collect();
                let mut wanted: Vec<&str> = requested.iter().map(String::as_str).collect();
                tags.sort_unstable();
                wanted.sort_unstable();
                tags == wanted
            };
            let mut exact = several.iter().filter(|(id, _)| has_these(id));
            match (exact.next(), exact.next()) {
                (Some(only), None) => Ok(*only),
                _ => Err(ambiguous_series(&args.name, several)),
            }
        }
    }
}

fn ambiguous_series(name: &str, several: &[Match<'_>]) -> Failure {
    let mut lines: Vec<String> = several
        .iter()
        .take(LISTED)
        .map(|(id, windows)| {
            let tags = if id.tags.is_empty() { "no tags" } else { &id.tags };
            format!("    {}  {}  {tags}  container {}", id.name, id.metric_type, windows.container_name)
        })
        .collect();
    if several.len() > LISTED {
        lines.push(format!("    … and {} more", several.len() - LISTED));
    }
    let message = format!("{} series match {name:?}:\n{}", several.len(), lines.join("\n"));
    Failure::new(code::AMBIGUOUS, message)
        .with_hint("choose one with --tag K=V, --type TYPE or --container ID")
}

/// The field in each window that has it.
fn collect_points(
    field: PlotField,
    id: &LiveSeriesId,
    windows: &SeriesWindows,
) -> Result<Vec<PlotPoint>, Failure> {
    let points: Vec<PlotPoint> = list_points(field, windows);
    if !points.is_empty() {
        return Ok(points);
    }
    let has = |field: &&PlotField| !list_points(**field, windows).is_empty();
    let fields: Vec<&str> = PlotField::ALL.iter().filter(has).map(|field| field.as_word()).collect();
    let message = format!("a {} has no {}", id.metric_type, field.as_word());
    Err(match fields.is_empty() {
        true => Failure::new(code::NO_DATA, message),
        false => Failure::usage_error(message).with_hint(format!("--field can be {}", fields.join(", "))),
    })
}

pub(super) fn list_points(field: PlotField, windows: &SeriesWindows) -> Vec<PlotPoint> {
    let point = |reading: &WindowReading| {
        let value = read_field(field, reading).filter(|value| value.is_finite())?;
        Some(PlotPoint { start: reading.start, end: reading.end, value, open: reading.open })
    };
    windows.kept_readings().iter().filter_map(point).collect()
}

/// Whether a window has only just opened.
fn is_too_young(reading: &WindowReading) -> bool {
    let length = reading.end.duration_since(reading.start).as_secs_f64();
    reading.open && reading.covered < RATED_FROM * length
}

fn read_field(field: PlotField, reading: &WindowReading) -> Option<f64> {
    let agg = &reading.agg;
    let count = agg.count.or(agg.samples);
    match field {
        PlotField::Value => reading.value,
        PlotField::Rate if is_too_young(reading) => None,
        PlotField::Rate => agg.rate.or_else(|| Some(count? / Some(reading.covered).filter(|s| *s > 0.0)?)),
        PlotField::Count => count,
        PlotField::P50 => agg.p50,
        PlotField::P95 => agg.p95,
        PlotField::P99 => agg.p99,
        PlotField::Max => agg.max,
    }
}

/// What a field is of a series of this type, such as `mean, ms`.
pub(super) fn describe_field(field: PlotField, metric_type: &str, unit: &str) -> String {
    let (what, has_unit) = match (field, metric_type) {
        (PlotField::Value, "counter") => ("sum in each window", true),
        (PlotField::Value, "gauge") => ("last level in each window", true),
        (PlotField::Value, "timer" | "histogram" | "distribution") => ("mean", true),
        (PlotField::Value, "set") => ("different values in each window", false),
        (PlotField::Value, _) => ("value", true),
        (PlotField::Rate, "counter") => ("sum per second", true),
        (PlotField::Rate, _) => ("values per second", false),
        (PlotField::Count, _) => ("values in each window", false),
        (other, _) => (other.as_word(), true),
    };
    if has_unit && !unit.is_empty() { format!("{what}, {unit}") } else { what.to_owned() }
}

fn print_plot(
    field: PlotField,
    id: &LiveSeriesId,
    windows: &SeriesWindows,
    points: &[PlotPoint],
    out: &mut Console,
) -> std::io::Result<()> {
    let (width, height) =
        read_screen_size(out).map_or(IN_A_PIPE, |(width, height)| (width, height.min(HIGHEST)));
    let described = describe_field(field, &id.metric_type, &windows.unit);
    let tags = if id.tags.is_empty() { String::new() } else { format!("  {}", id.tags) };
    let title = format!("{}  {described}{tags}", id.name);
    let facts = describe_points(points);
    let fit = |text: &str| match out.is_terminal() {
        true => cut_text(text, width),
        false => SafeText::from(text).as_str().to_owned(),
    };
    let mut lines = vec![out.style_bold(fit(&title))];
    if width < SMALLEST.0 || height < SMALLEST.1 {
        lines.push(render_points(points, width).into());
    } else {
        // The title, the line of facts, and the line of the next prompt.
        let area = Rect::new(0, 0, to_cells(width), to_cells(height - 3));
        let mut buffer = Buffer::empty(area);
        SeriesPlot::new(points, area).render_plot(area, &mut buffer);
        lines.extend((0..area.height).map(|y| style_row(&buffer, y, out)));
    }
    lines.push(out.style_dimmed(fit(&facts)));
    out.write_lines(lines.into_iter())
}

fn to_cells(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

/// The last, lowest and highest point, and what the open window has so far.
pub(super) fn describe_points(points: &[PlotPoint]) -> String {
    let closed = || points.iter().filter(|point| !point.open);
    let mut parts = Vec::new();
    if let Some(last) = closed().next_back() {
        let (low, high) = closed().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| {
            (low.min(point.value), high.max(point.value))
        });
        parts.push(format!("last {}", format_number(last.value)));
        parts.push(format!("min {}", format_number(low)));
        parts.push(format!("max {}", format_number(high)));
    }
    if let Some(open) = points.iter().find(|point| point.open) {
        parts.push(format!("open • {}", format_number(open.value)));
    }
    if let Some(last) = points.last() {
        let length = format_number(last.end.duration_since(last.start).as_secs_f64());
        parts.push(format!("windows of {length} s: {}, UTC", closed().count()));
    }
    parts.join("  ")
}

/// The newest points in one line.
pub(super) fn render_points(points: &[PlotPoint], width: usize) -> String {
    let newest = points.get(points.len().saturating_sub(width)..).unwrap_or_default();
    render_sparkline(&newest.iter().map(|point| Some(point.value)).collect::<Vec<_>>())
}

/// A line of the plot with the styles of this program.
fn style_row(buffer: &Buffer, y: u16, out: &Console) -> SafeText {
    let cells: Vec<&Cell> = (0..buffer.area.width).filter_map(|x| buffer.cell((x, y))).collect();
    let used = cells.iter().rposition(|cell| cell.symbol() != " ").map_or(0, |last| last + 1);
    let runs =
        cells.get(..used).unwrap_or_default().chunk_by(|a, b| (a.fg, a.modifier) == (b.fg, b.modifier));
    runs.fold(SafeText::default(), |line, run| {
        let text: String = run.iter().map(|cell| cell.symbol()).collect();
        line + match run.first().map(|cell| (cell.fg, cell.modifier)) {
            Some((Color::Green, _)) => out.style_success(text),
            Some((Color::Yellow, _)) => out.style_warning(text),
            Some((_, modifier)) if modifier.contains(Modifier::DIM) => out.style_dimmed(text),
            _ => text.into(),
        }
    })
}

#[cfg(test)]
mod tests;
