//! The state of the screen, and what keys do to it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::args::{PlotField, TaskColumn};
use super::super::listing::{SortCell, SortOrder};
use super::listing::SortedList;
use super::series::OpenTask;
use super::tasks::TaskList;
use super::updates::{NodeUpdate, StreamState, TaskUpdate};

/// What the caller has to do after a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum KeyEffect {
    Nothing,
    Quit,
    /// Give the terminal back to the shell until the process continues.
    Suspend,
    /// Follow this task.
    OpenTask(String),
    /// Stop following the task.
    CloseTask,
}

/// Everything that is shown.
pub(super) struct App {
    /// The address of the agent.
    pub(super) target: String,
    /// The name of the node, once the agent has given it.
    pub(super) node: Option<String>,
    pub(super) connection: StreamState,
    pub(super) tasks: TaskList,
    pub(super) list: SortedList<String, TaskColumn>,
    pub(super) open: Option<OpenTask>,
    /// Whether keys edit the filter.
    pub(super) editing: bool,
    /// The first line shown of the help, if it is open.
    pub(super) help: Option<usize>,
    /// Rows of a page, as drawn last.
    pub(super) page: usize,
}

impl App {
    pub(super) fn new(target: String, sort: SortOrder<TaskColumn>) -> Self {
        let mut list = SortedList::new(sort.key);
        list.reversed = sort.reversed;
        Self {
            target,
            node: None,
            connection: StreamState::Connecting,
            tasks: TaskList::default(),
            list,
            open: None,
            editing: false,
            help: None,
            page: 1,
        }
    }

    pub(super) fn apply_node(&mut self, update: NodeUpdate) {
        match update {
            NodeUpdate::Connected => {
                self.connection = StreamState::Up;
                self.tasks.begin_connection();
            }
            NodeUpdate::Named(name) => self.node = Some(name),
            NodeUpdate::Tasks(changes) => self.tasks.apply_changes(changes),
            NodeUpdate::Lost(why) => self.connection = StreamState::Lost(why),
        }
    }

    pub(super) fn apply_task(&mut self, update: TaskUpdate) {
        if let Some(open) = &mut self.open {
            open.apply_update(update);
        }
    }

    /// Brings the lists into order. Called before they are drawn and before a key acts on them.
    pub(super) fn arrange_rows(&mut self) {
        let tasks = self.tasks.all_tasks();
        self.list.arrange_rows(tasks.keys(), |id, column| match tasks.get(id) {
            Some(task) => (format!("{id} {}", task.row.state), task.sort_cell(column)),
            None => (id.clone(), SortCell::Missing),
        });
        if let Some(open) = &mut self.open {
            open.arrange_rows();
        }
    }

    /// Opens a task, or only one container of it.
    pub(super) fn open_task(&mut self, task_id: String, container: Option<String>) {
        self.editing = false;
        self.open = Some(OpenTask::new(task_id, container));
    }

    /// The filter of the list that is shown.
    pub(super) fn current_filter(&self) -> &str {
        self.open.as_ref().map_or(&self.list.filter, |open| &open.list.filter)
    }

    fn filter_mut(&mut self) -> &mut String {
        self.open.as_mut().map_or(&mut self.list.filter, |open| &mut open.list.filter)
    }

    pub(super) fn handle_key(&mut self, key: KeyEvent) -> KeyEffect {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return KeyEffect::Quit,
            KeyCode::Char('z') if control => return KeyEffect::Suspend,
            _ => {}
        }
        self.arrange_rows();
        if self.help.is_some() {
            self.scroll_help(key.code)
        } else if self.editing {
            self.edit_filter(key.code, control);
            KeyEffect::Nothing
        } else {
            self.handle_command(key.code, control)
        }
    }

    fn scroll_help(&mut self, code: KeyCode) -> KeyEffect {
        let line = self.help.unwrap_or(0);
        self.help = match code {
            KeyCode::Char('q') => return KeyEffect::Quit,
            KeyCode::Down | KeyCode::Char('j') => Some(line + 1),
            KeyCode::Up | KeyCode::Char('k') => Some(line.saturating_sub(1)),
            _ => None,
        };
        KeyEffect::Nothing
    }

    fn edit_filter(&mut self, code: KeyCode, control: bool) {
        match code {
            KeyCode::Enter | KeyCode::Down | KeyCode::Up => self.editing = false,
            KeyCode::Esc => {
                self.editing = false;
                self.filter_mut().clear();
            }
            // Removes a character; without one, ends the input.
            KeyCode::Backspace => self.editing = self.filter_mut().pop().is_some(),
            KeyCode::Char('u') if control => self.filter_mut().clear(),
            KeyCode::Char(c) if !control => self.filter_mut().push(c),
            _ => {}
        }
    }

    fn handle_command(&mut self, code: KeyCode, control: bool) -> KeyEffect {
        let page = isize::try_from(self.page.max(1)).unwrap_or(isize::MAX);
        match code {
            KeyCode::Char('q') => return KeyEffect::Quit,
            KeyCode::Char('?') => self.help = Some(0),
            KeyCode::Char('/') => {
                self.close_plot();
                self.editing = true;
            }
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.move_by(page),
            KeyCode::PageUp => self.move_by(-page),
            KeyCode::Char('f') if control => self.move_by(page),
            KeyCode::Char('b') if control => self.move_by(-page),
            KeyCode::Home | KeyCode::Char('g') => self.move_to_end(false),
            KeyCode::End | KeyCode::Char('G') => self.move_to_end(true),
            KeyCode::Char('s' | '>') => self.choose_column(true),
            KeyCode::Char('<') => self.choose_column(false),
            KeyCode::Char('r') => self.reverse_order(),
            KeyCode::Char('f') => self.choose_field(),
            KeyCode::Enter => return self.open_selected(),
            KeyCode::Esc | KeyCode::Backspace => return self.go_back(),
            _ => {}
        }
        KeyEffect::Nothing
    }

    fn move_by(&mut self, rows: isize) {
        match &mut self.open {
            Some(open) => open.list.move_by(rows),
            None => self.list.move_by(rows),
        }
    }

    fn move_to_end(&mut self, last: bool) {
        match (&mut self.open, last) {
            (Some(open), true) => open.list.select_last(),
            (Some(open), false) => open.list.select_first(),
            (None, true) => self.list.select_last(),
            (None, false) => self.list.select_first(),
        }
    }

    fn choose_column(&mut self, forward: bool) {
        match &mut self.open {
            Some(open) => open.list.choose_column(forward),
            None => self.list.choose_column(forward),
        }
    }

    fn reverse_order(&mut self) {
        let reversed = match &mut self.open {
            Some(open) => &mut open.list.reversed,
            None => &mut self.list.reversed,
        };
        *reversed = !*reversed;
    }

    /// Plots the next field.
    fn choose_field(&mut self) {
        let Some(field) = self.open.as_mut().and_then(|open| open.plot.as_mut()) else { return };
        let at = PlotField::ALL.iter().position(|known| known == field).unwrap_or(0);
        *field = PlotField::ALL.iter().cycle().nth(at + 1).copied().unwrap_or(*field);
    }

    fn close_plot(&mut self) {
        if let Some(open) = &mut self.open {
            open.plot = None;
        }
    }

    fn open_selected(&mut self) -> KeyEffect {
        if let Some(open) = &mut self.open {
            if open.list.selected_key().is_some() {
                open.plot = open.plot.or(Some(PlotField::Value));
            }
            return KeyEffect::Nothing;
        }
        let Some(task_id) = self.list.selected_key().cloned() else { return KeyEffect::Nothing };
        self.open_task(task_id.clone(), None);
        KeyEffect::OpenTask(task_id)
    }

    /// Leaves the plot, then the filter, then the task.
    fn go_back(&mut self) -> KeyEffect {
        if self.open.as_ref().is_some_and(|open| open.plot.is_some()) {
            self.close_plot();
        } else if !self.current_filter().is_empty() {
            self.filter_mut().clear();
        } else if self.open.take().is_some() {
            return KeyEffect::CloseTask;
        }
        KeyEffect::Nothing
    }
}

#[cfg(test)]
mod tests;
