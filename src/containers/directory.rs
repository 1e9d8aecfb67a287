//! What the table shows to readers: which containers are here or were a moment ago, how to follow their changes at a cost that
//! depends on the changes alone, and which known names resemble a mistyped one.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use tokio::sync::watch;

use super::reservation::{ContainerNetwork, Details};
use super::state::{Guarded, LifecycleState, SocketNamespace};
use super::unix::ContainerUnixSocket;
use crate::aggregate::{Accounting, GaugeSign, TimerUnit};
use crate::model::{Allocation, ContainerId, Origin, TaskId, Timestamp};
use crate::shard::ContainerStats;

/// One generation of a container. Immutable; a change creates a new one.
#[derive(Clone, Debug)]
pub struct ContainerInfo {
    /// Its reservation.
    pub allocation: Allocation,
    /// Where its samples come from.
    pub origin: Arc<Origin>,
    /// Another name by which its task can be read.
    pub alias: Option<TaskId>,
    /// Where it is in its life.
    pub state: LifecycleState,
    /// Whether its process is known.
    pub attached: bool,
    /// Its process id, once known, if it has one in this PID namespace.
    pub pid: Option<i32>,
    /// Its address, once it has one.
    pub address: Option<SocketAddr>,
    /// Its Unix socket, if it has one.
    pub unix: Option<ContainerUnixSocket>,
    /// The network namespace it asked for.
    pub network: ContainerNetwork,
    /// The network namespace its socket is in.
    pub place: SocketNamespace,
    /// Whether the kernel rejects datagrams from other processes to its socket.
    pub guarded: Guarded,
    /// The meaning of its signed gauge values.
    pub gauge_sign: GaugeSign,
    /// The unit of its timers.
    pub timer_unit: TimerUnit,
    /// Information from its runtime.
    pub details: Details,
    /// Why it has no socket, in the states `mute` and `lost`.
    pub reason: Option<String>,
    /// Deviations from what was requested.
    pub warnings: Vec<String>,
    /// Bytes of its receive buffer.
    pub receive_buffer: usize,
    /// When it was reserved.
    pub reserved_at: Timestamp,
    /// When it had ended and had been drained.
    pub finished_at: Option<Timestamp>,
    /// Its statistics at its end.
    pub last: Option<Arc<ContainerStats>>,
}

/// All containers that are here.
#[derive(Default, Debug)]
pub struct Directory {
    inner: RwLock<DirectoryInner>,
    changed: watch::Sender<()>,
    version: AtomicU64,
}

#[derive(Default, Debug)]
struct DirectoryInner {
    all: BTreeMap<Allocation, Arc<ContainerInfo>>,
    /// Oldest generation first.
    containers: HashMap<ContainerId, Vec<Allocation>>,
    tasks: BTreeMap<TaskId, Vec<Allocation>>,
    /// Aliases of tasks. An alias may belong to several tasks; a task's own name takes precedence over aliases.
    aliases: BTreeMap<TaskId, Vec<Allocation>>,
    /// Counts of forgotten containers.
    forgotten: Accounting,
    followers: Followers,
}

/// A task with its current containers.
#[derive(Clone, Debug)]
pub struct TaskContainers {
    pub task_id: TaskId,
    /// Its live containers; if none is live, those that have ended, each in its last generation.
    pub containers: Vec<Arc<ContainerInfo>>,
}

impl Directory {
    /// The last generation of a container.
    #[must_use]
    pub fn find_container(&self, id: &ContainerId) -> Option<Arc<ContainerInfo>> {
        let inner = self.read();
        let newest = inner.containers.get(id)?.last()?;
        inner.all.get(newest).cloned()
    }

    /// A container by its reservation.
    #[must_use]
    pub fn get(&self, allocation: Allocation) -> Option<Arc<ContainerInfo>> {
        self.read().all.get(&allocation).cloned()
    }

    /// Every container in every generation, in the order they came.
    #[must_use]
    pub fn all_containers(&self) -> Vec<Arc<ContainerInfo>> {
        self.read().all.values().cloned().collect()
    }

    /// Finds a task by its name or alias.
    #[must_use]
    pub fn find_task(&self, id: &str) -> Option<TaskContainers> {
        let inner = self.read();
        let (task_id, allocations) = inner.resolve_task(id)?;
        Some(inner.task_containers(task_id, allocations))
    }

    /// Every generation of every container of a task, in the order they came.
    #[must_use]
    pub fn every_container_of(&self, id: &str) -> Vec<Arc<ContainerInfo>> {
        let inner = self.read();
        let allocations =
            inner.resolve_task(id).map(|(_, allocations)| allocations.as_slice()).unwrap_or_default();
        allocations.iter().filter_map(|allocation| inner.all.get(allocation).cloned()).collect()
    }

    /// Every task, sorted by id.
    #[must_use]
    pub fn all_tasks(&self) -> Vec<TaskContainers> {
        let inner = self.read();
        inner.tasks.iter().map(|(task_id, allocations)| inner.task_containers(task_id, allocations)).collect()
    }

    /// The ids of at most `most` tasks, sorted.
    #[must_use]
    pub fn task_ids(&self, most: usize) -> Vec<TaskId> {
        self.read().tasks.keys().take(most).cloned().collect()
    }

    /// The ids of at most `most` containers, unordered.
    #[must_use]
    pub fn container_ids(&self, most: usize) -> Vec<ContainerId> {
        self.read().containers.keys().take(most).cloned().collect()
    }

    /// The total counts of forgotten containers.
    #[must_use]
    pub fn forgotten_accounting(&self) -> Accounting {
        self.read().forgotten.clone()
    }

    /// A receiver that is notified of every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A follower that collects every change.
    #[must_use]
    pub fn follow_changes(&self) -> Follower {
        let mut inner = self.write();
        let there = inner.all.keys().copied().collect();
        inner.followers.add(there, self.changed.subscribe())
    }

    /// A number that grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn upsert_container(&self, info: &Arc<ContainerInfo>) {
        let mut inner = self.write();
        let allocation = info.allocation;
        inner.followers.mark_changed(allocation);
        if inner.all.insert(allocation, Arc::clone(info)).is_none() {
            inner.containers.entry(info.origin.container_id.clone()).or_default().push(allocation);
            inner.tasks.entry(info.origin.task_id.clone()).or_default().push(allocation);
            if let Some(alias) = &info.alias {
                inner.aliases.entry(alias.clone()).or_default().push(allocation);
            }
        }
        drop(inner);
        self.notify_change();
    }

    /// Adds the counts of containers that the previous process had forgotten.
    pub(super) fn merge_forgotten_accounting(&self, forgotten: &Accounting) {
        self.write().forgotten.merge(forgotten);
    }

    pub(super) fn forget_container(&self, allocation: Allocation) {
        let mut inner = self.write();
        inner.followers.mark_changed(allocation);
        let Some(info) = inner.all.remove(&allocation) else { return };
        if let Some(last) = &info.last {
            inner.forgotten.merge(&last.accounting);
        }
        let (container, task) = (&info.origin.container_id, &info.origin.task_id);
        if remove(inner.containers.get_mut(container), allocation) {
            inner.containers.remove(container);
        }
        if remove(inner.tasks.get_mut(task), allocation) {
            inner.tasks.remove(task);
        }
        if let Some(alias) = &info.alias
            && remove(inner.aliases.get_mut(alias), allocation)
        {
            inner.aliases.remove(alias);
        }
        drop(inner);
        self.notify_change();
    }

    fn notify_change(&self) {
        self.version.fetch_add(1, Ordering::Release);
        self.changed.send_replace(());
    }

    fn read(&self) -> RwLockReadGuard<'_, DirectoryInner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, DirectoryInner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes one; returns whether none is left.
fn remove(allocations: Option<&mut Vec<Allocation>>, gone: Allocation) -> bool {
    allocations.is_some_and(|allocations| {
        allocations.retain(|allocation| *allocation != gone);
        allocations.is_empty()
    })
}

impl DirectoryInner {
    /// The containers of a task, by its name or an alias.
    fn resolve_task(&self, id: &str) -> Option<(&TaskId, &Vec<Allocation>)> {
        self.tasks.get_key_value(id).or_else(|| self.aliases.get_key_value(id))
    }

    fn task_containers(&self, task_id: &TaskId, allocations: &[Allocation]) -> TaskContainers {
        let containers = || allocations.iter().filter_map(|allocation| self.all.get(allocation));
        let live: Vec<_> = containers().filter(|info| !info.state.is_finished()).cloned().collect();
        if !live.is_empty() {
            return TaskContainers { task_id: task_id.clone(), containers: live };
        }
        let mut last: BTreeMap<&ContainerId, &Arc<ContainerInfo>> = BTreeMap::new();
        for info in containers() {
            last.insert(&info.origin.container_id, info);
        }
        TaskContainers { task_id: task_id.clone(), containers: last.into_values().cloned().collect() }
    }
}

/// Learns of every change once. Comparing all containers at each change would make a start more expensive the more there are.
#[derive(Debug)]
pub struct Follower {
    changed: Arc<Mutex<BTreeSet<Allocation>>>,
    told: watch::Receiver<()>,
}

impl Follower {
    /// Waits until something has changed; forever, if nothing can change any more.
    pub async fn wait_for_change(&mut self) {
        if self.told.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The containers that were added, changed or removed since the last call; at first, all existing ones.
    pub fn take_changed(&self) -> BTreeSet<Allocation> {
        std::mem::take(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The followers of a directory.
#[derive(Default, Debug)]
struct Followers(Vec<Weak<Mutex<BTreeSet<Allocation>>>>);

impl Followers {
    fn add(&mut self, there: BTreeSet<Allocation>, told: watch::Receiver<()>) -> Follower {
        let changed = Arc::new(Mutex::new(there));
        self.0.push(Arc::downgrade(&changed));
        Follower { changed, told }
    }

    fn mark_changed(&mut self, allocation: Allocation) {
        self.0.retain(|follower| {
            let Some(changed) = follower.upgrade() else { return false };
            changed.lock().unwrap_or_else(PoisonError::into_inner).insert(allocation);
            true
        });
    }
}

/// The longest name that is compared, in bytes. Time and memory of a comparison grow with the product of both lengths, and a
/// reader can send a name of many kilobytes.
const LONGEST: usize = 128;
/// Maximum number of suggestions.
const SUGGESTED: usize = 5;
/// Minimum similarity of suggested names, exclusive; identical names have 1, names without a common character 0.
const ALIKE: f64 = 0.4;

/// At most five of the names, most similar first: those that contain the mistyped one, and those within a few edits.
/// Empty if the mistyped name is longer than 128 bytes; longer names are skipped.
pub fn suggest_names<N: Borrow<str>>(mistyped: &str, names: impl IntoIterator<Item = N>) -> Vec<String> {
    if mistyped.len() > LONGEST {
        return Vec::new();
    }
    let mut alike: Vec<(f64, N)> = names
        .into_iter()
        .filter_map(|name| Some((name_similarity(mistyped, name.borrow())?, name)))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .collect();
    alike.sort_by(|(a, first), (b, second)| b.total_cmp(a).then_with(|| first.borrow().cmp(second.borrow())));
    alike.into_iter().take(SUGGESTED).map(|(_, name)| name.borrow().to_owned()).collect()
}

/// How similar a name is: the share of characters that need no edit, plus 0.5 if it contains the mistyped one. A name may be
/// shortened to its start, which counts a little less. `None` if it is too long to be compared.
fn name_similarity(mistyped: &str, name: &str) -> Option<f64> {
    if name.len() > LONGEST {
        return None;
    }
    let contained = if !mistyped.is_empty() && name.contains(mistyped) { 0.5 } else { 0.0 };
    let start: String = name.chars().take(mistyped.chars().count()).collect();
    let whole = strsim::normalized_damerau_levenshtein(name, mistyped);
    let shortened = 0.9 * strsim::normalized_damerau_levenshtein(&start, mistyped);
    Some(contained + whole.max(shortened))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Generation, Labels};

    fn info(
        allocation: u64,
        container: &str,
        generation: u32,
        task: &str,
        state: LifecycleState,
    ) -> Arc<ContainerInfo> {
        Arc::new(ContainerInfo {
            allocation: Allocation(allocation),
            origin: Arc::new(Origin {
                container_id: ContainerId::new(container).unwrap(),
                generation: Generation(generation),
                task_id: TaskId::new(task).unwrap(),
                labels: Labels::new(),
            }),
            alias: None,
            state,
            attached: false,
            pid: None,
            address: None,
            unix: None,
            network: ContainerNetwork::Host,
            place: SocketNamespace::Shared,
            guarded: Guarded::Off,
            gauge_sign: GaugeSign::Delta,
            timer_unit: TimerUnit::default(),
            details: Details::default(),
            reason: None,
            warnings: Vec::new(),
            receive_buffer: 0,
            reserved_at: Timestamp::default(),
            finished_at: None,
            last: None,
        })
    }

    fn ids(listed: &TaskContainers) -> Vec<String> {
        listed
            .containers
            .iter()
            .map(|c| format!("{}.{}", c.origin.container_id, c.origin.generation))
            .collect()
    }

    #[test]
    fn a_name_means_the_living() {
        let directory = Directory::default();
        directory.upsert_container(&info(1, "a", 1, "web", LifecycleState::Gone));
        directory.upsert_container(&info(2, "a", 2, "web", LifecycleState::Listening));
        directory.upsert_container(&info(3, "b", 1, "web", LifecycleState::Gone));
        assert_eq!(ids(&directory.find_task("web").unwrap()), ["a.2"]);
        directory.upsert_container(&info(2, "a", 2, "web", LifecycleState::Gone));
        assert_eq!(
            ids(&directory.find_task("web").unwrap()),
            ["a.2", "b.1"],
            "when all have ended, their last lives"
        );
        assert_eq!(directory.every_container_of("web").len(), 3);
    }

    #[test]
    fn an_alias_means_every_task_that_has_it_and_never_a_task_of_that_name() {
        let directory = Directory::default();
        let aliased = |n, container, task| {
            let info = ContainerInfo::clone(&info(n, container, 1, task, LifecycleState::Listening));
            Arc::new(ContainerInfo { alias: Some(TaskId::new("shop/web").unwrap()), ..info })
        };
        directory.upsert_container(&aliased(1, "a", "shop_web-0_u1"));
        directory.upsert_container(&aliased(2, "b", "shop_web-1_u2"));
        assert_eq!(ids(&directory.find_task("shop/web").unwrap()), ["a.1", "b.1"]);
        assert_eq!(directory.every_container_of("shop/web").len(), 2);
        assert_eq!(directory.all_tasks().len(), 2, "a list has each task once, by its own name");
        directory.upsert_container(&info(3, "c", 1, "shop/web", LifecycleState::Listening));
        assert_eq!(ids(&directory.find_task("shop/web").unwrap()), ["c.1"]);
        for n in 1..4 {
            directory.forget_container(Allocation(n));
        }
        assert!(directory.find_task("shop/web").is_none());
    }

    #[test]
    fn what_is_forgotten_is_nowhere() {
        let directory = Directory::default();
        directory.upsert_container(&info(1, "a", 1, "web", LifecycleState::Gone));
        directory.forget_container(Allocation(1));
        assert!(
            directory.find_task("web").is_none()
                && directory.all_containers().is_empty()
                && directory.all_tasks().is_empty()
        );
        assert!(directory.find_container(&ContainerId::new("a").unwrap()).is_none());
    }

    #[test]
    fn a_follower_learns_of_each_change_once() {
        let directory = Directory::default();
        directory.upsert_container(&info(1, "a", 1, "web", LifecycleState::Listening));
        let (one, other) = (directory.follow_changes(), directory.follow_changes());
        let changed =
            |follower: &Follower| follower.take_changed().into_iter().map(|a| a.0).collect::<Vec<_>>();
        assert_eq!((changed(&one), changed(&one)), (vec![1], vec![]), "who was there is new to it");
        directory.upsert_container(&info(2, "b", 1, "web", LifecycleState::Listening));
        directory.upsert_container(&info(2, "b", 1, "web", LifecycleState::Gone));
        assert_eq!(changed(&one), [2]);
        directory.forget_container(Allocation(1));
        assert_eq!((changed(&one), changed(&other)), (vec![1], vec![1, 2]));
        drop(other);
        directory.forget_container(Allocation(2));
        assert_eq!(changed(&one), [2]);
    }

    #[test]
    fn a_mistyped_name_gets_the_most_similar_ones() {
        let names = ["web.1", "web.2", "database", "/prod/web/api"];
        assert_eq!(suggest_names("wbe.1", names)[0], "web.1");
        assert_eq!(suggest_names("wbe", names)[0], "web.1", "the start of a name, mistyped");
        assert_eq!(suggest_names("web", names), ["web.1", "web.2", "/prod/web/api"]);
        assert!(suggest_names("zzzzzz", names).is_empty());
    }

    #[test]
    fn names_longer_than_the_bound_are_neither_compared_nor_suggested() {
        let of_length = |n: usize| "x".repeat(n);
        assert_eq!(suggest_names(&of_length(LONGEST), [of_length(LONGEST)]).len(), 1);
        assert!(suggest_names(&of_length(LONGEST + 1), [of_length(LONGEST)]).is_empty());
        assert!(suggest_names("x", [of_length(LONGEST + 1)]).is_empty());
    }
}
