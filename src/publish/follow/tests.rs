//! A publisher's reader on a node whose memory is short: what it does not get from memory comes from files, once.

use super::*;
use crate::publish::round::RoundRules;
use crate::window_log::{Disk, MIB, Node, SMALL, SpoolHandout, moment};

const NAME: &str = "p";
/// Windows that memory keeps of each container.
const KEEP: usize = 4;
const EVERYTHING: usize = usize::MAX;

fn begin_at(cursor: Cursor) -> Position {
    Position { cursor, earlier: cursor, through: None, sending: None }
}

/// The beginning of the first run.
const fn start() -> Cursor {
    Cursor { epoch: 7, seq: 0 }
}

/// A node of three containers, the first of which is silent, and a publisher that has read nothing.
struct World {
    disk: Disk,
    spool: Arc<Spool>,
    node: Node,
    follower: WindowFollower,
}

impl World {
    fn new() -> Self {
        let (disk, spool) = (Disk::default(), Arc::new(Spool::new(MIB)));
        let node = Node::with_spool(&disk, 3, KEEP, SMALL, &spool);
        let follower = follow(&node, &spool, begin_at(start()));
        Self { disk, spool, node, follower }
    }

    /// The next run of the agent, in which the publisher goes on at a position.
    fn start_again(self, secs: u64, position: Position) -> Self {
        let (disk, spool) = (self.disk, Arc::new(Spool::new(MIB)));
        spool.hold_earlier(NAME, position.earlier, position.cursor);
        let node = self.node.start_again(&disk, (KEEP, SMALL), &spool, secs);
        let follower = follow(&node, &spool, position);
        Self { disk, spool, node, follower }
    }

    /// Hands out everything that there is now, in cuts as large as possible.
    fn take_all(&mut self) -> Taken {
        let mut all = Taken::default();
        loop {
            assert_eq!(self.follower.check_handout(), SpoolHandout::Open);
            self.follower.read_ahead(EVERYTHING).unwrap();
            let count = self.follower.placed_ahead().count();
            if count == 0 && !self.follower.is_past_last_cut() {
                return all;
            }
            let taken = self.follower.take_windows(count).unwrap();
            assert_eq!(taken.to, self.follower.handed_cursor());
            all.missed += taken.missed;
            all.windows.extend(taken.windows.iter().map(|published| self.place(published)));
        }
    }

    fn place(&self, published: &Published) -> (Cursor, u64) {
        (published.birth_in(self.node.store.epoch()), published.window().len() as u64)
    }

    fn end(&self) -> u64 {
        self.node.store.end_cursor().seq
    }
}

/// The births and the numbers of records of windows, and what was missing.
#[derive(Default, PartialEq, Debug)]
struct Taken {
    windows: Vec<(Cursor, u64)>,
    missed: u64,
}

impl Taken {
    fn records(&self) -> u64 {
        self.windows.iter().map(|(_, records)| records).sum()
    }
}

fn follow(node: &Node, spool: &Arc<Spool>, position: Position) -> WindowFollower {
    let (store, spool) = (Arc::clone(&node.store), Arc::clone(spool));
    WindowFollower::new(WindowSource { store, spool, late_parts: Duration::from_secs(40) }, NAME, position)
}

fn rules() -> RoundRules {
    let (interval, settle) = (Duration::from_secs(10), Duration::from_secs(1));
    RoundRules { interval, batch: Duration::ZERO, settle, records: EVERYTHING, floor: None }
}

#[test]
fn it_reads_from_memory_then_from_files_and_then_from_memory_again_each_window_once() {
    let mut world = World::new();
    world.node.live(1..13);
    let mut taken = world.take_all();
    assert!(taken.records() > 0 && world.disk.count_reads() == 0, "memory has everything");
    // It is away for longer than memory keeps windows.
    world.node.live(13..303);
    let late = world.take_all();
    let reads = world.disk.count_reads();
    assert!(reads > 1, "{reads} files");
    world.node.live(303..323);
    let last = world.take_all();
    assert!(last.records() > 0 && world.disk.count_reads() == reads, "no file is read again");
    for part in [late, last] {
        taken.missed += part.missed;
        taken.windows.extend(part.windows);
    }
    assert_eq!((taken.records(), taken.missed), (world.end(), 0));
    assert!(taken.windows.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!(world.take_all(), Taken::default());
    assert!(!world.follower.is_past_last_cut());
}

#[test]
fn what_is_read_ahead_and_let_go_comes_again_and_a_part_of_it_can_be_taken() {
    let mut world = World::new();
    world.node.live(1..33);
    assert_eq!(world.follower.read_ahead(1).unwrap(), ReadState::More);
    let first: Vec<_> = world.follower.placed_ahead().collect();
    world.follower.let_go();
    assert_eq!((world.follower.placed_ahead().count(), world.follower.is_past_last_cut()), (0, false));
    assert_eq!(world.follower.read_ahead(EVERYTHING).unwrap(), ReadState::AtEnd);
    assert_eq!(world.follower.placed_ahead().take(first.len()).collect::<Vec<_>>(), first);
    let taken = world.follower.take_windows(2).unwrap();
    let end = taken.windows.last().map(|published| published.last_seq());
    assert_eq!((taken.windows.len(), taken.to.seq), (2, end.unwrap()));
    let rest = world.take_all();
    assert_eq!(rest.windows.first().map(|(birth, _)| birth.seq), Some(taken.to.seq + 1));
    let records = taken.windows.iter().map(|published| published.window().len() as u64).sum::<u64>();
    assert_eq!(records + rest.records(), world.end());
}

#[test]
fn what_is_not_on_the_disk_yet_is_told_apart() {
    let mut world = World::new();
    world.node.live(1..33);
    let written = world.end();
    // Two more intervals are closed, and not written.
    for secs in 33..53 {
        world.node.roll(secs);
        (1..3).for_each(|container| world.node.send(container, secs));
    }
    assert!(world.end() > written);
    world.follower.read_ahead(EVERYTHING).unwrap();
    let (count, all) = (world.follower.count_written(), world.follower.placed_ahead().count());
    assert!(count > 0 && count < all, "{count} of {all}");
    assert_eq!(world.follower.take_windows(count).unwrap().to.seq, written);
    world.node.follow().unwrap();
    world.follower.let_go();
    world.follower.read_ahead(EVERYTHING).unwrap();
    assert_eq!(world.follower.count_written(), all - count);
}

#[test]
fn a_cut_ends_with_the_run_of_the_agent_and_the_next_begins_with_the_next_run() {
    let mut world = World::new();
    world.node.live(1..103);
    world.follower.read_ahead(EVERYTHING).unwrap();
    let begun = world.follower.take_windows(10).unwrap();
    let (before, all) = (world.follower.count_backlog().unwrap(), world.end());
    assert_eq!(before, (all - begun.to.seq, world.node.store.end_cursor()));
    let mut world = world.start_again(110, begin_at(begun.to));
    assert_eq!(world.follower.count_backlog().map(|(records, _)| records), Some(before.0), "in files");
    world.node.live(110..163);
    let own = world.follower.count_backlog().unwrap().0 - before.0;
    assert!(own > 0);
    world.follower.read_ahead(EVERYTHING).unwrap();
    assert!(world.follower.has_whole_run(), "another run follows");
    let count = world.follower.placed_ahead().count();
    assert_eq!(world.follower.count_written(), count);
    let of_before = world.follower.take_windows(count).unwrap();
    let records = |windows: &[Arc<Published>]| windows.iter().map(|p| p.window().len() as u64).sum::<u64>();
    assert_eq!((records(&of_before.windows), of_before.missed), (before.0, 0));
    assert!(of_before.windows.iter().all(|published| world.place(published).0.epoch == 7));
    let rest = world.take_all();
    assert!(rest.windows.iter().all(|(birth, _)| birth.epoch == 8) && !world.follower.has_whole_run());
    assert_eq!((rest.records(), rest.missed), (own, 0));
    assert_eq!(world.follower.count_backlog().map(|(records, _)| records), Some(0));
}

#[test]
fn a_file_that_disappears_is_tried_again_and_its_records_are_missed() {
    let mut world = World::new();
    world.node.live(1..303);
    let files = world.disk.names("spool-");
    assert!(files.len() > 2, "{files:?}");
    world.disk.lose_file(&files[1]);
    let mut errors = 0;
    while world.follower.read_ahead(EVERYTHING).is_err() {
        errors += 1;
        assert!(errors < 20);
    }
    assert!(errors > 3, "an error may pass");
    let taken = world.take_all();
    assert!(taken.missed > 0);
    assert_eq!(taken.records() + taken.missed, world.end());
    assert_eq!(world.spool.snapshot().damage.files, 1);
    // A cut that was handed out has lost the same: what is left of it is told by what it lacks.
    let left: u64 = {
        let windows = world.follower.read_again((start(), world.follower.handed_cursor()));
        windows.iter().map(|published| published.window().len() as u64).sum()
    };
    assert_eq!(left, taken.records());
}

#[test]
fn what_is_dropped_beyond_the_size_voids_what_was_read_ahead_and_is_counted_apart() {
    let mut world = World::new();
    world.node.live(1..303);
    world.follower.read_ahead(EVERYTHING).unwrap();
    let ahead = world.follower.placed_ahead().count();
    world.spool.set_limit(0);
    world.node.prune_files();
    assert!(world.follower.take_windows(ahead).is_none(), "some of it is gone");
    assert!(
        !world.follower.hand_out_again(world.node.store.end_cursor()),
        "so a cut of all of it is not whole"
    );
    let SpoolHandout::DroppedThrough(through) = world.follower.check_handout() else {
        panic!("nothing is dropped")
    };
    assert_eq!(world.follower.handed_cursor(), through);
    let taken = world.take_all();
    let dropped = world.spool.snapshot().publishers.iter().map(|held| held.dropped).sum::<u64>();
    assert_eq!((dropped, dropped + taken.records(), taken.missed), (through.seq, world.end(), 0));
}

#[test]
fn a_cut_can_be_read_again_until_it_is_done_with_and_its_rounds_while_parts_of_them_may_come() {
    let mut world = World::new();
    world.node.live(1..33);
    world.follower.read_ahead(EVERYTHING).unwrap();
    let count = world.follower.placed_ahead().count();
    let first = world.follower.take_windows(count).unwrap();
    let births: Vec<_> = first.windows.iter().map(|published| world.place(published)).collect();
    let round = first.windows[0].window().span;
    let newest = first.windows.iter().map(|published| published.window().span.end).max();
    drop(first.windows);
    world.node.live(33..203);
    assert!(world.node.store.kept_after(0).iter().all(|p| p.window().span.start > round.start));
    let again = world.follower.read_again((start(), first.to));
    assert_eq!(again.iter().map(|p| world.place(p)).collect::<Vec<_>>(), births);
    // It is done with, and held, because a late part may have to be merged with it.
    assert_eq!(world.follower.finish_cut(NAME, start(), newest), start());
    world.node.prune_files();
    let next = world.take_all();
    let to = world.follower.handed_cursor();
    let of_round = world.follower.read_rounds(&rules(), &[round.start], (first.to, to));
    let of_round: Vec<_> = of_round.iter().map(|published| world.place(published)).collect();
    let expected = births.iter().filter(|birth| {
        again.iter().any(|p| world.place(p) == **birth && p.window().span.start == round.start)
    });
    assert_eq!(of_round, expected.copied().collect::<Vec<_>>());
    assert!(!of_round.is_empty() && next.missed == 0);
    // Later no part can come any more, and the files go.
    assert_eq!(world.follower.release_rounds(NAME, moment(60).wall), start());
    assert_eq!(world.follower.release_rounds(NAME, moment(3600).wall), to);
    world.node.prune_files();
    assert!(world.disk.names("spool-").is_empty(), "{:?}", world.disk.names(""));
    assert!(world.follower.read_again((start(), first.to)).is_empty());
}

#[test]
fn what_could_not_be_written_is_missed_where_a_cut_ends_also() {
    let mut world = World::new();
    world.node.live(1..33);
    world.node.store.hold_back_at_most(0);
    for secs in 33..203 {
        world.node.roll(secs);
        (1..3).for_each(|container| world.node.send(container, secs));
    }
    world.node.follow().unwrap();
    let before = world.end();
    let taken = world.take_all();
    assert!(taken.missed > 0);
    assert_eq!(taken.records() + taken.missed, before);
    // The next run counts the same.
    let mut world = world.start_again(210, begin_at(start()));
    let counted = world.follower.count_backlog().unwrap().0;
    let again = world.take_all();
    assert_eq!((again.records(), again.missed, counted), (taken.records(), taken.missed, before));
}
