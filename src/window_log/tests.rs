//! Tests the log with a file system that fails at any call, and with corrupted bytes.

mod dropping;
mod following;
mod spool;
mod threads;
mod unwritten;
mod writer;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::entry::{FORMAT, LogEntry, Who};
use super::log::{ClosedWindowLog, ContainerChange, ContainerLookup, LeftFiles, LogEpochs};
use super::recover::{Resumed, recover_windows, survey_log};
use super::segment::{LogSegment, OPEN};
use super::spool::Spool;
use crate::aggregate::{Aggregator, AggregatorSettings, CheckpointContents, GaugeSign};
use crate::model::{Allocation, ContainerId, Generation, Labels, Moment, Origin, TaskId, Timestamp};
use crate::store::{Cursor, Published, Store, WindowsToWrite};
use crate::wal::{Appendable, Files, FrameFormat};

/// 2026-01-01T00:00:00Z, on the grid.
const START: i64 = 1_767_225_600;
const TOMBSTONE: Duration = Duration::from_mins(10);
pub(crate) const MIB: u64 = 1 << 20;
/// A log of files of 4 KiB.
pub(crate) const SMALL: u64 = 64 << 10;

pub(crate) fn moment(secs: u64) -> Moment {
    let mono = Duration::from_secs(secs);
    Moment { wall: Timestamp::from_secs(START).saturating_add(mono), mono }
}

/// Files in memory, and the failure to inject.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    files: BTreeMap<String, Vec<u8>>,
    /// Number of modifying calls, including failed ones.
    calls: usize,
    trouble: Trouble,
    /// Names of files that were read.
    reads: Vec<String>,
    /// Names of files that cannot be read.
    unreadable: HashSet<String>,
}

#[derive(Copy, Clone, Debug, Default)]
enum Trouble {
    #[default]
    None,
    /// This call fails; a write writes half of its bytes.
    Once(usize),
    /// This call and all later ones never finish: the process is gone.
    Death(usize),
    /// The disk is full after this many bytes.
    Full(usize),
}

impl Disk {
    fn with(trouble: Trouble) -> Self {
        let disk = Self::default();
        disk.0.lock().unwrap().trouble = trouble;
        disk
    }

    fn set(&self, trouble: Trouble) {
        self.0.lock().unwrap().trouble = trouble;
    }

    /// The call at which the process died.
    fn died(&self) -> Option<usize> {
        let platter = self.0.lock().unwrap();
        match platter.trouble {
            Trouble::Death(at) if platter.calls > at => Some(at),
            _ => None,
        }
    }

    fn calls(&self) -> usize {
        self.0.lock().unwrap().calls
    }

    /// The same files on a working disk.
    fn mended(&self) -> Self {
        let files = self.0.lock().unwrap().files.clone();
        Self(Arc::new(Mutex::new(Platter { files, ..Platter::default() })))
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.lock().unwrap().files.clone()
    }

    /// The names that start like this.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        self.0.lock().unwrap().files.keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// How often files were read.
    pub(crate) fn count_reads(&self) -> usize {
        self.0.lock().unwrap().reads.len()
    }

    /// Makes reading a file fail from now on.
    #[cfg(feature = "archive")]
    pub(crate) fn make_unreadable(&self, name: &str) {
        self.0.lock().unwrap().unreadable.insert(name.to_owned());
    }

    /// Removes a file that its users believe to be there.
    pub(crate) fn lose_file(&self, name: &str) {
        self.0.lock().unwrap().files.remove(name).unwrap();
    }

    /// Runs an operation, or makes it fail, possibly after a part of it.
    fn call(&self, whole: impl FnOnce(&mut Platter), half: impl FnOnce(&mut Platter)) -> io::Result<()> {
        self.call_that(true, whole, half)
    }

    /// The same for operations that need no space, which do not fail on a full disk.
    fn call_that(
        &self,
        needs_room: bool,
        whole: impl FnOnce(&mut Platter),
        half: impl FnOnce(&mut Platter),
    ) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        let n = platter.calls;
        platter.calls += 1;
        let used: usize = platter.files.values().map(Vec::len).sum();
        match platter.trouble {
            Trouble::Once(at) | Trouble::Death(at) if n == at => {
                half(&mut platter);
                Err(io::Error::other("this call fails"))
            }
            Trouble::Death(at) if n > at => Err(io::Error::other("the process has died")),
            Trouble::Full(most) if needs_room && used >= most => {
                half(&mut platter);
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => {
                whole(&mut platter);
                Ok(())
            }
        }
    }
}

impl Files for Disk {
    fn list_names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut platter = self.0.lock().unwrap();
        platter.reads.push(name.to_owned());
        if platter.unreadable.contains(name) {
            return Err(io::Error::other("this file cannot be read"));
        }
        platter.files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn byte_length(&self, name: &str) -> io::Result<u64> {
        let platter = self.0.lock().unwrap();
        platter.files.get(name).map(|bytes| bytes.len() as u64).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Appendable>> {
        let make = |platter: &mut Platter| {
            assert!(platter.files.insert(name.to_owned(), Vec::new()).is_none(), "{name} was there");
        };
        self.call(make, make)?;
        Ok(Box::new(Open { disk: self.clone(), name: name.to_owned() }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let remove = |platter: &mut Platter| {
            platter.files.remove(name);
        };
        self.call_that(false, remove, |_| {})
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let rename = |platter: &mut Platter| {
            let bytes = platter.files.remove(from).unwrap();
            platter.files.insert(to.to_owned(), bytes);
        };
        self.call_that(false, rename, |_| {})
    }
}

#[derive(Debug)]
struct Open {
    disk: Disk,
    name: String,
}

impl Appendable for Open {
    fn append_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let add = |platter: &mut Platter, bytes: &[u8]| {
            platter.files.get_mut(&self.name).unwrap().extend_from_slice(bytes);
        };
        self.disk.call(|platter| add(platter, bytes), |platter| add(platter, &bytes[..bytes.len() / 2]))
    }

    fn sync_to_disk(&mut self) -> io::Result<()> {
        self.disk.call(|_| {}, |_| {})
    }

    fn truncate_to(&mut self, length: u64) -> io::Result<()> {
        let cut = |platter: &mut Platter| {
            platter.files.get_mut(&self.name).unwrap().truncate(usize::try_from(length).unwrap());
        };
        self.disk.call_that(false, cut, |_| {})
    }
}

/// Containers that send metrics of all types, and a log that gets their windows.
pub(crate) struct Node {
    pub(crate) store: Arc<Store>,
    aggregators: Vec<Aggregator>,
    log: ClosedWindowLog,
    cursor: u64,
    /// What the log has confirmed as written.
    written: Vec<(u64, String)>,
    finished: HashMap<Allocation, Timestamp>,
}

struct Known<'n>(&'n Store, &'n HashMap<Allocation, Timestamp>);

impl ContainerLookup for Known<'_> {
    fn find_who(&self, allocation: Allocation, origin: &Arc<Origin>) -> Option<Who> {
        let opened = self.0.opened_at(allocation)?;
        let finished = self.1.get(&allocation).copied();
        Some(Who { origin: Arc::clone(origin), alias: None, opened, finished })
    }
}

fn origin(n: usize) -> Arc<Origin> {
    Arc::new(Origin {
        container_id: ContainerId::new(&format!("c{n}")).unwrap(),
        generation: Generation(1),
        task_id: TaskId::new("web").unwrap(),
        labels: Labels::new(),
    })
}

impl Node {
    fn on(disk: &Disk, containers: usize, keep: usize, size: u64) -> Self {
        Self::with_spool(disk, containers, keep, size, &no_spool())
    }

    pub(crate) fn with_spool(
        disk: &Disk,
        containers: usize,
        keep: usize,
        size: u64,
        spool: &Arc<Spool>,
    ) -> Self {
        let store = Arc::new(Store::new(7, keep));
        store.note_written(0);
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        let Resumed { log, .. } =
            recover_windows(&*files, moment(0).wall, TOMBSTONE).resume_log(&files, &store, spool, size);
        Self::of_containers(containers, store, log, moment(0).wall)
    }

    /// The next run of the agent, with the same containers, which go on at this time.
    pub(crate) fn start_again(
        self,
        disk: &Disk,
        (keep, size): (usize, u64),
        spool: &Arc<Spool>,
        secs: u64,
    ) -> Self {
        let containers = self.aggregators.len();
        let store = Arc::new(Store::new(self.store.epoch() + 1, keep));
        drop(self);
        let (files, now): (Arc<dyn Files>, _) = (Arc::new(disk.clone()), moment(secs).wall);
        let mut recovered = recover_windows(&*files, now, TOMBSTONE);
        let origins: Vec<_> = (0..containers).map(origin).collect();
        recovered.assign_allocations((0..).map(Allocation).zip(&origins).map(|(n, origin)| (&**origin, n)));
        let Resumed { log, .. } = recovered.resume_log(&files, &store, spool, size);
        let cursor = store.end_cursor().seq;
        store.note_written(cursor);
        let mut node = Self::of_containers(containers, store, log, now);
        node.cursor = cursor;
        node.follow().unwrap();
        node
    }

    fn of_containers(containers: usize, store: Arc<Store>, log: ClosedWindowLog, now: Timestamp) -> Self {
        let aggregators = (0..containers).map(|n| {
            store.open(Allocation(n as u64), origin(n), now);
            Aggregator::new(Arc::new(AggregatorSettings::default()), GaugeSign::Delta, now)
        });
        let aggregators = aggregators.collect();
        Self { store, aggregators, log, cursor: 0, written: Vec::new(), finished: HashMap::new() }
    }

    pub(crate) fn send(&mut self, container: usize, secs: u64) {
        let late = START + i64::try_from(secs).unwrap() - 12;
        let lines = format!(
            "a:{secs}|c\nb{}:2|g\nt:{secs}:3.7|ms|@0.5\ns:{secs}|s\n_sc|up|1|m:no\na:5|c|T{late}",
            secs % 3
        );
        self.aggregators[container].ingest_datagram(lines.as_bytes(), moment(secs), None);
    }

    /// Sends a number to a counter of its own.
    #[cfg(feature = "archive")]
    pub(crate) fn send_count(&mut self, container: usize, secs: u64, count: u64) {
        let line = format!("sent:{count}|c");
        self.aggregators[container].ingest_datagram(line.as_bytes(), moment(secs), None);
    }

    pub(crate) fn roll(&mut self, secs: u64) {
        for (n, aggregator) in (0..).zip(&mut self.aggregators) {
            if let Some(closed) = aggregator.roll_window(moment(secs).wall) {
                self.store.push(Allocation(n), closed);
            }
        }
    }

    /// Writes what is not written yet, as the writer does.
    pub(crate) fn follow(&mut self) -> io::Result<()> {
        let known = Known(&self.store, &self.finished);
        let WindowsToWrite { windows, end } = self.store.windows_to_write(self.cursor);
        if let Err(error) = self.log.append_windows((self.cursor, end), &windows, &known) {
            self.log.make_room(&error)?;
            return Err(error);
        }
        self.log.shared_spool().set_written(Cursor { epoch: self.store.epoch(), seq: end });
        self.store.note_written(end);
        self.cursor = end;
        // Only the store keeps windows.
        self.written.extend(windows.iter().map(|published| (published.first_seq(), seen(published))));
        drop(windows);
        self.log.prune_files(&known)?;
        Ok(())
    }

    /// Lets all containers but the first send, and writes every ten seconds.
    pub(crate) fn live(&mut self, seconds: std::ops::Range<u64>) {
        for secs in seconds {
            self.roll(secs);
            (1..self.aggregators.len()).for_each(|n| self.send(n, secs));
            if secs % 10 == 2 {
                let _retried_next_time = self.follow();
            }
        }
    }

    /// Removes what is not needed, and what exceeds the size of the spool.
    pub(crate) fn prune_files(&mut self) {
        self.log.prune_files(&Known(&self.store, &self.finished)).unwrap();
    }

    /// A minute and a half in which all containers send; returns the file-system call at which the process died, if it did.
    fn run(&mut self, disk: &Disk) -> Option<usize> {
        self.run_for(90, disk)
    }

    fn run_for(&mut self, seconds: u64, disk: &Disk) -> Option<usize> {
        for secs in 1..seconds {
            self.roll(secs);
            // Container 0 sends once in a while, the others always.
            for n in 0..self.aggregators.len() {
                if n > 0 || secs % 40 == 3 {
                    self.send(n, secs);
                }
            }
            if secs % 10 == 2 {
                let _retried_next_time = self.follow();
            }
            if let Some(at) = disk.died() {
                return Some(at);
            }
        }
        None
    }
}

/// The spool of an agent without publishers.
fn no_spool() -> Arc<Spool> {
    Arc::new(Spool::new(MIB))
}

/// A window as readers see it: everything except its sequence number.
fn seen(published: &Published) -> String {
    let records: Vec<_> = published.numbered_records().map(|(n, r)| format!("{} {r:?}", n.rev)).collect();
    format!("{} {:?} {records:?}", published.origin().container_id, published.window().span)
}

/// What is restored.
fn restored(disk: &Disk, keep: usize, now: u64) -> (Vec<String>, super::RecoveryReport) {
    let files: Arc<dyn Files> = Arc::new(disk.mended());
    let recovered = recover_windows(&*files, moment(now).wall, TOMBSTONE);
    let report = recovered.report;
    let store = Store::new(8, keep);
    recovered.resume_log(&files, &store, &no_spool(), MIB);
    let since = store.read_since(Cursor { epoch: 8, seq: 0 }).unwrap();
    (since.published.iter().map(|published| seen(published)).collect(), report)
}

/// Which of these are kept.
fn kept(store: &Store, written: &[(u64, String)]) -> Vec<String> {
    let kept = store.kept_after(0);
    let is_kept = |first: u64| kept.iter().any(|published| published.first_seq() == first);
    written.iter().filter(|(first, _)| is_kept(*first)).map(|(_, seen)| seen.clone()).collect()
}

/// All kept windows.
fn all_kept(store: &Store) -> Vec<String> {
    store.kept_after(0).iter().map(|published| seen(published)).collect()
}

#[test]
fn what_was_written_comes_back_in_its_order_with_its_revisions() {
    let disk = Disk::default();
    let mut node = Node::on(&disk, 3, 30, MIB);
    node.run(&disk);
    let (windows, report) = restored(&disk, 30, 100);
    assert_eq!(windows, kept(&node.store, &node.written));
    assert!(windows.iter().any(|window| window.contains("\"1 Record")), "no revision in it");
    assert_eq!((report.windows, report.containers), (windows.len(), 3));
    assert!(report.damage.is_none(), "{report:?}");
}

#[test]
fn a_death_at_any_call_loses_nothing_that_was_said_to_be_written_and_invents_nothing() {
    let whole = Disk::default();
    Node::on(&whole, 3, 4, SMALL).run_for(300, &whole);
    let calls = whole.calls();
    assert!(calls > 60, "only {calls} calls");
    for at in 0..calls {
        let disk = Disk::with(Trouble::Death(at));
        let mut node = Node::on(&disk, 3, 4, SMALL);
        assert_eq!(node.run_for(300, &disk), Some(at));
        let (windows, _) = restored(&disk, 4, 300);
        let all = all_kept(&node.store);
        for window in kept(&node.store, &node.written) {
            assert!(windows.contains(&window), "call {at}: {window} is lost");
        }
        let unknown = windows.iter().find(|window| !all.contains(window));
        // Windows evicted from memory may still be on disk.
        let old = |window: &String| node.written.iter().any(|(_, seen)| seen == window);
        assert!(unknown.is_none_or(old), "call {at}: {unknown:?} was never there");
    }
}

#[test]
fn a_call_that_fails_once_is_made_good() {
    let whole = Disk::default();
    Node::on(&whole, 3, 30, SMALL).run_for(300, &whole);
    for at in 0..whole.calls() {
        let disk = Disk::with(Trouble::Once(at));
        let mut node = Node::on(&disk, 3, 30, SMALL);
        node.run_for(300, &disk);
        node.follow().unwrap();
        let (windows, report) = restored(&disk, 30, 300);
        assert_eq!(windows, all_kept(&node.store), "call {at}");
        assert!(report.damage.parts <= 1 && report.damage.entries == 0, "call {at}: {report:?}");
    }
}

#[test]
fn a_full_disk_costs_nothing_once_there_is_room_again() {
    let disk = Disk::with(Trouble::Full(3000));
    let mut node = Node::on(&disk, 3, 30, MIB);
    node.run(&disk);
    assert!(node.follow().is_err());
    let before = node.written.len();
    disk.set(Trouble::None);
    node.follow().unwrap();
    assert!(node.written.len() > before);
    assert_eq!(restored(&disk, 30, 100).0, all_kept(&node.store));
}

#[test]
fn every_byte_changed_or_cut_off_costs_some_windows_and_never_a_number() {
    let disk = Disk::default();
    Node::on(&disk, 2, 30, MIB).run_for(27, &disk);
    let all: Vec<_> = restored(&disk, 30, 100).0;
    let files = disk.files();
    let (name, bytes) = files.iter().next().unwrap();
    for place in 0..bytes.len() {
        for cut in [false, true] {
            let broken = disk.mended();
            {
                let mut platter = broken.0.lock().unwrap();
                let bytes = platter.files.get_mut(name).unwrap();
                if cut { bytes.truncate(place) } else { bytes[place] ^= 0x41 }
            }
            let (windows, report) = restored(&broken, 30, 100);
            let at_an_end = cut && report.damage.is_none();
            assert!(at_an_end || !report.damage.is_none(), "byte {place} is not noticed");
            let wrong = windows.iter().find(|window| !all.contains(window));
            assert!(wrong.is_none(), "byte {place}: {wrong:?}");
        }
    }
}

#[test]
fn files_go_when_nothing_in_them_is_kept_and_one_that_sends_seldom_holds_none_back() {
    let disk = Disk::default();
    let mut node = Node::on(&disk, 12, 3, 4 * SMALL);
    for secs in 1..400 {
        node.roll(secs);
        for n in 1..12 {
            node.send(n, secs);
        }
        if secs == 5 {
            node.send(0, secs);
        }
        if secs % 10 == 2 {
            node.follow().unwrap();
        }
    }
    let length: usize = disk.files().values().map(Vec::len).sum();
    assert!(node.log.file_number() > 3, "one file proves nothing");
    assert_eq!(length as u64, node.log.total_bytes());
    let (windows, _) = restored(&disk, 3, 400);
    assert!(windows.iter().any(|window| window.starts_with("c0 ")), "the seldom one is lost");
    let mut wanted = all_kept(&node.store);
    let mut windows = windows;
    wanted.sort();
    windows.sort();
    assert_eq!(windows, wanted);
    assert!((length as u64) < 3 * SMALL, "{length} bytes");
}

#[test]
fn names_that_outweigh_their_windows_are_not_written_again_and_again() {
    let disk = Disk::default();
    let mut node = Node::on(&disk, 1, 3, 4 * SMALL);
    for round in 0..6 {
        // New series every time, each sent once, so that names are much larger than windows.
        let line = |k: usize| format!("a-series-with-a-long-name-{}-{round}-{k}:1|c\n", "x".repeat(150));
        let lines: String = (0..60).map(line).collect();
        node.aggregators[0].ingest_datagram(lines.as_bytes(), moment(round * 10 + 1), None);
        node.roll(round * 10 + 11);
        node.follow().unwrap();
    }
    assert!(disk.calls() < 200, "{} calls", disk.calls());
    assert_eq!(node.log.given_up(), 0);
    assert_eq!(restored(&disk, 3, 70).0, all_kept(&node.store));
}

#[test]
fn beyond_its_size_the_oldest_go_and_are_counted() {
    let disk = Disk::default();
    let mut node = Node::on(&disk, 12, 1000, SMALL);
    for secs in 1..200 {
        node.roll(secs);
        (0..12).for_each(|n| node.send(n, secs));
        if secs % 10 == 2 {
            node.follow().unwrap();
        }
    }
    assert!(node.log.total_bytes() <= SMALL + 16 * 1024, "{} bytes", node.log.total_bytes());
    assert!(node.log.given_up() > 0);
    let (windows, _) = restored(&disk, 1000, 200);
    assert!(windows.len() < node.written.len());
    assert_eq!(windows.last(), node.written.last().map(|(_, seen)| seen));
}

#[test]
fn a_forgotten_container_stays_away_and_an_ended_one_until_its_tombstone_goes() {
    let disk = Disk::default();
    let mut node = Node::on(&disk, 3, 30, MIB);
    node.run(&disk);
    let ended = moment(95).wall;
    let who =
        Known(&node.store, &HashMap::from([(Allocation(1), ended)])).find_who(Allocation(1), &origin(1));
    node.log
        .append_changes(&[
            ContainerChange::Is(Allocation(1), who.unwrap()),
            ContainerChange::Forgotten(Allocation(2)),
        ])
        .unwrap();
    let there = |now| {
        let recovered = recover_windows(&disk.mended(), moment(now).wall, TOMBSTONE);
        let shown = |c: &super::RestoredContainer| {
            (c.who.origin.container_id.to_string(), c.finished_at.duration_since(moment(0).wall).as_secs())
        };
        recovered.containers.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(there(200), [("c0".to_owned(), 200), ("c1".to_owned(), 95)]);
    assert_eq!(there(695), [("c0".to_owned(), 695)]);
}

#[test]
fn what_came_back_once_comes_back_again_and_its_files_go_with_it() {
    let disk = Disk::default();
    let mut node = Node::on(&disk, 2, 30, MIB);
    node.run(&disk);
    let first = restored(&disk, 30, 100).0;
    for epoch in 8..11 {
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        let store = Store::new(epoch, 30);
        let Resumed { mut log, unwritten } = recover_windows(&*files, moment(100).wall, TOMBSTONE)
            .resume_log(&files, &store, &no_spool(), MIB);
        assert!(unwritten.is_empty());
        log.append_alive(moment(100 + epoch).wall).unwrap();
        assert_eq!(restored(&disk, 30, 120).0, first);
    }
    // No store keeps them any more.
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let store = Store::new(11, 30);
    let Resumed { mut log, .. } =
        recover_windows(&*files, moment(130).wall, TOMBSTONE).resume_log(&files, &store, &no_spool(), MIB);
    (1..3).for_each(|n| store.forget_container(Allocation(n)));
    log.prune_files(&Known(&store, &HashMap::new())).unwrap();
    assert_eq!(log.len(), 0);
    assert!(disk.files().is_empty(), "{:?}", disk.files().keys());
}

/// Writes a container's open window in two steps, as two checkpoints do, to a file with this number.
#[test]
fn a_death_while_a_process_that_took_over_writes_everything_again_shows_nothing_twice() {
    let disk = Disk::default();
    let mut node = Node::on(&disk, 3, 30, MIB);
    node.run(&disk);
    node.follow().unwrap();
    let known = Known(&node.store, &node.finished);
    let windows = node.store.kept_after(0);
    let whole: Vec<_> = windows.iter().map(|published| seen(published)).collect();
    let sorted = |mut all: Vec<String>| {
        all.sort_unstable();
        all
    };
    for written in 0..=windows.len() {
        let disk = disk.mended();
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        let epochs = LogEpochs { keys: 9, births: 7 };
        let (mut log, void) = survey_log(&*files).into_replacing_log(&files, &no_spool(), epochs, MIB);
        for published in &windows[..written] {
            log.append_again(std::slice::from_ref(published), &known).unwrap();
        }
        let (back, report) = restored(&disk, 30, 100);
        assert_eq!(sorted(back), sorted(whole.clone()), "{written} of {}", windows.len());
        assert_eq!(report.containers, 3);
        // The process that goes on writes which of the two is void, and it stays so.
        let recovered = recover_windows(&*files, moment(100).wall, TOMBSTONE);
        assert_eq!(recovered.void.is_empty(), written == 0);
        let said_twice = recovered.void.clone();
        let Resumed { mut log, .. } = recovered.resume_log(&files, &Store::new(10, 30), &no_spool(), MIB);
        log.append_void(&said_twice).unwrap();
        assert!(recover_windows(&*files, moment(100).wall, TOMBSTONE).void.is_empty());
        assert_eq!(void.len(), 3);
    }
}

fn begin_checkpoints(disk: &Disk, number: u64, epoch: u64, opened: u64) -> (LogSegment, Aggregator) {
    let key = super::entry::ContainerKey { epoch: 7, allocation: Allocation(3) };
    let mut segment = LogSegment::create(disk, OPEN, number, epoch, FORMAT).unwrap();
    let who = Who { origin: origin(3), alias: None, opened: moment(0).wall, finished: None };
    segment.ensure_container(key, || who);
    (segment, Aggregator::new(Arc::default(), GaugeSign::Delta, moment(opened).wall))
}

fn checkpoints(disk: &Disk, number: u64, epoch: u64, opened: u64, lines: [&str; 2]) -> Aggregator {
    let key = super::entry::ContainerKey { epoch: 7, allocation: Allocation(3) };
    let (mut segment, mut aggregator) = begin_checkpoints(disk, number, epoch, opened);
    let mut noted = CheckpointContents::default();
    for (line, at) in lines.iter().zip(opened + 1..) {
        aggregator.ingest_datagram(line.as_bytes(), moment(at), None);
        segment.put_open_window(key, &aggregator.peek_changed(moment(at).wall, &mut noted).unwrap());
        segment.write_buffer().unwrap();
    }
    aggregator
}

#[test]
fn an_open_window_comes_back_as_of_its_last_checkpoint() {
    let disk = Disk::default();
    let aggregator = checkpoints(&disk, 1, 7, 0, ["a:1|c\nt:1:2|ms\ng:1|g", "a:1|c\nb:5|c\nt:9|ms"]);
    let (windows, report) = restored(&disk, 30, 20);
    let wanted = format!(
        "{:?}",
        aggregator.peek_open_window(moment(2).wall).records().map(|r| format!("0 {r:?}")).collect::<Vec<_>>()
    );
    assert_eq!(windows.len(), 1);
    assert!(windows[0].ends_with(&wanted), "{} is not {wanted}", windows[0]);
    assert!(windows[0].contains("covered: 2s"), "{}", windows[0]);
    assert_eq!((report.open, report.last), (1, Some(moment(2).wall)));
    assert_eq!(report.gap, Duration::from_secs(18));
}

#[test]
fn every_byte_of_a_checkpoint_changed_leaves_an_earlier_one_or_none() {
    let disk = Disk::default();
    checkpoints(&disk, 1, 7, 0, ["a:1|c", "a:1|c\nb:5|c"]);
    let whole = disk.files();
    let (name, bytes) = whole.iter().next().unwrap();
    for place in 0..bytes.len() {
        let broken = disk.mended();
        broken.0.lock().unwrap().files.get_mut(name).unwrap()[place] ^= 0x22;
        let (windows, report) = restored(&broken, 30, 20);
        assert!(!report.damage.is_none(), "byte {place} is not noticed");
        for window in windows {
            let known = ["samples: 1, count", "samples: 2, count"].iter().any(|part| window.contains(part));
            assert!(known && !window.contains("samples: 3"), "byte {place}: {window}");
        }
    }
}

#[test]
fn a_window_that_was_closed_is_not_open_too_and_two_parts_of_one_interval_are_one() {
    let disk = Disk::default();
    let mut aggregator = checkpoints(&disk, 1, 7, 0, ["a:1|c", "a:1|c"]);
    // The same run closes it, and it is written.
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let store = Store::new(7, 30);
    let (epochs, left) = (LogEpochs { keys: 7, births: 7 }, LeftFiles { next: 2, ..LeftFiles::default() });
    let mut log = ClosedWindowLog::new(Arc::clone(&files), no_spool(), epochs, MIB, left);
    store.open(Allocation(3), origin(3), moment(0).wall);
    store.push(Allocation(3), aggregator.roll_window(moment(10).wall).unwrap());
    log.append_again(&store.kept_after(0), &Known(&store, &HashMap::new())).unwrap();
    let (windows, report) = restored(&disk, 30, 20);
    assert_eq!((windows.len(), report.open), (1, 0));
    // Another run continues in the same interval, and is killed, too.
    checkpoints(&disk, 3, 8, 4, ["a:1|c", "a:1|c\nb:1|c"]);
    let (windows, report) = restored(&disk, 30, 20);
    assert_eq!((windows.len(), report.open), (2, 1));
    assert!(windows[1].contains("1 Record") && windows[1].contains("samples: 4"), "{}", windows[1]);
}

#[test]
fn a_closed_window_does_not_come_back_from_a_checkpoint_when_its_file_is_gone() {
    let key = super::entry::ContainerKey { epoch: 7, allocation: Allocation(3) };
    // The window starts at 0; the marks are of the one before, and of the window itself.
    for (start, left) in [
        (None, 1),
        (Some(moment(0).wall.saturating_sub(Duration::from_secs(10))), 1),
        (Some(moment(0).wall), 0),
    ] {
        let disk = Disk::default();
        let (mut segment, mut aggregator) = begin_checkpoints(&disk, 1, 7, 0);
        let mut noted = CheckpointContents::default();
        aggregator.ingest_datagram(b"a:1|c", moment(1), None);
        segment.put_open_window(key, &aggregator.peek_changed(moment(1).wall, &mut noted).unwrap());
        if let Some(start) = start {
            assert!(segment.put_entry(&LogEntry::Closed { key, start }));
        }
        segment.write_buffer().unwrap();
        let (windows, report) = restored(&disk, 30, 20);
        assert_eq!((windows.len(), report.open, report.containers), (left, left, left), "{start:?}");
        assert!(report.damage.is_none());
    }
}

#[test]
fn a_disk_that_stays_full_does_not_fill_up_with_empty_files() {
    let disk = Disk::with(Trouble::Full(2000));
    let mut node = Node::on(&disk, 3, 30, MIB);
    node.run(&disk);
    for _ in 0..20 {
        assert!(node.follow().is_err());
    }
    assert!(disk.files().len() <= 2, "{:?}", disk.files().keys());
}

#[test]
fn windows_that_start_after_the_agent_are_counted_and_do_not_keep_a_container_for_longer() {
    let disk = Disk::default();
    let mut node = Node::on(&disk, 2, 30, MIB);
    node.run(&disk);
    // The clock was more than a minute ahead of the current time.
    let (windows, report) = restored(&disk, 30, 12);
    assert_eq!(windows, kept(&node.store, &node.written), "they can be read");
    assert!(report.ahead > 0 && report.ahead < report.windows, "{report:?}");
    assert_eq!(restored(&disk, 30, 100).1.ahead, 0);
    let recovered = recover_windows(&disk.mended(), moment(12).wall, TOMBSTONE);
    assert!(recovered.containers.iter().all(|container| container.finished_at == moment(12).wall));
}

/// Bytes as two digits each.
fn hex(bytes: &[u8]) -> String {
    let digits = |byte: &u8| format!("{byte:02x}");
    bytes.iter().map(digits).collect()
}

#[test]
fn the_bytes_of_a_file_are_those_that_earlier_builds_read_and_write() {
    let disk = Disk::default();
    let mut segment = LogSegment::create(&disk, OPEN, 5, 7, FORMAT).unwrap();
    let key = super::entry::ContainerKey { epoch: 7, allocation: Allocation(3) };
    segment.put_entry(&LogEntry::Alive { at: moment(1).wall });
    segment.put_entry(&LogEntry::Forgotten { key });
    segment.put_entry(&LogEntry::Ended { at: moment(2).wall });
    segment.write_buffer().unwrap();
    let golden = "f15470770300000091a3f051afdc1245000207f15470770900000000f360ef20f8733f078089fce288d2a306f1547077\
        03000000d65851306707c568060703f1547077090000004a3c877a43d74e50088092f6e388d2a306";
    assert_eq!(hex(&disk.files()["open-0000000005.log"]), golden);
}

#[test]
fn a_window_that_is_too_long_is_refused_by_its_container_and_counted_and_the_log_goes_on() {
    let disk = Disk::default();
    let mut node = Node::on(&disk, 3, 30, MIB);
    node.log.format = FrameFormat { longest: 300, ..FORMAT };
    // The window of the first container fits; the series of the second do not, and the window of the third does not.
    let (counter, member) = (|n| format!("series-{n}:1|c\n"), |n| format!("users:{n}|s\n"));
    let (series, members): (String, String) = ((0..60).map(counter).collect(), (0..60).map(member).collect());
    for (aggregator, lines) in node.aggregators.iter_mut().zip(["a:1|c".to_owned(), series, members]) {
        aggregator.ingest_datagram(lines.as_bytes(), moment(1), None);
    }
    node.roll(11);
    node.follow().unwrap();
    let refusals = node.log.take_refusals();
    let messages: Vec<_> = refusals.entries.iter().map(ToString::to_string).collect();
    assert!(messages[0].starts_with("the list of series of container c1: the payload has "), "{messages:?}");
    assert!(messages[1].starts_with("a closed window of container c2: the payload has "), "{messages:?}");
    assert!(messages.iter().all(|message| message.ends_with(" bytes and may have 300")), "{messages:?}");
    assert_eq!((messages.len(), refusals.windows, node.log.given_up()), (2, 2, 2));
    let status = super::LogStatus::default();
    status.record_refusals(&refusals);
    let status = status.snapshot();
    assert!(status.failures == 2 && status.failing.is_none(), "{status:?}");
    let (windows, report) = restored(&disk, 30, 20);
    assert_eq!((windows.len(), windows[0].starts_with("c0 ")), (1, true), "{windows:?}");
    assert!(report.damage.is_none() && report.containers == 3, "{report:?}");
    // What fits is written again, of the same container and of others.
    for aggregator in &mut node.aggregators {
        aggregator.ingest_datagram(b"t:1|ms", moment(12), None);
    }
    node.roll(21);
    node.follow().unwrap();
    assert_eq!((node.log.take_refusals().windows, node.log.given_up()), (1, 3), "c1 has too many series");
    let (windows, report) = restored(&disk, 30, 30);
    let of = |name: &str| windows.iter().filter(|window| window.starts_with(name)).count();
    assert_eq!([of("c0 "), of("c1 "), of("c2 ")], [2, 0, 1]);
    assert!(report.damage.is_none(), "{report:?}");
}

#[test]
fn an_open_window_whose_changes_are_too_long_comes_back_as_of_the_checkpoint_before_and_the_next_one_whole() {
    let disk = Disk::default();
    let key = super::entry::ContainerKey { epoch: 7, allocation: Allocation(3) };
    let mut segment = LogSegment::create(&disk, OPEN, 1, 7, FrameFormat { longest: 300, ..FORMAT }).unwrap();
    segment.ensure_container(key, || Who {
        origin: origin(3),
        alias: None,
        opened: moment(0).wall,
        finished: None,
    });
    let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
    let mut noted = CheckpointContents::default();
    let member = |n| format!("users:{n}|s\n");
    let members: String = (0..60).map(member).collect();
    let mut checkpoint = |aggregator: &mut Aggregator, line: &str, at: u64| {
        aggregator.ingest_datagram(line.as_bytes(), moment(at), None);
        segment.put_open_window(key, &aggregator.peek_changed(moment(at).wall, &mut noted).unwrap());
        segment.write_buffer().unwrap();
        let refused = segment.take_refusals().entries;
        refused.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let shown = || restored(&disk, 30, 30).0;
    assert!(checkpoint(&mut aggregator, "a:1|c\nusers:0|s", 1).is_empty());
    let first = shown();
    let refused = checkpoint(&mut aggregator, &format!("a:1|c\n{members}"), 2);
    assert!(refused[0].starts_with("the open window of container c3: the payload has "), "{refused:?}");
    // This one would fit. With it, the counter would be as of now and the set as of the first checkpoint.
    assert!(checkpoint(&mut aggregator, "a:1|c", 3).is_empty());
    assert_eq!(shown(), first);
    drop(aggregator.roll_window(moment(10).wall));
    assert!(checkpoint(&mut aggregator, "a:5|c", 11).is_empty());
    assert!(shown()[0].contains("sum: 5.0"), "{:?}", shown());
}

#[test]
fn a_window_that_is_refused_again_after_a_failed_call_is_counted_once() {
    for failing in 0..6 {
        let disk = Disk::default();
        let mut node = Node::on(&disk, 1, 30, MIB);
        node.log.format = FrameFormat { longest: 300, ..FORMAT };
        let member = |n| format!("users:{n}|s\n");
        let members: String = (0..60).map(member).collect();
        node.aggregators[0].ingest_datagram(members.as_bytes(), moment(1), None);
        node.roll(11);
        disk.set(Trouble::Once(failing));
        let failed = node.follow().is_err();
        // Create, write and sync.
        assert_eq!(failed, failing < 3, "call {failing}");
        if failed {
            assert_eq!(node.log.given_up(), 0, "call {failing}");
            node.follow().unwrap();
        }
        assert_eq!((node.log.given_up(), node.log.take_refusals().entries.len()), (1, 1), "call {failing}");
    }
}
