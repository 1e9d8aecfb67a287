//! `tallyport metrics watch`: a task's series, redrawn with every window.

use std::collections::BTreeMap;

use serde_json::Value;

use super::args::{OutputFormat, WatchArgs};
use super::details::{format_value, parse_records};
use super::documents::render_sparkline;
use super::encoding::{encode_query, encode_segment};
use super::failure::Failure;
use super::output::Console;
use super::resolve::{find_task, parse_response};
use super::table::{Align, TextTable};
use super::text::SafeText;
use crate::client::{Client, ClientError, LineStream, Response};
use crate::model::Timestamp;
use crate::wire::{RecordDocument, TaskMetrics, WindowEvent};

/// Maximum number of windows in a sparkline.
const SHOWN: usize = 30;

/// The last windows of every series.
#[derive(Default)]
struct Screen {
    series: BTreeMap<(String, String, String), BTreeMap<Timestamp, RecordDocument>>,
    last: Option<Timestamp>,
}

pub(super) async fn watch_task(args: &WatchArgs, out: &mut Console) -> Result<(), Failure> {
    let client = args.client.build_client()?;
    let task = find_task(&client, &args.pod.of, &args.task_id).await?;
    let container = args.pod.container_filter(&task)?;
    let (path, mut filters) =
        (format!("/v1/tasks/{}", encode_segment(&task.task_id)), args.filters.query_pairs());
    filters.extend(container.as_ref().map(|(key, value)| (*key, value.as_str())));
    let mut stream =
        EventStream::open(client.clone(), format!("{path}/watch{}", encode_query(filters.clone()))).await?;
    let mut screen = Screen::default();
    if args.output.selected_format() == OutputFormat::Table {
        let history = encode_query(filters.into_iter().chain([("window", "all")]));
        let TaskMetrics::<Value> { metrics, .. } =
            parse_response(&client.get(&format!("{path}/metrics{history}")).await?)?;
        screen.add(&parse_records(&metrics)?);
        screen.draw(&task.task_id, out)?;
    }
    let mut left = args.windows.unwrap_or(u64::MAX);
    while left > 0 {
        let Some((event, data)) = stream.next(out).await? else { return Ok(()) };
        match (event.as_str(), args.output.selected_format()) {
            ("window", OutputFormat::Json | OutputFormat::Ndjson) => out.write_json_line(&data)?,
            ("window", _) => {
                let window: WindowEvent<Value> =
                    serde_json::from_str(&data).map_err(|error| Failure::malformed_response(&error))?;
                screen.last = screen.last.max(Some(window.end));
                screen.add(&parse_records(&window.metrics)?);
                screen.draw(&task.task_id, out)?;
            }
            ("finished", _) => {
                out.write_stderr_line(format!("{} is finished", task.task_id));
                return Ok(());
            }
            ("gap", _) => {
                out.write_stderr_line(
                    "some windows were skipped: they were discarded before they could be read",
                );
            }
            _ => continue,
        }
        left -= 1;
    }
    Ok(())
}

/// The events of a task; reconnects when a connection breaks.
struct EventStream {
    client: Client,
    path: String,
    lines: LineStream,
    event: String,
    /// The id of the last complete event.
    last: Option<String>,
    /// The id of the event that is being received.
    id: Option<String>,
}

impl EventStream {
    async fn open(client: Client, path: String) -> Result<Self, Failure> {
        let lines = ensure_success(client.stream_lines(&path).await?).await?;
        Ok(Self { client, path, lines, event: String::new(), last: None, id: None })
    }

    /// The name and data of the next event; `None` if the agent has ended the stream.
    async fn next(&mut self, out: &mut Console) -> Result<Option<(String, String)>, Failure> {
        loop {
            let line = match self.lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(None),
                Err(broken) => {
                    self.resume_events(broken, out).await?;
                    continue;
                }
            };
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut self.event);
            } else if let Some(id) = line.strip_prefix("id: ") {
                self.id = Some(id.to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                self.last = self.id.take().or(self.last.take());
                return Ok(Some((self.event.clone(), data.to_owned())));
            }
        }
    }

    /// Continues after the last event on another connection. Fails if this one brought no event, since the next would
    /// probably break as well.
    async fn resume_events(&mut self, broken: ClientError, out: &mut Console) -> Result<(), Failure> {
        let Some(last) = self.last.take() else { return Err(broken.into()) };
        let Ok(lines) = self.client.stream_lines_after(&self.path, Some(&last)).await else {
            return Err(broken.into());
        };
        self.lines = ensure_success(lines).await?;
        // Discard the incomplete event.
        self.id = None;
        self.event.clear();
        out.write_stderr_line(format!("tallyport: {broken}; going on after the last window that came"));
        Ok(())
    }
}

/// Returns the stream if its status is 200, or the failure from its response.
async fn ensure_success(lines: LineStream) -> Result<LineStream, Failure> {
    match lines.status {
        200 => Ok(lines),
        status => {
            Err(Failure::from_response(&Response { status, body: lines.read_remaining().await.into() }))
        }
    }
}

impl Screen {
    fn add(&mut self, records: &[RecordDocument]) {
        for record in records {
            self.last = self.last.max(Some(record.end));
            let windows = self.series.entry(record.series_key()).or_default();
            windows.insert(record.start, record.clone());
            while windows.len() > SHOWN {
                windows.pop_first();
            }
        }
    }

    fn draw(&self, task_id: &str, out: &mut Console) -> std::io::Result<()> {
        let at = self.last.map_or("no window yet".to_owned(), |last| last.to_string());
        let clear = if out.is_terminal() { SafeText::clear_screen() } else { SafeText::default() };
        out.write_line(clear + out.style_bold(task_id) + "  " + out.style_dimmed(at))?;
        let mut table = TextTable::new(&[
            ("NAME", Align::Left),
            ("TYPE", Align::Left),
            ("TREND", Align::Left),
            ("VALUE", Align::Right),
            ("UNIT", Align::Left),
            ("TAGS", Align::Left),
        ]);
        for ((name, tags, metric_type), windows) in &self.series {
            let trend: Vec<Option<f64>> = windows.values().map(|record| record.value).collect();
            let Some(last) = windows.values().next_back() else { continue };
            let row = [name, metric_type, &render_sparkline(&trend), &format_value(last), &last.unit, tags];
            table.add_row(&row.map(Clone::clone));
        }
        table.print_to(out)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    /// Replies to one request with this part of a stream, and breaks the connection. Returns the requested event id.
    async fn serve(agent: &TcpListener, part: &str) -> Option<String> {
        let (stream, _) = agent.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut after = None;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, id)) if name.eq_ignore_ascii_case("last-event-id") => after = Some(id.to_owned()),
                None if line == "\r\n" => break,
                _ => {}
            }
        }
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = format!("{head}{:x}\r\n{part}\r\n", part.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        after
    }

    #[tokio::test]
    async fn an_event_that_broke_off_is_not_taken_for_one_that_came() {
        let agent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(format!("http://{}", agent.local_addr().unwrap()).parse().unwrap());
        let served = async {
            serve(&agent, "event: window\nid: 1-1\ndata: {\"n\":1}\n\nevent: window\nid: 1-2\n").await;
            let asked = serve(&agent, "data: {\"n\":2}\n\nevent: gap\ndata: {}\n\n").await;
            assert_eq!(asked.as_deref(), Some("1-1"));
            serve(&agent, "").await
        };
        let read = async {
            let mut out = Console::new();
            let mut stream = EventStream::open(client, "/watch".to_owned()).await.unwrap();
            let mut events = Vec::new();
            loop {
                match stream.next(&mut out).await {
                    Ok(event) => events.push(event.unwrap()),
                    // That connection brought no event to continue from.
                    Err(_) => break events,
                }
            }
        };
        let events = tokio::select! {
            events = read => events,
            asked = served => panic!("the client asked for what follows {asked:?}, which it never received"),
        };
        let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["window", "", "gap"],
            "the name of the event that broke off is not that of another"
        );
    }
}
