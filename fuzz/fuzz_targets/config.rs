//! The configuration: a file's text, one value of one setting, or variables.
//!
//! The first byte selects one of them, see [`Way`]; the second, if any, selects the setting.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tallyport::config::{
    AgentConfig, ConfigErrors, Environment, Layers, SETTINGS, Setting, SettingKind, SettingOrigin,
};

fuzz_target!(|input: &[u8]| {
    let [way, rest @ ..] = input else { return };
    match Way::of(*way) {
        Way::File => file(&String::from_utf8_lossy(rest)),
        Way::Value => with_setting(rest, |setting, text| {
            // A JSON string is also a TOML string, except for a raw DEL, which must be reported as an error.
            let quoted = serde_json::to_string(text).expect("a text");
            file(&format!("{} = {quoted}", setting.key));
            file(&format!("{} = {text}", setting.key));
        }),
        Way::Flag => with_setting(rest, |setting, text| {
            let mut layers = Layers::with_defaults(&Machine(None));
            let flag = SettingOrigin::Flag("--set".to_owned());
            assert_eq!(layers.set_value(setting.key, text.to_owned(), flag), Ok(()));
            assert_eq!(layers.get(setting.key).map(|written| written.text.as_str()), Some(text));
            resolved(&layers, setting, text);
        }),
        Way::Variable => with_setting(rest, |setting, text| {
            let machine = Machine(Some((setting.variable_name(), text.to_owned())));
            let mut layers = Layers::with_defaults(&machine);
            layers.add_variables(&machine);
            resolved(&layers, setting, text);
        }),
    }
});

/// The kind of the rest of the input.
enum Way {
    /// The text of a file.
    File,
    /// A setting and its value in a file, as a string and unquoted.
    Value,
    /// A setting and its value as a flag.
    Flag,
    /// A setting and its value as a variable.
    Variable,
}

impl Way {
    /// `v`, `f` and `e` have a second byte; everything else is a file.
    fn of(byte: u8) -> Self {
        match byte {
            b'v' => Self::Value,
            b'f' => Self::Flag,
            b'e' => Self::Variable,
            _ => Self::File,
        }
    }
}

/// A constant environment with one variable.
struct Machine(Option<(String, String)>);

impl Environment for Machine {
    fn get(&self, name: &str) -> Option<String> {
        self.0.as_ref().filter(|(known, _)| known == name).map(|(_, text)| text.clone())
    }

    fn variable_names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    fn hostname(&self) -> String {
        "n1".to_owned()
    }

    fn is_root(&self) -> bool {
        self.0.is_none()
    }

    fn uid(&self) -> u32 {
        1000
    }
}

/// The second byte selects a setting: `A` the first, and so on, modulo their number.
fn with_setting(rest: &[u8], run: impl FnOnce(&Setting, &str)) {
    let [which, text @ ..] = rest else { return };
    let which = usize::from(which.wrapping_sub(b'A')) % SETTINGS.len();
    run(&SETTINGS[which], &String::from_utf8_lossy(text));
}

fn file(text: &str) {
    let read = AgentConfig::from_toml(text, &Machine(None));
    assert_eq!(read, AgentConfig::from_toml(text, &Machine(None)), "read twice");
    match &read {
        Ok(config) => {
            sound(config);
            let commented = format!("{text}\n# the end");
            assert_eq!(read, AgentConfig::from_toml(&commented, &Machine(None)), "a comment changes nothing");
        }
        Err(errors) => named(errors),
    }
}

fn resolved(layers: &Layers, setting: &Setting, text: &str) {
    let read = AgentConfig::from_layers(layers);
    assert_eq!(read, AgentConfig::from_layers(layers), "read twice");
    assert_eq!(layers.iter().count(), SETTINGS.len());
    match &read {
        Ok(config) => {
            sound(config);
            ranged(setting, text);
        }
        Err(errors) => {
            named(errors);
            assert!(errors.to_string().contains(setting.key), "{errors} does not name {}", setting.key);
        }
    }
}

/// Checks that every error has a message.
fn named(errors: &ConfigErrors) {
    assert!(!errors.0.is_empty());
    for error in &errors.0 {
        let text = error.to_string();
        assert!(!text.trim().is_empty() && !text.trim_end().ends_with(':'), "{text:?} says nothing");
    }
    assert!(!errors.to_string().is_empty());
}

/// Checks the properties of an accepted configuration.
fn sound(config: &AgentConfig) {
    let settings = &config.aggregation;
    let between = |least: u64, time: Duration, most: u64| {
        Duration::from_secs(least) <= time && time <= Duration::from_secs(most)
    };
    assert!(between(1, settings.window, 3600) && settings.window.subsec_nanos() == 0, "{settings:?}");
    assert!((1..=10_000).contains(&settings.keep), "{settings:?}");
    assert!(between(0, settings.gauge_carry, 7 * 86_400) && between(60, settings.series_idle, 7 * 86_400));
    assert!(settings.limits.series >= 1 && settings.limits.memory >= 64 << 10, "{settings:?}");
    assert!(settings.limits.datagrams_per_second != Some(0) && settings.limits.bytes_per_second != Some(0));
    assert!(config.admin.socket.is_absolute() && config.state_dir.is_absolute(), "{config:?}");
    assert!(config.admin.socket.as_os_str().len() <= 107 && config.admin.mode <= 0o777, "{config:?}");
    assert!(!config.node.is_empty() && config.node.len() <= 256, "{config:?}");
    assert!(config.listeners.port > 0 && config.process.shards > 0 && config.http.max_connections > 0);
    assert!(config.log.filter.parse::<tracing_subscriber::filter::Targets>().is_ok(), "{config:?}");
    assert!(config.needs_restart(config).is_empty());
    let _either = config.usual_gauge_sign();
}

/// Checks that an accepted text has a unit if its kind needs one.
fn ranged(setting: &Setting, text: &str) {
    let bare = !text.trim().is_empty() && text.trim().bytes().all(|byte| byte.is_ascii_digit());
    match setting.kind {
        SettingKind::Time(..) | SettingKind::Size(..) => assert!(!bare, "{} = {text:?}", setting.key),
        SettingKind::Count(least, most) => {
            let number: u64 = text.trim().parse().expect("a whole number");
            assert!((least..=most).contains(&number), "{} = {text:?}", setting.key);
        }
        _ => {}
    }
}
