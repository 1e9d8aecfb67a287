//! From what was read to what can be served: containers with their windows, and a log that continues behind them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::entry::{Birth, ContainerKey, Who};
use super::found::FoundContainer;
use super::log::{ClosedWindowLog, LeftFiles, LogEpochs};
use super::read::{Depth, Findings, ReadFile, read_or_report};
use super::segment::{FiledWindow, SealedSegment};
use super::spool::{Spool, SpoolFileName};
use super::status::{LogDamage, RecoveryReport};
use crate::aggregate::ContainerSummary;
use crate::model::{Allocation, Origin, Timestamp};
use crate::store::{History, NameChange, Published, Store};
use crate::wal::Files;

/// A container of a previous run.
#[derive(Debug)]
pub struct RestoredContainer {
    /// Its number in this run.
    pub allocation: Allocation,
    /// Its description. A container that had not ended counts as ended now.
    pub who: Who,
    /// When it ended, or now.
    pub finished_at: Timestamp,
}

/// The restored state of the previous run.
#[derive(Debug)]
pub struct Recovered {
    /// Its containers, in order of reservation.
    pub containers: Vec<RestoredContainer>,
    /// How it ended, and what was restored.
    pub report: RecoveryReport,
    /// The number of the last life that wrote something; 0 where nothing was found.
    pub epoch: u64,
    pub(super) histories: Vec<(Allocation, History)>,
    /// The identity of each window, by its sequence number in the histories.
    births: HashMap<u64, (ContainerKey, Birth)>,
    keys: Vec<(Allocation, ContainerKey)>,
    /// Keys whose entries are repeated under other keys.
    pub(super) void: Vec<ContainerKey>,
    files: VecDeque<ReadFile>,
    pub(super) open_files: Vec<String>,
    spool_files: Vec<SpoolFileName>,
    names: Vec<NameChange>,
    pub(super) name_files: Vec<String>,
    /// When it was read.
    now: Timestamp,
    pub(super) next: u64,
}

/// The continued log, and windows it still has to write.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) log: ClosedWindowLog,
    pub(super) unwritten: Vec<(Birth, Arc<Published>)>,
}

/// Reads the log of previous runs, as of `now`. Containers that ended more than `tombstone` ago are skipped. Unreadable
/// parts are reported, and never prevent the agent from starting.
#[must_use]
pub fn recover_windows(files: &dyn Files, now: Timestamp, tombstone: Duration) -> Recovered {
    let mut findings = read_or_report(files, Depth::Windows);
    findings.containers.retain(|_, found| {
        found.who.finished.is_none_or(|finished| finished.saturating_add(tombstone) > now)
    });
    let void = said_twice(&mut findings.containers);
    assign_open_births(&mut findings);
    let mut report = RecoveryReport {
        containers: findings.containers.len(),
        last: findings.last,
        gap: findings.last.map_or(Duration::ZERO, |last| now.duration_since(last)),
        in_order: findings.in_order,
        damage: findings.damage,
        ..RecoveryReport::default()
    };
    let places = assign_places(&findings.containers);
    let mut recovered = Recovered {
        containers: Vec::new(),
        report,
        epoch: findings.epoch,
        histories: Vec::new(),
        births: HashMap::new(),
        keys: Vec::new(),
        void,
        files: findings.files,
        open_files: findings.open_files,
        spool_files: findings.spool_files,
        names: findings.names,
        name_files: findings.name_files,
        now,
        next: findings.next.max(1),
    };
    for ((key, found), n) in findings.containers.into_iter().zip(1..) {
        let allocation = Allocation(n);
        // Limit it to now, so that a clock that was ahead does not extend its tombstone time.
        let finished_at = found.who.finished.unwrap_or(now).min(now);
        report.windows += found.windows.len();
        report.ahead += found.windows.values().filter(|stored| stored.window.span.start > now).count();
        report.open += usize::from(found.has_unfinished());
        recovered.containers.push(RestoredContainer { allocation, who: found.who.clone(), finished_at });
        recovered.keys.push((allocation, key));
        let history = recovered.build_history(key, found, &places);
        recovered.histories.push((allocation, history));
    }
    recovered.report = report;
    recovered
}

/// Removes duplicate containers. A process that has taken over writes everything again under its own keys, and then
/// voids the old ones; if it was killed in between, the log has both. The newer one is complete if it has the last
/// window of the older one. Returns the removed keys.
fn said_twice(containers: &mut BTreeMap<ContainerKey, FoundContainer>) -> Vec<ContainerKey> {
    let mut known: HashMap<_, ContainerKey> = HashMap::new();
    let mut void = Vec::new();
    // Keys are sorted by epoch, so older ones come first.
    for (key, found) in &*containers {
        let origin = &found.who.origin;
        let same = (origin.container_id.clone(), origin.generation, found.who.opened);
        let last = |key: &ContainerKey| containers.get(key).and_then(FoundContainer::last_start);
        match known.get_mut(&same) {
            Some(older) if last(older) <= last(key) => void.push(std::mem::replace(older, *key)),
            Some(_) => void.push(*key),
            None => drop(known.insert(same, *key)),
        }
    }
    for key in &void {
        let Some(left_out) = containers.remove(key) else { continue };
        let origin = &left_out.who.origin;
        let same = (origin.container_id.clone(), origin.generation, left_out.who.opened);
        if let Some(found) = known.get(&same).and_then(|key| containers.get_mut(key)) {
            // The open window may only be in the older one.
            let newer = left_out.open.filter(|open| found.last_start() < Some(open.start()));
            found.open = found.open.take().or(newer);
            found.who.finished = found.who.finished.or(left_out.who.finished);
            found.lasting.merge(left_out.lasting);
        }
    }
    void
}

/// Gives each window that was open a birth of its own: after those of the same run that an earlier recovery has written
/// already, so that a cursor can stand between any two.
fn assign_open_births(findings: &mut Findings) {
    let mut next: HashMap<u64, u64> = HashMap::new();
    for (_, birth, _) in findings.files.iter().flat_map(|file| &file.windows.all) {
        if let Some(number) = birth.open_number() {
            let next = next.entry(birth.epoch).or_default();
            *next = (*next).max(number.saturating_add(1));
        }
    }
    for found in findings.containers.values_mut().filter(|found| found.has_unfinished()) {
        let Some(open) = &mut found.open else { continue };
        let next = next.entry(open.epoch).or_default();
        open.birth = Birth::of_open(open.epoch, *next);
        *next = next.saturating_add(1);
    }
}

/// Assigns a sequence number to each window, in order of publication.
fn assign_places(containers: &BTreeMap<ContainerKey, FoundContainer>) -> HashMap<(ContainerKey, Birth), u64> {
    let mut all: Vec<_> = containers
        .iter()
        .flat_map(|(key, found)| found.window_births().map(|(birth, length)| (birth, *key, length)))
        .collect();
    all.sort_unstable();
    let mut next = 1;
    all.into_iter()
        .map(|(birth, key, length)| {
            let place = next;
            next += length.max(1) as u64;
            ((key, birth), place)
        })
        .collect()
}

impl Recovered {
    fn build_history(
        &mut self,
        key: ContainerKey,
        found: FoundContainer,
        places: &HashMap<(ContainerKey, Birth), u64>,
    ) -> History {
        let open = found.has_unfinished().then_some(found.open).flatten();
        let open = open.map(|open| (open.birth, open.close()));
        let mut lasting = found.lasting;
        let closed = found.windows.values().map(|stored| &stored.window);
        closed.chain(open.iter().map(|(_, window)| window)).for_each(|window| lasting.checks_of(window));
        let (checks, lasting, habits) = lasting.into_parts();
        let summary = ContainerSummary::without_ledger(found.events.into(), checks, lasting, habits);
        let mut place = |birth: Birth| {
            let place = places.get(&(key, birth)).copied().unwrap_or(0);
            self.births.insert(place, (key, birth));
            place
        };
        let windows: Vec<_> =
            found.windows.into_iter().map(|(birth, stored)| (place(birth), stored)).collect();
        let mut history = History::from_windows(found.who.origin, found.who.opened, windows, Some(summary));
        if let Some((birth, window)) = open {
            history.add_part(place(birth), birth.into(), window);
        }
        history.show_levels();
        history
    }

    /// Gives containers the numbers that they are `known` by, and unknown ones the numbers after these. If a container is
    /// there twice, the later one is the known one.
    pub fn assign_allocations<'o>(&mut self, known: impl Iterator<Item = (&'o Origin, Allocation)>) {
        let mut next = 1;
        let mut known: HashMap<_, _> = known
            .map(|(origin, allocation)| {
                next = next.max(allocation.0.saturating_add(1));
                ((origin.container_id.clone(), origin.generation), allocation)
            })
            .collect();
        let numbered = self.containers.iter_mut().zip(&mut self.histories).zip(&mut self.keys).rev();
        for ((container, history), key) in numbered {
            let origin = &container.who.origin;
            let allocation =
                known.remove(&(origin.container_id.clone(), origin.generation)).unwrap_or_else(|| {
                    next += 1;
                    Allocation(next - 1)
                });
            (container.allocation, history.0, key.0) = (allocation, allocation, allocation);
        }
    }

    /// Adds the windows to a store, without continuing the log.
    pub fn adopt_into(self, store: &Store) {
        store.restore_names(self.names, self.now);
        store.adopt_histories(self.histories, self.now);
    }

    /// Adds the windows to the store, and returns the log that continues after the existing files.
    pub(super) fn resume_log(
        self,
        files: &Arc<dyn Files>,
        store: &Store,
        spool: &Arc<Spool>,
        limit: u64,
    ) -> Resumed {
        let mut published: HashMap<(ContainerKey, Birth), Weak<Published>> = HashMap::new();
        let mut unwritten = Vec::new();
        // Before the windows, which use these names.
        store.restore_names(self.names, self.now);
        for (place, window) in store.adopt_histories(self.histories, self.now) {
            let Some((key, birth)) = self.births.get(&place).copied() else { continue };
            published.insert((key, birth), Arc::downgrade(&window));
            if birth.open_number().is_some() {
                unwritten.push((birth, window));
            }
        }
        let sealed = self.files.into_iter().map(|file| {
            let held = file.windows.all.into_iter().filter_map(|(key, birth, bytes)| {
                Some(FiledWindow { birth, window: published.get(&(key, birth))?.clone(), bytes })
            });
            // An open window of an earlier run may have been written since.
            let (held, last) = (held.collect(), file.windows.last);
            SealedSegment { name: file.name, number: file.number, length: file.length, held, last }
        });
        let sealed: VecDeque<_> = sealed.collect();
        unwritten.retain(|(birth, window)| {
            let known =
                |held: &FiledWindow| held.birth == *birth && held.window.ptr_eq(&Arc::downgrade(window));
            !sealed.iter().flat_map(|sealed| &sealed.held).any(known)
        });
        let epochs = LogEpochs { keys: store.epoch(), births: store.epoch() };
        let left = LeftFiles { next: self.next, sealed, spooled: self.spool_files };
        let mut log = ClosedWindowLog::new(Arc::clone(files), Arc::clone(spool), epochs, limit, left);
        for (allocation, key) in self.keys {
            log.insert_key(allocation, key);
        }
        Resumed { log, unwritten }
    }
}

/// The files of a log, and the containers in them.
#[derive(Debug)]
pub struct Survey {
    findings: Findings,
}

/// Reads a log without keeping any of its windows.
#[must_use]
pub fn survey_log(files: &dyn Files) -> Survey {
    Survey { findings: read_or_report(files, Depth::Containers) }
}

impl Survey {
    /// The number of the last life that wrote something; 0 where nothing was found.
    #[must_use]
    pub fn last_epoch(&self) -> u64 {
        self.findings.epoch
    }

    /// The damage of the files. The contents of entries are not checked.
    #[must_use]
    pub fn damage(&self) -> LogDamage {
        self.findings.damage
    }

    /// The number of the next file, and the files of open windows and of names.
    pub(super) fn other_files(&self) -> (u64, Vec<String>, Vec<String>) {
        let Findings { next, open_files, name_files, .. } = &self.findings;
        ((*next).max(1), open_files.clone(), name_files.clone())
    }

    /// A log that replaces the existing one, and the keys to void once everything has been written again under other keys.
    pub(super) fn into_replacing_log(
        self,
        files: &Arc<dyn Files>,
        spool: &Arc<Spool>,
        epochs: LogEpochs,
        limit: u64,
    ) -> (ClosedWindowLog, Vec<ContainerKey>) {
        let Findings { containers, files: old, spool_files: spooled, next, .. } = self.findings;
        let old = old.into_iter().map(|file| SealedSegment {
            name: file.name,
            number: file.number,
            length: file.length,
            held: Vec::new(),
            last: file.windows.last,
        });
        let left = LeftFiles { next: next.max(1), sealed: old.collect(), spooled };
        let log = ClosedWindowLog::new(Arc::clone(files), Arc::clone(spool), epochs, limit, left);
        (log, containers.into_keys().collect())
    }
}
