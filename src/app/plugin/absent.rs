//! Takes the place of `plugin.rs` in a build without the feature `nri`. A configuration that wants the plugin was refused before.

use tokio::task::JoinSet;

use super::parts::Running;
use crate::config::AgentConfig;
use crate::nri::{Carried, Suspender, suspension_channel};

/// What the rest of the agent has of the plugin.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) settings: PluginControl,
    pub(super) suspender: Suspender,
}

/// Starts nothing. The plugin of a process before, if there was one, is dropped, which closes its connection.
pub(super) fn start(_tasks: &mut JoinSet<()>, _running: &Running, carried: Option<Carried>) -> Started {
    if carried.is_some_and(|carried| carried.socket.is_some()) {
        tracing::warn!(
            "this program was built without the NRI plugin; closed the container runtime's connection to the agent before"
        );
    }
    let (suspender, _) = suspension_channel();
    Started { settings: PluginControl, suspender }
}

/// Passes changed settings to the plugin.
#[derive(Debug)]
pub(super) struct PluginControl;

impl PluginControl {
    #[expect(clippy::unused_self, reason = "the signature is that of plugin.rs")]
    pub(super) fn apply_settings(&self, config: &AgentConfig) {
        plugin_settings(config);
    }
}

/// What the plugin needs of the configuration: nothing, without a plugin.
pub(super) fn plugin_settings(_config: &AgentConfig) {}
