use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::super::{AgentConfig, Environment, Layers, SettingKind, SettingOrigin, render_example};
use super::*;

/// An environment with these variables.
struct TestEnvironment(BTreeMap<String, String>);

impl TestEnvironment {
    fn new(variables: &[(&str, &str)]) -> Self {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self(owned.collect())
    }
}

impl Environment for TestEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn variable_names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn hostname(&self) -> String {
        "n1".to_owned()
    }

    fn is_root(&self) -> bool {
        true
    }

    fn uid(&self) -> u32 {
        0
    }
}

fn read(text: &str) -> Result<AgentConfig, Vec<String>> {
    AgentConfig::from_toml(text, &TestEnvironment::new(&[]))
        .map_err(|errors| errors.0.iter().map(ToString::to_string).collect())
}

fn read_one(text: &str) -> PublisherConfig {
    let mut publishers = read(text).unwrap_or_else(|errors| panic!("{errors:#?}")).publish.publishers;
    assert_eq!(publishers.len(), 1, "{publishers:?}");
    publishers.remove(0)
}

/// A publisher of each type, with nothing set but what must be.
fn minimal(sink: SinkType) -> String {
    let required = match sink {
        SinkType::Debug | SinkType::Influxdb | SinkType::Graphite => "",
        SinkType::File => "path = \"/var/log/records\"\n",
        SinkType::RemoteWrite | SinkType::Otlp => "url = \"http://h/push\"\n",
        SinkType::Datadog => "url = \"https://h\"\ntoken_file = \"/t\"\n",
    };
    format!("[publish.p]\ntype = \"{}\"\n{required}", sink.as_str())
}

#[test]
fn nothing_is_published_by_default() {
    let publish = read("").unwrap().publish;
    assert_eq!(publish.publishers, []);
    assert_eq!((publish.settle, publish.spool), (Duration::from_secs(1), 1 << 30));
    assert_eq!((publish.lease, publish.reap_every), (Duration::from_mins(1), Duration::from_secs(30)));
    assert_eq!(publish.reap_limit, 5000);
}

#[test]
fn kadabras_keys_have_kadabras_defaults() {
    let publisher = read_one("[publish.local-influx]\ntype = \"influxdb\"\n");
    assert_eq!(publisher.name, "local-influx");
    assert_eq!((publisher.interval, publisher.batch), (Duration::from_secs(10), Duration::ZERO));
    assert_eq!((publisher.workers, publisher.max_age, publisher.start), (1, None, StartAt::Now));
    let SinkConfig::Influxdb(influx) = &publisher.sink else { panic!("{publisher:?}") };
    assert_eq!(influx.target.url, "http://localhost:8086");
    assert_eq!(influx.target.timeout, Duration::from_secs(5));
    assert_eq!(influx.target.proxy, ProxyChoice::Environment);
    assert_eq!(influx.target.credentials, CredentialFiles::None);
    assert_eq!(influx.api, InfluxApi::V1 { database: "kadabra".to_owned() });
    assert_eq!((influx.fields, influx.compress), (InfluxFields::All, true));
    let other = read_one("[publish.i]\ntype = \"influxdb\"\nhost = \"::1\"\nport = 9999\n");
    assert_eq!(other.sink.http_target().unwrap().url, "http://[::1]:9999");
}

#[test]
fn every_setting_of_a_server_reaches_its_target() {
    let publisher = read_one(
        "[publish.mimir]\ntype = \"remote_write\"\nurl = \"https://mimir/api/v1/push\"\nuser = \"node\"\n\
         password_file = \"/p\"\nheaders = [\"X-Scope-OrgID=prod\", \"X-Zone = a \"]\nheaders_file = \"/h\"\nca = \"/ca\"\n\
         client_certificate = \"/c\"\nclient_key = \"/k\"\nproxy = \"http://proxy:3128\"\ntimeout = \"7s\"\nworkers = 4\n\
         interval = \"1m\"\ninclude = [\"name=http.*&label=namespace=shop\"]\nexclude = [\"tag=debug\"]\nidentity = \"low\"\n\
         naming = \"datadog\"\ntimers = \"native\"\nlabels = [\"cluster=eu-1\", \"job=\"]\nversion = \"2.0\"\nmax_age = \"\"\n\
         start = \"kept\"\n",
    );
    let target = publisher.sink.http_target().unwrap();
    assert_eq!(target.url, "https://mimir/api/v1/push");
    let basic = CredentialFiles::Basic { user: "node".to_owned(), password_file: "/p".into() };
    assert_eq!(target.credentials, basic);
    let headers: Vec<_> = target.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(headers, [("X-Scope-OrgID", "prod"), ("X-Zone", "a")]);
    assert_eq!((&target.headers_file, &target.ca), (&Some("/h".into()), &Some("/ca".into())));
    let files = target.client_certificate.as_ref().unwrap();
    assert_eq!((files.certificate.to_str(), files.key.to_str()), (Some("/c"), Some("/k")));
    assert_eq!(target.proxy, ProxyChoice::Url("http://proxy:3128".to_owned()));
    assert_eq!(target.timeout, Duration::from_secs(7));
    assert_eq!((publisher.workers, publisher.interval), (4, Duration::from_mins(1)));
    assert_eq!(publisher.include, ["name=http.*&label=namespace=shop"]);
    assert_eq!(publisher.exclude, ["tag=debug"]);
    assert_eq!((publisher.identity, publisher.max_age, publisher.start), (Level::Low, None, StartAt::Kept));
    let SinkConfig::RemoteWrite(sink) = &publisher.sink else { panic!("{publisher:?}") };
    assert_eq!(
        (sink.naming, sink.timers, sink.version),
        (Naming::Datadog, Timers::Native, RemoteWriteVersion::V2)
    );
    let labels: Vec<_> = sink.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(labels, [("cluster", "eu-1"), ("job", "")]);
}

#[test]
fn other_types_have_their_own_settings() {
    let sink = |text: &str| read_one(&format!("[publish.p]\n{text}")).sink;
    let graphite = sink("type = \"graphite\"\nhost = \"carbon\"\ntags = true\ntemplate = \"{name}\"\n");
    let SinkConfig::Graphite(graphite) = graphite else { panic!("{graphite:?}") };
    assert_eq!((&*graphite.host, graphite.port, graphite.tags), ("carbon", 2003, true));
    assert_eq!((&*graphite.template, graphite.timeout), ("{name}", Duration::from_secs(5)));
    let otlp = sink(
        "type = \"otlp\"\nurl = \"http://c:4318/v1/metrics\"\ntemporality = \"delta\"\ncompress = false\n",
    );
    let SinkConfig::Otlp(otlp) = otlp else { panic!("{otlp:?}") };
    assert_eq!((otlp.temporality, otlp.compress), (Temporality::Delta, false));
    let datadog = sink("type = \"datadog\"\nurl = \"https://d\"\ntoken_file = \"/t\"\n");
    assert_eq!(datadog.http_target().unwrap().credentials, CredentialFiles::Token("/t".into()));
    let influx =
        sink("type = \"influxdb\"\napi = \"v2\"\norg = \"o\"\nbucket = \"b\"\nfields = \"kadabra\"\n");
    let SinkConfig::Influxdb(influx) = influx else { panic!("{influx:?}") };
    assert_eq!(influx.api, InfluxApi::V2 { org: "o".to_owned(), bucket: "b".to_owned() });
    assert_eq!(influx.fields, InfluxFields::Kadabra);
    assert_eq!(
        sink("type = \"debug\"\nlogger = \"kadabra.publisher\"\n"),
        SinkConfig::Debug(DebugSink { logger: "kadabra.publisher".to_owned() })
    );
    assert_eq!(sink("type = \"file\"\npath = \"/r\"\n"), SinkConfig::File(FileSink { path: "/r".into() }));
}

#[test]
fn every_mistake_is_reported_at_once_and_once() {
    let errors = read(
        "\
[publish]
setle = \"1s\"
[publish.Mimir]
type = \"remote_write\"
[publish.mimir]
type = \"remote_write\"
url = \"mimir/api/v1/push\"
interval = \"15s\"
batch = \"60s\"
tokn_file = \"/t\"
timeout = 5
[publish.none]
[publish.else]
type = \"kafka\"
[publish.file]
type = \"file\"
[publish.influx]
type = \"influxdb\"
url = \"https://me:geheim@influx\"
token_file = \"t\"
headers = [\"Authorization=geheim\"]
include = [\"http.*\"]
",
    )
    .unwrap_err();
    assert_eq!(
        errors,
        [
            "configuration:3: publish.Mimir is no name of a publisher, which has 1 to 32 of a-z, 0-9 and -",
            "configuration:10: publish.mimir.tokn_file is not a setting of a publisher; did you mean publish.mimir.token_file?",
            "configuration:2: publish.setle is not a setting; did you mean publish.settle?",
            "configuration:14: publish.else.type = \"kafka\" is not one of debug, file, influxdb, graphite, remote_write, otlp, \
             datadog",
            "configuration:19: publish.influx.url has a user or a password in it, which others would see; set user and password_file",
            "configuration:20: publish.influx.token_file = \"t\" is not an absolute path",
            "configuration:9: publish.mimir.batch is not a setting of type remote_write; it belongs to type debug, file, influxdb, \
             graphite, otlp, datadog: a receiver refuses a repeated request with two samples of a series, the first of which is older \
             than what it has then; a longer interval makes fewer requests",
            "configuration:7: publish.mimir.url is not a URL such as https://server.example/path, with http or https",
            "configuration:11: publish.mimir.timeout = \"5\" needs a unit, such as 5s",
            "configuration:12: publish.none.type is missing; set it to one of debug, file, influxdb, graphite, remote_write, otlp, \
             datadog",
            "configuration:15: publish.file.path is missing; type file needs it",
            "configuration:21: publish.influx.headers has authorization, whose value is a secret; put it into headers_file",
            "configuration:22: publish.influx.include = \"http.*\" has \"http.*\", which is no query of filters (task, container, \
             name, tag, label) such as name=http.*&label=namespace=shop",
            "configuration:8: publish.mimir.interval = \"15s\" is not a multiple of windows.length, which is 10s",
        ],
        "{errors:#?}"
    );
}

#[test]
fn a_name_is_used_once_and_has_no_other_characters() {
    let errors = read("[publish.a]\ntype = \"debug\"\n[publish.a]\nlogger = \"x\"\n").unwrap_err();
    assert!(errors.len() == 1 && errors[0].starts_with("configuration:3: "), "{errors:?}");
    for name in ["a", "0", "-", "mimir-eu-1", &"a".repeat(32)] {
        assert_eq!(read_one(&format!("[publish.{name}]\ntype = \"debug\"\n")).name, name);
    }
    for name in ["A", "a_b", "\"\"", "\"a.b\"", "\"a b\"", "\"ü\"", "\"../a\"", &"a".repeat(33)] {
        let errors = read(&format!("[publish.{name}]\ntype = \"debug\"\nurl = 1\n")).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains("no name of a publisher"), "{errors:?}");
    }
    let errors = read("publish.a = 5\n").unwrap_err();
    assert!(errors.len() == 1 && errors[0].contains("publish.a is not a setting"), "{errors:?}");
    let errors = read("[publish.a]\ntype = \"debug\"\ninclude = { name = \"a\" }\n").unwrap_err();
    assert_eq!(errors, ["configuration:3: publish.a.include takes a list of words"]);
}

#[test]
fn what_a_type_needs_must_be_there_and_what_excludes_each_other_must_not() {
    let rw = "type = \"remote_write\"\nurl = \"http://h\"\n";
    for (text, mistakes) in [
        ("type = \"remote_write\"\n".to_owned(), &["url is missing; type remote_write needs it"][..]),
        ("type = \"otlp\"\n".to_owned(), &["url is missing; type otlp needs it"]),
        ("type = \"datadog\"\n".to_owned(), &["url is missing", "token_file is missing; type datadog"]),
        ("type = \"influxdb\"\napi = \"v2\"\n".to_owned(), &["bucket is missing; type influxdb needs it"]),
        (
            "type = \"influxdb\"\nurl = \"http://h\"\nport = 1\n".to_owned(),
            &["port = \"1\" cannot be used beside url"],
        ),
        ("type = \"influxdb\"\nurl = \"http://h?db=x\"\n".to_owned(), &["url has a query"]),
        (format!("{rw}user = \"u\"\n"), &["user needs password_file"]),
        (format!("{rw}password_file = \"/p\"\n"), &["password_file = \"/p\" needs user"]),
        (format!("{rw}client_key = \"/k\"\n"), &["needs client_certificate"]),
        (format!("{rw}client_certificate = \"/c\"\n"), &["needs client_key"]),
        (
            format!("{rw}user = \"u\"\npassword_file = \"/p\"\ntoken_file = \"/t\"\n"),
            &["user cannot be used beside token_file"],
        ),
        (
            format!("{rw}headers = [\"X\", \"a b=c\", \"Host=x\", \"X-Api-Key=geheim\"]\n"),
            &["not Name=value", "no header field", "host, which the agent", "x-api-key, whose value"],
        ),
        (format!("{rw}labels = [\"a-b=c\", \"d\"]\n"), &["no name of a label", "not key=value"]),
        (format!("{rw}include = [\"nme=a\", \"name=\"]\n"), &["\"nme=a\"", "\"name=\""]),
        (format!("{rw}exclude = [\"{}\"]\n", ["name=a"; 33].join("&")), &["33 filters"]),
        (format!("{rw}interval = \"25s\"\n"), &["multiple of windows.length"]),
        (format!("{rw}timers = \"histogram\"\n"), &["timers = \"histogram\" is not summary or native"]),
        (format!("{rw}proxy = \"http://u:geheim@p\"\n"), &["proxy has a user or a password"]),
        ("type = \"graphite\"\nhost = \"a:b\"\n".to_owned(), &["host = \"a:b\" is not a host name"]),
    ] {
        let errors = read(&format!("[publish.p]\n{text}")).unwrap_err();
        assert_eq!(errors.len(), mistakes.len(), "{text}: {errors:#?}");
        for (error, part) in errors.iter().zip(mistakes) {
            assert!(error.contains(part) && !error.contains("geheim"), "{part}: {error}");
        }
    }
}

#[test]
fn rows_of_a_type_are_consistent() {
    for sink in SinkType::ALL {
        let mut keys: Vec<&str> = PublisherSetting::of_type(sink).map(|setting| setting.key).collect();
        keys.sort_unstable();
        let rows = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), rows, "{sink:?} has two rows of one key");
        assert!(read(&minimal(sink)).is_ok(), "{sink:?}: {:?}", read(&minimal(sink)));
        for setting in PublisherSetting::of_type(sink).filter(|setting| setting.key != "type") {
            // Every word of a row is one that its reader takes.
            if let SettingKind::OneOf(words) = setting.kind {
                for word in words {
                    let extra = if *word == "v2" { "bucket = \"b\"\n" } else { "" };
                    let text = format!("{}{} = \"{word}\"\n{extra}", minimal(sink), setting.key);
                    assert!(read(&text).is_ok(), "{text}: {:?}", read(&text));
                }
            }
            let wrong = format!("publish.p.{} = ", setting.key);
            let mut layers = Layers::with_defaults(&TestEnvironment::new(&[]));
            assert_eq!(layers.add_toml(&minimal(sink), "f"), []);
            let key = format!("publish.p.{}", setting.key);
            layers.set_value(&key, "\u{7}!".to_owned(), SettingOrigin::Flag("--set".to_owned())).unwrap();
            let errors = AgentConfig::from_layers(&layers).unwrap_err().to_string();
            assert!(errors.starts_with(&format!("--set: {key} ")), "{wrong}: {errors}");
        }
    }
    let documented = PUBLISHER_SETTINGS.iter().all(|setting| setting.help.len() > 10);
    let grouped = PUBLISHER_SETTINGS.chunk_by(|a, b| a.key == b.key).map(|rows| rows[0].key);
    let mut grouped: Vec<_> = grouped.collect();
    let groups = grouped.len();
    grouped.sort_unstable();
    grouped.dedup();
    assert!(documented && grouped.len() == groups, "rows of one key are not together");
}

#[test]
fn variables_are_over_the_file_and_can_make_a_publisher() {
    let environment = TestEnvironment::new(&[
        ("TALLYPORT_PUBLISH_MIMIR_EU_URL", "https://other/push"),
        ("TALLYPORT_PUBLISH_MIMIR_EU_TOKEN_FILE", "/token"),
        ("TALLYPORT_PUBLISH_LOCAL_TYPE", "influxdb"),
        ("TALLYPORT_PUBLISH_LOCAL_DATABASE", "metrics"),
        ("TALLYPORT_PUBLISH_SETTLE", "2s"),
        ("TALLYPORT_PUBLISH_SPOOL", "300MiB"),
        // Of a service of Kubernetes, and of a publisher without a type.
        ("TALLYPORT_PUBLISH_SERVICE_HOST", "10.0.0.1"),
        ("TALLYPORT_PUBLISH_OTHER_URL", "https://x"),
    ]);
    let mut layers = Layers::with_defaults(&environment);
    let text = "[publish.mimir-eu]\ntype = \"remote_write\"\nurl = \"https://mimir/push\"\nworkers = 2\n";
    assert_eq!(layers.add_toml(text, "f.toml"), []);
    layers.add_variables(&environment);
    let flag = SettingOrigin::Flag("--set publish.mimir-eu.workers".to_owned());
    layers.set_value("publish.mimir-eu.workers", "3".to_owned(), flag.clone()).unwrap();
    let config = AgentConfig::from_layers(&layers).unwrap_or_else(|errors| panic!("{errors}"));
    let named: Vec<_> = config.publish.publishers.iter().map(|publisher| publisher.name.as_str()).collect();
    assert_eq!((named, config.publish.settle), (vec!["local", "mimir-eu"], Duration::from_secs(2)));
    assert_eq!(config.publish.spool, 300 << 20);
    let mimir = &config.publish.publishers[1];
    assert_eq!((mimir.sink.http_target().unwrap().url.as_str(), mimir.workers), ("https://other/push", 3));
    let shown: Vec<_> = layers
        .publisher_entries()
        .filter(|entry| entry.key().starts_with("publish.mimir-eu"))
        .map(|entry| (entry.setting.key, entry.raw_text().to_owned(), entry.origin().to_string()))
        .collect();
    let of = |key: &str| shown.iter().find(|(shown, ..)| *shown == key).unwrap();
    assert_eq!(of("url").2, "TALLYPORT_PUBLISH_MIMIR_EU_URL");
    assert_eq!((of("type").2.as_str(), of("workers").1.as_str()), ("f.toml:2", "3"));
    assert_eq!((of("timeout").1.as_str(), of("timeout").2.as_str()), ("5s", "default"));
    assert!(layers.set_value("publish.mimir-eu.x", String::new(), flag.clone()).is_err());
    assert!(layers.set_value("publish.M.url", String::new(), flag).is_err());
}

#[test]
fn the_example_has_a_sound_publisher_of_every_type() {
    let publishers = |line: &&str| line.starts_with('#') && !line.starts_with("# ");
    let example = render_example();
    let lines = example.lines().filter(publishers).map(|line| line.trim_start_matches('#'));
    let text = lines.collect::<Vec<_>>().join("\n");
    let config = read(&text).unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"));
    let mut types: Vec<_> =
        config.publish.publishers.iter().map(|publisher| publisher.sink.sink_type()).collect();
    types.sort_unstable();
    assert_eq!(types, SinkType::ALL);
}

#[test]
fn files_must_be_there_and_secrets_must_be_kept_from_others() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let text = |token: &str, key: &str, ca: &str| {
        format!(
            "[publish.p]\ntype = \"remote_write\"\nurl = \"http://h\"\ntoken_file = {token:?}\nclient_key = {key:?}\n\
             client_certificate = {ca:?}\nca = {ca:?}\n"
        )
    };
    let check = |text: &str| {
        let mut layers = Layers::with_defaults(&TestEnvironment::new(&[]));
        assert_eq!(layers.add_toml(text, "f.toml"), []);
        layers.check_files().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let (token, key, ca) = (file("token", "t", 0o640), file("key", "k", 0o600), file("ca", "c", 0o644));
    assert_eq!(check(&text(&token, &key, &ca)), [""; 0]);
    let (open, empty) = (file("open", "t", 0o644), file("empty", "", 0o600));
    let missing = directory.path().join("missing").display().to_string();
    let errors = check(&text(&open, &empty, &missing));
    assert_eq!(errors.len(), 4, "{errors:#?}");
    for (error, part) in errors.iter().zip(["chmod o=", "No such file", "No such file", "client_key"]) {
        assert!(error.contains(part), "{part}: {errors:#?}");
    }
    assert!(errors.iter().any(|error| error.ends_with("is empty")), "{errors:#?}");
    assert!(check(&text(directory.path().to_str().unwrap(), &key, &ca))[0].contains("directory"));
}

fn changes(old: &str, new: &str) -> PublisherChanges {
    let [old, new] = [old, new].map(|text| read(text).unwrap_or_else(|errors| panic!("{errors:#?}")));
    new.publisher_changes(&old)
}

#[test]
fn a_batch_is_whole_intervals_that_can_still_be_read_and_sent_at_its_end() {
    let of = |sink: SinkType, batch: &str, more: &str| {
        read(&format!("{}batch = {batch:?}\n{more}", minimal(sink)))
            .map(|config| config.publish.publishers[0].batch)
    };
    for sink in [SinkType::Debug, SinkType::File, SinkType::Influxdb, SinkType::Graphite, SinkType::Datadog] {
        assert_eq!(of(sink, "1m", ""), Ok(Duration::from_mins(1)), "{sink:?}");
    }
    assert_eq!(of(SinkType::Otlp, "1m", "temporality = \"delta\"\n"), Ok(Duration::from_mins(1)));
    let memory = "windows.keep = 6\n";
    for (sink, batch, more, part) in [
        (SinkType::Influxdb, "15s", "", "is not a multiple of interval, which is 10s"),
        (SinkType::Influxdb, "30s", "interval = \"20s\"\n", "is not a multiple of interval, which is 20s"),
        (SinkType::Influxdb, "5s", "", "is not a multiple of interval"),
        (SinkType::Datadog, "55m", "", "is not shorter than max_age, which is 55m"),
        (SinkType::Influxdb, "2m", "max_age = \"1m\"\n", "is not shorter than max_age, which is 1m"),
        (SinkType::Otlp, "1m", "", "needs temporality = \"delta\""),
        (SinkType::RemoteWrite, "1m", "", "is not a setting of type remote_write"),
    ] {
        let errors = of(sink, batch, more).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains(part), "{sink:?} {batch} {more}: {errors:?}");
    }
    for without_files in ["windows.log = false\n", "publish.spool = \"0B\"\n"] {
        let of_memory = |batch: &str| {
            read(&format!("{without_files}{memory}[publish.p]\ntype = \"debug\"\nbatch = {batch:?}\n"))
        };
        assert!(of_memory("50s").is_ok());
        let errors = of_memory("1m").unwrap_err();
        assert!(
            errors.len() == 1 && errors[0].contains("for which memory has windows, which is 1m"),
            "{errors:?}"
        );
    }
}

#[test]
fn workers_are_at_most_sixteen_and_only_where_there_are_requests() {
    let of = |sink: SinkType, workers: usize| {
        read(&format!("{}workers = {workers}\n", minimal(sink)))
            .map(|config| config.publish.publishers[0].workers)
    };
    for sink in [SinkType::Influxdb, SinkType::RemoteWrite, SinkType::Otlp, SinkType::Datadog] {
        assert_eq!(of(sink, 16), Ok(16), "{sink:?}");
        assert!(of(sink, 17).is_err() && of(sink, 0).is_err(), "{sink:?}");
    }
    assert!(of(SinkType::Graphite, 2).is_err(), "one connection");
}

#[test]
fn a_reload_starts_stops_and_changes_by_name() {
    let of = |name: &str, more: &str| format!("[publish.{name}]\ntype = \"influxdb\"\n{more}");
    let old = of("a", "") + &of("b", "") + &of("c", "");
    assert!(changes(&old, &old).is_empty());
    let new = of("b", "url = \"http://elsewhere\"\n") + &of("c", "") + &of("d", "");
    let found = changes(&old, &new);
    assert_eq!(found.stopped, ["a"]);
    assert_eq!(found.started.iter().map(|config| config.name.as_str()).collect::<Vec<_>>(), ["d"]);
    let [PublisherChange { config, series: false }] = &found.changed[..] else { panic!("{found:?}") };
    assert_eq!((&*config.name, &*config.sink.http_target().unwrap().url), ("b", "http://elsewhere"));
    assert!(
        changes(&old, &(old.clone() + "start = \"kept\"\n")).is_empty(),
        "only a first start asks for it"
    );
}

#[test]
fn a_change_of_the_series_is_told_from_one_of_the_requests() {
    for (setting, series) in [
        ("timeout = \"6s\"", false),
        ("workers = 2", false),
        ("labels = [\"a=b\"]", true),
        ("interval = \"20s\"", true),
        ("include = [\"name=a\"]", true),
        ("identity = \"high\"", true),
    ] {
        let found = changes(
            &minimal(SinkType::RemoteWrite),
            &format!("{}{setting}\n", minimal(SinkType::RemoteWrite)),
        );
        assert!(matches!(&found.changed[..], [change] if change.series == series), "{setting}: {found:?}");
    }
    let found = changes(&minimal(SinkType::Influxdb), &minimal(SinkType::Graphite));
    assert!(matches!(&found.changed[..], [PublisherChange { series: true, .. }]), "{found:?}");
    let written = format!("{}interval = \"10s\"\n", minimal(SinkType::Debug));
    let found = changes(&minimal(SinkType::Debug), &written);
    assert!(found.is_empty(), "the default, in words: {found:?}");
}

#[test]
fn an_interval_that_only_the_next_start_suits_waits_for_it() {
    let of = |window: &str, interval: &str| {
        format!("windows.length = {window:?}\n[publish.p]\ntype = \"debug\"\ninterval = {interval:?}\n")
    };
    let running = read(&of("10s", "20s")).unwrap();
    let applied = |text: &str| read(text).unwrap().applied_over(&running).publish.publishers;
    assert_eq!(applied(&of("15s", "30s"))[0].interval, Duration::from_secs(30));
    assert_eq!(applied(&of("15s", "45s"))[0].interval, Duration::from_secs(20), "that of before");
    assert_eq!(applied(&of("15s", ""))[0].interval, Duration::from_secs(10), "one window, as long as it is");
    let batched = "windows.length = \"15s\"\n[publish.p]\ntype = \"debug\"\nbatch = \"30s\"\n";
    let [kept] = &applied(batched)[..] else { panic!() };
    assert_eq!((kept.interval, kept.batch), (Duration::from_secs(10), Duration::from_secs(30)));
    let batched = batched.replace("30s", "45s");
    assert_eq!(applied(&batched)[0].batch, Duration::ZERO, "of 45 s no intervals of 10 s consist");
    let fresh = of("15s", "45s").replace("publish.p", "publish.q");
    assert_eq!(applied(&fresh), [], "a new one");
}
