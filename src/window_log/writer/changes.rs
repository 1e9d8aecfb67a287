//! What is written of containers beside their windows: descriptions, events, and what outlasts windows. Only what is new is
//! written.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;

use crate::aggregate::{ContainerSummary, EventRecord, Habits, LastCheck, PersistentValue};
use crate::containers::{Directory, Follower};
use crate::model::{Allocation, Timestamp};
use crate::window_log::log::{ClosedWindowLog, ContainerChange, ContainerLookup as _};
use crate::window_log::renewed::WriterSources;

/// What has changed of containers, and what is written of that.
#[derive(Debug)]
pub(super) struct ContainerWriter {
    lives: Follower,
    /// Changed containers that are not written yet.
    changed: BTreeSet<Allocation>,
    /// Containers whose end has been written.
    ended: HashSet<Allocation>,
    /// The last written event of each container, in the file with number `said_in`.
    said: HashMap<Allocation, Arc<EventRecord>>,
    said_in: u64,
    /// The written state of each container that outlasts windows, in the file with number `lasting_in`.
    lasting: HashMap<Allocation, WrittenSummary>,
    lasting_in: u64,
}

impl ContainerWriter {
    pub(super) fn new(directory: &Directory) -> Self {
        Self {
            lives: directory.follow_changes(),
            changed: BTreeSet::new(),
            ended: HashSet::new(),
            said: HashMap::new(),
            said_in: 0,
            lasting: HashMap::new(),
            lasting_in: 0,
        }
    }

    /// Waits until a container comes, changes or goes.
    pub(super) async fn wait_for_change(&mut self) {
        self.lives.wait_for_change().await;
    }

    /// Writes which containers have ended and which are forgotten. Returns the bytes.
    pub(super) fn write_container_changes(
        &mut self,
        log: &mut ClosedWindowLog,
        parts: &WriterSources,
    ) -> io::Result<u64> {
        self.changed.append(&mut self.lives.take_changed());
        let (mut ended, mut gone) = (Vec::new(), Vec::new());
        for allocation in self.changed.iter().copied() {
            match parts.directory.get(allocation) {
                Some(info) if info.finished_at.is_some() && !self.ended.contains(&allocation) => {
                    ended.extend(parts.find_who(allocation, &info.origin).map(|who| (allocation, who)));
                }
                Some(_) => {}
                None => gone.push(allocation),
            }
        }
        let changes = ended.iter().map(|(allocation, who)| ContainerChange::Is(*allocation, who.clone()));
        let changes: Vec<_> = changes.chain(gone.iter().copied().map(ContainerChange::Forgotten)).collect();
        let bytes = if changes.is_empty() { 0 } else { log.append_changes(&changes)? };
        self.ended.extend(ended.iter().map(|(allocation, _)| *allocation));
        for allocation in &gone {
            self.ended.remove(allocation);
            self.said.remove(allocation);
            self.lasting.remove(allocation);
            log.forget_container(*allocation);
        }
        self.changed.clear();
        Ok(bytes)
    }

    /// Writes events that came. Returns the bytes.
    pub(super) fn write_events(
        &mut self,
        log: &mut ClosedWindowLog,
        parts: &WriterSources,
    ) -> io::Result<u64> {
        if self.said_in != log.file_number() {
            // The file they are in may go before they do.
            self.said.clear();
        }
        let mut changes = Vec::new();
        let mut said = Vec::new();
        for (allocation, origin, events) in parts.store.last_events() {
            let (Some(last), Some(who)) = (events.last(), parts.find_who(allocation, &origin)) else {
                continue;
            };
            let before = self.said.get(&allocation);
            let known =
                events.iter().position(|event| before.is_some_and(|before| Arc::ptr_eq(before, event)));
            let new = events.iter().skip(known.map_or(0, |at| at + 1)).cloned().collect::<Vec<_>>();
            if !new.is_empty() {
                said.push((allocation, Arc::clone(last)));
                changes.push(ContainerChange::Said(allocation, who, new));
            }
        }
        let bytes = if changes.is_empty() { 0 } else { log.append_changes(&changes)? };
        self.said.extend(said);
        self.said_in = log.file_number();
        Ok(bytes)
    }

    /// Writes what has changed of levels, checks and clients' habits that no kept window may have. Returns the
    /// bytes.
    pub(super) fn write_lasting(
        &mut self,
        log: &mut ClosedWindowLog,
        parts: &WriterSources,
    ) -> io::Result<u64> {
        if self.lasting_in != log.file_number() {
            // The file they are in may go before they do.
            self.lasting.clear();
        }
        let (mut changes, mut written) = (Vec::new(), Vec::new());
        for (allocation, origin, summary) in parts.store.container_summaries() {
            let newest = parts.store.newest_start(allocation);
            let now = WrittenSummary::from_summary(&summary, newest);
            let before = self.lasting.get(&allocation);
            if before.map_or_else(|| now.is_nothing(), |before| before.is_same(&now)) {
                continue;
            }
            let Some(who) = parts.find_who(allocation, &origin) else { continue };
            let (lasting, checks) = now.changes_since(before);
            changes.push(ContainerChange::Lasting(allocation, who, lasting, checks, now.habits));
            written.push((allocation, now));
        }
        let bytes = if changes.is_empty() { 0 } else { log.append_changes(&changes)? };
        self.lasting.extend(written);
        self.lasting_in = log.file_number();
        Ok(bytes)
    }
}

/// The written state of one container.
#[derive(Debug)]
pub(super) struct WrittenSummary {
    lasting: Arc<[PersistentValue]>,
    /// The outcomes before the newest window.
    checks: Vec<LastCheck>,
    pub(super) habits: Habits,
}

impl WrittenSummary {
    /// The state to write. Outcomes in the newest window, which starts at `newest`, are written with that window.
    pub(super) fn from_summary(summary: &ContainerSummary, newest: Option<Timestamp>) -> Self {
        let before = |check: &&LastCheck| newest.is_none_or(|start| check.at < start);
        let checks = summary.checks.iter().filter(before).cloned().collect();
        Self { lasting: Arc::clone(&summary.lasting), checks, habits: summary.habits }
    }

    /// Whether there is nothing to write.
    pub(super) fn is_nothing(&self) -> bool {
        self.lasting.is_empty() && self.checks.is_empty() && self.habits.is_equivalent_to(&Habits::default())
    }

    /// Whether both are equal.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lasting, &other.lasting)
            && self.habits.is_equivalent_to(&other.habits)
            && self.checks.len() == other.checks.len()
            && self.checks.iter().map(check_key).eq(other.checks.iter().map(check_key))
    }

    /// The entries that are not in `before`.
    pub(super) fn changes_since(&self, before: Option<&Self>) -> (Vec<PersistentValue>, Vec<LastCheck>) {
        let lasting = before.into_iter().flat_map(|before| before.lasting.iter()).map(lasting_key);
        let lasting: HashSet<_> = lasting.collect();
        let checks = before.into_iter().flat_map(|before| before.checks.iter()).map(check_key);
        let checks: HashSet<_> = checks.collect();
        (
            self.lasting.iter().filter(|last| !lasting.contains(&lasting_key(last))).cloned().collect(),
            self.checks.iter().filter(|check| !checks.contains(&check_key(check))).cloned().collect(),
        )
    }
}

/// Both sides of a comparison hold their series, so equal addresses mean the same series.
fn lasting_key(last: &PersistentValue) -> (usize, u64, Timestamp) {
    (Arc::as_ptr(&last.series).addr(), last.value.to_bits(), last.at)
}

fn check_key(check: &LastCheck) -> (usize, Timestamp) {
    (Arc::as_ptr(&check.series).addr(), check.at)
}
