//! The parts of the agent that handlers need, grouped by use. Cheap to clone.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::pages::{Pages, Shows};
use crate::archive::Archive;
use crate::config::Layers;
use crate::containers::{ContainerTableHandle, Guarded};
use crate::host::CpuMeter;
use crate::model::{ContainerId, Timestamp};
use crate::net::http::Connections;
use crate::publish::Publishers;
use crate::query::Data;
use crate::shutdown::{Drain, Readiness};
use crate::stats::Stats;
use crate::window_log;

/// For answers about containers and their series.
#[derive(Clone, Debug)]
pub struct ReaderContext {
    /// The data that responses are built from.
    pub data: Data,
    /// The history of containers.
    pub archive: Archive,
    /// Builds the responses, within bounds.
    pub pages: Pages,
    /// Counts scrapes.
    pub stats: Arc<Stats>,
    /// The end of the agent, which ends streams.
    pub drain: Drain,
}

impl ReaderContext {
    /// The state shown by pages that depend only on published windows, containers and configuration.
    pub(super) fn shown_state(&self) -> Shows {
        Shows {
            published: self.data.store.end_cursor(),
            containers: self.data.directory.version(),
            config: self.data.current_config(),
        }
    }
}

/// For answers about the agent itself.
#[derive(Clone, Debug)]
pub struct AgentContext {
    /// Containers, their series, and counts of the agent.
    pub reading: ReaderContext,
    /// The journal of containers.
    pub containers: ContainerTableHandle,
    /// The conditions of readiness.
    pub readiness: Readiness,
    /// What delivers windows to backends.
    pub publishers: Publishers,
    /// The window log, where there is one.
    pub window_log: Option<Arc<window_log::LogStatus>>,
    /// Open connections of the HTTP listener and of the admin socket.
    pub connections: [Connections; 2],
    /// The address of the HTTP listener.
    pub http_address: SocketAddr,
    /// Whether the kernel guards containers on the host's network.
    pub guarding: Guarded,
    /// When the agent started.
    pub started: Timestamp,
}

/// For calls that change containers.
#[derive(Clone, Debug)]
pub struct LifecycleContext {
    /// The container table.
    pub containers: ContainerTableHandle,
    /// For the documents about containers.
    pub reading: ReaderContext,
}

/// For calls that make the agent look again.
#[derive(Clone, Debug)]
pub struct MaintenanceContext {
    /// The container table.
    pub containers: ContainerTableHandle,
    /// What delivers windows to backends.
    pub publishers: Publishers,
    /// Requests about the configuration.
    pub config_requests: mpsc::Sender<ConfigRequest>,
    /// Requests that the wrapper's notes are read.
    pub missed: mpsc::Sender<MissedRequest>,
}

/// What all routes need.
#[derive(Clone, Debug)]
pub struct Routes {
    /// For answers about the agent, and about containers and their series.
    pub agent: AgentContext,
    /// For calls that make the agent look again.
    pub maintenance: MaintenanceContext,
    /// The node's CPU usage.
    pub cpu: Arc<CpuMeter>,
}

impl Routes {
    /// For calls that change containers.
    #[must_use]
    pub fn lifecycle_context(&self) -> LifecycleContext {
        LifecycleContext { containers: self.agent.containers.clone(), reading: self.agent.reading.clone() }
    }
}

/// A request about the configuration.
#[derive(Debug)]
pub enum ConfigRequest {
    /// Read it again and apply it.
    Reload {
        /// Whether the reload may remove protection from the HTTP listener.
        force: bool,
        /// Where the outcome goes: the settings that need a restart, or why it was refused.
        reply: oneshot::Sender<Result<Vec<&'static str>, String>>,
    },
    /// Show the values that are in force, and where each was set.
    Show(oneshot::Sender<Layers>),
}

/// Requests that the wrapper's notes are read. The reply lists the containers that they name; `None` if they cannot be
/// read.
pub type MissedRequest = oneshot::Sender<Option<Vec<ContainerId>>>;
