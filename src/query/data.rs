//! The parts that hold what readers ask for, and why a query has no answer.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::AgentConfig;
use crate::containers::{ContainerInfo, Directory};
use crate::shard::{ContainerSelection, ShardGone, ShardPool, StatsByContainer};
use crate::store::{Expired, Store};

/// The parts that queries read from. Cheap to clone.
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

    /// The counts of these containers. Those of live ones are fetched from their shards.
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

/// Why a query failed.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Error {
    /// A key that the query does not have.
    #[error("there is no parameter {key:?}{hint}")]
    UnknownParameter {
        /// The key.
        key: String,
        /// The most similar known key, and all known keys.
        hint: String,
    },
    /// A value that cannot be read.
    #[error("{key} = {value:?} {why}")]
    BadParameter {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// More filters than a query may have.
    #[error("a query may have {most} filters; use fewer, or a pattern for several")]
    TooManyFilters {
        /// The limit.
        most: usize,
    },
    /// The records after a cursor are gone.
    #[error("records after this cursor are gone; the oldest that can be followed is {}", .0.oldest)]
    Expired(Expired),
    /// A shard that the query needs has ended.
    #[error(transparent)]
    Shard(#[from] ShardGone),
    /// More records than an answer may have.
    #[error(
        "the answer would have more than {most} records; ask for a shorter time (since, until), a longer step, or fewer series (name, tag, container)"
    )]
    TooManyRecords {
        /// The limit.
        most: u64,
    },
    /// There is no archive, and memory has nothing of the time.
    #[error(
        "the archive is off, and memory reaches back {} only; set archive.enabled and restart the agent for the history from then on",
        humantime::format_duration(*.memory)
    )]
    ArchiveOff {
        /// How far back memory goes.
        memory: std::time::Duration,
    },
    /// The archive cannot be read.
    #[error("the archive cannot be read ({0}); the log of the agent says more")]
    Archive(String),
    /// Its time budget was used up.
    #[error("the answer was not finished in time")]
    Unfinished,
}

impl Error {
    /// A key that the query does not have.
    #[must_use]
    pub fn unknown_parameter(key: &str, known: &[&str]) -> Self {
        let likeness =
            |a: &&&str, b: &&&str| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key));
        let nearest = known.iter().max_by(likeness);
        let hint = nearest.map_or_else(
            || "; this route takes none".to_owned(),
            |nearest| format!("; did you mean {nearest:?}? It takes {}", known.join(", ")),
        );
        Self::UnknownParameter { key: key.to_owned(), hint }
    }

    /// A value that cannot be read.
    #[must_use]
    pub fn bad_parameter(key: &str, value: &str, why: &str) -> Self {
        Self::BadParameter { key: key.to_owned(), value: value.to_owned(), why: why.to_owned() }
    }
}

impl From<Expired> for Error {
    fn from(expired: Expired) -> Self {
        Self::Expired(expired)
    }
}
