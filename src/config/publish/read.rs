//! Reads publishers from layers.

use std::time::Duration;

use super::super::TlsFiles;
use super::super::error::ConfigError;
use super::super::layers::SettingOrigin;
use super::super::values::SettingValues;
use super::layers::{PublisherLayers, WrittenPublisher, full_key};
use super::setting::{PublisherSetting, SinkType};
use super::target::{CredentialFiles, HttpTarget, ProxyChoice};
use super::{
    DatadogSink, DebugSink, FileSink, GraphiteSink, InfluxApi, InfluxFields, InfluxSink, OtlpSink,
    PublisherConfig, RemoteWriteSink, RemoteWriteVersion, SinkConfig, StartAt, Temporality,
};
use crate::render::prometheus::{Level, Naming, Timers};

/// The values of one publisher, parsed according to the rows of its type.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::config) struct PublisherValues {
    pub(in crate::config) name: String,
    sink: SinkType,
    values: SettingValues,
}

/// Parses the values of all publishers, and returns all errors. A publisher without a type is left out. An invalid value is
/// replaced by its default, so that the others can be checked as well.
pub(in crate::config) fn read_publishers(
    layers: &PublisherLayers,
) -> (Vec<PublisherValues>, Vec<ConfigError>) {
    let (mut read, mut errors) = (Vec::new(), Vec::new());
    for (name, written) in layers.iter() {
        let Some(sink) = written.sink_type() else {
            errors.push(type_error(name, written));
            continue;
        };
        for (key, value) in written.iter() {
            if PublisherSetting::find(key, sink).is_none() {
                errors.push(foreign_setting(name, key, sink, &value.origin));
            }
        }
        let text = |setting: &PublisherSetting| {
            written.get(setting.key).map_or(setting.default, |value| value.text.as_str())
        };
        let rows = PublisherSetting::of_type(sink);
        let values = rows.map(|setting| (setting.key, setting.kind, setting.default, text(setting)));
        let (values, wrong) = SettingValues::read_rows(values);
        errors.extend(wrong.into_iter().map(|(key, reason)| written.value_error(name, key, &reason)));
        read.push(PublisherValues { name: name.to_owned(), sink, values });
    }
    (read, errors)
}

fn type_error(name: &str, written: &WrittenPublisher) -> ConfigError {
    let types = SinkType::ALL.map(SinkType::as_str).join(", ");
    match written.get("type") {
        Some(_) => written.value_error(name, "type", &format!("is not one of {types}")),
        None => written.value_error(name, "type", &format!("is missing; set it to one of {types}")),
    }
}

/// A setting that publishers of another type have.
fn foreign_setting(name: &str, key: &str, sink: SinkType, origin: &SettingOrigin) -> ConfigError {
    let types = PublisherSetting::types_with(key).into_iter().map(SinkType::as_str).collect::<Vec<_>>();
    let reason =
        PublisherSetting::absence_reason(key, sink).map_or(String::new(), |reason| format!(": {reason}"));
    let why = format!(
        " is not a setting of type {}; it belongs to type {}{reason}",
        sink.as_str(),
        types.join(", ")
    );
    ConfigError::new(origin, &full_key(name, key), why)
}

/// Builds publishers from values. `window` is the length of the windows that intervals consist of.
pub(in crate::config) fn build_publishers(
    values: &[PublisherValues],
    window: Duration,
) -> Vec<PublisherConfig> {
    values.iter().map(|publisher| build_publisher(publisher, window)).collect()
}

fn build_publisher(publisher: &PublisherValues, window: Duration) -> PublisherConfig {
    let PublisherValues { name, sink, values } = publisher;
    PublisherConfig {
        name: name.clone(),
        sink: build_sink(*sink, values),
        interval: values.optional_duration("interval").unwrap_or(window),
        batch: publisher.batch(),
        include: values.word_values("include"),
        exclude: values.word_values("exclude"),
        identity: values.choice_value("identity", &Level::ALL.map(|level| (level.as_str(), level))),
        workers: if values.has_row("workers") { values.count_value("workers") } else { 1 },
        max_age: values.optional_duration("max_age"),
        start: values.choice_value("start", &[("now", StartAt::Now), ("kept", StartAt::Kept)]),
    }
}

fn build_sink(sink: SinkType, values: &SettingValues) -> SinkConfig {
    match sink {
        SinkType::Debug => SinkConfig::Debug(DebugSink { logger: values.raw_text("logger") }),
        SinkType::File => {
            SinkConfig::File(FileSink { path: values.optional_path("path").unwrap_or_default() })
        }
        SinkType::Influxdb => SinkConfig::Influxdb(build_influx(values)),
        SinkType::Graphite => SinkConfig::Graphite(GraphiteSink {
            host: values.raw_text("host"),
            port: values.count_value("port"),
            timeout: values.duration_value("timeout"),
            template: values.raw_text("template"),
            tags: values.bool_value("tags"),
        }),
        SinkType::RemoteWrite => SinkConfig::RemoteWrite(RemoteWriteSink {
            target: build_target(values, values.raw_text("url")),
            query_url: Some(values.raw_text("query_url")).filter(|url| !url.is_empty()),
            version: values.choice_value(
                "version",
                &[
                    ("auto", RemoteWriteVersion::Auto),
                    ("1.0", RemoteWriteVersion::V1),
                    ("2.0", RemoteWriteVersion::V2),
                ],
            ),
            naming: values.choice_value("naming", &Naming::ALL.map(|naming| (naming.as_str(), naming))),
            timers: values.choice_value("timers", &Timers::ALL.map(|timers| (timers.as_str(), timers))),
            labels: build_pairs(values, "labels"),
        }),
        SinkType::Otlp => SinkConfig::Otlp(OtlpSink {
            target: build_target(values, values.raw_text("url")),
            temporality: values.choice_value(
                "temporality",
                &[("cumulative", Temporality::Cumulative), ("delta", Temporality::Delta)],
            ),
            compress: values.bool_value("compress"),
        }),
        SinkType::Datadog => SinkConfig::Datadog(DatadogSink {
            target: build_target(values, values.raw_text("url")),
            compress: values.bool_value("compress"),
        }),
    }
}

fn build_influx(values: &SettingValues) -> InfluxSink {
    let url = match values.raw_text("url") {
        url if url.is_empty() => {
            let (host, port) = (values.raw_text("host"), values.count_value::<u16>("port"));
            // A host with colons is an IPv6 address.
            if host.contains(':') {
                format!("http://[{host}]:{port}")
            } else {
                format!("http://{host}:{port}")
            }
        }
        url => url,
    };
    let database = values.raw_text("database");
    InfluxSink {
        target: build_target(values, url),
        api: match values.word_value("api") {
            "v2" => InfluxApi::V2 { org: values.raw_text("org"), bucket: values.raw_text("bucket") },
            "v3" => InfluxApi::V3 { database },
            _ => InfluxApi::V1 { database },
        },
        fields: values
            .choice_value("fields", &[("all", InfluxFields::All), ("kadabra", InfluxFields::Kadabra)]),
        compress: values.bool_value("compress"),
    }
}

fn build_target(values: &SettingValues, url: String) -> HttpTarget {
    let certificate = values.optional_path("client_certificate");
    let user = if values.has_row("user") { values.raw_text("user") } else { String::new() };
    let credentials = match (values.optional_path("token_file"), user) {
        (Some(token), _) => CredentialFiles::Token(token),
        (None, user) if user.is_empty() => CredentialFiles::None,
        (None, user) => match values.optional_path("password_file") {
            Some(password_file) => CredentialFiles::Basic { user, password_file },
            None => CredentialFiles::None,
        },
    };
    HttpTarget {
        url,
        timeout: values.duration_value("timeout"),
        proxy: match values.raw_text("proxy").as_str() {
            "env" => ProxyChoice::Environment,
            "" => ProxyChoice::Direct,
            url => ProxyChoice::Url(url.to_owned()),
        },
        ca: values.optional_path("ca"),
        client_certificate: certificate
            .zip(values.optional_path("client_key"))
            .map(|(certificate, key)| TlsFiles { certificate, key }),
        credentials,
        headers: build_pairs(values, "headers"),
        headers_file: values.optional_path("headers_file"),
    }
}

/// A list of `key=value`. Words of another form have been reported.
fn build_pairs(values: &SettingValues, key: &'static str) -> Vec<(String, String)> {
    let words = values.word_values(key);
    let pairs = words.iter().filter_map(|word| word.split_once('='));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}

impl PublisherValues {
    /// The rows whose values differ from those of `old`. Where the types differ, rows of one of them differ.
    pub(in crate::config) fn changed_from(
        &self,
        old: &Self,
    ) -> impl Iterator<Item = &'static PublisherSetting> {
        PublisherSetting::of_type(self.sink)
            .filter(|row| self.values.find(row.key) != old.values.find(row.key))
    }

    /// For how long rounds are gathered.
    fn batch(&self) -> Duration {
        if self.values.has_row("batch") { self.values.duration_value("batch") } else { Duration::ZERO }
    }

    /// Whether intervals of this publisher consist of whole windows of this length, and batches of whole intervals.
    fn fits(&self, window: Duration) -> bool {
        let interval = self.values.optional_duration("interval").unwrap_or(window);
        is_multiple(interval, window) && is_multiple(self.batch(), interval)
    }
}

/// Whether an interval consists of whole windows, or a batch of whole intervals.
pub(super) fn is_multiple(interval: Duration, window: Duration) -> bool {
    let remainder = interval.as_millis().checked_rem(window.as_millis());
    remainder == Some(0)
}

/// The publishers that a running agent can have after a reload. `windows.length` changes at a restart only, and a publisher
/// whose interval suits the new length alone stays as it is until then, or is left out if it is new.
pub(in crate::config) fn keep_fitting(
    publishers: Vec<PublisherValues>,
    running: &[PublisherValues],
    window: Duration,
) -> Vec<PublisherValues> {
    let fitting = |publisher: PublisherValues| match publisher.fits(window) {
        true => Some(publisher),
        false => running.iter().find(|old| old.name == publisher.name).cloned(),
    };
    publishers.into_iter().filter_map(fitting).collect()
}
