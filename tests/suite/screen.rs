//! Commands that draw on the terminal, on a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::{Agent, BINARY, of_this_test};

/// A command on a terminal of its own, and what it has drawn there.
struct Screen {
    child: Child,
    keys: File,
    shown: Arc<Mutex<vt100::Parser>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Screen {
    fn start(agent: &Agent, (columns, lines): (u16, u16), args: &[&str]) -> Self {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let side = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let url = format!("http://{}", agent.http);
        // A session of its own, which the terminal controls.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(BINARY).args(args).env("TALLYPORT_URL", url).env("TERM", "xterm-256color");
        command.stdin(side(&pty.slave)).stdout(side(&pty.slave)).stderr(side(&pty.slave));
        let child = command.spawn().unwrap();
        drop(command);
        drop(pty.slave);
        let parser = vt100::Parser::new(lines.try_into().unwrap(), columns.try_into().unwrap(), 0);
        let shown = Arc::new(Mutex::new(parser));
        let (mut output, drawn) = (File::from(pty.master.try_clone().unwrap()), Arc::clone(&shown));
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The terminal ends with an error when the last process has closed it.
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                drawn.lock().unwrap().process(&bytes[..n]);
            }
        });
        Self { child, keys: File::from(pty.master), shown, reader: Some(reader) }
    }

    fn text(&self) -> String {
        self.shown.lock().unwrap().screen().contents()
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&self, columns: u16, lines: u16) {
        self.shown
            .lock()
            .unwrap()
            .screen_mut()
            .set_size(lines.try_into().unwrap(), columns.try_into().unwrap());
        let terminal = format!("/proc/{}/fd/0", self.child.id());
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let resized = Command::new("stty").args(["-F", &terminal, "cols", &columns, "rows", &lines]).status();
        assert!(resized.unwrap().success());
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits until the text that is shown fits.
    fn until(&self, agent: &Agent, what: &str, mut fits: impl FnMut(&str) -> bool) {
        let mut last = String::new();
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            agent.until(what, || {
                last = self.text();
                fits(&last)
            });
        }));
        if let Err(panic) = waited {
            eprintln!("the screen:\n{last}");
            std::panic::resume_unwind(panic);
        }
    }

    /// Presses `q` until the command ends: crossterm reads a key that arrives together with a new size only with the next key.
    fn quit(mut self, agent: &Agent) -> (Option<i32>, vt100::Screen) {
        agent.until("q ends the command", || {
            let _has_ended_meanwhile = self.keys.write_all(b"q");
            self.child.try_wait().unwrap().is_some()
        });
        self.ended(agent)
    }

    /// Waits for its end, and returns the exit code and the last screen.
    fn ended(mut self, agent: &Agent) -> (Option<i32>, vt100::Screen) {
        let mut status = None;
        agent.until("the command ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.reader.take().unwrap().join().unwrap();
        let screen = self.shown.lock().unwrap().screen().clone();
        (status.unwrap().code(), screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// The terminal is as it was before: no other screen, and a cursor.
fn assert_restored(screen: &vt100::Screen) {
    assert!(!screen.alternate_screen() && !screen.hide_cursor(), "{}", screen.contents());
}

#[test]
fn top_lists_tasks_sorts_them_opens_one_and_leaves_the_terminal_as_it_was() {
    let agent = Agent::start();
    let (busy, idle) =
        (agent.reserve(&of_this_test("busy"), "busy.1"), agent.reserve(&of_this_test("idle"), "idle.1"));
    idle.send("a:1|c\nb:1|c\nc:1|c");
    let mut top = Screen::start(&agent, (80, 24), &["top"]);
    let order = |text: &str| -> Vec<String> {
        let names = text.lines().filter_map(|line| line.split_whitespace().next());
        names.filter(|name| name.ends_with(".1")).map(str::to_owned).collect()
    };
    top.until(&agent, "the busy task is first", |text| {
        busy.send("hits:1|c|#route:/pay\nlatency:12|ms");
        order(text) == ["busy.1", "idle.1"] && text.contains("VALUES/S▼")
    });
    // Counts that only grow: the number of series in an open window is 0 at its start.
    top.press("sss");
    top.until(&agent, "the task with most rejected lines is first", |text| {
        busy.send("hits:1|c|#route:/pay");
        idle.send("no metric");
        order(text) == ["idle.1", "busy.1"] && text.contains("REJECTED▼")
    });
    top.press("/busy\r");
    top.until(&agent, "the filter hides the other", |text| order(text) == ["busy.1"]);
    top.press("\r");
    top.until(&agent, "its series are shown", |text| {
        busy.send("hits:1|c|#route:/pay\nlatency:12|ms");
        text.contains("hits route:/pay") && text.contains("latency") && text.contains("P99")
    });
    top.press("\r");
    top.until(&agent, "a plot is shown", |text| text.contains("other number") && text.contains("last "));
    top.resize(24, 5);
    top.until(&agent, "it fits a small screen", |text| text.lines().count() <= 5 && text.contains("last "));
    let (code, screen) = top.quit(&agent);
    assert_eq!(code, Some(0), "{}", screen.contents());
    assert_restored(&screen);
}

#[test]
fn top_says_that_the_agent_is_gone_keeps_its_data_and_goes_on_with_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let flags = ["--window", "1s", "--http-listen", &free];
    let first = Agent::in_directory(directory, &flags);
    let container = of_this_test("c");
    first.reserve(&container, "web.1").send("hits:1|c");
    let mut top = Screen::start(&first, (100, 24), &["top", "web.1"]);
    top.until(&first, "its series is shown", |text| text.contains("hits"));
    let directory = first.into_directory();
    let agent = Agent::in_directory(directory, &["--window", "1s"]);
    top.until(&agent, "the loss is shown beside the data", |text| {
        text.contains("connection lost") && text.contains("hits")
    });
    let directory = agent.into_directory();
    let agent = Agent::in_directory(directory, &flags);
    top.until(&agent, "it goes on", |text| !text.contains("connection lost") && text.contains("hits"));
    let address = agent.reserve(&of_this_test("d"), "other.1");
    top.press("\u{7f}");
    top.until(&agent, "what is new is shown", |text| {
        address.send("more:1|c");
        text.contains("other.1")
    });
    top.signal(Signal::SIGTERM);
    let (code, screen) = top.ended(&agent);
    assert_eq!(code, Some(0), "{}", screen.contents());
    assert_restored(&screen);
}

#[test]
fn top_and_watch_show_one_container_where_its_id_is_given_in_place_of_the_task() {
    let agent = Agent::with(&["--window", "1s"]);
    let ids = ["run-a", "run-b"].map(of_this_test);
    let sockets = ids.each_ref().map(|id| agent.reserve(id, "loader"));
    let send = || {
        sockets[0].send("one:1|c");
        sockets[1].send("two:1|c");
    };
    let mut top = Screen::start(&agent, (100, 24), &["top", "run-a"]);
    let watch = Screen::start(&agent, (100, 24), &["metrics", "watch", "run-a"]);
    let titles = [format!("loader  only container {}", ids[0]), format!("loader, container {}", ids[0])];
    for (screen, title) in [&top, &watch].into_iter().zip(&titles) {
        screen.until(&agent, "its series are shown", |text| {
            send();
            text.contains(title) && text.contains("one")
        });
        assert!(!screen.text().contains("two"), "{}", screen.text());
    }
    top.press("\u{7f}");
    top.until(&agent, "the tasks are listed", |text| text.contains("TASK"));
    top.press("\r");
    top.until(&agent, "the whole task is open", |text| {
        send();
        text.contains("one") && text.contains("two") && !text.contains("only container")
    });
    watch.signal(Signal::SIGTERM);
    watch.ended(&agent);
}

#[test]
fn top_without_a_terminal_names_the_commands_for_pipes() {
    let agent = Agent::start();
    for args in [&["top"][..], &["top", "-o", "json"], &["top", "--json"]] {
        let ran = agent.cli(args);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("tasks -o ndjson") && ran.err.contains("metrics watch"), "{ran:?}");
    }
    let json = Screen::start(&agent, (80, 24), &["top", "-o", "json"]);
    let (code, screen) = json.ended(&agent);
    assert!(code == Some(2) && screen.contents().contains("tasks -o ndjson"), "{}", screen.contents());
    let unknown = Screen::start(&agent, (80, 24), &["top", "nope"]);
    assert_eq!(unknown.ended(&agent).0, Some(3));
}

#[test]
fn top_escapes_names_that_would_control_the_terminal() {
    let agent = Agent::start();
    let hostile = "a\u{1b}]0;t\u{7}\u{1b}[2J\u{9b}2Jb\u{202e}漢字";
    let address = agent.reserve(&of_this_test("c"), "web.1");
    let top = Screen::start(&agent, (100, 24), &["top", "web.1"]);
    top.until(&agent, "the name is shown", |text| {
        address.send(format!("{hostile}:1|c"));
        text.contains(r"a\x1b]0;t\x07\x1b[2J\x9b2Jb\u{202e}漢字")
    });
    assert_eq!(top.shown.lock().unwrap().screen().contents().matches("NAME").count(), 1);
}

#[test]
fn watch_fits_the_screen_waits_for_the_first_window_and_for_an_agent_that_goes_away() {
    let directory = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let flags = ["--window", "2s", "--http-listen", &free];
    let agent = Agent::in_directory(directory, &flags);
    let address = agent.reserve(&of_this_test("c"), "web.1");
    let watch = Screen::start(&agent, (80, 10), &["metrics", "watch", "web.1"]);
    watch.until(&agent, "it waits", |text| text.contains("the first window closes in"));
    let many: Vec<String> = (0..20).map(|n| format!("series.{n:02}:1|c")).collect();
    watch.until(&agent, "a part of the series is shown", |text| {
        address.send(many.join("\n"));
        let first = text.lines().next().unwrap_or_default();
        first.starts_with("web.1") && text.contains("series.05") && text.contains("14 more series")
    });
    let directory = agent.into_directory();
    let agent = Agent::in_directory(directory, &["--window", "2s"]);
    watch.until(&agent, "the loss is shown", |text| {
        text.contains("connection lost") && text.contains("series.00")
    });
    let directory = agent.into_directory();
    let agent = Agent::in_directory(directory, &flags);
    watch.until(&agent, "it goes on", |text| !text.contains("connection lost") && text.contains("series.00"));
    // Not SIGINT, which a shell without job control has its background jobs ignore.
    watch.signal(Signal::SIGTERM);
    watch.ended(&agent);
}

#[test]
fn plot_shows_one_series_and_lists_several() {
    let agent = Agent::start();
    let address = agent.reserve(&of_this_test("c"), "web.1");
    address.send("hits:3|c|#route:/pay\nhits:4|c|#route:/cart\nlatency:5|ms");
    agent.until("the first window has closed", || agent.metrics("web.1", "?window=all").len() >= 3);
    agent.until("two windows and the open one have it", || {
        address.send("latency:9|ms");
        agent.metrics("web.1", "?window=all&name=latency").len() >= 2
            && !agent.metrics("web.1", "?window=open&name=latency").is_empty()
    });
    let several = agent.cli(&["metrics", "plot", "web.1", "hits"]);
    assert_eq!(several.code, 6, "{several:?}");
    assert!(several.err.contains("route:/cart") && several.err.contains("--tag"), "{several:?}");
    let chosen = agent.cli(&["metrics", "plot", "web.1", "hits", "--tag", "route=/pay"]);
    assert!(chosen.code == 0 && chosen.out.contains("route:/pay"), "{chosen:?}");
    let timer = agent.cli(&["metrics", "plot", "web.1", "latency", "--field", "p99"]);
    assert_eq!(timer.code, 0, "{timer:?}");
    assert!(timer.out.starts_with("latency  p99, ms\n") && !timer.out.contains('\u{1b}'), "{}", timer.out);
    assert!(timer.out.lines().all(|line| line.chars().count() <= 80), "{}", timer.out);
    let none = agent.cli(&["metrics", "plot", "web.1", "hits", "--tag", "route=/pay", "--field", "p99"]);
    assert!(none.code == 2 && none.err.contains("value, rate, count"), "{none:?}");
    assert_eq!(agent.cli(&["metrics", "plot", "web.1", "nope"]).code, 4);
    let small = Screen::start(&agent, (20, 5), &["metrics", "plot", "web.1", "latency"]);
    let (code, screen) = small.ended(&agent);
    assert!(code == Some(0) && screen.contents().contains("latency"), "{}", screen.contents());
}
