//! What readers ask of all shards.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{ShardGone, ShardId, ShardPool};
use crate::model::Allocation;
use crate::shard::command::{ContainerStats, Of, Question, StatsDetail, TappedLine};
use crate::shard::looks::{FEW, StatsByContainer};
use crate::shard::tail::TailRoom;

/// How often containers are asked for that were not where they were expected: they are being moved to another shard.
const TRIES: usize = 4;

impl ShardPool {
    /// How containers stand, without their open windows.
    ///
    /// # Errors
    /// When a shard has ended.
    pub async fn container_counts(&self, of: &Of) -> Result<Vec<Arc<ContainerStats>>, ShardGone> {
        self.collect_stats(of, StatsDetail::Counts).await
    }

    /// How containers stand, with their open windows.
    ///
    /// # Errors
    /// When a shard has ended.
    pub async fn open_windows(&self, of: &Of) -> Result<Vec<Arc<ContainerStats>>, ShardGone> {
        self.collect_stats(of, StatsDetail::OpenWindow).await
    }

    /// Readers do not hold the table of places while they wait, so they never delay what the container table wants of a shard.
    /// A container that is moved meanwhile may be on neither shard when it is looked for, and is looked for again.
    async fn collect_stats(
        &self,
        of: &Of,
        detail: StatsDetail,
    ) -> Result<Vec<Arc<ContainerStats>>, ShardGone> {
        let mut found = StatsByContainer::new();
        for _ in 0..TRIES {
            let missing = self.places_of(of, &found).await;
            if missing.iter().all(Vec::is_empty) {
                break;
            }
            // All are asked before the first answer is waited for.
            let answers: Vec<_> = self
                .shards
                .iter()
                .zip(missing)
                .filter(|(_, missing)| !missing.is_empty())
                .map(|(shard, missing)| {
                    let (reply, answer) = oneshot::channel();
                    let wanted = missing.clone();
                    let asked = shard.send_question(Question::Look(as_asked(missing, detail), detail, reply));
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

    /// The containers that are asked about and not found yet, by shard.
    async fn places_of(&self, of: &Of, found: &StatsByContainer) -> Vec<Vec<Allocation>> {
        let mut missing = vec![Vec::new(); self.shards.len()];
        let mut add = |allocation: &Allocation, ShardId(shard): ShardId| {
            if let Some(on_shard) = missing.get_mut(shard).filter(|_| !found.contains_key(allocation)) {
                on_shard.push(*allocation);
            }
        };
        let places = self.places.read().await;
        match of {
            Of::All => places.iter().for_each(|(allocation, place)| add(allocation, *place)),
            Of::These(these) => {
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

    /// The room of a new tail, which reads the lines of one or more containers.
    #[must_use]
    pub fn tail_room(&self) -> TailRoom {
        TailRoom::with_shared_bound(&self.shared.tails)
    }

    /// Copies of a container's lines as they arrive, at most `most` waiting, and no more bytes than a tail has room for.
    ///
    /// # Errors
    /// When its shard has ended.
    pub async fn tap_lines(
        &self,
        allocation: Allocation,
        most: usize,
        room: &TailRoom,
    ) -> Result<mpsc::Receiver<TappedLine>, ShardGone> {
        let (to, lines) = mpsc::channel(most);
        let places = self.places.read().await;
        // One that has just ended has no lines any more.
        if let Some(place) = places.get(&allocation) {
            self.find_shard(*place)?.send_question(Question::Tap(allocation, to, room.clone()))?;
        }
        Ok(lines)
    }
}

/// What a shard is asked for: the containers themselves, or all of its containers where the counts of many are wanted. Counting
/// all costs a shard less than looking up each of many.
fn as_asked(these: Vec<Allocation>, detail: StatsDetail) -> Of {
    if detail == StatsDetail::Counts && these.len() > FEW { Of::All } else { Of::These(these) }
}
