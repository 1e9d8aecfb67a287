//! Streams of server-sent events of the agent, and following one over interruptions.

use std::time::Duration;

use tokio::time::timeout;

use super::failure::Failure;
use super::output::Console;
use crate::client::{Client, ClientError, LineStream, Response};

/// Pause between two attempts to reconnect.
const RETRY: Duration = Duration::from_secs(1);

/// One event of a stream.
#[derive(Debug)]
pub(super) struct StreamEvent {
    pub(super) name: String,
    pub(super) data: String,
}

/// An open stream of events.
pub(super) struct EventStream {
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
    pub(super) async fn open(client: Client, path: String) -> Result<Self, Failure> {
        Self::open_after(client, path, None).await
    }

    /// Opens the stream after the event with this id.
    async fn open_after(client: Client, path: String, last: Option<String>) -> Result<Self, Failure> {
        let lines = ensure_success(client.stream_lines_after(&path, last.as_deref()).await?).await?;
        Ok(Self { client, path, lines, event: String::new(), last, id: None })
    }

    /// The next event; `None` if the agent has ended the stream. If the connection breaks, continues on another one.
    pub(super) async fn next_or_resume(&mut self, out: &mut Console) -> Result<Option<StreamEvent>, Failure> {
        loop {
            match self.lines.next().await {
                Ok(None) => return Ok(None),
                Ok(Some(line)) => {
                    if let Some(event) = self.take_line(&line) {
                        return Ok(Some(event));
                    }
                }
                Err(broken) => self.resume_events(broken, out).await?,
            }
        }
    }

    /// The next event, or why there is none. Any line counts as a sign of life, also the comments that the agent sends
    /// while nothing happens.
    async fn next_within(&mut self, silence: Duration) -> Result<StreamEvent, String> {
        loop {
            let line = match timeout(silence, self.lines.next()).await {
                Err(_) => {
                    return Err(format!(
                        "{} has sent nothing for {} s",
                        self.client.target(),
                        silence.as_secs()
                    ));
                }
                Ok(Err(broken)) => return Err(broken.to_string()),
                Ok(Ok(None)) => return Err(format!("the agent at {} has ended", self.client.target())),
                Ok(Ok(Some(line))) => line,
            };
            if let Some(event) = self.take_line(&line) {
                return Ok(event);
            }
        }
    }

    /// Returns the event that this line completes.
    fn take_line(&mut self, line: &str) -> Option<StreamEvent> {
        if let Some(name) = line.strip_prefix("event: ") {
            name.clone_into(&mut self.event);
        } else if let Some(id) = line.strip_prefix("id: ") {
            self.id = Some(id.to_owned());
        } else if let Some(data) = line.strip_prefix("data: ") {
            self.last = self.id.take().or(self.last.take());
            return Some(StreamEvent { name: self.event.clone(), data: data.to_owned() });
        }
        None
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

/// What happens on a followed stream.
#[derive(Debug)]
pub(super) enum StreamChange {
    /// The agent has answered on a new connection.
    Connected,
    /// An event has arrived.
    Event(StreamEvent),
    /// There is no connection, for this reason. The next step tries again.
    Lost(String),
}

/// A stream that is opened again whenever it ends, after the last event that arrived.
pub(super) struct FollowedStream {
    client: Client,
    path: String,
    /// A connection on which nothing arrives for this long is given up.
    silence: Duration,
    stream: Option<EventStream>,
    last: Option<String>,
    /// Whether `Connected` has been reported for `stream`.
    reported: bool,
    failed: bool,
}

impl FollowedStream {
    /// A stream that is opened by the first step.
    pub(super) fn new(client: Client, path: String, silence: Duration) -> Self {
        Self { client, path, silence, stream: None, last: None, reported: false, failed: false }
    }

    /// Begins with a stream that is open already.
    pub(super) fn from_stream(stream: EventStream, silence: Duration) -> Self {
        let (client, path) = (stream.client.clone(), stream.path.clone());
        Self { stream: Some(stream), ..Self::new(client, path, silence) }
    }

    /// The next change. Must not be cancelled while it connects, or the attempt is lost.
    pub(super) async fn next_change(&mut self) -> StreamChange {
        let Some(stream) = &mut self.stream else { return self.connect().await };
        if !std::mem::replace(&mut self.reported, true) {
            return StreamChange::Connected;
        }
        match stream.next_within(self.silence).await {
            Ok(event) => StreamChange::Event(event),
            Err(why) => {
                self.last = stream.last.take();
                self.stream = None;
                StreamChange::Lost(why)
            }
        }
    }

    async fn connect(&mut self) -> StreamChange {
        if self.failed {
            tokio::time::sleep(RETRY).await;
        }
        match EventStream::open_after(self.client.clone(), self.path.clone(), self.last.clone()).await {
            Ok(stream) => {
                (self.stream, self.reported, self.failed) = (Some(stream), true, false);
                StreamChange::Connected
            }
            Err(failure) => {
                self.failed = true;
                StreamChange::Lost(failure.to_string())
            }
        }
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
                match stream.next_or_resume(&mut out).await {
                    Ok(event) => events.push(event.unwrap().name),
                    // That connection brought no event to continue from.
                    Err(_) => break events,
                }
            }
        };
        let names = tokio::select! {
            names = read => names,
            asked = served => panic!("the client asked for what follows {asked:?}, which it never received"),
        };
        assert_eq!(
            names,
            ["window", "", "gap"],
            "the name of the event that broke off is not that of another"
        );
    }

    #[tokio::test]
    async fn a_followed_stream_tells_of_the_loss_and_continues_after_the_last_event() {
        let agent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = agent.local_addr().unwrap();
        let client = Client::new(format!("http://{address}").parse().unwrap());
        let mut followed = FollowedStream::new(client, "/watch".to_owned(), Duration::from_mins(1));
        let (_, asked) =
            tokio::join!(followed.next_change(), serve(&agent, "event: window\nid: 1-7\ndata: {}\n\n"));
        assert_eq!(asked, None);
        let event = followed.next_change().await;
        assert!(matches!(&event, StreamChange::Event(event) if event.name == "window"), "{event:?}");
        let lost = followed.next_change().await;
        assert!(matches!(&lost, StreamChange::Lost(why) if why.contains("before its end")), "{lost:?}");
        drop(agent);
        let refused = followed.next_change().await;
        assert!(
            matches!(&refused, StreamChange::Lost(why) if why.contains("no agent answers")),
            "{refused:?}"
        );
        let agent = TcpListener::bind(address).await.unwrap();
        let (connected, asked) = tokio::join!(followed.next_change(), serve(&agent, ""));
        assert!(matches!(connected, StreamChange::Connected), "{connected:?}");
        assert_eq!(asked.as_deref(), Some("1-7"));
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_arrives_is_given_up() {
        let agent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(format!("http://{}", agent.local_addr().unwrap()).parse().unwrap());
        let mut followed = FollowedStream::new(client, "/watch".to_owned(), Duration::from_millis(100));
        let frozen = async {
            let (stream, _) = agent.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                stream.read_line(&mut line).await.unwrap();
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
            stream
        };
        let (connected, _open) = tokio::join!(followed.next_change(), frozen);
        assert!(matches!(connected, StreamChange::Connected), "{connected:?}");
        let lost = followed.next_change().await;
        assert!(matches!(&lost, StreamChange::Lost(why) if why.contains("has sent nothing")), "{lost:?}");
    }
}
