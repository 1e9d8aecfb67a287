use serde_json::json;

use super::super::super::live::tests::sample_record;
use super::super::tasks::tests::sample_changes;
use super::*;

fn app() -> App {
    let mut app = App::new("http://127.0.0.1:9725".to_owned(), SortOrder::from_key(TaskColumn::Values));
    app.apply_node(NodeUpdate::Connected);
    for n in 0..3 {
        let rows = [
            json!({"task_id": "web.1", "values": n * 20, "rejected": 3}),
            json!({"task_id": "db", "values": n * 2, "series": 9}),
            json!({"task_id": "cache", "values": n * 8}),
        ];
        app.apply_node(NodeUpdate::Tasks(sample_changes(n * 2, &rows, &[])));
    }
    app
}

/// Types a text; `\n` is Enter and `\u{1b}` is Esc.
fn press(app: &mut App, keys: &str) -> KeyEffect {
    keys.chars().fold(KeyEffect::Nothing, |_, c| {
        app.handle_key(KeyEvent::from(match c {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            c => KeyCode::Char(c),
        }))
    })
}

fn selected(app: &mut App) -> Option<String> {
    app.arrange_rows();
    app.list.selected_key().cloned()
}

#[test]
fn keys_move_sort_and_reverse() {
    let mut app = app();
    assert_eq!(selected(&mut app).unwrap(), "web.1");
    press(&mut app, "jj");
    assert_eq!(selected(&mut app).unwrap(), "db");
    press(&mut app, "kg>");
    assert_eq!((app.list.sort, selected(&mut app).unwrap()), (TaskColumn::Series, "db".to_owned()));
    press(&mut app, "<r");
    assert_eq!((app.list.sort, selected(&mut app).unwrap()), (TaskColumn::Values, "db".to_owned()));
    press(&mut app, "G");
    assert_eq!(selected(&mut app).unwrap(), "web.1");
}

#[test]
fn the_filter_applies_while_it_is_typed_and_esc_clears_it() {
    let mut app = app();
    press(&mut app, "/cq");
    assert_eq!((app.editing, selected(&mut app)), (true, None), "q is a letter there");
    press(&mut app, "\u{8}a");
    assert_eq!(selected(&mut app).unwrap(), "cache");
    press(&mut app, "\n");
    assert_eq!((app.editing, app.current_filter()), (false, "ca"));
    press(&mut app, "\u{1b}");
    assert_eq!((app.current_filter(), app.list.filter.len()), ("", 0));
}

#[test]
fn enter_opens_the_selected_task_and_then_a_plot_and_esc_goes_back() {
    let mut app = app();
    press(&mut app, "j");
    assert_eq!(press(&mut app, "\n"), KeyEffect::OpenTask("cache".to_owned()));
    assert_eq!(press(&mut app, "\n"), KeyEffect::Nothing, "there is no series to plot yet");
    app.apply_task(TaskUpdate::Connected(vec![sample_record("hits", 0, &json!({}))]));
    press(&mut app, "\n");
    assert_eq!(app.open.as_ref().unwrap().plot, Some(PlotField::Value));
    press(&mut app, "f");
    assert_eq!(app.open.as_ref().unwrap().plot, Some(PlotField::Rate));
    assert_eq!(press(&mut app, "\u{1b}"), KeyEffect::Nothing);
    assert_eq!(press(&mut app, "\u{1b}"), KeyEffect::CloseTask);
    assert_eq!(selected(&mut app).unwrap(), "cache");
    assert_eq!(press(&mut app, "\u{1b}"), KeyEffect::Nothing, "Esc does not quit");
}

#[test]
fn q_and_control_c_quit_and_control_z_suspends_wherever_one_is() {
    for keys in ["", "?", "\n", "/x\n"] {
        let mut app = app();
        press(&mut app, keys);
        assert_eq!(press(&mut app, "q"), KeyEffect::Quit, "{keys:?}");
    }
    let mut app = app();
    press(&mut app, "/q");
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    assert_eq!(app.handle_key(control('z')), KeyEffect::Suspend);
    assert_eq!(app.handle_key(control('c')), KeyEffect::Quit);
}

#[test]
fn a_lost_agent_leaves_its_data_until_it_answers_again() {
    let mut app = app();
    press(&mut app, "\n");
    app.apply_task(TaskUpdate::Connected(vec![sample_record("hits", 0, &json!({}))]));
    app.apply_node(NodeUpdate::Lost("refused".to_owned()));
    app.apply_task(TaskUpdate::Lost("refused".to_owned()));
    let open = app.open.as_ref().unwrap();
    assert_eq!(
        (open.series.all_series().len(), &open.connection),
        (1, &StreamState::Lost("refused".to_owned()))
    );
    assert_eq!(app.tasks.all_tasks().len(), 3);
    app.apply_node(NodeUpdate::Connected);
    app.apply_node(NodeUpdate::Tasks(sample_changes(100, &[json!({"task_id": "web.1"})], &[])));
    app.apply_task(TaskUpdate::Connected(Vec::new()));
    assert_eq!((app.tasks.all_tasks().len(), &app.connection), (1, &StreamState::Up));
    assert_eq!(app.open.as_ref().unwrap().connection, StreamState::Up);
}

#[test]
fn an_update_of_a_task_that_is_closed_is_ignored() {
    let mut app = app();
    app.apply_task(TaskUpdate::Finished);
    assert!(app.open.is_none());
}

#[test]
fn skipped_windows_are_reported_unless_the_connection_is_new() {
    let mut app = app();
    app.open_task("web.1".to_owned(), None);
    app.apply_task(TaskUpdate::Connected(Vec::new()));
    app.apply_task(TaskUpdate::Gap);
    assert!(!app.open.as_ref().unwrap().gap, "the windows that are kept have just been read");
    app.apply_task(TaskUpdate::Window(vec![sample_record("hits", 0, &json!({}))]));
    app.apply_task(TaskUpdate::Gap);
    assert!(app.open.as_ref().unwrap().gap);
}
