//! The configuration while the agent runs: reloads it, and shows it.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;

use super::entrance::{self, Entrance};
use super::parts::{Running, table_settings};
use super::plugin::PluginControl;
use crate::api::ConfigRequest;
use crate::archive::Archive;
use crate::config::{
    AgentConfig, ConfigError, ConfigErrors, DEFAULT_FILE, Environment, Layers, ProcessEnvironment,
    SettingOrigin,
};
use crate::containers::ContainerTableHandle;
use crate::publish::{Publishers, check_support};
use crate::shard::ShardPool;
use crate::stats::Stats;
use crate::telemetry::LogFilter;

/// Reads the configuration from its sources, at the start and at every reload.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    /// The file given on the command line. Without one, the default file is read if it exists.
    pub file: Option<PathBuf>,
    /// Keys and values from the command line, each with its flag.
    pub flags: Vec<(String, String, String)>,
}

/// Where the configuration of an agent comes from, and what is in force of it.
#[derive(Debug)]
pub struct ConfigSources {
    loader: Loader,
    layers: Layers,
}

impl ConfigSources {
    /// Of an agent that starts with what `loader` has read.
    #[must_use]
    pub const fn new(loader: Loader, layers: Layers) -> Self {
        Self { loader, layers }
    }
}

impl Loader {
    /// Reads every layer.
    ///
    /// # Errors
    /// With all errors of all sources.
    pub fn load_config(&self) -> Result<(AgentConfig, Layers), ConfigErrors> {
        self.load_from(&ProcessEnvironment, |_, _| Vec::new())
    }

    /// Reads every layer, and checks the destinations and the files that publishers name, for a process that is going to use
    /// them.
    ///
    /// # Errors
    /// With all errors of all sources and files.
    pub fn load_checked_config(&self) -> Result<(AgentConfig, Layers), ConfigErrors> {
        self.load_from(&ProcessEnvironment, check_publishers)
    }

    fn load_from(
        &self,
        environment: &dyn Environment,
        check: fn(&Layers, Option<&AgentConfig>) -> Vec<ConfigError>,
    ) -> Result<(AgentConfig, Layers), ConfigErrors> {
        let mut layers = Layers::with_defaults(environment);
        let default = PathBuf::from(DEFAULT_FILE);
        let file = self.file.clone().or_else(|| default.exists().then_some(default));
        let mut errors = file.as_ref().map(|file| layers.add_file(file)).unwrap_or_default();
        layers.add_variables(environment);
        for (key, value, flag) in &self.flags {
            errors.extend(layers.set_value(key, value.clone(), SettingOrigin::Flag(flag.clone())).err());
        }
        let read = AgentConfig::from_layers(&layers).map_err(|ConfigErrors(more)| errors.extend(more));
        errors.extend(check(&layers, read.as_ref().ok()));
        match read {
            Ok(mut config) if errors.is_empty() => {
                config.file = file;
                Ok((config, layers))
            }
            _ => Err(ConfigErrors(errors)),
        }
    }
}

/// What is wrong with the files of publishers, and with where they send to.
fn check_publishers(layers: &Layers, config: Option<&AgentConfig>) -> Vec<ConfigError> {
    let publishers = config.into_iter().flat_map(|config| &config.publish.publishers);
    let unsupported = publishers.filter_map(|publisher| {
        let error = check_support(publisher).err()?;
        layers.publisher_error(&publisher.name, error.key, &error.reason)
    });
    layers.check_files().into_iter().chain(unsupported).collect()
}

/// Serves requests about the configuration, one at a time. A drain does not wait for it: it has nothing to finish.
pub(super) async fn serve_config(
    mut requests: mpsc::Receiver<ConfigRequest>,
    sources: ConfigSources,
    log: LogFilter,
    parts: ReloadParts,
) {
    let ConfigSources { loader, mut layers } = sources;
    let ReloadParts { pool, containers, publishers, archive, stats, config, pods, entrance } = parts;
    while let Some(request) = requests.recv().await {
        let (force, reply) = match request {
            ConfigRequest::Reload { force, reply } => (force, reply),
            ConfigRequest::Show(reply) => {
                let _not_waited_for = reply.send(layers.clone());
                continue;
            }
        };
        let old = Arc::clone(&config.read().unwrap_or_else(PoisonError::into_inner));
        let outcome = match reload_config(&loader, &old, force) {
            Ok(Reloaded { applied, asked, needs_restart, layers: new }) => {
                layers = new.applied_over(&layers);
                let settings = Arc::new(applied.aggregation.clone());
                log.set_directives(&applied.log.filter);
                entrance.apply_settings(&applied.http, asked);
                containers.apply_settings(table_settings(&applied)).await;
                pods.apply_settings(&applied);
                publishers.apply_settings(&applied.publish).await;
                archive.apply_settings(&applied.archive);
                // The main loop notices shards that have ended.
                let _either_way = pool.apply_settings(
                    &settings,
                    applied.node_limits.memory,
                    applied.node_limits.remembered,
                );
                *config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(applied);
                tracing::info!(?needs_restart, "configuration reloaded");
                Ok(needs_restart)
            }
            Err(errors) => {
                tracing::error!(errors, "configuration refused, the old one stays");
                Err(errors)
            }
        };
        stats.count_reload(outcome.is_ok());
        let _not_waited_for = reply.send(outcome);
    }
}

/// A configuration that was read again.
struct Reloaded {
    /// What can be applied.
    applied: AgentConfig,
    /// TLS and tokens of the HTTP listener.
    asked: entrance::EntranceSettings,
    /// The settings that have changed and need a restart.
    needs_restart: Vec<&'static str>,
    /// As read, with those settings.
    layers: Layers,
}

/// Reads the configuration again.
///
/// # Errors
/// With all errors, or with the protection that the new configuration would remove, unless `force` is set.
fn reload_config(loader: &Loader, old: &AgentConfig, force: bool) -> Result<Reloaded, String> {
    let (new, layers) = loader.load_checked_config().map_err(|errors| errors.to_string())?;
    let needs_restart = new.needs_restart(old);
    let applied = new.applied_over(old);
    if !force && let Some(dropped) = applied.http.dropped_protection(&old.http) {
        return Err(format!(
            "{dropped} no longer set, which would open the HTTP listener to more readers; set it again, or confirm the change with \
             `tallyport reload --force` (POST /v1/config/reload?force=true)"
        ));
    }
    let asked = entrance::read(&applied.http).map_err(|error| error.to_string())?;
    Ok(Reloaded { applied, asked, needs_restart, layers })
}

/// The parts that a reload changes.
pub(super) struct ReloadParts {
    pool: Arc<ShardPool>,
    containers: ContainerTableHandle,
    publishers: Publishers,
    archive: Archive,
    stats: Arc<Stats>,
    config: Arc<RwLock<Arc<AgentConfig>>>,
    pods: PluginControl,
    entrance: Entrance,
}

impl ReloadParts {
    pub(super) fn new(running: &Running, pods: PluginControl, entrance: Entrance) -> Self {
        Self {
            pool: Arc::clone(&running.pool),
            containers: running.containers.clone(),
            publishers: running.publishers.clone(),
            archive: running.archive.clone(),
            stats: Arc::clone(&running.stats),
            config: Arc::clone(&running.config),
            pods,
            entrance,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::aggregate::AggregatorSettings;
    use crate::config::{Effect, SETTINGS, Setting, SettingKind};

    /// Values to try for a setting, one of which differs from the default and suits the other settings.
    fn values(setting: &Setting) -> Vec<String> {
        let text = |values: &[&str]| values.iter().map(|value| format!("{value:?}")).collect();
        match setting.kind {
            SettingKind::LogFilter => text(&["debug"]),
            SettingKind::OptionalPath if setting.key == "node_labels" => Vec::new(),
            SettingKind::Text(..) => text(&["other"]),
            SettingKind::Path | SettingKind::OptionalPath => {
                text(&["/other/file", "/var/run/other/dsd.socket"])
            }
            SettingKind::Ip => text(&["10.1.2.3", "127.0.0.9"]),
            SettingKind::Address => text(&["127.0.0.1:1"]),
            SettingKind::Switch => vec!["true".to_owned(), "false".to_owned()],
            SettingKind::OneOf(words) => text(words),
            SettingKind::Words(words) => text(if words.is_empty() { &["other"] } else { words }),
            SettingKind::Bounds { .. } => text(&["1,2,3"]),
            SettingKind::Count(least, most) => vec![least.to_string(), most.to_string()],
            SettingKind::Rate => text(&["7"]),
            SettingKind::Size(least, most) => vec![format!("\"{least}B\""), format!("\"{most}B\"")],
            SettingKind::Time(least, most) => vec![format!("\"{least}ms\""), format!("\"{most}ms\"")],
            SettingKind::Mode => text(&["0604"]),
            // Only publishers have these.
            SettingKind::OptionalTime(..)
            | SettingKind::Host
            | SettingKind::OptionalUrl
            | SettingKind::Proxy
            | SettingKind::InputFile
            | SettingKind::SecretFile => Vec::new(),
        }
    }

    /// The settings that a reload applies to all containers. Those that are read only at startup are left out, so that
    /// a row cannot promise more than a reload does.
    fn running(config: &AgentConfig) -> String {
        let AgentConfig { http, prometheus, process, node_limits, .. } = config;
        // Aggregators keep the length and number of their windows.
        let shards = AggregatorSettings { window: Duration::ZERO, keep: 0, ..config.aggregation.clone() };
        let limits = (node_limits.memory, node_limits.remembered);
        let access = (&http.tls, &http.tokens, &http.hosts, http.page_memory);
        let ending = (process.drain_deadline, process.after_hand_over, &process.instance);
        let (publish, archive) = (&config.publish, config.archive.size);
        format!(
            "{shards:?} {limits:?} {access:?} {prometheus:?} {publish:?} {archive} {ending:?} {}",
            config.log.filter
        )
    }

    /// The same for settings that apply to new containers. The port of sockets and the queue and directory of Unix
    /// sockets are read at startup.
    fn reserving(config: &AgentConfig) -> String {
        let mut table = table_settings(config);
        (table.port, table.unix.queue, table.unix.directory) = (0, 0, PathBuf::new());
        // Reserve calls read presets from the configuration.
        format!("{table:?} {:?} {:?}", super::super::plugin::plugin_settings(config), config.presets)
    }

    #[test]
    fn a_changed_setting_takes_effect_when_its_row_says() {
        let directory = tempfile::tempdir().unwrap();
        let labels = directory.path().join("labels");
        std::fs::write(&labels, "rack=r7").unwrap();
        // Settings that other settings require, or whose default depends on others.
        let base = "prometheus.timers = \"histogram\"\nstate_dir = \"/s\"\nhttp.tls_certificate = \"/c\"\nhttp.tls_key = \"/k\"\n";
        let config = |key: &str, value: &str| {
            let others = base.lines().filter(|line| !line.starts_with(&format!("{key} =")));
            let text = others.chain([format!("{key} = {value}").as_str()]).collect::<Vec<_>>().join("\n");
            AgentConfig::from_toml(&text, &ProcessEnvironment).ok()
        };
        let old = AgentConfig::from_toml(base, &ProcessEnvironment).unwrap();
        for setting in SETTINGS.iter().filter(|setting| setting.is_available()) {
            let key = setting.key;
            let mut values = values(setting);
            if key == "node_labels" {
                values.push(format!("{:?}", labels.display().to_string()));
            }
            let new = values.iter().filter_map(|value| config(key, value)).find(|new| *new != old);
            let Some(new) = new else { panic!("no value of {key} changes anything") };
            let applied = new.clone().applied_over(&old);
            let changes = (running(&applied) != running(&old), reserving(&applied) != reserving(&old));
            match setting.effect {
                Effect::Restart => {
                    assert_eq!(new.needs_restart(&old), [key]);
                    assert!(applied == old, "{key} changes without a restart");
                    continue;
                }
                Effect::AtOnce => assert!(changes.0 || changes.1, "a reload delivers {key} to no part"),
                Effect::NewContainers => assert_eq!(changes, (false, true), "{key}"),
            }
            assert!(new.needs_restart(&old).is_empty(), "{key}");
            assert!(applied == new, "{key} is not applied");
        }
    }

    #[test]
    fn a_reload_takes_no_protection_away_unless_it_is_told_to() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agent.toml");
        std::fs::write(&file, "").unwrap();
        let loader = Loader { file: Some(file), ..Loader::default() };
        let config = |text: &str| AgentConfig::from_toml(text, &ProcessEnvironment).unwrap();
        let tls = "http.tls_certificate = \"/c\"\nhttp.tls_key = \"/k\"\n";
        for (old, dropped) in [
            (
                format!("{tls}http.tokens = \"/t\""),
                "http.tls_certificate, http.tls_key and http.tokens are no longer",
            ),
            (tls.to_owned(), "http.tls_certificate and http.tls_key are no longer"),
            ("http.tokens = \"/t\"".to_owned(), "http.tokens is no longer"),
        ] {
            let Err(refused) = reload_config(&loader, &config(&old), false) else { panic!("{old} is gone") };
            assert!(refused.starts_with(dropped) && refused.contains("--force"), "{refused}");
            let Reloaded { applied, .. } =
                reload_config(&loader, &config(&old), true).map_err(|why| panic!("{why}")).unwrap();
            assert_eq!((applied.http.tls, applied.http.tokens), (None, None));
        }
        assert!(reload_config(&loader, &config(""), false).is_ok());
    }

    #[test]
    fn a_listener_off_loopback_does_not_lose_its_tokens_by_a_file_that_moves_it_to_loopback() {
        let config = |text: &str| AgentConfig::from_toml(text, &ProcessEnvironment).unwrap();
        let old = config(
            "[http]\nlisten = \"10.0.0.1:9725\"\ntls_certificate = \"/c\"\ntls_key = \"/k\"\ntokens = \"/t\"",
        );
        for new in ["", "http.listen = \"10.0.0.1:9725\"\nhttp.insecure = true"] {
            let applied = config(new).applied_over(&old);
            let Err(refused) = entrance::read(&applied.http) else { panic!("{new:?} opens it to everyone") };
            assert!(refused.to_string().contains("until a restart"), "{refused}");
        }
    }
}
