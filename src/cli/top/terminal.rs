//! The terminal: reads keys, draws, and leaves the terminal as it was.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::execute;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::super::events::EventStream;
use super::super::failure::Failure;
use super::super::resolve::FoundTask;
use super::app::{App, KeyEffect};
use super::feed::{follow_node, follow_task};
use super::updates::TaskUpdate;
use super::view::draw_screen;
use crate::client::Client;

/// Updates that arrive within this time are drawn together.
const FRAME: Duration = Duration::from_millis(50);

/// Shows the tasks, or first the one that is given, until the user quits or a signal ends it.
pub(super) async fn run_screen(
    mut app: App,
    client: Client,
    stream: EventStream,
    opened: Option<FoundTask>,
) -> Result<(), Failure> {
    let mut ends = EndSignals::new().map_err(|error| Failure::system_error(&error))?;
    let mut node = follow_node(stream);
    let mut task = opened.map(|FoundTask { task, container }| {
        app.open_task(task.task_id.clone(), container.clone());
        follow_task(client.clone(), &task.task_id, container.as_deref(), task.series)
    });
    let mut screen = RawScreen::enter()?;
    let mut keys = read_keys();
    loop {
        screen.draw(&mut app)?;
        let effect = tokio::select! {
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => app.handle_key(key),
                // A size is read before each drawing.
                Some(_) => KeyEffect::Nothing,
                // The terminal is gone.
                None => KeyEffect::Quit,
            },
            update = node.recv() => {
                update.into_iter().for_each(|update| app.apply_node(update));
                while let Ok(Some(update)) = tokio::time::timeout(FRAME, node.recv()).await {
                    app.apply_node(update);
                }
                KeyEffect::Nothing
            }
            update = next_update(&mut task) => {
                match update {
                    Some(update) => app.apply_task(update),
                    None => task = None,
                }
                KeyEffect::Nothing
            }
            () = ends.recv() => KeyEffect::Quit,
        };
        match effect {
            KeyEffect::Nothing => {}
            KeyEffect::Quit => return Ok(()),
            KeyEffect::Suspend => screen.suspend()?,
            KeyEffect::CloseTask => task = None,
            KeyEffect::OpenTask(task_id) => {
                let series = app.tasks.all_tasks().get(&task_id).map_or(0, |known| known.row.series);
                task = Some(follow_task(client.clone(), &task_id, None, series));
            }
        }
    }
}

/// The next update of the open task; waits for ever without one.
async fn next_update(task: &mut Option<mpsc::Receiver<TaskUpdate>>) -> Option<TaskUpdate> {
    match task {
        Some(updates) => updates.recv().await,
        None => std::future::pending().await,
    }
}

/// Reads the terminal on a thread of its own, since reading blocks.
fn read_keys() -> mpsc::Receiver<Event> {
    let (events, received) = mpsc::channel(64);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if events.blocking_send(event).is_err() {
                return;
            }
        }
    });
    received
}

/// The signals that end the program. Without a handler they would leave the terminal in raw mode.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl EndSignals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// The terminal in raw mode, on its alternate screen. Dropping it restores the terminal; a panic does as well.
struct RawScreen {
    terminal: DefaultTerminal,
}

impl RawScreen {
    fn enter() -> Result<Self, Failure> {
        ratatui::try_init().map(|terminal| Self { terminal }).map_err(|error| {
            ratatui::restore();
            Failure::system_error(&error)
        })
    }

    fn draw(&mut self, app: &mut App) -> io::Result<()> {
        self.terminal.draw(|frame| draw_screen(frame, app)).map(|_| ())
    }

    /// Stops the process as Ctrl-Z does for other programs, and continues on a new screen.
    fn suspend(&mut self) -> Result<(), Failure> {
        ratatui::try_restore()?;
        execute!(io::stdout(), Show)?;
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTSTP).map_err(io::Error::from)?;
        // The old terminal is not dropped with a `RawScreen`, which would restore the terminal again.
        self.terminal = ratatui::try_init()?;
        Ok(())
    }
}

impl Drop for RawScreen {
    fn drop(&mut self) {
        // Without a terminal there is nothing to restore, and no place to report that.
        if io::stdout().is_terminal() {
            let _gone = ratatui::try_restore();
            let _gone = execute!(io::stdout(), Show);
        }
    }
}
