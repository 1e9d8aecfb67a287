//! Queries by readers, which go to all shards.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{ShardGone, ShardId, ShardPool};
use crate::model::Allocation;
use crate::shard::command::Question;
use crate::shard::stats_queries::{
    ContainerSelection, ContainerStats, MAX_SMALL_QUERY, StatsByContainer, StatsDetail,
};
use crate::shard::tail::{LineFilter, TailRoom, TappedLine};

/// Maximum number of attempts to find containers that are not where they were expected, because they are being moved to
/// another shard.
const TRIES: usize = 4;

impl ShardPool {
    /// Statistics of containers, without their open windows.
    ///
    /// # Errors
    /// When a shard has ended.
    pub async fn container_counts(
        &self,
        of: &ContainerSelection,
    ) -> Result<Vec<Arc<ContainerStats>>, ShardGone> {
        self.collect_stats(of, StatsDetail::Counts).await
    }

    /// Statistics of containers, with their open windows.
    ///
    /// # Errors
    /// When a shard has ended.
    pub async fn open_windows(&self, of: &ContainerSelection) -> Result<Vec<Arc<ContainerStats>>, ShardGone> {
        self.collect_stats(of, StatsDetail::OpenWindow).await
    }

    /// Readers do not lock the table of places while they wait, so they never delay the container table's requests to a shard.
    /// A container that is being moved may be on neither shard when it is looked up, and is then looked up again.
    async fn collect_stats(
        &self,
        of: &ContainerSelection,
        detail: StatsDetail,
    ) -> Result<Vec<Arc<ContainerStats>>, ShardGone> {
        let mut found = StatsByContainer::new();
        for _ in 0..TRIES {
            let missing = self.find_missing(of, &found).await;
            if missing.iter().all(Vec::is_empty) {
                break;
            }
            // Ask all shards before waiting for the first answer.
            let answers: Vec<_> = self
                .shards
                .iter()
                .zip(missing)
                .filter(|(_, missing)| !missing.is_empty())
                .map(|(shard, missing)| {
                    let (reply, answer) = oneshot::channel();
                    let wanted = missing.clone();
                    let asked = shard.send_question(Question::Stats(
                        choose_selection(missing, detail),
                        detail,
                        reply,
                    ));
                    (wanted, asked.map(|()| answer))
                })
                .collect();
            for (wanted, answer) in answers {
                let seen = answer?.await.map_err(|_| ShardGone)?;
                found.extend(wanted.iter().filter_map(|one| Some((*one, Arc::clone(seen.get(one)?)))));
            }
        }
        Ok(found.into_values().collect())
    }

    /// The requested containers that have not been found yet, by shard.
    async fn find_missing(&self, of: &ContainerSelection, found: &StatsByContainer) -> Vec<Vec<Allocation>> {
        let mut missing = vec![Vec::new(); self.shards.len()];
        let mut add = |allocation: &Allocation, ShardId(shard): ShardId| {
            if let Some(on_shard) = missing.get_mut(shard).filter(|_| !found.contains_key(allocation)) {
                on_shard.push(*allocation);
            }
        };
        let places = self.places.read().await;
        match of {
            ContainerSelection::All => places.iter().for_each(|(allocation, place)| add(allocation, *place)),
            ContainerSelection::These(these) => {
                for allocation in these {
                    if let Some(place) = places.get(allocation) {
                        add(allocation, *place);
                    }
                }
            }
        }
        drop(places);
        missing
    }

    /// The memory allowance of a new tail, which reads the lines of one or more containers.
    #[must_use]
    pub fn tail_room(&self) -> TailRoom {
        TailRoom::with_shared_bound(&self.shared.tail_bytes)
    }

    /// Copies of a container's wanted lines as they arrive. At most `most` lines wait, and no more bytes than the tail has room for.
    ///
    /// # Errors
    /// When its shard has ended.
    pub async fn tap_lines(
        &self,
        allocation: Allocation,
        most: usize,
        room: &TailRoom,
        wanted: &LineFilter,
    ) -> Result<mpsc::Receiver<TappedLine>, ShardGone> {
        let (to, lines) = mpsc::channel(most);
        let places = self.places.read().await;
        // A container that has just ended has no more lines.
        if let Some(place) = places.get(&allocation) {
            self.find_shard(*place)?.send_question(Question::Tap(
                allocation,
                to,
                room.clone(),
                wanted.clone(),
            ))?;
        }
        Ok(lines)
    }
}

/// Which containers to ask a shard for: these, or all of its containers if the counts of many are wanted. Counting all costs a
/// shard less than looking up many one by one.
fn choose_selection(these: Vec<Allocation>, detail: StatsDetail) -> ContainerSelection {
    if detail == StatsDetail::Counts && these.len() > MAX_SMALL_QUERY {
        ContainerSelection::All
    } else {
        ContainerSelection::These(these)
    }
}
