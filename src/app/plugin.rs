//! Starts the NRI plugin as configured.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::parts::Running;
use crate::config::{AgentConfig, PodMode};
use crate::model::Glob;
use crate::nri::{
    self, Carried, Endpoint, LabelRule, Plugin, PluginSettings, SelectionMode, SelectionRules, Suspender,
};

/// Handles to the running plugin.
#[derive(Debug)]
pub(super) struct Started {
    /// What a reload tells it.
    pub(super) settings: PluginControl,
    /// Suspends it for a hand-over.
    pub(super) suspender: Suspender,
}

/// Starts the plugin if it is enabled, with the connection of the previous process. An agent without a plugin closes
/// that connection.
pub(super) fn start(tasks: &mut JoinSet<()>, running: &Running, carried: Option<Carried>) -> Started {
    let config = running.current_config();
    let (told, settings) = watch::channel(Arc::new(plugin_settings(&config)));
    let (suspender, suspensions) = nri::suspension_channel();
    if config.nri.enabled {
        let endpoint = Endpoint { socket: config.nri.socket.clone(), index: config.nri.index };
        let plugin = Plugin::new(running.containers.clone(), settings, Arc::clone(&running.stats));
        tasks.spawn(nri::run(endpoint, plugin, running.drain.clone(), suspensions, carried));
    }
    Started { settings: PluginControl(told), suspender }
}

/// Passes changed settings to the plugin.
#[derive(Debug)]
pub(super) struct PluginControl(watch::Sender<Arc<PluginSettings>>);

impl PluginControl {
    pub(super) fn apply_settings(&self, config: &AgentConfig) {
        self.0.send_replace(Arc::new(plugin_settings(config)));
    }
}

/// The settings of the plugin.
pub(super) fn plugin_settings(config: &AgentConfig) -> PluginSettings {
    let globs = |patterns: &[String]| patterns.iter().map(|pattern| Glob::new(pattern)).collect();
    let labels = |rules: &[String]| rules.iter().map(|rule| LabelRule::new(rule)).collect();
    let pods = &config.kubernetes;
    let selection = SelectionRules {
        mode: match pods.mode {
            PodMode::All => SelectionMode::All,
            PodMode::OptIn => SelectionMode::OptIn,
            PodMode::Observe => SelectionMode::Observe,
        },
        namespaces: globs(&pods.namespaces),
        exclude_namespaces: globs(&pods.exclude_namespaces),
        pod_labels: labels(&pods.pod_labels),
        exclude_pod_labels: labels(&pods.exclude_pod_labels),
        containers: globs(&pods.containers),
        exclude_containers: globs(&pods.exclude_containers),
        sandboxed_handlers: globs(&pods.sandboxed_handlers),
    };
    PluginSettings { selection, presets: config.presets.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProcessEnvironment;
    use crate::nri::SelectionVerdict;
    use crate::nri::messages::{NriContainer, PodSandbox};

    fn verdict(text: &str, change: impl FnOnce(&mut PodSandbox)) -> SelectionVerdict {
        let config = AgentConfig::from_toml(text, &ProcessEnvironment).unwrap();
        let mut pod = PodSandbox { namespace: "shop".to_owned(), ..PodSandbox::default() };
        pod.labels.insert("app".to_owned(), "web".to_owned());
        change(&mut pod);
        let container = NriContainer { name: "main".to_owned(), ..NriContainer::default() };
        plugin_settings(&config).selection.judge_container(&pod, &container)
    }

    #[test]
    fn every_setting_changes_which_containers_are_served() {
        let as_is = |text: &str| verdict(text, |_| {});
        assert_eq!(as_is(""), SelectionVerdict::Inject);
        for (text, expected) in [
            ("kubernetes.mode = \"opt-in\"", SelectionVerdict::NotOptedIn),
            ("kubernetes.mode = \"observe\"", SelectionVerdict::Observe),
            ("kubernetes.namespaces = [\"bank\"]", SelectionVerdict::Excluded("kubernetes.namespaces")),
            (
                "kubernetes.exclude_namespaces = [\"s*\"]",
                SelectionVerdict::Excluded("kubernetes.exclude_namespaces"),
            ),
            ("kubernetes.pod_labels = [\"app=db\"]", SelectionVerdict::Excluded("kubernetes.pod_labels")),
            (
                "kubernetes.exclude_pod_labels = [\"app\"]",
                SelectionVerdict::Excluded("kubernetes.exclude_pod_labels"),
            ),
            ("kubernetes.containers = [\"side*\"]", SelectionVerdict::Excluded("kubernetes.containers")),
            (
                "kubernetes.exclude_containers = [\"main\"]",
                SelectionVerdict::Excluded("kubernetes.exclude_containers"),
            ),
        ] {
            assert_eq!(as_is(text), expected, "{text}");
        }
        let handler = |text: &str| verdict(text, |pod| pod.runtime_handler = "youki-vm".to_owned());
        assert_eq!(handler(""), SelectionVerdict::Inject);
        assert_eq!(handler("kubernetes.sandboxed_handlers = [\"*-vm\"]"), SelectionVerdict::Sandboxed);
    }

    #[test]
    fn the_system_the_agent_and_sandboxes_are_left_out_by_default() {
        let system = verdict("", |pod| pod.namespace = "kube-system".to_owned());
        assert_eq!(system, SelectionVerdict::Excluded("kubernetes.exclude_namespaces"));
        let agent = verdict("", |pod| {
            pod.labels.insert("app.kubernetes.io/name".to_owned(), "tallyport".to_owned());
        });
        assert_eq!(agent, SelectionVerdict::Excluded("kubernetes.exclude_pod_labels"));
        for handler in ["runsc", "gvisor", "kata-qemu"] {
            assert_eq!(
                verdict("", |pod| pod.runtime_handler = handler.to_owned()),
                SelectionVerdict::Sandboxed
            );
        }
    }

    #[test]
    fn presets_reach_the_plugin() {
        let config = AgentConfig::from_toml("env.presets = [\"statsd\"]", &ProcessEnvironment).unwrap();
        assert_eq!(plugin_settings(&config).presets, ["statsd"]);
    }
}
