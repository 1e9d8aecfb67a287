//! `tallyport metrics watch`: a task's series, redrawn with every window.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::args::{StreamFormat, WatchArgs};
use super::documents::render_sparkline;
use super::encoding::{encode_query, encode_segment};
use super::events::{EventStream, FollowedStream, StreamChange, StreamEvent};
use super::failure::Failure;
use super::live::{KEPT_WINDOWS, LiveRecord, LiveSeries, LiveSeriesId, SeriesWindows, WindowReading};
use super::output::Console;
use super::resolve::{find_task, parse_response};
use super::screen::{cut_text, read_screen_size};
use super::table::{CellKind, Column, ColumnRank, TextTable};
use super::text::SafeText;
use super::units::Precision;
use crate::client::Client;
use crate::model::Timestamp;
use crate::net::clock;
use crate::wire::{NodeDocument, Task, TaskMetrics, WindowEvent};

/// A connection without a sign of life for this long is given up. The agent sends one every 15 seconds.
pub(super) const SILENCE: Duration = Duration::from_secs(40);
/// Lines of the screen that are neither series nor the title: the headings, and the line of the cursor.
const OTHER_LINES: usize = 2;
/// Columns below which only names and numbers are shown.
const NARROW: usize = 60;

pub(super) async fn watch_task(args: &WatchArgs, out: &mut Console) -> Result<(), Failure> {
    let client = args.client.build_client()?;
    let found = find_task(&client, &args.pod.of, &args.task_id).await?;
    let containers = found.container_filters(&args.pod, &args.filters.container)?;
    let path = format!("/v1/tasks/{}", encode_segment(&found.task.task_id));
    let mut filters = args.filters.series_pairs();
    filters.extend(containers.iter().map(|(key, value)| (*key, value.as_str())));
    let stream =
        EventStream::open(client.clone(), format!("{path}/watch{}", encode_query(filters.clone()))).await?;
    let history = format!("{path}/metrics{}", encode_query(filters.into_iter().chain([("window", "all")])));
    let watch = TaskWatch {
        task_id: found.task.task_id.clone(),
        title: found.format_title(),
        client,
        history,
        left: args.windows.map_or(u64::MAX, NonZeroU64::get),
    };
    match args.output.selected_format() {
        StreamFormat::Ndjson => {
            found.report_part(out);
            watch.print_events(stream, out).await
        }
        StreamFormat::Table if out.is_terminal() => watch.redraw_screen(stream, out).await,
        StreamFormat::Table => watch.print_tables(stream, out).await,
    }
}

/// What is watched.
struct TaskWatch {
    task_id: String,
    title: String,
    client: Client,
    /// The path of the windows that are kept.
    history: String,
    /// Windows until it ends.
    left: u64,
}

impl TaskWatch {
    /// Prints each window as its document.
    async fn print_events(self, stream: EventStream, out: &mut Console) -> Result<(), Failure> {
        self.print_windows(stream, out, |data, out| Ok(out.write_json_line(data)?)).await
    }

    /// Prints a table for each window.
    async fn print_tables(self, stream: EventStream, out: &mut Console) -> Result<(), Failure> {
        // The history is for the trends; what it has is not printed, so that there are as many tables as other formats have documents.
        let (mut screen, title) = (self.read_history().await?, self.title.clone());
        let print = |data: &str, out: &mut Console| {
            screen.add_window(data)?;
            Ok(screen.draw(&title, out)?)
        };
        self.print_windows(stream, out, print).await
    }

    /// Calls `print` with the data of each window, until there are no more or as many as requested were printed.
    async fn print_windows(
        mut self,
        mut stream: EventStream,
        out: &mut Console,
        mut print: impl FnMut(&str, &mut Console) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        while self.left > 0 {
            let Some(event) = stream.next_or_resume(out).await? else { return Ok(()) };
            match event.name.as_str() {
                "window" => print(&event.data, out)?,
                name => match self.report_event(name, out) {
                    EventEffect::Ends => return Ok(()),
                    EventEffect::Counts => {}
                    EventEffect::Nothing => continue,
                },
            }
            self.left -= 1;
        }
        Ok(())
    }

    /// Reports an event that is not a window on standard error.
    fn report_event(&self, name: &str, out: &mut Console) -> EventEffect {
        match name {
            "finished" => {
                out.write_stderr_line(format!("{} is finished", self.task_id));
                EventEffect::Ends
            }
            "gap" => {
                out.write_stderr_line(GAP);
                EventEffect::Counts
            }
            _ => EventEffect::Nothing,
        }
    }

    /// Keeps one screen up to date. An agent that goes away is waited for.
    async fn redraw_screen(mut self, stream: EventStream, out: &mut Console) -> Result<(), Failure> {
        let mut screen = self.read_history().await?;
        screen.window = self.read_window_length().await;
        let (changes, mut changed) = mpsc::channel(1);
        let mut stream = FollowedStream::from_stream(stream, SILENCE);
        // In a task of its own, so that redrawing does not interrupt an attempt to connect.
        tokio::spawn(async move { while changes.send(stream.next_change().await).await.is_ok() {} });
        let mut resized =
            signal(SignalKind::window_change()).map_err(|error| Failure::system_error(&error))?;
        let mut second = tokio::time::interval(Duration::from_secs(1));
        while self.left > 0 {
            screen.draw(&self.title, out)?;
            let change = tokio::select! {
                change = changed.recv() => change,
                _ = resized.recv() => None,
                // Only the time until the first window changes by itself.
                _ = second.tick(), if screen.counts_down() => None,
            };
            match change {
                Some(StreamChange::Event(StreamEvent { name, data })) => match name.as_str() {
                    "window" => {
                        screen.add_window(&data)?;
                        self.left -= 1;
                    }
                    // After a restart the cursor is unknown, and the agent sends every window that it has kept.
                    "gap" => screen.gap |= !screen.reconnected,
                    // An agent that ends says so of every task, and the next one may go on with it.
                    "finished" if confirm_finished(&self.client, &self.task_id).await => {
                        screen.draw(&self.title, out)?;
                        out.write_stderr_line(format!("{} is finished", self.task_id));
                        return Ok(());
                    }
                    _ => {}
                },
                Some(StreamChange::Connected) => {
                    (screen.lost, screen.reconnected) = (None, true);
                    // The agent that answers now can have windows of another length.
                    screen.window = self.read_window_length().await.or(screen.window);
                }
                Some(StreamChange::Lost(why)) => screen.lost = Some(why),
                None => {}
            }
        }
        screen.draw(&self.title, out)?;
        Ok(())
    }

    async fn read_history(&self) -> Result<WatchScreen, Failure> {
        let TaskMetrics::<LiveRecord> { metrics, .. } =
            parse_response(&self.client.get(&self.history).await?)?;
        let mut screen = WatchScreen::default();
        screen.series.add_records(metrics);
        Ok(screen)
    }

    /// The length of the agent's windows, where it says.
    async fn read_window_length(&self) -> Option<Duration> {
        let node: NodeDocument = parse_response(&self.client.get("/v1/node").await.ok()?).ok()?;
        Duration::try_from_secs_f64(node.window_seconds).ok().filter(|length| !length.is_zero())
    }
}

/// Time after which a task that is said to be finished is looked at again.
const CONFIRMATION: Duration = Duration::from_secs(1);

/// Whether the agent still says after a moment that the task is finished, or does not know it any more.
pub(super) async fn confirm_finished(client: &Client, task_id: &str) -> bool {
    tokio::time::sleep(CONFIRMATION).await;
    match client.get(&format!("/v1/tasks/{}", encode_segment(task_id))).await {
        Ok(response) if response.status == 404 => true,
        Ok(response) => parse_response::<Task>(&response).is_ok_and(|task| task.finished),
        Err(_) => false,
    }
}

const GAP: &str = "some windows were skipped: they were discarded before they could be read";

/// What an event that is not a window means for the rest.
enum EventEffect {
    Ends,
    /// It counts as one of the requested windows.
    Counts,
    Nothing,
}

/// What the screen shows.
#[derive(Default)]
struct WatchScreen {
    series: LiveSeries,
    /// The length of the agent's windows.
    window: Option<Duration>,
    /// Why there is no connection.
    lost: Option<String>,
    /// Whether windows were skipped.
    gap: bool,
    /// Whether no window has arrived on this connection yet.
    reconnected: bool,
}

impl WatchScreen {
    fn add_window(&mut self, data: &str) -> Result<(), Failure> {
        let window: WindowEvent<LiveRecord> =
            serde_json::from_str(data).map_err(|error| Failure::malformed_response(&error))?;
        self.series.add_records(window.metrics);
        self.reconnected = false;
        Ok(())
    }

    /// Whether it waits for the first window and shows for how long.
    fn counts_down(&self) -> bool {
        self.series.newest_end().is_none() && self.window.is_some() && self.lost.is_none()
    }

    fn draw(&self, name: &str, out: &mut Console) -> std::io::Result<()> {
        let size = read_screen_size(out);
        let (width, height) = size.unwrap_or((usize::MAX, usize::MAX));
        let title = self.build_title(name, width, out);
        let rows = height.saturating_sub(title.len() + OTHER_LINES).max(1);
        let clear = if size.is_some() { SafeText::clear_screen() } else { SafeText::default() };
        let mut title = title.into_iter();
        out.write_lines(title.next().map(|first| clear + first).into_iter().chain(title))?;
        if self.series.all_series().is_empty() {
            return Ok(());
        }
        let all = self.series.all_series().len();
        // The last line counts what does not fit.
        let shown = if all > rows { rows - 1 } else { all };
        self.build_table(width, shown, out.choose_precision(false)).print_rows_to(out)?;
        match all - shown {
            0 => Ok(()),
            hidden => {
                let text = cut_text(&format!("{hidden} more series; --name selects"), width);
                out.write_line(out.style_dimmed(text))
            }
        }
    }

    /// The name and the state, on two lines if they do not fit on one.
    fn build_title(&self, name: &str, width: usize, out: &Console) -> Vec<SafeText> {
        let state = self.describe_state(clock::wall_time());
        let styled = |text: &str| {
            let text = cut_text(text, width);
            if self.lost.is_some() { out.style_error(text) } else { out.style_dimmed(text) }
        };
        let shown = out.style_bold(cut_text(name, width));
        if cut_text(&format!("{name}  {state}"), width).ends_with('…') {
            vec![shown, styled(&state)]
        } else {
            vec![shown + "  " + styled(&state)]
        }
    }

    fn describe_state(&self, now: Timestamp) -> String {
        if let Some(why) = &self.lost {
            return format!("connection lost, trying again: {why}");
        }
        let mut state = match (self.series.newest_end(), self.window) {
            (Some(last), _) => format!("window until {last}"),
            (None, Some(length)) => describe_wait(now, length),
            (None, None) => "no window yet".to_owned(),
        };
        if self.gap {
            state = format!("{state}  {GAP}");
        }
        state
    }

    fn build_table(&self, width: usize, rows: usize, precision: Precision) -> TextTable {
        let columns: &[WatchColumn] = if width < NARROW { &WatchColumn::NARROW } else { &WatchColumn::WIDE };
        let headings: Vec<Column> = columns.iter().map(|column| column.table_column()).collect();
        let mut table = TextTable::new(&headings);
        let trend = if width == usize::MAX { KEPT_WINDOWS } else { (width / 6).min(KEPT_WINDOWS) };
        let several = self.series.has_several_containers();
        for (id, windows) in self.series.all_series().iter().take(rows) {
            let Some(last) = windows.newest_reading() else { continue };
            let cell = |column: &WatchColumn| match column {
                // The same name in every row says nothing, and an empty column is left out.
                WatchColumn::Container if !several => String::new(),
                column => column.format_cell(id, windows, last, (precision, trend)),
            };
            table.add_row(&columns.iter().map(cell).collect::<Vec<_>>());
        }
        table
    }
}

/// How long it takes until the first window closes. Windows end at multiples of their length.
fn describe_wait(now: Timestamp, length: Duration) -> String {
    let end = now.floor_to_window(length).saturating_add(length);
    let left = end.duration_since(now).as_secs_f64().ceil();
    format!("the first window closes in {left} s")
}

/// A column of the table.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum WatchColumn {
    Name,
    /// Both in one column, for narrow terminals.
    NameAndTags,
    Type,
    Trend,
    Value,
    Count,
    P50,
    P95,
    P99,
    Max,
    Unit,
    Tags,
    Container,
}

impl WatchColumn {
    const NARROW: [Self; 2] = [Self::NameAndTags, Self::Value];
    const WIDE: [Self; 12] = [
        Self::Name,
        Self::Type,
        Self::Trend,
        Self::Value,
        Self::Count,
        Self::P50,
        Self::P95,
        Self::P99,
        Self::Max,
        Self::Unit,
        Self::Tags,
        Self::Container,
    ];

    /// Its heading, and when it is left out, in the order of `metrics details`.
    const fn table_column(self) -> Column {
        match self {
            Self::Name | Self::NameAndTags => Column::new("NAME", CellKind::Name),
            Self::Type => Column::new("TYPE", CellKind::Word).with_rank(ColumnRank::Type),
            Self::Trend => Column::new("TREND", CellKind::Word).with_rank(ColumnRank::Trend),
            Self::Value => Column::new("VALUE", CellKind::Number),
            Self::Count => Column::new("COUNT", CellKind::Number).with_rank(ColumnRank::Count),
            Self::P50 => Column::new("P50", CellKind::Number).with_rank(ColumnRank::P50),
            Self::P95 => Column::new("P95", CellKind::Number).with_rank(ColumnRank::P95),
            Self::P99 => Column::new("P99", CellKind::Number),
            Self::Max => Column::new("MAX", CellKind::Number).with_rank(ColumnRank::Max),
            Self::Unit => Column::new("UNIT", CellKind::Word).with_rank(ColumnRank::Unit),
            Self::Tags => Column::new("TAGS", CellKind::Text).with_rank(ColumnRank::Tags),
            Self::Container => Column::new("CONTAINER", CellKind::Text).with_rank(ColumnRank::Container),
        }
    }

    fn format_cell(
        self,
        id: &LiveSeriesId,
        windows: &SeriesWindows,
        last: &WindowReading,
        (precision, trend): (Precision, usize),
    ) -> String {
        let value = |value: Option<f64>| {
            value.map(|value| precision.format_value(value, &windows.unit)).unwrap_or_default()
        };
        let is_distribution = last.agg.p50.is_some();
        match self {
            Self::Name => id.name.clone(),
            Self::NameAndTags if id.tags.is_empty() => id.name.clone(),
            Self::NameAndTags => format!("{} {}", id.name, id.tags),
            Self::Type => id.metric_type.clone(),
            Self::Trend => {
                let values = windows.list_values();
                render_sparkline(values.get(values.len().saturating_sub(trend)..).unwrap_or_default())
            }
            Self::Value => match &last.agg.status {
                Some(status) => status.clone(),
                None => value(last.value),
            },
            Self::Count if is_distribution => {
                last.agg.count.map(|count| precision.format_number(count)).unwrap_or_default()
            }
            Self::P50 => value(last.agg.p50),
            Self::P95 => value(last.agg.p95),
            Self::P99 => value(last.agg.p99),
            Self::Max if is_distribution => value(last.agg.max),
            Self::Count | Self::Max => String::new(),
            Self::Unit => precision.separate_unit(&windows.unit).to_owned(),
            Self::Tags => id.tags.clone(),
            Self::Container => windows.container_name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::live::tests::sample_record;
    use super::*;

    #[test]
    fn the_first_window_is_waited_for_with_the_time_it_takes() {
        let length = Duration::from_secs(10);
        let said = |micros| describe_wait(Timestamp::from_micros(micros), length);
        assert_eq!(said(12_500_000), "the first window closes in 8 s");
        assert_eq!(said(20_000_000), "the first window closes in 10 s");
    }

    #[test]
    fn a_narrow_screen_shows_names_with_tags_and_numbers() {
        let mut screen = WatchScreen::default();
        let timer = serde_json::json!({"type": "timer", "unit": "ms", "tags": {"route": "/pay"},
            "agg": {"samples": 3, "count": 3, "p50": 1.0, "p95": 2.0, "p99": 2.5, "max": 3.0}});
        screen.series.add_records(vec![
            sample_record("hits", 0, &serde_json::json!({})),
            sample_record("latency", 0, &timer),
        ]);
        let (id, windows) = screen.series.all_series().iter().nth(1).unwrap();
        let last = windows.newest_reading().unwrap();
        let cell = |column: WatchColumn| column.format_cell(id, windows, last, (Precision::Rounded, 5));
        assert_eq!(cell(WatchColumn::NameAndTags), "latency route:/pay");
        let texts = WatchColumn::WIDE.map(cell);
        assert_eq!(
            texts,
            ["latency", "timer", "█", "5 ms", "3", "1 ms", "2 ms", "2.5 ms", "3 ms", "", "route:/pay", "c1"]
        );
    }

    #[test]
    fn a_trend_that_does_not_fit_shows_its_newest_windows() {
        let mut screen = WatchScreen::default();
        let records = (0..5).map(|n| sample_record("a", n * 10, &serde_json::json!({"value": n})));
        screen.series.add_records(records.collect());
        let (id, windows) = screen.series.all_series().iter().next().unwrap();
        let last = windows.newest_reading().unwrap();
        assert_eq!(WatchColumn::Trend.format_cell(id, windows, last, (Precision::Exact, 2)), "▆█");
    }
}
