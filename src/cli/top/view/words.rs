//! The texts around the lists.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

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
    "DROPPED and REJECTED count from the start of the containers.",
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
    parts.push((format!("{} series", format_count(sums.series as u64)), plain));
    parts.push((app.target.clone(), plain.add_modifier(Modifier::DIM)));
    parts
}

/// The open task at a glance.
pub(super) fn describe_task(app: &App, open: &OpenTask) -> Vec<Part> {
    let plain = Style::new();
    let mut parts = vec![(open.task_id.clone(), plain.add_modifier(Modifier::BOLD))];
    if let Some(task) = app.tasks.all_tasks().get(&open.task_id) {
        parts.push((task.row.state.to_string(), plain));
        parts.push((format!("{} values/s", format_rate(task.values_per_second())), plain));
        parts.extend(warn_of(task.count_dropped(), "dropped", Color::Red));
        parts.extend(warn_of(task.row.rejected, "rejected", Color::Yellow));
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

/// A rate in three significant digits; `-` if it is not known yet.
pub(super) fn format_rate(rate: Option<f64>) -> String {
    rate.map_or("-".to_owned(), format_short)
}

/// A count, exact up to five digits.
pub(super) fn format_count(count: u64) -> String {
    if count < 100_000 { count.to_string() } else { format_short(count as f64) }
}

/// The value of a series, exact if it is a whole number of at most five digits.
pub(super) fn format_amount(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 100_000.0 {
        format!("{number:.0}")
    } else {
        format_short(number)
    }
}

/// A number in three significant digits: `0.25`, `12.3`, `1.23k`, `4.56M`.
pub(super) fn format_short(number: f64) -> String {
    let size = number.abs();
    if size == 0.0 {
        return "0".to_owned();
    }
    if size < 0.005 || size >= 999.5e12 {
        return format!("{number:.1e}");
    }
    let steps = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")];
    // 999.6 is shown as 1.00k.
    let (step, suffix) = steps.into_iter().find(|(step, _)| size >= 0.9995 * step).unwrap_or((1.0, ""));
    let scaled = number / step;
    let text = match scaled.abs() {
        scaled_size if scaled_size >= 99.95 => format!("{scaled:.0}"),
        scaled_size if scaled_size >= 9.995 => format!("{scaled:.1}"),
        _ => format!("{scaled:.2}"),
    };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_suffix() {
        let shown =
            [0.0, 0.001, 0.25, 1.0, 12.34, 99.96, 123.4, 999.4, 999.6, 1234.0, 4.56e6, 7e11, 2e15, -1500.0];
        let texts = shown.map(format_short);
        assert_eq!(
            texts,
            [
                "0", "1.0e-3", "0.25", "1", "12.3", "100", "123", "999", "1k", "1.23k", "4.56M", "700G",
                "2.0e15", "-1.5k"
            ]
        );
        assert_eq!([format_count(99_999), format_count(123_456)], ["99999", "123k"]);
        assert_eq!([-12_345.0, 12_345.5, 0.0].map(format_amount), ["-12345", "12.3k", "0"]);
        assert_eq!([format_rate(None), format_rate(Some(0.5))], ["-", "0.5"]);
    }
}
