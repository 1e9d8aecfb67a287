//! The parts that hold what readers ask for.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::error::Error;
use crate::config::AgentConfig;
use crate::containers::{ContainerInfo, Directory};
use crate::shard::{ContainerSelection, ShardPool, StatsByContainer};
use crate::store::Store;

/// The parts that hold what readers ask for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Data {
    /// Closed windows.
    pub store: Arc<Store>,
    /// Open windows and counts.
    pub pool: Arc<ShardPool>,
    /// Containers.
    pub directory: Arc<Directory>,
    /// The configuration in force.
    pub config: Arc<RwLock<Arc<AgentConfig>>>,
}

impl Data {
    /// The configuration in force.
    #[must_use]
    pub fn current_config(&self) -> Arc<AgentConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The counts of these containers. The shards of live ones are asked.
    ///
    /// # Errors
    /// When a shard has ended.
    pub async fn collect_container_stats(
        &self,
        containers: &[Arc<ContainerInfo>],
    ) -> Result<StatsByContainer, Error> {
        let live = containers.iter().filter(|info| info.last.is_none()).map(|info| info.allocation).collect();
        let asked = self.pool.container_counts(&ContainerSelection::These(live)).await?;
        let asked = asked.into_iter().map(|stats| (stats.allocation, stats));
        let known =
            containers.iter().filter_map(|info| Some((info.allocation, Arc::clone(info.last.as_ref()?))));
        let mut counts: HashMap<_, _> = asked.chain(known).collect();
        // The counts of a container that was drained meanwhile are known by now.
        for info in containers {
            if !counts.contains_key(&info.allocation)
                && let Some(now) = self.directory.get(info.allocation)
                && let Some(last) = &now.last
            {
                counts.insert(info.allocation, Arc::clone(last));
            }
        }
        Ok(counts)
    }
}
