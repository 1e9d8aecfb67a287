use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use serde_json::{Value, json};

use super::super::super::args::TaskColumn;
use super::super::super::listing::SortOrder;
use super::super::super::live::tests::sample_record;
use super::super::tasks::tests::sample_changes;
use super::super::updates::{NodeUpdate, TaskUpdate};
use super::*;

fn app_with(rows: &[Value]) -> App {
    let mut app = App::new("http://127.0.0.1:9725".to_owned(), SortOrder::from_key(TaskColumn::Values));
    app.apply_node(NodeUpdate::Connected);
    app.apply_node(NodeUpdate::Named("n1".to_owned()));
    for n in 0..3u32 {
        let grown = rows.iter().cloned().map(|mut row| {
            row["values"] = json!(row["values"].as_u64().unwrap_or(0) * u64::from(n));
            row
        });
        app.apply_node(NodeUpdate::Tasks(sample_changes(i64::from(n) * 2, &grown.collect::<Vec<_>>(), &[])));
    }
    app
}

fn app() -> App {
    app_with(&[
        json!({"task_id": "web.1", "values": 2500, "rejected": 3, "series": 12}),
        json!({"task_id": "db", "values": 2, "dropped": 7, "state": "draining", "series": 123_456}),
        json!({"task_id": "cache", "last_datagram": null, "series": 0}),
    ])
}

/// The lines of the screen, without blanks at their ends.
fn drawn(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw_screen(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let mut text = String::new();
        let mut x = 0;
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            text.push_str(symbol);
            // A wide character takes two cells, and the second one is not printed.
            x += u16::try_from(Span::raw(symbol).width().max(1)).unwrap();
        }
        text.trim_end().to_owned()
    };
    (0..height).map(line).collect()
}

fn press(app: &mut App, code: KeyCode) {
    app.handle_key(KeyEvent::from(code));
}

/// A task with a counter and a timer that have two windows, a gauge, and a check.
fn app_with_task() -> App {
    let mut app = app();
    app.open_task("web.1".to_owned(), None);
    let timer = |start, p99: f64| {
        let agg = json!({"samples": 40, "count": 40, "p50": 11.0, "p95": 40.3, "p99": p99, "max": 91.0});
        let more =
            json!({"type": "timer", "unit": "ms", "tags": {"route": "/pay"}, "value": 14.5, "agg": agg});
        sample_record("request.latency", start, &more)
    };
    let check = json!({"type": "service_check", "value": 2.0, "agg": {"samples": 1, "status": "critical"}});
    app.apply_task(TaskUpdate::Connected(vec![
        sample_record("page.views", 0, &json!({})),
        sample_record("page.views", 10, &json!({"value": 9.0})),
        timer(0, 50.0),
        timer(10, 77.3),
        sample_record("queue.depth", 10, &json!({"type": "gauge", "value": 3.0, "agg": {"samples": 0}})),
        sample_record("up", 10, &check),
    ]));
    app
}

#[test]
fn tasks_at_80_by_24() {
    let lines = drawn(&mut app(), 80, 24);
    assert_eq!(
        lines[..5],
        [
            "n1  3 tasks  1251 values/s  7 dropped  3 rejected  123k series",
            "TASK                   STATE      VALUES/S▼   SERIES   DROPPED   REJECTED   LAST",
            "web.1                  listening       1250       12         0          3     0s",
            "db                     draining           1     123k         7          0     0s",
            "cache                  listening          0        0         0          0      -",
        ]
    );
    assert!(lines[5..23].iter().all(String::is_empty), "{lines:?}");
    assert_eq!(lines[23], "q quit  ? help  Enter open  s sort  r reverse  / filter");
}

#[test]
fn tasks_at_20_by_5() {
    let lines = drawn(&mut app(), 20, 5);
    assert_eq!(
        lines,
        [
            "n1  3 tasks",
            "TASK       VALUES/S▼",
            "web.1           1250",
            "db                 1",
            "cache              0",
        ]
    );
}

#[test]
fn tasks_at_200_by_50() {
    let lines = drawn(&mut app(), 200, 50);
    assert_eq!(
        lines[..5],
        [
            "n1  3 tasks  1251 values/s  7 dropped  3 rejected  123k series  http://127.0.0.1:9725",
            "TASK                      STATE                               TREND  VALUES/S▼   SERIES   DROPPED   REJECTED   LAST",
            "web.1                     listening                              ██       1250       12         0          3     0s",
            "db                        draining                               ██          1     123k         7          0     0s",
            "cache                     listening                              ▁▁          0        0         0          0      -",
        ]
    );
}

#[test]
fn folded_values_have_a_column_where_there_are_some() {
    let rows = [json!({"task_id": "web.1", "values": 2500, "folded": 996}), json!({"task_id": "db"})];
    let lines = drawn(&mut app_with(&rows), 80, 24);
    assert!(lines[0].contains("996 folded"), "{lines:?}");
    assert!(lines[1].contains("FOLDED") && lines[2].contains(" 996 "), "{lines:?}");
    let mut app = app();
    assert!(!drawn(&mut app, 200, 24)[1].contains("FOLDED"));
    app.list.sort = TaskColumn::Folded;
    assert!(drawn(&mut app, 80, 24)[1].contains("FOLDED▼"), "the column of the order is always shown");
}

/// The headings of the list, which is on the second line.
fn headings(app: &mut App, width: u16) -> String {
    drawn(app, width, 24)[1].split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_was_lost_gives_way_after_what_is_shown_for_a_closer_look() {
    let rows = [
        json!({"task_id": "web.1", "values": 2500, "dropped": 7, "rejected": 3, "folded": 996, "series": 12}),
        json!({"task_id": "db", "values": 2}),
    ];
    let mut app = app_with(&rows);
    for (width, expected) in [
        (40, "TASK VALUES/S▼ DROPPED REJECTED"),
        (52, "TASK STATE VALUES/S▼ DROPPED REJECTED"),
        (62, "TASK STATE VALUES/S▼ SERIES DROPPED REJECTED"),
        (70, "TASK STATE VALUES/S▼ SERIES DROPPED REJECTED FOLDED"),
        (80, "TASK STATE VALUES/S▼ SERIES DROPPED REJECTED FOLDED LAST"),
        (120, "TASK STATE TREND VALUES/S▼ SERIES DROPPED REJECTED FOLDED LAST"),
        (200, "TASK STATE TREND VALUES/S▼ SERIES DROPPED REJECTED FOLDED LAST"),
    ] {
        assert_eq!(headings(&mut app, width), expected, "{width} columns");
    }
    assert_eq!(drawn(&mut app, 40, 24)[2], "web.1          1250         7          3");
    let mut app = app_with_task();
    for (width, expected) in [
        (40, "NAME VALUES/S▼"),
        (60, "NAME VALUES/S▼ VALUE P99"),
        (80, "NAME VALUES/S▼ VALUE P50 P95 P99"),
        (120, "NAME TYPE TREND VALUES/S▼ VALUE P50 P95 P99"),
    ] {
        assert_eq!(headings(&mut app, width), expected, "{width} columns");
    }
}

#[test]
fn columns_in_which_every_number_is_zero_go_before_others() {
    let rows = [json!({"task_id": "web.1", "values": 5, "series": 3})];
    let lines = drawn(&mut app_with(&rows), 52, 8);
    assert!(lines[1].contains("SERIES") && lines[1].contains("STATE"), "{lines:?}");
    assert!(!lines[1].contains("DROPPED") && !lines[1].contains("REJECTED"), "{lines:?}");
}

#[test]
fn series_at_80_by_24() {
    let lines = drawn(&mut app_with_task(), 80, 24);
    assert_eq!(
        lines[..6],
        [
            "web.1  listening  1250 values/s  3 rejected  4 series",
            "NAME                        VALUES/S▼       VALUE      P50      P95      P99",
            "request.latency route:/pay          4     14.5 ms    11 ms  40.3 ms  77.3 ms",
            "page.views                          2           9",
            "up                                0.1    critical",
            "queue.depth                         0           3",
        ]
    );
    assert_eq!(lines[23], "q quit  Esc back  ? help  Enter plot  s sort  r reverse  / filter");
}

#[test]
fn series_at_20_by_5() {
    let lines = drawn(&mut app_with_task(), 20, 5);
    assert_eq!(
        lines,
        [
            "web.1  listening",
            "NAME       VALUES/S▼",
            "request.…          4",
            "page.vie…          2",
            "up               0.1",
        ]
    );
}

#[test]
fn series_at_200_by_50() {
    let lines = drawn(&mut app_with_task(), 200, 50);
    assert_eq!(
        lines[..6],
        [
            "web.1  listening  1250 values/s  3 rejected  4 series  window until 1970-01-01T00:00:20Z",
            "NAME                        TYPE                                    TREND  VALUES/S▼       VALUE      P50      P95      P99",
            "request.latency route:/pay  timer                                      ██          4     14.5 ms    11 ms  40.3 ms  77.3 ms",
            "page.views                  counter                                    ▅█          2           9",
            "up                          service_check                               █        0.1    critical",
            "queue.depth                 gauge                                       █          0           3",
        ]
    );
}

#[test]
fn a_plot_fills_the_screen_and_is_one_line_of_facts_on_a_low_one() {
    let mut app = app_with_task();
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Enter);
    let lines = drawn(&mut app, 80, 24);
    assert_eq!(lines[1], "page.views  sum in each window");
    let is_dotted = |line: &String| line.ends_with(|c: char| ('\u{2800}'..='\u{28ff}').contains(&c));
    assert!(lines[2].starts_with("10     │") && lines[2..6].iter().any(is_dotted), "{lines:?}");
    assert!(lines[19].starts_with("0      │"), "the scale has zero on it: {lines:?}");
    assert!(lines[21].starts_with("00:00:10") && lines[21].ends_with("00:00:20"), "{lines:?}");
    assert_eq!(lines[22], "last 9  min 5  max 9  windows of 10 s: 2, UTC");
    let low = drawn(&mut app, 20, 5);
    assert_eq!(low[2], "▅█");
    assert_eq!((low[1].as_str(), low[4].as_str()), ("page.views  sum in …", "last 9  min 5  max …"));
}

#[test]
fn nothing_overflows_or_panics_at_any_size() {
    let long = "漢".repeat(1500);
    let rows = [
        json!({"task_id": long, "values": 3}),
        json!({"task_id": "\u{1b}[2J\u{202e}", "values": 2, "rejected": u64::MAX, "dropped": u64::MAX}),
        json!({"task_id": "שלום", "values": 1}),
    ];
    for size in (0..30).map(|n| (n, n / 2)).chain([(20, 3), (16, 3), (20, 6), (200, 50), (300, 2), (3, 100)])
    {
        let mut app = app_with(&rows);
        for keys in ["", "/zz", "\u{1b}", "?", "?", "\n", "\n", "f", "/"] {
            for c in keys.chars() {
                press(
                    &mut app,
                    match c {
                        '\n' => KeyCode::Enter,
                        '\u{1b}' => KeyCode::Esc,
                        c => KeyCode::Char(c),
                    },
                );
            }
            if app.open.as_ref().is_some_and(|open| open.series.all_series().is_empty()) {
                let record = sample_record(&long, 0, &json!({"tags": {"k": "v".repeat(4096)}}));
                app.apply_task(TaskUpdate::Connected(vec![record]));
            }
            app.apply_node(NodeUpdate::Lost("refused\u{7}".to_owned()));
            let lines = drawn(&mut app, size.0, size.1);
            let text = lines.join("\n");
            assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{size:?} {keys:?}: {text}");
            assert!(
                lines.iter().all(|line| Span::raw(line.as_str()).width() <= usize::from(size.0)),
                "{size:?}: {text}"
            );
        }
    }
}

#[test]
fn a_screen_that_is_too_small_says_what_it_needs() {
    assert_eq!(drawn(&mut app(), 15, 4).join(" ").trim_end(), "top needs 16 columns and 3 lines");
    assert_eq!(drawn(&mut app(), 40, 2), ["top needs 16 columns and 3 lines", ""]);
}

#[test]
fn a_lost_connection_is_said_above_the_data_that_is_kept() {
    let mut app = app();
    app.apply_node(NodeUpdate::Lost("no agent answers at http://127.0.0.1:9725".to_owned()));
    let lines = drawn(&mut app, 80, 24);
    assert_eq!(lines[1], "connection lost, trying again: no agent answers at http://127.0.0.1:9725");
    assert!(lines[3].starts_with("web.1"), "{lines:?}");
    let low = drawn(&mut app, 20, 3);
    assert_eq!(low[0], "connection lost, tr…");
    assert!(low[2].starts_with("web.1"), "{low:?}");
}

#[test]
fn the_filter_is_shown_while_it_is_typed_and_while_it_hides_rows() {
    let mut app = app();
    for c in "/we".chars() {
        press(&mut app, KeyCode::Char(c));
    }
    let lines = drawn(&mut app, 80, 24);
    assert_eq!((lines[23].as_str(), lines[2].split(' ').next()), ("/we▏", Some("web.1")));
    assert!(lines[0].contains("1 of 3 tasks"), "{lines:?}");
    press(&mut app, KeyCode::Enter);
    assert_eq!(drawn(&mut app, 20, 3)[0], "/we  (Esc clears it)");
    press(&mut app, KeyCode::Char('/'));
    press(&mut app, KeyCode::Char('x'));
    assert_eq!(drawn(&mut app, 80, 24)[2], "no row contains the words of the filter");
}

#[test]
fn the_help_lists_the_keys_and_scrolls_on_a_low_screen() {
    let mut app = app();
    press(&mut app, KeyCode::Char('?'));
    assert!(drawn(&mut app, 80, 24).join("\n").contains("Ctrl-C       quit"));
    assert!(drawn(&mut app, 20, 6)[0].starts_with("tallyport top"));
    press(&mut app, KeyCode::Down);
    assert_eq!(drawn(&mut app, 20, 6)[0], "  key but j and k");
    (0..90).for_each(|_| press(&mut app, KeyCode::Down));
    assert!(drawn(&mut app, 20, 6)[5].ends_with("containers."));
    assert!(!drawn(&mut app, 90, 30).join("\n").contains('…'), "a long line goes on below");
    press(&mut app, KeyCode::Esc);
    assert!(drawn(&mut app, 80, 24)[1].starts_with("TASK"));
}
