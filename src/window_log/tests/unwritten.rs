//! Windows that leave memory before they are written: they are written all the same, and where that is not possible, every
//! publisher counts them once, in whichever run of the agent it comes to that place.

use super::spool::{FAR, START_OF_ALL, all_records, dropped, held, read_all, records};
use super::*;
use crate::store::{ReceivedStore, SentStore};
use crate::window_log::spool::SpooledWindow;

/// A node that keeps one window of each container and holds back this many bytes.
fn forgetful(disk: &Disk, spool: &Arc<Spool>, bytes: usize) -> Node {
    let node = Node::with_spool(disk, 3, 1, SMALL, spool);
    node.store.hold_back_at_most(bytes);
    node
}

/// What the next run of the agent has for a publisher after a place: windows, and the records that are missed.
fn read_after(disk: &Disk, cursor: Cursor) -> (Vec<SpooledWindow>, u64) {
    let (files, store): (Arc<dyn Files>, _) = (Arc::new(disk.mended()), Store::new(8, 4));
    let spool = Arc::new(Spool::new(MIB));
    let mut follower = spool.follow_after("near", cursor);
    recover_windows(&*files, moment(90_000).wall, TOMBSTONE).resume_log(&files, &store, &spool, SMALL);
    spool.set_written(store.end_cursor());
    read_all(&mut follower, &store)
}

/// Lets all containers send for a while, which nothing is written of.
fn send_unwritten(node: &mut Node, seconds: std::ops::Range<u64>) {
    for secs in seconds {
        node.roll(secs);
        (0..node.aggregators.len()).for_each(|n| node.send(n, secs));
    }
}

#[test]
fn what_leaves_memory_before_it_is_written_is_written_all_the_same() {
    let disk = Disk::default();
    let spool = held(MIB);
    let mut node = forgetful(&disk, &spool, usize::MAX);
    send_unwritten(&mut node, 1..62);
    node.store.forget_container(Allocation(1));
    let kept: usize = node.store.kept_after(0).iter().map(|published| published.window().len()).sum();
    assert!(kept as u64 * 3 < all_records(&node), "memory has the newest alone, {kept} records");
    node.follow().unwrap();
    assert_eq!(node.log.take_refusals().late, 0);
    let (windows, missed) = read_all(&mut spool.follow_after(FAR, START_OF_ALL), &node.store);
    assert_eq!((records(&windows), missed), (all_records(&node), 0));
    let of_forgotten = |window: &&SpooledWindow| window.published.allocation() == Allocation(1);
    assert!(windows.iter().filter(of_forgotten).count() > 4);
    // Once it is written, nothing is held back.
    assert_eq!(node.store.opened_at(Allocation(1)), None);
    assert_eq!(node.store.windows_to_write(0).windows.len(), node.store.kept_after(0).len());
    // The entry that it was forgotten comes last, and nothing depends on it.
    node.log.append_changes(&[ContainerChange::Forgotten(Allocation(1))]).unwrap();
    let (windows, report) = restored(&disk, 1, 70);
    assert!(report.damage.is_none() && windows.iter().all(|window| !window.starts_with("c1 ")), "{report:?}");
}

#[test]
fn what_memory_loses_of_restored_windows_is_not_missed() {
    let (disk, spool) = (Disk::default(), held(MIB));
    let mut node = Node::with_spool(&disk, 3, 4, SMALL, &spool);
    send_unwritten(&mut node, 1..122);
    node.follow().unwrap();
    let (windows, _) = read_all(&mut spool.follow_after(FAR, START_OF_ALL), &node.store);
    let last = windows.last().unwrap().cursor;
    for (forgotten, is_handed_over) in [(vec![2], false), (vec![0, 1, 2], false), (vec![0, 1, 2], true)] {
        let (files, mut store): (Arc<dyn Files>, _) = (Arc::new(disk.mended()), Store::new(8, 4));
        let spool = Arc::new(Spool::new(MIB));
        let mut follower = spool.follow_after("near", last);
        recover_windows(&*files, moment(125).wall, TOMBSTONE).resume_log(&files, &store, &spool, SMALL);
        assert!(store.restored_place() > 0);
        if is_handed_over {
            let mut received = ReceivedStore::default();
            received.add(&store.next_part(&mut SentStore::default(), usize::MAX).bytes).unwrap();
            store = received.into_store(4).unwrap();
        }
        spool.set_written(store.end_cursor());
        forgotten.iter().for_each(|n| store.forget_container(Allocation(*n)));
        let (_, missed) = read_all(&mut follower, &store);
        assert_eq!(missed, 0, "without {forgotten:?}, handed over: {is_handed_over}");
    }
}

#[test]
fn what_could_not_be_written_is_counted_once_by_this_run_and_by_the_next_wherever_it_was() {
    // At the beginning of the sequence, within it, and at its end, where no window follows.
    for lost in [0..1, 1..2, 2..3, 0..3] {
        let (disk, spool) = (Disk::default(), held(MIB));
        let mut node = forgetful(&disk, &spool, 0);
        for part in 0..3_u64 {
            let is_lost = lost.contains(&part);
            node.store.hold_back_at_most(if is_lost { 0 } else { usize::MAX });
            let from = 1 + part * 60;
            send_unwritten(&mut node, from..from + 60);
            if is_lost {
                for (n, aggregator) in (0..).zip(&mut node.aggregators) {
                    node.store.forget_container(Allocation(n));
                    let now = moment(from + 60).wall;
                    node.store.open(Allocation(n), origin(usize::try_from(n).unwrap()), now);
                    *aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, now);
                }
            }
            node.follow().unwrap();
        }
        let (all, late) = (all_records(&node), node.log.take_refusals().late);
        let (windows, missed) = read_all(&mut spool.follow_after(FAR, START_OF_ALL), &node.store);
        assert!(late > 0 && late < all || lost == (0..3));
        assert_eq!((records(&windows), missed), (all - late, late), "parts {lost:?}, this run");
        let (same, missed) = read_after(&disk, START_OF_ALL);
        assert_eq!((records(&same), missed), (all - late, late), "parts {lost:?}, the next run");
        for window in &windows {
            let (rest, missed) = read_after(&disk, window.cursor);
            let counted = window.cursor.seq + records(&rest) + missed;
            assert_eq!(counted, all, "parts {lost:?}, from {}", window.cursor);
        }
    }
}

#[test]
fn what_is_lost_is_counted_once_however_often_writing_fails() {
    for failing in 0..6 {
        let (disk, spool) = (Disk::default(), held(MIB));
        let mut node = forgetful(&disk, &spool, 0);
        send_unwritten(&mut node, 1..62);
        disk.set(Trouble::Once(failing));
        let failed = node.follow().is_err();
        // Create, write and sync.
        let mut late = node.log.take_refusals().late;
        assert_eq!((failed, late == 0), (failing < 3, failing < 3), "call {failing}");
        while node.follow().is_err() {}
        late += node.log.take_refusals().late;
        let (windows, missed) = read_all(&mut spool.follow_after(FAR, START_OF_ALL), &node.store);
        assert_eq!((records(&windows) + late, missed), (all_records(&node), late), "call {failing}");
    }
}

#[test]
fn a_window_that_is_too_long_for_the_log_is_counted_by_the_next_run() {
    let disk = Disk::default();
    let mut node = Node::with_spool(&disk, 1, 1, SMALL, &held(MIB));
    node.log.format = FrameFormat { longest: 300, ..FORMAT };
    let member = |n| format!("users:{n}|s\n");
    let members: String = (0..60).map(member).collect();
    node.aggregators[0].ingest_datagram(members.as_bytes(), moment(1), None);
    node.roll(11);
    node.follow().unwrap();
    let (windows, missed) = read_after(&disk, START_OF_ALL);
    assert_eq!((windows.len(), missed), (0, all_records(&node)));
}

#[test]
fn what_is_said_to_be_lost_in_a_file_that_the_spool_drops_is_counted_with_it() {
    let (disk, spool) = (Disk::default(), held(MIB));
    let mut node = forgetful(&disk, &spool, 0);
    for round in 0..30 {
        send_unwritten(&mut node, 1 + round * 20..1 + (round + 1) * 20);
        node.follow().unwrap();
    }
    assert!(node.log.take_refusals().late > 0);
    spool.set_limit(0);
    node.prune_files();
    assert!(dropped(&spool, FAR) > 0);
    let taken = spool.snapshot().publishers[0].taken;
    assert_eq!(dropped(&spool, FAR), taken.seq, "everything up to there, also what no file had");
}

#[test]
fn after_a_kill_at_any_call_all_publishers_count_the_same_and_nothing_that_was_not_there() {
    let run = |disk: &Disk| {
        // What is closed between two writes is more than what is held back.
        let mut node = forgetful(disk, &held(MIB), 2000);
        for round in 0..6 {
            send_unwritten(&mut node, 1 + round * 40..1 + (round + 1) * 40);
            let _may_fail = node.follow();
            if disk.died().is_some() {
                break;
            }
        }
        node
    };
    let whole = Disk::default();
    let mut node = run(&whole);
    assert!(node.log.take_refusals().late > 0 && node.cursor == all_records(&node));
    for at in 0..whole.calls() {
        let disk = Disk::with(Trouble::Death(at));
        let node = run(&disk);
        let (windows, missed) = read_after(&disk, START_OF_ALL);
        let counted = records(&windows) + missed;
        assert!(counted >= node.cursor && counted <= all_records(&node), "call {at}: {counted}");
        for window in windows.iter().step_by(5) {
            let (rest, missed) = read_after(&disk, window.cursor);
            let same = window.cursor.seq + records(&rest) + missed;
            assert_eq!(same, counted, "call {at}: from {}", window.cursor);
        }
    }
}
