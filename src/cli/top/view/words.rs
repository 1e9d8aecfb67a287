//! The texts around the lists.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::super::super::units::{format_brief, short_id};
use super::super::app::App;
use super::super::series::OpenTask;
use super::super::updates::StreamState;

/// The keys.
pub(super) const HELP: &[&str] = &[
    "tallyport top: any key but j and k closes this help",
    "",
    "↑ ↓  j k        move",
    "PgUp PgDn       a page up or down",
    "Home End  g G   the first or the last row",
    "Enter           open the task, or plot the series",
    "Esc             go back",
    "s >  <          sort by the next or the previous column",
    "r               reverse the order",
    "/               show only rows with these words",
    "f               plot another number of each window",
    "Ctrl-Z          suspend",
    "q  Ctrl-C       quit",
    "",
    "VALUES/S of a task covers the last 10 seconds, of a series its newest window.",
    "VALUE is the sum of a counter, the level of a gauge, the mean of a timer.",
    "DROPPED, REJECTED and FOLDED (values beyond the limit of series) count from the start of the containers.",
];

type Part = (String, Style);

/// The node at a glance, the most important first.
pub(super) fn describe_node(app: &App) -> Vec<Part> {
    let plain = Style::new();
    let sums = app.tasks.sum_counts();
    let name = app.node.clone().unwrap_or_else(|| app.target.clone());
    let mut parts = vec![(name, plain.add_modifier(Modifier::BOLD))];
    if app.connection == StreamState::Connecting || app.tasks.shown_at().is_none() {
        parts.push(("waiting for the first counts".to_owned(), plain));
        return parts;
    }
    let (all, shown) = (app.tasks.all_tasks().len(), app.list.count_rows());
    let tasks = if shown == all { count_noun(all, "task") } else { format!("{shown} of {all} tasks") };
    parts.push((tasks, plain));
    parts.push((format!("{} values/s", format_rate(Some(sums.values_per_second))), plain));
    parts.extend(warn_of(sums.dropped, "dropped", Color::Red));
    parts.extend(warn_of(sums.rejected, "rejected", Color::Yellow));
    parts.extend(warn_of(sums.folded, "folded", Color::Yellow));
    parts.push((format!("{} series", format_count(sums.series as u64)), plain));
    parts.push((app.target.clone(), plain.add_modifier(Modifier::DIM)));
    parts
}

/// The open task at a glance.
pub(super) fn describe_task(app: &App, open: &OpenTask) -> Vec<Part> {
    let plain = Style::new();
    let mut parts = vec![(open.task_id.clone(), plain.add_modifier(Modifier::BOLD))];
    if let Some(id) = &open.container {
        // The counts of the node are those of the whole task.
        parts.push((format!("only container {}", short_id(id)), plain));
    } else if let Some(task) = app.tasks.all_tasks().get(&open.task_id) {
        parts.push((task.row.state.to_string(), plain));
        parts.push((format!("{} values/s", format_rate(task.values_per_second())), plain));
        parts.extend(warn_of(task.count_dropped(), "dropped", Color::Red));
        parts.extend(warn_of(task.row.rejected, "rejected", Color::Yellow));
        parts.extend(warn_of(task.row.folded, "folded", Color::Yellow));
    }
    let (all, shown) = (open.series.all_series().len(), open.list.count_rows());
    let series = if shown == all { format!("{all} series") } else { format!("{shown} of {all} series") };
    parts.push((series, plain));
    if let Some(end) = open.series.newest_end() {
        parts.push((format!("window until {end}"), plain.add_modifier(Modifier::DIM)));
    }
    parts
}

fn warn_of(count: u64, what: &str, color: Color) -> Option<Part> {
    (count > 0).then(|| (format!("{} {what}", format_count(count)), Style::new().fg(color)))
}

fn count_noun(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The keys that matter most, as far as they fit.
pub(super) fn describe_keys(app: &App, width: u16) -> Line<'static> {
    let keys: &[(&str, &str)] = match &app.open {
        None => &[
            ("q", "quit"),
            ("?", "help"),
            ("Enter", "open"),
            ("s", "sort"),
            ("r", "reverse"),
            ("/", "filter"),
        ],
        Some(open) if open.plot.is_some() => {
            &[("q", "quit"), ("Esc", "back"), ("f", "other number"), ("↑↓", "other series"), ("?", "help")]
        }
        Some(_) => &[
            ("q", "quit"),
            ("Esc", "back"),
            ("?", "help"),
            ("Enter", "plot"),
            ("s", "sort"),
            ("r", "reverse"),
            ("/", "filter"),
        ],
    };
    let mut line = Line::default();
    for (key, what) in keys {
        let gap = if line.spans.is_empty() { "" } else { "  " };
        let added = [
            Span::styled(format!("{gap}{key}"), Style::new().add_modifier(Modifier::BOLD)),
            Span::styled(format!(" {what}"), Style::new().add_modifier(Modifier::DIM)),
        ];
        if line.width() + added.iter().map(Span::width).sum::<usize>() > usize::from(width) {
            break;
        }
        added.into_iter().for_each(|span| line.push_span(span));
    }
    line
}

/// A rate; `-` if it is not known yet.
pub(super) fn format_rate(rate: Option<f64>) -> String {
    rate.map_or("-".to_owned(), format_brief)
}

pub(super) fn format_count(count: u64) -> String {
    format_brief(count as f64)
}
