//! The page as it is served. `make e2e-browser` tests it in a browser.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tallyport::aggregate::Dropped;
use tallyport::statsd::Rejected;

use crate::agent::{Agent, PATIENCE};

/// Its maximum size in bytes.
const LIMIT: usize = 200 << 10;

/// An answer whose body is still being received.
pub(crate) struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: BufReader<TcpStream>,
}

/// Sends an HTTP/1.0 request, so that the body is not chunked and ends with the connection.
pub(crate) fn ask(agent: &Agent, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut stream = TcpStream::connect(agent.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = format!("GET {path} HTTP/1.0\r\n");
    head.extend(headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    let mut body = BufReader::new(stream);
    let mut lines = body.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty());
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let pair = |line: String| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers = lines.filter_map(pair).collect();
    Answer { status, headers, body }
}

impl Answer {
    fn whole(mut self) -> Vec<u8> {
        let mut body = Vec::new();
        self.body.read_to_end(&mut body).unwrap();
        body
    }

    /// The names and documents of server-sent events.
    pub(crate) fn events(self) -> impl Iterator<Item = (String, Value)> {
        let mut lines = self.body.lines().map(Result::unwrap);
        std::iter::from_fn(move || {
            let name = lines.find_map(|line| line.strip_prefix("event: ").map(str::to_owned))?;
            let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned))?;
            Some((name, serde_json::from_str(&data).unwrap()))
        })
    }
}

fn served() -> (BTreeMap<String, String>, String) {
    let agent = Agent::start();
    let answer = ask(&agent, "/", &[]);
    assert_eq!(answer.status, 200);
    (answer.headers.clone(), String::from_utf8(answer.whole()).unwrap())
}

/// The text between the first occurrence of a start and the next end.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start).unwrap().1.split_once(end).unwrap().0
}

#[test]
fn the_page_is_one_document_of_at_most_200_kib() {
    let (headers, text) = served();
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert!(text.starts_with("<!doctype html>") && text.ends_with("</html>\n"));
    assert!((20_000..LIMIT).contains(&text.len()), "{}", text.len());
    assert!(!["@style@", "@advice@", "@script@"].iter().any(|place| text.contains(place)));
}

#[test]
fn the_page_names_nothing_outside_itself() {
    let (_, text) = served();
    // Except for XML namespaces, which are never fetched.
    let text = text.replace("http://www.w3.org/2000/svg", "");
    for outside in
        ["http://", "https://", "//cdn", "@import", "url(", " src=", "<iframe", "import(", "WebSocket"]
    {
        assert!(!text.contains(outside), "{outside}");
    }
    let links = text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    assert!(links.clone().count() > 2);
    for link in links {
        assert!(link.starts_with('#') || link.starts_with("data:image/svg+xml,"), "{link}");
    }
}

#[test]
fn the_policy_lets_the_browser_run_this_script_and_no_other() {
    let (headers, text) = served();
    let policy = &headers["content-security-policy"];
    let hash = |text: &str| {
        format!("'sha256-{}'", base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text)))
    };
    for directive in [
        "default-src 'none'".to_owned(),
        format!("script-src {}", hash(between(&text, "<script>", "</script>"))),
        format!("style-src {}", hash(between(&text, "<style>", "</style>"))),
        "connect-src 'self'".to_owned(),
        "base-uri 'none'".to_owned(),
        "form-action 'none'".to_owned(),
        "frame-ancestors 'none'".to_owned(),
        "require-trusted-types-for 'script'".to_owned(),
        "trusted-types 'none'".to_owned(),
    ] {
        assert!(policy.split("; ").any(|one| one == directive), "{directive} is not in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
}

#[test]
fn the_page_makes_no_markup_out_of_text() {
    let (_, text) = served();
    let script = between(&text, "<script>", "</script>");
    for way in
        ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "DOMParser"]
    {
        assert!(!script.contains(way), "{way}");
    }
    let markup = between(&text, "<body>", "<script");
    for inline in [" onclick=", " onload=", " onerror=", " style=", "javascript:"] {
        assert!(!markup.contains(inline), "{inline}");
    }
}

#[test]
fn the_page_advises_in_the_words_of_the_program() {
    let (_, text) = served();
    let advice = between(&text, r#"<script type="application/json" id="advice">"#, "</script>");
    let advice: Value = serde_json::from_str(advice).unwrap();
    for reason in Dropped::ALL {
        assert_eq!(advice["dropped"][reason.as_str()], reason.suggested_fix());
    }
    for code in Rejected::ALL {
        assert_eq!(advice["rejected"][code.as_str()], code.suggested_fix());
    }
}

#[test]
fn the_page_is_sent_once_and_packed_where_that_is_understood() {
    let agent = Agent::start();
    let plain = ask(&agent, "/", &[]);
    let tag = plain.headers["etag"].clone();
    let plain = plain.whole();
    let packed = ask(&agent, "/", &[("accept-encoding", "br, gzip")]);
    assert_eq!(packed.headers["content-encoding"], "gzip");
    let packed = packed.whole();
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).unwrap();
    assert!(text == plain && packed.len() < plain.len() / 2, "{} of {}", packed.len(), plain.len());
    assert!(!ask(&agent, "/", &[("accept-encoding", "gzip;q=0")]).headers.contains_key("content-encoding"));
    let known = ask(&agent, "/", &[("if-none-match", &format!("\"another\", {tag}"))]);
    assert_eq!((known.status, known.whole().len()), (304, 0));
    assert_eq!(ask(&agent, "/", &[("if-none-match", "\"another\"")]).status, 200);
}

#[test]
fn the_nodes_stream_tells_everything_once_and_then_what_changes() {
    let agent = Agent::start();
    let quiet = agent.reserve("c1", "quiet.1");
    quiet.send("a:1|c");
    agent.until("it is counted", || agent.get("/v1/tasks/quiet.1").1["totals"]["values"]["accepted"] == 1);
    let mut events = ask(&agent, "/v1/watch", &[]).events();
    let (name, info) = events.next().unwrap();
    assert_eq!((name.as_str(), &info["window_seconds"], &info["ready"]), ("node", &json!(1.0), &json!(true)));
    let (name, first) = events.next().unwrap();
    let row = &first["tasks"][0];
    assert_eq!(
        (name.as_str(), &row["task_id"], &row["values"], &first["gone"]),
        ("tasks", &json!("quiet.1"), &json!(1), &json!([]))
    );
    let busy = agent.reserve("c2", "busy.1");
    busy.send("a:1|c\nbad");
    let changed = events.find(|(_, changes)| changes["tasks"][0]["values"] == 1).unwrap().1;
    assert_eq!(changed["tasks"].as_array().unwrap().len(), 1, "only what changed: {changed}");
    let row = &changed["tasks"][0];
    assert_eq!((&row["task_id"], &row["rejected"], &row["series"]), (&json!("busy.1"), &json!(1), &json!(1)));
    agent.finish("c2");
    let ended = events.find(|(_, changes)| changes["tasks"][0]["finished"] == true).unwrap().1;
    assert_eq!(ended["tasks"][0]["task_id"], "busy.1");
}

#[test]
fn the_nodes_stream_begins_with_the_values_of_kept_windows_if_asked() {
    let agent = Agent::with(&["--window", "1s", "--set", "limits.series=2"]);
    let address = agent.reserve("c1", "web.1");
    agent.reserve("c2", "quiet.1");
    address.send("a:1:2:3|c\nb:1|g\nc:1|c\nd:1|c");
    agent.finish("c1");
    let windows = agent.metrics("web.1", "?window=all");
    assert_eq!(windows.iter().map(|record| record["agg"]["samples"].as_u64().unwrap()).sum::<u64>(), 6);
    let first = ask(&agent, "/v1/watch?recent", &[]).events().nth(1).unwrap().1;
    let of = |task: &str| {
        first["tasks"].as_array().unwrap().iter().find(|row| row["task_id"] == task).unwrap().clone()
    };
    let values: Vec<u64> = serde_json::from_value(of("web.1")["recent_values"].clone()).unwrap();
    assert_eq!((values.len(), values.iter().sum::<u64>()), (30, 6), "{first}");
    // The newest window of all is the last one; the task's own may be older.
    let until: tallyport::model::Timestamp = serde_json::from_value(first["recent_until"].clone()).unwrap();
    let end: tallyport::model::Timestamp = serde_json::from_value(windows[0]["end"].clone()).unwrap();
    let age = usize::try_from(until.duration_since(end).as_secs()).unwrap();
    assert_eq!(values[30 - 1 - age], 6, "{values:?} until {until:?}, window until {end:?}");
    assert_eq!(of("web.1")["folded"], 2, "counters beyond the limit are folded");
    let quiet: Vec<u64> = serde_json::from_value(of("quiet.1")["recent_values"].clone()).unwrap();
    assert_eq!(quiet.iter().sum::<u64>(), 0);
    assert!(of("quiet.1")["reserved_at"].is_string() && of("quiet.1")["last_datagram"].is_null());
    let plain = ask(&agent, "/v1/watch", &[]).events().nth(1).unwrap().1;
    assert!(plain["recent_until"].is_null() && plain["tasks"][0]["recent_values"].is_null(), "{plain}");
}

#[test]
fn the_nodes_stream_can_be_filtered_and_names_forgotten_containers() {
    let agent = Agent::with(&["--window", "1s", "--set", "containers.tombstone=1s"]);
    agent.reserve("c1", "web.1");
    agent.reserve("c2", "batch.1");
    let mut events = ask(&agent, "/v1/watch?task=web*", &[]).events();
    let tasks = events.nth(1).unwrap().1["tasks"].clone();
    assert_eq!((tasks.as_array().unwrap().len(), &tasks[0]["task_id"]), (1, &json!("web.1")));
    agent.release("c1");
    let gone = events.find(|(_, changes)| changes["gone"] != json!([])).unwrap().1;
    assert_eq!(gone["gone"], json!(["web.1"]));
}
