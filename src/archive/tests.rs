//! The archive of a node whose memory is short, whose agent is killed, and whose disk fails.

mod limits;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;

use super::follow::ArchiveTask;
use super::policy::POLICY;
use super::*;
use crate::aggregate::{View, Window};
use crate::config::ProcessEnvironment;
use crate::model::Timestamp;
use crate::window_log::{Disk, MIB, Node, SMALL, moment};

/// Windows that memory keeps of each container.
const KEEP: usize = 4;
const CONTAINERS: usize = 2;

/// A node, and the task that archives its windows, which only runs when it is told to.
pub(super) struct World {
    pub(super) directory: tempfile::TempDir,
    pub(super) disk: Disk,
    pub(super) node: Node,
    pub(super) archive: Archive,
    pub(super) task: ArchiveTask,
    /// Kept, so that the task is not told to stop.
    _stop: mpsc::Sender<()>,
    stopped: mpsc::Receiver<()>,
}

fn config(directory: &Path) -> AgentConfig {
    let text = format!("state_dir = {directory:?}\narchive.enabled = true\n");
    AgentConfig::from_toml(&text, &ProcessEnvironment).unwrap()
}

fn attend(node: &Node, spool: &Arc<Spool>, directory: &Path) -> (Archive, ArchiveTask) {
    let archive = Archive::new(&config(directory), Arc::clone(&node.store), Arc::clone(spool));
    archive.hold_files();
    let opened = lock(&archive.0.opened).take();
    let task = ArchiveTask::new(Arc::clone(&archive.0), opened);
    (archive, task)
}

impl World {
    pub(super) fn new() -> Self {
        let (disk, spool) = (Disk::default(), Arc::new(Spool::new(MIB)));
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_spool(&disk, CONTAINERS, KEEP, SMALL, &spool);
        let (archive, task) = attend(&node, &spool, directory.path());
        let (stop, stopped) = mpsc::channel();
        Self { directory, disk, node, archive, task, _stop: stop, stopped }
    }

    /// The agent is killed, and starts again at a time.
    fn start_again(self, secs: u64) -> Self {
        let Self { directory, disk, node, archive, task, .. } = self;
        drop((archive, task));
        let spool = Arc::new(Spool::new(MIB));
        // As the agent does: what is not archived is held before the log is opened.
        let held = Archive::new(&config(directory.path()), Arc::clone(&node.store), Arc::clone(&spool));
        held.hold_files();
        drop(held);
        let node = node.start_again(&disk, (KEEP, SMALL), &spool, secs);
        let (archive, task) = attend(&node, &spool, directory.path());
        let (stop, stopped) = mpsc::channel();
        Self { directory, disk, node, archive, task, _stop: stop, stopped }
    }

    /// Runs one round, as the thread does, with the failures that it meets.
    pub(super) fn run_round(&mut self, secs: u64) {
        self.task.run_guarded_round_at(&self.stopped, moment(secs).wall);
    }

    /// Lives through these seconds. Containers send every three seconds.
    fn live(&mut self, secs: std::ops::Range<u64>) -> u64 {
        self.live_with(secs, |_, _| ())
    }

    /// The same with metrics of all types beside it.
    pub(super) fn live_noisily(&mut self, secs: std::ops::Range<u64>) -> u64 {
        self.live_with(secs, |node, second| node.send(0, second))
    }

    fn live_with(&mut self, secs: std::ops::Range<u64>, noise: impl Fn(&mut Node, u64)) -> u64 {
        let mut sent = 0;
        for second in secs {
            if second % 10 == 0 {
                self.node.roll(second);
                self.node.follow().unwrap();
            }
            noise(&mut self.node, second);
            if second % 3 == 0 {
                for container in 0..CONTAINERS {
                    self.node.send_count(container, second, 7);
                    sent += 7;
                }
            }
        }
        sent
    }

    pub(super) fn read_slots(&self, granularity: Granularity) -> Vec<Window> {
        let mut reader = self.archive.open_reader().unwrap().unwrap();
        let range = (Timestamp::MIN, Timestamp::MAX);
        let containers = reader.find_containers("web").unwrap();
        let read =
            containers.iter().map(|container| reader.read_slots(container, granularity, range).unwrap());
        let mut slots = Vec::new();
        for read in read.collect::<Vec<_>>() {
            assert_eq!(read.damaged, 0);
            slots.extend(read.slots);
        }
        slots
    }

    /// The sum of the counter that `live` sends, in all slots of a granularity.
    pub(super) fn sum(&self, granularity: Granularity) -> u64 {
        let slots = self.read_slots(granularity);
        let sums = slots.iter().flat_map(Window::records).filter(|record| &*record.series.name == "sent");
        let sums = sums.map(|record| match record.view {
            View::Counter { counter, .. } => counter.sum,
            _ => 0.0,
        });
        format!("{}", sums.sum::<f64>()).parse().unwrap()
    }
}

#[test]
fn each_window_is_in_each_slot_once_whenever_the_agent_is_killed() {
    let mut world = World::new();
    let (mut sent, mut now) = (0, 1);
    for round in 0..12_u64 {
        // At the end of a window, so that nothing is in an aggregator when the agent is killed.
        let until = (now / 10 + 3 + round * 7 % 11) * 10 + 1;
        sent += world.live(now..until);
        if round % 4 != 3 {
            world.run_round(until);
            world.run_round(until);
        }
        now = until;
        if round % 3 == 2 {
            // What this second has sent is lost with the aggregators.
            world = world.start_again(now);
        }
    }
    world.node.roll(now + 10);
    world.node.follow().unwrap();
    world.run_round(now + 10);
    let status = world.archive.load_status();
    assert_eq!((status.failing, status.missed), (None, 0));
    for granularity in POLICY {
        assert_eq!(world.sum(granularity), sent, "{granularity:?}");
    }
    let [minutes, tens] = POLICY.map(|granularity| world.read_slots(granularity).len());
    assert!(minutes > 5 * tens && tens >= 4, "{minutes} {tens}");
}

#[test]
fn late_samples_and_slots_that_are_amended_count_once() {
    let mut world = World::new();
    for second in 1..100 {
        if second % 10 == 0 {
            world.node.roll(second);
            world.node.follow().unwrap();
            // Each window is in a round of its own, and so is each revision.
            world.run_round(second);
        }
        if second > 20 {
            // With samples of twelve seconds ago.
            world.node.send(0, second);
        }
    }
    world.node.roll(100);
    world.node.follow().unwrap();
    world.run_round(100);
    let count = |granularity| {
        let slots = world.read_slots(granularity);
        let of_a = slots.iter().flat_map(Window::records).filter(|record| &*record.series.name == "a");
        of_a.map(|record| record.view.sample_count()).sum::<u64>()
    };
    assert_eq!(POLICY.map(count), [79 * 2, 79 * 2]);
}

#[test]
fn a_round_folds_nothing_that_the_log_has_not_written() {
    let mut world = World::new();
    let before = world.live(1..21);
    world.run_round(21);
    world.node.send_count(0, 21, 7);
    world.node.roll(30);
    world.run_round(31);
    let archived = world.sum(POLICY[0]);
    assert!(archived < before + 7, "a kill would bring it back as it was at the last checkpoint");
    world.node.follow().unwrap();
    world.run_round(32);
    assert_eq!(world.sum(POLICY[0]), before + 7);
}

#[test]
fn a_backlog_is_read_from_files_and_one_that_cannot_be_read_is_left_out() {
    let mut world = World::new();
    // Far more than memory keeps, and nothing is archived meanwhile.
    let sent = world.live(1..4_001);
    world.run_round(4_001);
    assert_eq!((world.sum(POLICY[1]), world.archive.load_status().missed), (sent, 0));
    let before = world.sum(POLICY[1]);
    let sent = world.live(4_001..8_001);
    let lost = world.disk.names("spool-").first().unwrap().clone();
    world.disk.make_unreadable(&lost);
    for _attempt in 0..12 {
        world.run_round(8_001);
    }
    let (folded, missed) = (world.sum(POLICY[1]) - before, world.archive.load_status().missed);
    assert!(
        missed > 0 && folded > 0 && folded < sent,
        "{missed} records cannot be read, {folded} of {sent} are there"
    );
    world.live(8_001..8_101);
    world.run_round(8_101);
    assert!(world.sum(POLICY[1]) > before + folded, "it goes on");
}

#[test]
fn a_damaged_archive_is_set_aside_and_a_new_one_begins() {
    let mut world = World::new();
    world.live(1..301);
    world.run_round(301);
    let path = world.archive.0.path.clone();
    world
        .task
        .connection
        .as_ref()
        .unwrap()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // Pages after the first have the tables.
    for byte in bytes.iter_mut().skip(4096) {
        *byte = 0x5a;
    }
    std::fs::write(&path, &bytes).unwrap();
    world.task.connection = None;
    let sent = world.live(301..341);
    for _round in 0..3 {
        world.run_round(341);
    }
    let status = world.archive.load_status();
    assert_eq!((status.set_aside, status.failing.clone()), (1, None), "{status:?}");
    assert!(world.directory.path().join("archive.damaged.db").exists());
    assert!(world.sum(POLICY[1]) >= sent, "the new one has what is left");
}

#[test]
fn a_damaged_slot_is_begun_anew_and_left_out_of_answers() {
    let mut world = World::new();
    world.live(1..31);
    world.run_round(31);
    let connection = world.task.connection.as_ref().unwrap();
    connection.execute("UPDATE slot SET data = zeroblob(50) WHERE seconds = 60", []).unwrap();
    let mut reader = world.archive.open_reader().unwrap().unwrap();
    let containers = reader.find_containers("web").unwrap();
    let read = reader.read_slots(&containers[0], POLICY[0], (Timestamp::MIN, Timestamp::MAX)).unwrap();
    assert_eq!((read.damaged, read.slots.len()), (1, 0));
    world.live(31..51);
    world.run_round(51);
    assert_eq!(world.archive.load_status().counts.damaged_slots, 2);
    assert_eq!(world.read_slots(POLICY[0]).len(), 2);
}

#[test]
fn slots_of_all_types_are_those_of_the_windows() {
    let mut world = World::new();
    for second in 1..61 {
        if second % 10 == 0 {
            world.node.roll(second);
            world.node.follow().unwrap();
        }
        world.node.send(1, second);
    }
    world.run_round(61);
    let slots = world.read_slots(POLICY[0]);
    let names: BTreeMap<_, _> = slots
        .iter()
        .flat_map(Window::records)
        .map(|record| (record.series.name.to_string(), record.view.sample_count()))
        .collect();
    assert!(names.len() >= 7, "{names:?}");
}
