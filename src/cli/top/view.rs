//! Draws the state on a screen of any size.

mod columns;
mod tables;
mod words;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::super::plot::{SeriesPlot, describe_field, describe_points, list_points, render_points};
use super::super::screen::{clean_text, cut_text};
use super::super::wrap::wrap_line;
use super::app::App;
use super::series::OpenTask;
use super::updates::StreamState;
use tables::{draw_series, draw_tasks};
use words::{HELP, describe_keys, describe_node, describe_task};

/// Columns and lines below which nothing useful can be shown.
const SMALLEST: (u16, u16) = (16, 3);
/// Lines from which the last one lists keys.
const WITH_KEYS: u16 = 6;
/// Lines from which a plot has axes.
const WITH_AXES: u16 = 6;

pub(super) fn draw_screen(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("top needs {} columns and {} lines", SMALLEST.0, SMALLEST.1);
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    app.arrange_rows();
    if let Some(first) = app.help {
        app.help = Some(draw_help(frame, area, first));
        return;
    }
    let notice = find_notice(app);
    let keys = area.height >= WITH_KEYS;
    // On a low screen the notice or the filter takes the place of the title.
    let notice_line = keys && notice.is_some();
    let [title, below, list, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(u16::from(notice_line)),
        Constraint::Fill(1),
        Constraint::Length(u16::from(keys)),
    ])
    .areas(area);
    let (main, filter) = (describe_title(app, area.width), describe_filter(app, area.width));
    match (&notice, &filter, keys) {
        (_, Some(filter), false) => frame.render_widget(filter.clone(), title),
        (Some(notice), _, false) => frame.render_widget(notice_text(notice, area.width), title),
        _ => frame.render_widget(main, title),
    }
    if let (Some(notice), true) = (&notice, notice_line) {
        frame.render_widget(notice_text(notice, area.width), below);
    }
    if keys {
        let foot_text = filter.unwrap_or_else(|| describe_keys(app, area.width));
        frame.render_widget(foot_text, foot);
    }
    app.page = usize::from(list.height.saturating_sub(1));
    match &mut app.open {
        Some(open) if open.plot.is_some() => draw_plot(frame, list, open),
        Some(open) => draw_series(frame, list, open),
        None => draw_tasks(frame, list, &mut app.list, &app.tasks),
    }
}

/// What the user has to know about the data: an error in the first place.
struct Notice {
    text: String,
    color: Color,
}

fn find_notice(app: &App) -> Option<Notice> {
    let connection = match &app.open {
        Some(OpenTask { connection: connection @ StreamState::Lost(_), .. }) => connection,
        _ => &app.connection,
    };
    if let StreamState::Lost(why) = connection {
        return Some(Notice { text: format!("connection lost, trying again: {why}"), color: Color::Red });
    }
    let open = app.open.as_ref()?;
    let text = match (open.finished, open.gap) {
        (true, _) => "the task is finished",
        (false, true) => "some windows were skipped: they were discarded before they could be read",
        (false, false) => return None,
    };
    Some(Notice { text: text.to_owned(), color: Color::Yellow })
}

fn notice_text(notice: &Notice, width: u16) -> Line<'static> {
    Line::styled(cut_text(&notice.text, usize::from(width)), Style::new().fg(notice.color))
}

fn describe_title(app: &App, width: u16) -> Line<'static> {
    let parts = match &app.open {
        Some(open) => describe_task(app, open),
        None => describe_node(app),
    };
    join_parts(&parts, width)
}

/// The parts that fit beside each other; the first is cut if it does not fit.
fn join_parts(parts: &[(String, Style)], width: u16) -> Line<'static> {
    let mut line = Line::default();
    for (index, (text, style)) in parts.iter().enumerate() {
        let gap = if index == 0 { "" } else { "  " };
        let span = Span::styled(format!("{gap}{}", clean_text(text)), *style);
        match (index, line.width() + span.width() <= usize::from(width)) {
            (_, true) => line.push_span(span),
            (0, false) => return Line::styled(cut_text(text, usize::from(width)), *style),
            _ => break,
        }
    }
    line
}

/// The filter while it is edited, and while it hides rows.
fn describe_filter(app: &App, width: u16) -> Option<Line<'static>> {
    let filter = app.current_filter();
    if !app.editing && filter.is_empty() {
        return None;
    }
    let cursor = if app.editing { "▏" } else { "  (Esc clears it)" };
    // While it is edited, its end is what matters.
    let room = usize::from(width).saturating_sub(2);
    let skipped = filter.chars().count().saturating_sub(room);
    let shown: String = filter.chars().skip(skipped).collect();
    Some(Line::raw(cut_text(&format!("/{shown}{cursor}"), usize::from(width))))
}

fn draw_plot(frame: &mut Frame<'_>, area: Rect, open: &OpenTask) {
    let (Some(field), Some((id, windows))) = (open.plot, open.selected_series()) else { return };
    let described = describe_field(field, &id.metric_type, &windows.unit);
    let [head, plot, facts] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    let title = format!("{}  {described}  {}", id.name, id.tags);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Line::styled(cut_text(&title, usize::from(area.width)), bold), head);
    let points = list_points(field, windows);
    if points.is_empty() {
        let text = format!("a {} has no {}; f shows another number", id.metric_type, field.as_word());
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), plot);
        return;
    }
    if plot.height >= WITH_AXES {
        SeriesPlot::new(&points, plot).render_plot(plot, frame.buffer_mut());
    } else {
        frame.render_widget(Line::raw(render_points(&points, usize::from(plot.width))), plot);
    }
    let text = cut_text(&describe_points(&points), usize::from(area.width));
    frame.render_widget(Line::styled(text, Style::new().add_modifier(Modifier::DIM)), facts);
}

/// Draws the help from a line on, and returns the line that is first on the screen.
fn draw_help(frame: &mut Frame<'_>, area: Rect, first: usize) -> usize {
    let height = usize::from(area.height);
    let width = usize::from(area.width);
    let text: Vec<String> = HELP.iter().flat_map(|line| wrap_line(line, Some(width))).collect();
    let first = first.min(text.len().saturating_sub(height));
    let lines: Vec<Line<'_>> =
        text.iter().skip(first).take(height).map(|line| Line::raw(cut_text(line, width))).collect();
    frame.render_widget(Paragraph::new(lines), area);
    first
}

#[cfg(test)]
mod tests;
