//! The parts that run as long as the agent does, for the modules here that start, move and end them. Cheap to clone.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;

use crate::api::{Pages, ReaderContext, ReloadRequest};
use crate::config::AgentConfig;
use crate::containers::ContainerTableHandle;
use crate::query::Data;
use crate::shard::ShardPool;
use crate::shutdown::{Drain, Readiness};
use crate::stats::Stats;
use crate::store::Store;

/// The parts that run as long as the agent does.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// Closed windows.
    pub(super) store: Arc<Store>,
    /// The shards.
    pub(super) pool: Arc<ShardPool>,
    /// The container table.
    pub(super) containers: ContainerTableHandle,
    /// The configuration in force.
    pub(super) config: Arc<RwLock<Arc<AgentConfig>>>,
    /// Counters that belong to no other module.
    pub(super) stats: Arc<Stats>,
    /// Answers that are being built or sent.
    pub(super) pages: Pages,
    /// Whether everything that must be is ready.
    pub(super) readiness: Readiness,
    /// Requests a reload of the configuration.
    pub(super) reloads: mpsc::Sender<ReloadRequest>,
    /// The end of the agent.
    pub(super) drain: Drain,
}

impl Running {
    /// The configuration in force.
    pub(super) fn current_config(&self) -> Arc<AgentConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The parts that answers about containers and their series need.
    pub(super) fn reader_context(&self) -> ReaderContext {
        let data = Data {
            store: Arc::clone(&self.store),
            pool: Arc::clone(&self.pool),
            directory: Arc::clone(self.containers.directory()),
            config: Arc::clone(&self.config),
        };
        let (pages, stats) = (self.pages.clone(), Arc::clone(&self.stats));
        ReaderContext { data, pages, stats, drain: self.drain.clone() }
    }
}
