use std::collections::BTreeMap;

use super::*;
use crate::products::Product;

struct TestEnvironment(BTreeMap<&'static str, &'static str>, bool);

impl Environment for TestEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| (*value).to_owned())
    }

    fn variable_names(&self) -> Vec<String> {
        self.0.keys().map(|name| (*name).to_owned()).collect()
    }

    fn hostname(&self) -> String {
        "n1".to_owned()
    }

    fn is_root(&self) -> bool {
        self.1
    }

    fn uid(&self) -> u32 {
        if self.1 { 0 } else { 1000 }
    }
}

fn environment(variables: &[(&'static str, &'static str)]) -> TestEnvironment {
    TestEnvironment(variables.iter().copied().collect(), true)
}

fn read(text: &str) -> Result<AgentConfig, Vec<String>> {
    AgentConfig::from_toml(text, &environment(&[]))
        .map_err(|errors| errors.0.iter().map(ToString::to_string).collect())
}

#[test]
fn a_list_of_patterns_is_bounded_in_number_and_length() {
    for key in ["http.hosts", "kubernetes.namespaces", "kubernetes.exclude_pod_labels"] {
        if !Setting::find(key).unwrap().is_available() {
            continue;
        }
        let of = |words: &[String]| read(&format!("{key} = {words:?}"));
        assert!(of(&vec!["*".to_owned(); 256]).is_ok(), "{key}");
        let error = of(&vec!["*".to_owned(); 257]).unwrap_err();
        assert!(error[0].contains("257 entries and may have 256"), "{error:?}");
        assert!(of(&["?".repeat(1024)]).is_ok(), "{key}");
        let error = of(&["?".repeat(1025)]).unwrap_err();
        assert!(error[0].contains("1025 bytes"), "{error:?}");
    }
}

#[test]
fn nothing_needs_to_be_said() {
    let config = read("").unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:9725");
    assert_eq!(config.admin.socket, PathBuf::from("/run/tallyport/admin.sock"));
    assert_eq!(config.state_dir, PathBuf::from("/run/tallyport/state"));
    assert_eq!((config.aggregation.window, config.aggregation.keep), (Duration::from_secs(10), 30));
    assert_eq!(config.aggregation, AggregatorSettings::default(), "the core and the table agree on defaults");
    assert_eq!(config.node, "n1");
}

#[test]
fn without_root_everything_is_below_the_users_own_directories() {
    let socket = |variables: &[(&'static str, &'static str)]| {
        let environment = TestEnvironment(variables.iter().copied().collect(), false);
        AgentConfig::from_toml("", &environment).unwrap().admin.socket.display().to_string()
    };
    assert_eq!(socket(&[("XDG_RUNTIME_DIR", "/run/user/1000/")]), "/run/user/1000/tallyport/admin.sock");
    assert_eq!(socket(&[]), "/tmp/tallyport-1000/admin.sock");
    assert_eq!(
        socket(&[("XDG_RUNTIME_DIR", "relative"), ("TMPDIR", "/var/tmp")]),
        "/var/tmp/tallyport-1000/admin.sock"
    );
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = "\
[http]
listen = \"everywhere\"
lisen = \"127.0.0.1:1\"

[windows]
length = 10
keep = 0

[limits]
series = \"many\"
memory = \"64\"
mode = \"maybe\"

[statsd]
tag_styles = [\"influx\", \"graphite\"]

[nonsense]
x = 1
";
    let errors = read(text).unwrap_err();
    assert_eq!(
        errors,
        [
            "configuration:3: http.lisen is not a setting; did you mean http.listen?",
            "configuration:17: nonsense is not a setting",
            "configuration:2: http.listen = \"everywhere\" is not an address and port, such as 127.0.0.1:9725",
            "configuration:6: windows.length = \"10\" needs a unit, such as 10s",
            "configuration:7: windows.keep = \"0\" is not a whole number from 1 to 10000",
            "configuration:15: statsd.tag_styles = \"influx,graphite\" has \"graphite\", which is not in a list of influx, \
             librato, signalfx, all",
            "configuration:12: limits.mode = \"maybe\" is not enforce or observe",
            "configuration:10: limits.series = \"many\" is not a whole number from 1 to 10000000",
            "configuration:11: limits.memory = \"64\" needs a unit, such as 64KiB",
        ]
    );
}

#[test]
fn what_is_not_toml_is_reported_with_its_line() {
    let errors = read("[http]\nlisten = \nmode =\n").unwrap_err();
    assert!(errors.iter().any(|error| error.starts_with("configuration:2: ")), "{errors:?}");
    assert!(errors.iter().any(|error| error.starts_with("configuration:3: ")), "{errors:?}");
}

#[test]
fn a_wrong_key_gets_the_nearest_right_one() {
    for (wrong, right) in [
        ("windows.lenght", "windows.length"),
        ("limits.serie", "limits.series"),
        ("listen", "http.listen"),
        ("tombstone", "containers.tombstone"),
    ] {
        assert_eq!(Setting::nearest_key(wrong), Some(right), "{wrong}");
    }
    assert_eq!(Setting::nearest_key("qqqqqqqq"), None);
}

#[test]
fn flags_are_over_variables_and_variables_over_the_file() {
    let environment = environment(&[("TALLYPORT_WINDOWS_KEEP", "20"), ("TALLYPORT_LIMITS_SERIES", "7")]);
    let mut layers = Layers::with_defaults(&environment);
    assert_eq!(layers.add_toml("windows.keep = 10\nlimits.series = 5\nnode = \"file\"", "f.toml"), []);
    layers.add_variables(&environment);
    layers.set_value("windows.keep", "30".to_owned(), SettingOrigin::Flag("--keep".to_owned())).unwrap();
    let config = AgentConfig::from_layers(&layers).unwrap();
    assert_eq!(
        (config.aggregation.keep, config.aggregation.limits.series, config.node.as_str()),
        (30, 7, "file")
    );
    let origins: Vec<_> = ["windows.keep", "limits.series", "node", "log.filter"]
        .iter()
        .map(|key| layers.get(key).unwrap().origin.to_string())
        .collect();
    assert_eq!(origins, ["--keep", "TALLYPORT_LIMITS_SERIES", "f.toml:3", "default"]);
}

#[test]
fn an_address_off_loopback_must_be_wanted() {
    let errors = read("http.listen = \"0.0.0.0:9725\"").unwrap_err();
    assert!(errors[0].contains("off loopback"), "{errors:?}");
    assert!(read("http.listen = \"0.0.0.0:9725\"\nhttp.insecure = true").is_ok());
    assert!(read("http.listen = \"[::1]:9725\"").is_ok());
}

#[test]
fn tls_and_tokens_make_an_address_off_loopback_sound_and_one_of_them_does_not() {
    let off = "http.listen = \"10.0.0.1:9725\"\n";
    let (tls, tokens) = ("http.tls_certificate = \"/c\"\nhttp.tls_key = \"/k\"\n", "http.tokens = \"/t\"\n");
    assert!(read(&format!("{off}{tls}{tokens}")).is_ok());
    for (half, missing) in [(tls, "set http.tokens,"), (tokens, "set http.tls_certificate and http.tls_key,")]
    {
        let errors = read(&format!("{off}{half}")).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains(missing), "{errors:?}");
        assert!(read(&format!("{off}{half}http.insecure = true")).is_ok());
    }
    let errors = read("http.tls_key = \"/k\"").unwrap_err();
    assert!(errors[0].contains("needs http.tls_certificate"), "{errors:?}");
    let errors = read("http.tls_certificate = \"/c\"").unwrap_err();
    assert!(errors[0].contains("needs http.tls_key"), "{errors:?}");
}

#[test]
fn values_at_the_edges_of_their_range_are_taken_and_beyond_it_refused() {
    for setting in SETTINGS.iter().filter(|setting| setting.is_available()) {
        let edges = match setting.kind {
            SettingKind::Count(least, most) => {
                [least, most].map(|n| (n.to_string(), (n + 1).to_string())).to_vec()
            }
            SettingKind::Time(_, most) => vec![(kind::time_text(most), kind::time_text(most + 1000))],
            SettingKind::Size(_, most) => vec![(kind::size_text(most), kind::size_text(most + 1))],
            _ => continue,
        };
        let (inside, _) = &edges[0];
        let (_, outside) = edges.last().unwrap();
        let quoted = |text: &str| {
            if matches!(setting.kind, SettingKind::Count(..)) { text.to_owned() } else { format!("{text:?}") }
        };
        assert!(read(&format!("{} = {}", setting.key, quoted(inside))).is_ok(), "{} = {inside}", setting.key);
        assert!(
            read(&format!("{} = {}", setting.key, quoted(outside))).is_err(),
            "{} = {outside}",
            setting.key
        );
    }
}

#[test]
fn a_value_that_no_setting_takes_is_reported_for_each_of_them() {
    for setting in SETTINGS {
        let mut layers = Layers::with_defaults(&environment(&[]));
        layers.set_value(setting.key, "\u{7}!".to_owned(), SettingOrigin::Flag("--set".to_owned())).unwrap();
        let errors = AgentConfig::from_layers(&layers).unwrap_err();
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert!(errors.to_string().contains(setting.key), "{}: {errors}", setting.key);
    }
}

#[test]
fn every_default_and_every_word_of_a_row_is_one_that_its_reader_takes() {
    for setting in SETTINGS.iter().filter(|setting| setting.is_available()) {
        let (SettingKind::OneOf(words) | SettingKind::Words(words)) = setting.kind else { continue };
        for word in words {
            let mut layers = Layers::with_defaults(&environment(&[]));
            layers
                .set_value(setting.key, (*word).to_owned(), SettingOrigin::Flag("--set".to_owned()))
                .unwrap();
            assert!(AgentConfig::from_layers(&layers).is_ok(), "{} = {word}", setting.key);
        }
    }
}

#[test]
fn a_mistake_in_a_setting_of_the_listener_is_not_taken_for_a_missing_protection() {
    let off = "http.listen = \"10.0.0.1:9725\"\nhttp.tls_certificate = \"/c\"\nhttp.tls_key = \"/k\"\n";
    let errors = read(&format!("{off}http.tokens = \"t\"")).unwrap_err();
    assert_eq!(errors, ["configuration:4: http.tokens = \"t\" is not an absolute path"]);
}

#[test]
fn the_example_is_the_defaults() {
    let commented: String = render_example()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.contains(" = ") && !setting.contains("= \"\"") => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_eq!(read(&commented), read(""), "{commented}");
}

#[test]
fn what_only_a_restart_changes_is_named() {
    let old = read("").unwrap();
    let new = read("windows.length = \"20s\"\nlimits.series = 5\nhttp.listen = \"127.0.0.1:1\"").unwrap();
    assert_eq!(new.needs_restart(&old), ["http.listen", "windows.length"]);
    assert!(old.needs_restart(&old).is_empty());
    let new = read(
        "http.tokens = \"/t\"\nhttp.hosts = [\"a\"]\nhttp.tls_certificate = \"/c\"\nhttp.tls_key = \"/k\"",
    );
    assert!(new.unwrap().needs_restart(&old).is_empty());
}

#[test]
fn a_default_that_depends_on_another_setting_is_kept_with_it() {
    let old = read("").unwrap();
    let new = read("admin.socket = \"/run/other/admin.sock\"").unwrap();
    assert_eq!(new.state_dir, PathBuf::from("/run/other/state"));
    assert_eq!(new.needs_restart(&old), ["state_dir", "admin.socket"]);
    assert_eq!(new.applied_over(&old), old);
    let same = read("state_dir = \"/run/tallyport/state\"\nhttp.header_timeout = \"5000ms\"").unwrap();
    assert!(same.needs_restart(&old).is_empty(), "other words for the same values");
}

#[test]
fn the_datadog_preset_makes_signed_gauges_absolute() {
    assert_eq!(read("").unwrap().usual_gauge_sign(), GaugeSign::Auto);
    assert_eq!(read("env.presets = [\"statsd\"]").unwrap().usual_gauge_sign(), GaugeSign::Auto);
    assert_eq!(read("statsd.gauge_sign = \"delta\"").unwrap().usual_gauge_sign(), GaugeSign::Delta);
    assert_eq!(read("env.presets = [\"datadog\"]").unwrap().usual_gauge_sign(), GaugeSign::Absolute);
    assert_eq!(read("statsd.gauge_sign = \"absolute\"").unwrap().usual_gauge_sign(), GaugeSign::Absolute);
}

#[test]
fn a_window_is_whole_seconds() {
    assert!(read("windows.length = \"1500ms\"").is_err());
    assert!(read("windows.length = \"1s\"").is_ok());
}

#[test]
#[cfg(feature = "nri")]
fn a_list_of_patterns_takes_any_words() {
    let config =
        read("[kubernetes]\nnamespaces = [\"shop\", \"bank-*\"]\npod_labels = [\"app=web\"]").unwrap();
    assert_eq!(config.kubernetes.namespaces, ["shop", "bank-*"]);
    assert_eq!(config.kubernetes.pod_labels, ["app=web"]);
    assert_eq!(config.kubernetes.exclude_namespaces, ["kube-system"]);
    assert_eq!(read("kubernetes.exclude_namespaces = []").unwrap().kubernetes.exclude_namespaces, [""; 0]);
    assert!(read("kubernetes.namespaces = [\"a\\u0007\"]").is_err());
    assert_eq!(read("kubernetes.mode = \"opt-in\"").unwrap().kubernetes.mode, PodMode::OptIn);
}

#[test]
fn bounds_are_numbers_that_rise_and_count_only_where_histograms_are_asked_for() {
    use crate::aggregate::{Bounds, Counting};
    let text =
        "[prometheus]\ntimers = \"histogram\"\ntimer_buckets = [0.1, 1, 1e3]\nvalue_buckets = \"-1, 0\"\n";
    let wanted = Counting::Classic {
        timers: Bounds::new(&[0.1, 1.0, 1000.0], 3).unwrap(),
        values: Bounds::new(&[-1.0, 0.0], 0).unwrap(),
    };
    assert_eq!(read(text).unwrap().aggregation.counting, wanted);
    assert_eq!(read(&text.replace("histogram", "summary")).unwrap().aggregation.counting, Counting::Off);
    assert_eq!(read(&text.replace("histogram", "native")).unwrap().aggregation.counting, Counting::Native);
    let wrong = "[prometheus]\ntimers = \"both\"\ntimer_buckets = [1, 1]\nvalue_buckets = [1, \"x\"]\n";
    let errors = read(wrong).unwrap_err();
    assert_eq!(errors.len(), 3, "{errors:?}");
    for (error, part) in
        errors.iter().zip(["summary or histogram or native", "larger than", "\"x\", which is not"])
    {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(read("[prometheus]\ntimer_buckets = []\n").unwrap_err().len(), 1);
}

/// What is wrong with a configuration in a program without any optional part.
fn refused_without_products(text: &str) -> Vec<String> {
    let environment = environment(&[]);
    let mut layers = Layers::with_defaults(&environment);
    assert_eq!(layers.add_toml(text, "f.toml"), []);
    let (values, errors) = SettingValues::read(&layers);
    assert_eq!(errors, []);
    let mut refused = Vec::new();
    let mut wrong = |key, why: &str| refused.push(ConfigError::value(&layers, key, why).to_string());
    checks::check_products(
        &read::build_config(values, BTreeMap::new(), Vec::new()),
        &layers,
        |_| false,
        &mut wrong,
    );
    refused
}

#[test]
fn a_setting_of_a_product_that_is_not_built_in_is_refused() {
    for (text, key, product) in [
        ("nri.enabled = true", "nri.enabled", Product::Nri),
        ("nri.socket = \"/other.sock\"", "nri.socket", Product::Nri),
        ("kubernetes.mode = \"opt-in\"", "kubernetes.mode", Product::Nri),
        ("kubernetes.exclude_namespaces = []", "kubernetes.exclude_namespaces", Product::Nri),
        ("listeners.guard = \"required\"", "listeners.guard", Product::Guard),
        ("dcos.host = \"10.1.2.3\"", "dcos.host", Product::Dcos),
    ] {
        let refused = refused_without_products(text);
        assert_eq!(refused.len(), 1, "{text}: {refused:?}");
        assert!(refused[0].starts_with(&format!("f.toml:1: {key} = ")), "{refused:?}");
        let why = format!("built without {} (cargo feature", product.describe_product());
        assert!(refused[0].contains(&why), "{refused:?}");
        let read = read(text);
        assert_eq!(read.is_ok(), product.is_built_in(), "{text}: {read:?}");
    }
}

#[test]
fn a_setting_that_asks_for_nothing_needs_no_product() {
    for text in [
        "",
        "nri.enabled = false\nnri.socket = \"/var/run/nri/nri.sock\"",
        "kubernetes.mode = \"all\"",
        "listeners.guard = \"off\"",
        "listeners.guard = \"auto\"",
        "dcos.host = \"\"",
    ] {
        assert!(refused_without_products(text).is_empty(), "{text}");
        assert!(read(text).is_ok(), "{text}");
    }
}

#[test]
fn every_table_that_belongs_to_a_product_has_settings() {
    let of = |product| SETTINGS.iter().filter(move |setting| setting.find_product() == Some(product)).count();
    assert_eq!((of(Product::Dcos), of(Product::Guard)), (1, 1));
    assert_eq!(of(Product::Nri), 11);
}

#[test]
fn a_variable_that_is_close_to_that_of_a_setting_is_found_and_those_of_kubernetes_are_not() {
    let variables = [
        ("TALLYPORT_LIMIT_SERIES", "5"),
        ("TALLYPORT_LIMITS_SERIES", "5"),
        ("TALLYPORT_HTTP_LISTENER", "x"),
        ("TALLYPORT_SERVICE_HOST", "10.0.0.1"),
        ("TALLYPORT_SERVICE_PORT", "9725"),
        ("TALLYPORT_SERVICE_PORT_HTTP", "9725"),
        ("TALLYPORT_PORT", "tcp://10.0.0.1:9725"),
        ("TALLYPORT_PORT_9725_TCP_ADDR", "10.0.0.1"),
        ("TALLYPORT_URL", "http://127.0.0.1:1"),
        ("TALLYPORT_CA", "x"),
        ("TALLYPORT_TOKEN", "x"),
        ("TALLYPORT_TOKEN_FILE", "x"),
        ("TALLYPORT_CONFIG", "x"),
        ("TALLYPORT_OCI_CONFIG", "x"),
        ("TALLYPORT_OCI_RUNTIME", "x"),
    ];
    let found = find_misspelt_variables(&environment(&variables));
    let found: Vec<_> = found.iter().map(|(name, nearest)| (name.as_str(), nearest.as_str())).collect();
    assert_eq!(
        found,
        [
            ("TALLYPORT_HTTP_LISTENER", "TALLYPORT_HTTP_LISTEN"),
            ("TALLYPORT_LIMIT_SERIES", "TALLYPORT_LIMITS_SERIES"),
        ]
    );
}
