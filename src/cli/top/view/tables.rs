//! The two lists.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table};

use super::super::super::args::TaskColumn;
use super::super::super::cells::{count_cells, cut_middle_to_cells};
use super::super::super::documents::{format_elapsed, render_sparkline};
use super::super::super::live::{LiveSeries, LiveSeriesId, SeriesWindows};
use super::super::super::screen::{clean_text, cut_text};
use super::super::super::table::ColumnRank;
use super::super::super::units::Precision;
use super::super::listing::{SortColumn, SortedList};
use super::super::series::{OpenTask, SeriesColumn, has_content};
use super::super::tasks::{ObservedTask, TaskList};
use super::columns::{ColumnWidth, GAP, choose_columns};
use super::words::{format_count, format_rate};
use crate::model::Timestamp;

/// What a list shows beside names: a column to sort by, or one that it cannot be sorted by.
#[derive(Copy, Clone, PartialEq, Debug)]
enum Shown<C> {
    Sortable(C),
    Trend,
    Container,
}

const fn column<C: Copy>(column: C, width: u16, rank: ColumnRank) -> ColumnWidth<Shown<C>> {
    ColumnWidth { column: Shown::Sortable(column), width, widest: width, rank, has_content: true }
}

const fn trend<C: Copy>() -> ColumnWidth<Shown<C>> {
    ColumnWidth { column: Shown::Trend, width: 16, widest: 30, rank: ColumnRank::Trend, has_content: true }
}

const TASK_COLUMNS: [ColumnWidth<Shown<TaskColumn>>; 8] = [
    column(TaskColumn::State, 9, ColumnRank::State),
    trend(),
    column(TaskColumn::Values, 9, ColumnRank::Rate),
    column(TaskColumn::Series, 7, ColumnRank::Series),
    column(TaskColumn::Dropped, 8, ColumnRank::Dropped),
    column(TaskColumn::Rejected, 9, ColumnRank::Rejected),
    column(TaskColumn::Folded, 7, ColumnRank::Folded),
    column(TaskColumn::Last, 5, ColumnRank::Last),
];

const SERIES_COLUMNS: [ColumnWidth<Shown<SeriesColumn>>; 8] = [
    column(SeriesColumn::Type, 13, ColumnRank::Type),
    trend(),
    column(SeriesColumn::Rate, 9, ColumnRank::Rate),
    column(SeriesColumn::Value, 10, ColumnRank::Value),
    column(SeriesColumn::P50, 7, ColumnRank::P50),
    column(SeriesColumn::P95, 7, ColumnRank::P95),
    column(SeriesColumn::P99, 7, ColumnRank::P99),
    ColumnWidth {
        column: Shown::Container,
        width: 12,
        widest: 24,
        rank: ColumnRank::Container,
        has_content: true,
    },
];

const NO_MATCH: &str = "no row contains the words of the filter";
const DIM: Style = Style::new().add_modifier(Modifier::DIM);

pub(super) fn draw_tasks(
    frame: &mut Frame<'_>,
    area: Rect,
    list: &mut SortedList<String, TaskColumn>,
    tasks: &TaskList,
) {
    let now = tasks.shown_at();
    let (sort, reversed, filtered) = (list.sort, list.reversed, !list.filter.is_empty());
    let (page, selected) = list.page_of(usize::from(area.height.saturating_sub(1)));
    let names: Vec<String> = page.iter().map(|id| clean_text(id)).collect();
    let longest = names.iter().map(|name| count_cells(name)).max().unwrap_or(0);
    let (columns, width) =
        choose_columns(&list_task_columns(tasks, sort), Shown::Sortable(sort), longest, area.width);
    let heading = |shown| match shown {
        Shown::Sortable(column) => task_heading(column),
        _ => "TREND",
    };
    let head = build_head(("TASK", TaskColumn::Task), sort, reversed, &columns, heading);
    let rows = page.iter().zip(&names).map(|(id, name)| {
        let name = Cell::from(cut_middle_to_cells(name, usize::from(width)));
        match tasks.all_tasks().get(id) {
            Some(task) => {
                let cells = columns.iter().map(|column| task_cell(task, column.column, column.width, now));
                let style = if task.row.finished { DIM } else { Style::new() };
                Row::new(std::iter::once(name).chain(cells)).style(style)
            }
            None => Row::new([name]),
        }
    });
    let empty = match (now.is_some(), filtered) {
        (_, true) => NO_MATCH,
        (true, false) => "no task yet: `tallyport run -- COMMAND` starts one with a socket",
        (false, false) => "",
    };
    let contents = TableContents { head, rows: rows.collect(), columns: &columns, width, selected, empty };
    draw_table(frame, area, contents);
}

/// The columns that may be shown. Where no value was folded there is no such column, as in `tallyport tasks`.
fn list_task_columns(tasks: &TaskList, sort: TaskColumn) -> Vec<ColumnWidth<Shown<TaskColumn>>> {
    let ranked = TASK_COLUMNS.into_iter().filter_map(|column| {
        let has_content = match column.column {
            Shown::Sortable(sortable) => tasks.has_content(sortable),
            // It repeats VALUES/S, so even a loss of zero says more.
            _ => false,
        };
        let is_optional = column.column == Shown::Sortable(TaskColumn::Folded) && sort != TaskColumn::Folded;
        (has_content || !is_optional).then_some(ColumnWidth { has_content, ..column })
    });
    ranked.collect()
}

const fn task_heading(column: TaskColumn) -> &'static str {
    match column {
        TaskColumn::Task => "TASK",
        TaskColumn::State => "STATE",
        TaskColumn::Values => "VALUES/S",
        TaskColumn::Series => "SERIES",
        TaskColumn::Dropped => "DROPPED",
        TaskColumn::Rejected => "REJECTED",
        TaskColumn::Folded => "FOLDED",
        TaskColumn::Last => "LAST",
    }
}

fn task_cell(
    task: &ObservedTask,
    shown: Shown<TaskColumn>,
    width: u16,
    now: Option<Timestamp>,
) -> Cell<'static> {
    let row = &task.row;
    let Shown::Sortable(column) = shown else { return trend_cell(&task.list_rates(), width) };
    match column {
        TaskColumn::Task => Cell::default(),
        TaskColumn::State => Cell::from(clean_text(&row.state)).style(state_style(&row.state)),
        TaskColumn::Values => number_cell(format_rate(task.values_per_second()), Style::new()),
        TaskColumn::Series => number_cell(format_count(row.series as u64), Style::new()),
        TaskColumn::Dropped => loss_cell(task.count_dropped(), Color::Red),
        TaskColumn::Rejected => loss_cell(row.rejected, Color::Yellow),
        TaskColumn::Folded => loss_cell(row.folded, Color::Yellow),
        TaskColumn::Last => {
            let last = row.last_datagram.zip(now).map(|(last, now)| format_elapsed(now, last));
            number_cell(last.unwrap_or_else(|| "-".to_owned()), Style::new())
        }
    }
}

fn state_style(state: &str) -> Style {
    match state {
        "lost" | "mute" => Style::new().fg(Color::Red),
        "listening" => Style::new().fg(Color::Green),
        _ => Style::new(),
    }
}

pub(super) fn draw_series(frame: &mut Frame<'_>, area: Rect, open: &mut OpenTask) {
    let (sort, reversed, filtered) = (open.list.sort, open.list.reversed, !open.list.filter.is_empty());
    let series = &open.series;
    let possible = list_series_columns(series);
    let (page, selected) = open.list.page_of(usize::from(area.height.saturating_sub(1)));
    let names: Vec<Line<'static>> = page.iter().map(name_with_tags).collect();
    let longest = names.iter().map(Line::width).max().unwrap_or(0);
    let (columns, width) = choose_columns(&possible, Shown::Sortable(sort), longest, area.width);
    let heading = |shown| match shown {
        Shown::Sortable(column) => series_heading(column),
        Shown::Trend => "TREND",
        Shown::Container => "CONTAINER",
    };
    let head = build_head(("NAME", SeriesColumn::Name), sort, reversed, &columns, heading);
    let rows = page.iter().map(|id| {
        let name = Cell::from(cut_name(id, usize::from(width)));
        match series.all_series().get(id) {
            Some(windows) => {
                let cells = columns.iter().map(|column| series_cell(series, id, windows, *column));
                Row::new(std::iter::once(name).chain(cells))
            }
            None => Row::new([name]),
        }
    });
    let empty = if filtered { NO_MATCH } else { "no window yet; the first one appears when it closes" };
    let contents = TableContents { head, rows: rows.collect(), columns: &columns, width, selected, empty };
    draw_table(frame, area, contents);
}

/// The columns that may be shown.
fn list_series_columns(series: &LiveSeries) -> Vec<ColumnWidth<Shown<SeriesColumn>>> {
    let several = series.has_several_containers();
    let columns = SERIES_COLUMNS.into_iter().filter(|column| several || column.column != Shown::Container);
    let ranked = columns.map(|column| match column.column {
        Shown::Sortable(sortable) => ColumnWidth { has_content: has_content(series, sortable), ..column },
        _ => column,
    });
    ranked.collect()
}

fn name_with_tags(id: &LiveSeriesId) -> Line<'static> {
    let mut line = Line::raw(clean_text(&id.name));
    if !id.tags.is_empty() {
        line.push_span(Span::styled(format!(" {}", clean_text(&id.tags)), DIM));
    }
    line
}

/// Name and tags in this many cells; tags are cut first.
fn cut_name(id: &LiveSeriesId, width: usize) -> Line<'static> {
    let name = cut_text(&id.name, width);
    let left = width.saturating_sub(count_cells(&name) + 1);
    let mut line = Line::raw(name);
    if !id.tags.is_empty() && left > 0 {
        line.push_span(Span::styled(format!(" {}", cut_text(&id.tags, left)), DIM));
    }
    line
}

const fn series_heading(column: SeriesColumn) -> &'static str {
    match column {
        SeriesColumn::Name => "NAME",
        SeriesColumn::Type => "TYPE",
        SeriesColumn::Rate => "VALUES/S",
        SeriesColumn::Value => "VALUE",
        SeriesColumn::P50 => "P50",
        SeriesColumn::P95 => "P95",
        SeriesColumn::P99 => "P99",
    }
}

fn series_cell(
    series: &LiveSeries,
    id: &LiveSeriesId,
    windows: &SeriesWindows,
    shown: ColumnWidth<Shown<SeriesColumn>>,
) -> Cell<'static> {
    let Some(newest) = windows.newest_reading() else { return Cell::default() };
    let precision = Precision::Rounded;
    let format = |value: f64| precision.format_value(value, &windows.unit);
    let number = |number: Option<f64>| number_cell(number.map(format).unwrap_or_default(), Style::new());
    match shown.column {
        Shown::Trend => trend_cell(&windows.list_values(), shown.width),
        Shown::Container => Cell::from(cut_text(&windows.container_name, usize::from(shown.width))),
        Shown::Sortable(SeriesColumn::Name) => Cell::default(),
        Shown::Sortable(SeriesColumn::Type) => Cell::from(clean_text(&id.metric_type)),
        Shown::Sortable(SeriesColumn::Rate) => {
            number_cell(format_rate(Some(series.samples_per_second(id, windows))), Style::new())
        }
        Shown::Sortable(SeriesColumn::Value) => {
            let value = match &newest.agg.status {
                Some(status) => status.clone(),
                None => newest.value.map_or("-".to_owned(), format),
            };
            let text = format!("{value} {}", precision.separate_unit(&windows.unit));
            number_cell(cut_text(text.trim_end(), usize::from(shown.width)), Style::new())
        }
        Shown::Sortable(SeriesColumn::P50) => number(newest.agg.p50),
        Shown::Sortable(SeriesColumn::P95) => number(newest.agg.p95),
        Shown::Sortable(SeriesColumn::P99) => number(newest.agg.p99),
    }
}

/// The newest numbers of a trend, at the right end.
fn trend_cell(numbers: &[Option<f64>], width: u16) -> Cell<'static> {
    let newest = numbers.len().saturating_sub(usize::from(width));
    let bars = render_sparkline(numbers.get(newest..).unwrap_or_default());
    Cell::from(Line::raw(bars).right_aligned()).style(Style::new().fg(Color::Cyan))
}

fn number_cell(text: String, style: Style) -> Cell<'static> {
    Cell::from(Line::styled(text, style).right_aligned())
}

/// A count of what was lost, which stands out if there is any.
fn loss_cell(count: u64, color: Color) -> Cell<'static> {
    let style = if count > 0 { Style::new().fg(color) } else { DIM };
    number_cell(format_count(count), style)
}

fn build_head<C: SortColumn>(
    first: (&'static str, C),
    sort: C,
    reversed: bool,
    columns: &[ColumnWidth<Shown<C>>],
    heading: impl Fn(Shown<C>) -> &'static str,
) -> Row<'static> {
    let marked = |text: &str, sorted: bool| match sorted {
        true if sort.is_largest_first() != reversed => format!("{text}▼"),
        true => format!("{text}▲"),
        false => text.to_owned(),
    };
    let others = columns.iter().map(|column| {
        let sorted = column.column == Shown::Sortable(sort);
        let text = marked(heading(column.column), sorted);
        let left = matches!(heading(column.column), "STATE" | "TYPE" | "CONTAINER");
        let line = Line::raw(text);
        Cell::from(if left { line } else { line.right_aligned() })
    });
    let first = Cell::from(marked(first.0, first.1 == sort));
    Row::new(std::iter::once(first).chain(others)).style(Style::new().add_modifier(Modifier::BOLD))
}

/// What a table shows.
struct TableContents<'a, C> {
    head: Row<'static>,
    rows: Vec<Row<'a>>,
    columns: &'a [ColumnWidth<C>],
    /// The width of the first column, which is not among `columns`.
    width: u16,
    selected: usize,
    /// Shown if there are no rows.
    empty: &'static str,
}

fn draw_table<C>(
    frame: &mut Frame<'_>,
    area: Rect,
    TableContents { head, mut rows, columns, width, selected, empty }: TableContents<'_, C>,
) {
    if rows.is_empty() {
        rows.push(Row::new([Cell::from(cut_text(empty, usize::from(area.width)))]));
        let whole = Table::new(rows, [Constraint::Fill(1)]);
        let [first, rest] =
            ratatui::layout::Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        frame.render_widget(build_table(Vec::new(), head, columns, width), first);
        frame.render_widget(whole, rest);
        return;
    }
    if let Some(row) = rows.get_mut(selected) {
        *row = std::mem::take(row).style(Style::new().add_modifier(Modifier::REVERSED));
    }
    frame.render_widget(build_table(rows, head, columns, width), area);
}

fn build_table<'a, C>(
    rows: Vec<Row<'a>>,
    head: Row<'a>,
    columns: &[ColumnWidth<C>],
    width: u16,
) -> Table<'a> {
    let widths =
        std::iter::once(width).chain(columns.iter().map(|column| column.width)).map(Constraint::Length);
    Table::new(rows, widths).header(head).column_spacing(GAP)
}
