//! Rules that concern several settings of a publisher, or that the kind of a setting cannot express.

use std::time::Duration;

use super::super::error::ConfigError;
use super::layers::{PublisherLayers, WrittenPublisher};
use super::read::is_multiple;
use super::setting::SinkType;
use super::{FILTERS, InfluxApi, MOST_FILTERS, PublisherConfig, SinkConfig, Temporality};

/// Fields that the client writes itself.
const OWN_HEADERS: [&str; 9] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];
/// Words in the names of header fields whose values are secrets.
const SECRET_HEADERS: [&str; 7] =
    ["authorization", "cookie", "api-key", "apikey", "token", "secret", "password"];

/// What publishers read.
#[derive(Copy, Clone, Debug)]
pub(in crate::config) struct ReadWindows {
    /// The length of a window.
    pub(in crate::config) length: Duration,
    /// How long windows can be read at least; `None` if that is as long as they are needed.
    pub(in crate::config) kept_for: Option<Duration>,
}

/// Checks publishers as a whole, and adds errors to those of single values.
pub(in crate::config) fn check_publishers(
    publishers: &[PublisherConfig],
    layers: &PublisherLayers,
    windows: ReadWindows,
    errors: &mut Vec<ConfigError>,
) {
    for (name, written) in layers.iter() {
        let Some(publisher) = publishers.iter().find(|publisher| publisher.name == name) else { continue };
        // The kind of a value has been checked, and a wrong one was replaced by its default: say nothing more about it.
        let reported: Vec<String> = errors.iter().map(|error| error.key().to_owned()).collect();
        let mut wrong = |key: &str, reason: &str| {
            let error = written.value_error(name, key, reason);
            if !reported.iter().any(|key| *key == error.key()) {
                errors.push(error);
            }
        };
        check_required(publisher, written, &mut wrong);
        check_pairs(publisher, written, &mut wrong);
        if !is_multiple(publisher.interval, windows.length) {
            let length = humantime::format_duration(windows.length);
            wrong("interval", &format!("is not a multiple of windows.length, which is {length}"));
        }
        check_batch(publisher, windows, &mut wrong);
        for key in ["include", "exclude"] {
            let queries = if key == "include" { &publisher.include } else { &publisher.exclude };
            for why in queries.iter().filter_map(|query| check_query(query).err()) {
                wrong(key, &why);
            }
        }
    }
}

/// Checks that rounds that are gathered can be sent in the end.
fn check_batch(publisher: &PublisherConfig, windows: ReadWindows, wrong: &mut impl FnMut(&str, &str)) {
    let PublisherConfig { batch, interval, max_age, sink, .. } = publisher;
    if batch.is_zero() {
        return;
    }
    if let SinkConfig::Otlp(otlp) = sink
        && otlp.temporality == Temporality::Cumulative
    {
        wrong(
            "batch",
            "needs temporality = \"delta\": a receiver of cumulative values may take the points of a series in order only, and refuses \
             a repeated request of several intervals",
        );
    }
    let as_text = |time: Duration| humantime::format_duration(time).to_string();
    if !is_multiple(*batch, *interval) {
        wrong("batch", &format!("is not a multiple of interval, which is {}", as_text(*interval)));
    }
    if let Some(age) = max_age.filter(|age| age <= batch) {
        wrong("batch", &format!("is not shorter than max_age, which is {}", as_text(age)));
    }
    if let Some(kept_for) = windows.kept_for.filter(|kept_for| kept_for <= batch) {
        let kept_for = as_text(kept_for);
        wrong(
            "batch",
            &format!(
                "is not shorter than the time for which memory has windows, which is {kept_for}, and no file has them"
            ),
        );
    }
}

/// Checks that what a type needs is there, and that settings that belong together are together.
fn check_required(
    publisher: &PublisherConfig,
    written: &WrittenPublisher,
    wrong: &mut impl FnMut(&str, &str),
) {
    let is_set = |key: &str| written.get(key).is_some_and(|value| !value.text.trim().is_empty());
    let sink = publisher.sink.sink_type();
    let required: &[&str] = match &publisher.sink {
        SinkConfig::File(_) => &["path"],
        SinkConfig::RemoteWrite(_) | SinkConfig::Otlp(_) => &["url"],
        SinkConfig::Datadog(_) => &["url", "token_file"],
        SinkConfig::Influxdb(influx) if matches!(influx.api, InfluxApi::V2 { .. }) => &["bucket"],
        SinkConfig::Debug(_) | SinkConfig::Influxdb(_) | SinkConfig::Graphite(_) => &[],
    };
    for key in required.iter().filter(|key| !is_set(key)) {
        wrong(key, &format!("is missing; type {} needs it", sink.as_str()));
    }
    if sink == SinkType::Influxdb && is_set("url") {
        for key in ["host", "port"].into_iter().filter(|key| is_set(key)) {
            wrong(key, "cannot be used beside url, which names the server");
        }
    }
    if matches!(sink, SinkType::Influxdb | SinkType::Datadog)
        && publisher.sink.http_target().is_some_and(|target| target.url.contains('?'))
    {
        wrong("url", "has a query; the agent adds the route and the query itself");
    }
    for (key, other) in [
        ("client_certificate", "client_key"),
        ("client_key", "client_certificate"),
        ("user", "password_file"),
        ("password_file", "user"),
    ] {
        if is_set(key) && !is_set(other) {
            wrong(key, &format!("needs {other} beside it"));
        }
    }
    if is_set("user") && is_set("token_file") {
        wrong("user", "cannot be used beside token_file; a request has one of them");
    }
}

/// Checks lists of `key=value`.
fn check_pairs(publisher: &PublisherConfig, written: &WrittenPublisher, wrong: &mut impl FnMut(&str, &str)) {
    let words = |key| {
        let text = written.get(key).map_or("", |value| value.text.as_str());
        text.split(',').map(str::trim).filter(|word| !word.is_empty())
    };
    if publisher.sink.http_target().is_some() {
        words("headers").filter_map(|word| check_header(word).err()).for_each(|why| wrong("headers", &why));
    }
    if publisher.sink.sink_type() == SinkType::RemoteWrite {
        words("labels").filter_map(|word| check_label(word).err()).for_each(|why| wrong("labels", &why));
    }
}

fn check_header(word: &str) -> Result<(), String> {
    let (name, value) = word.split_once('=').ok_or("has a word that is not Name=value")?;
    let name = name.trim().to_ascii_lowercase();
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err("has a name that no header field can have".to_owned());
    }
    if http::HeaderValue::from_str(value.trim()).is_err() {
        return Err(format!("has a value of {name} that no header field can have"));
    }
    if OWN_HEADERS.contains(&name.as_str()) {
        return Err(format!("has {name}, which the agent writes itself"));
    }
    match SECRET_HEADERS.iter().any(|secret| name.contains(secret)) {
        true => Err(format!("has {name}, whose value is a secret; put it into headers_file")),
        false => Ok(()),
    }
}

fn check_label(word: &str) -> Result<(), String> {
    let (name, _) = word.split_once('=').ok_or_else(|| format!("has {word:?}, which is not key=value"))?;
    let name = name.trim();
    let fits = |(at, byte): (usize, u8)| {
        byte.is_ascii_alphabetic() || byte == b'_' || (at > 0 && byte.is_ascii_digit())
    };
    match !name.is_empty() && !name.starts_with("__") && name.bytes().enumerate().all(fits) {
        true => Ok(()),
        false => Err(format!("has {name:?}, which is no name of a label")),
    }
}

/// Checks a query of filters.
fn check_query(query: &str) -> Result<(), String> {
    let filters: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    if filters.len() > MOST_FILTERS {
        return Err(format!("has a query of {} filters, which may have {MOST_FILTERS}", filters.len()));
    }
    match filters.iter().find(|(key, value)| !FILTERS.contains(&key.as_ref()) || value.is_empty()) {
        Some(_) => Err(format!(
            "has {query:?}, which is no query of filters ({}) such as name=http.*&label=namespace=shop",
            FILTERS.join(", ")
        )),
        None => Ok(()),
    }
}
