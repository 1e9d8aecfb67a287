//! Publishers that follow the sequence from the store and from files: whatever happens, each sees every window once.

use super::*;
use crate::aggregate::{View, Window};
use crate::store::{ReceivedStore, SentStore};
use crate::window_log::read::{Depth, read_or_report};
use crate::window_log::spool::{SpoolBatch, SpoolFollower, SpoolHandout, SpooledWindow};

pub(super) const START_OF_ALL: Cursor = Cursor { epoch: 0, seq: 0 };
pub(super) const FAR: &str = "far";

/// A spool with a publisher that has read nothing.
pub(super) fn held(limit: u64) -> Arc<Spool> {
    let spool = Arc::new(Spool::new(limit));
    spool.hold_after(FAR, START_OF_ALL);
    spool
}

impl SpoolFollower {
    /// Reads the next windows, and has them handed out.
    pub(super) fn read_windows(&mut self, store: &Store, most: usize) -> io::Result<SpoolBatch> {
        while self.check_handout(store) != SpoolHandout::Closed {
            let found = self.read_ahead(store, most)?;
            if self.hand_out_through(found.cursor) {
                return Ok(found);
            }
        }
        Ok(SpoolBatch { windows: Vec::new(), cursor: self.handed_cursor(), missed: 0, is_waiting: true })
    }
}

/// Everything that a follower gets now, and the records that it has missed.
pub(super) fn read_all(follower: &mut SpoolFollower, store: &Store) -> (Vec<SpooledWindow>, u64) {
    let (mut windows, mut missed) = (Vec::new(), 0);
    loop {
        let batch = follower.read_windows(store, 7).unwrap();
        missed += batch.missed;
        if batch.windows.is_empty() && batch.missed == 0 {
            return (windows, missed);
        }
        windows.extend(batch.windows);
    }
}

fn births(windows: &[SpooledWindow]) -> Vec<Cursor> {
    windows.iter().map(|window| window.birth).collect()
}

pub(super) fn records(windows: &[SpooledWindow]) -> u64 {
    windows.iter().map(|window| window.published.window().len() as u64).sum()
}

pub(super) fn dropped(spool: &Spool, publisher: &str) -> u64 {
    spool.snapshot().publishers.iter().find(|held| held.name == publisher).unwrap().dropped
}

/// What the next run of the agent finds on a disk, in a store of epoch 8, and a publisher that starts from the beginning.
fn next_run(disk: &Disk, now: u64) -> (ClosedWindowLog, Store, SpoolFollower) {
    let (files, store): (Arc<dyn Files>, _) = (Arc::new(disk.clone()), Store::new(8, 4));
    let spool = Arc::new(Spool::new(MIB));
    let follower = spool.follow_after(FAR, START_OF_ALL);
    let recovered = recover_windows(&*files, moment(now).wall, TOMBSTONE);
    let Resumed { mut log, unwritten } = recovered.resume_log(&files, &store, &spool, SMALL);
    if !unwritten.is_empty() {
        log.append_born(&unwritten, &Known(&store, &HashMap::new())).unwrap();
    }
    spool.set_written(store.end_cursor());
    (log, store, follower)
}

/// The records that were published.
pub(super) fn all_records(node: &Node) -> u64 {
    node.store.end_cursor().seq
}

#[test]
fn without_publishers_no_file_is_kept_and_one_that_was_kept_goes() {
    let disk = Disk::default();
    let mut node = Node::on(&disk, 3, 4, SMALL);
    node.run_for(300, &disk);
    assert!(disk.names("spool-").is_empty(), "{:?}", disk.names(""));
    let all = disk.names("windows-").len();
    let disk = Disk::default();
    let spool = held(MIB);
    let mut node = Node::with_spool(&disk, 3, 4, SMALL, &spool);
    node.run_for(300, &disk);
    assert_eq!(disk.names("windows-").len(), all, "the log itself keeps what it kept");
    assert!(disk.names("spool-").len() > 2, "{:?}", disk.names(""));
    assert_eq!(spool.snapshot().files, disk.names("spool-").len());
    let bytes: usize =
        disk.files().iter().filter(|(name, _)| name.starts_with("spool-")).map(|(_, b)| b.len()).sum();
    assert_eq!(spool.snapshot().bytes, bytes as u64);
    // The publisher is configured no more when the next run starts.
    let (files, store): (Arc<dyn Files>, _) = (Arc::new(disk.clone()), Store::new(8, 4));
    let recovered = recover_windows(&*files, moment(301).wall, TOMBSTONE);
    let Resumed { mut log, .. } = recovered.resume_log(&files, &store, &no_spool(), SMALL);
    log.prune_files(&Known(&store, &HashMap::new())).unwrap();
    assert!(disk.names("spool-").is_empty(), "{:?}", disk.names(""));
}

#[test]
fn files_that_a_publisher_has_not_read_are_renamed_and_go_once_it_has() {
    let disk = Disk::default();
    let spool = held(MIB);
    let mut node = Node::with_spool(&disk, 3, 4, SMALL, &spool);
    node.run_for(300, &disk);
    let mut follower = spool.follow_after(FAR, START_OF_ALL);
    let (windows, missed) = read_all(&mut follower, &node.store);
    let read: Vec<_> = windows.iter().map(|window| (window.birth.seq, seen(&window.published))).collect();
    assert_eq!((read, missed), (node.written.clone(), 0));
    let kept = disk.names("spool-");
    node.prune_files();
    assert_eq!(disk.names("spool-"), kept, "what was read may have to be read again until it is done with");
    // Half of it is done with, and then everything.
    let middle = windows[windows.len() / 2].cursor;
    spool.hold_after(FAR, middle);
    node.prune_files();
    let left = disk.names("spool-");
    assert!(!left.is_empty() && left.len() < kept.len(), "{left:?} of {kept:?}");
    let (again, _) = read_all(&mut spool.follow_after(FAR, middle), &node.store);
    assert_eq!(births(&again), births(&windows[windows.len() / 2 + 1..]));
    spool.hold_after(FAR, windows.last().unwrap().cursor);
    node.prune_files();
    assert!(disk.names("spool-").is_empty(), "{:?}", disk.names(""));
}

#[test]
fn beyond_its_size_the_spool_drops_the_oldest_and_counts_what_each_publisher_had_not_read() {
    let disk = Disk::default();
    let spool = held(MIB);
    let mut node = Node::with_spool(&disk, 3, 4, SMALL, &spool);
    node.run_for(200, &disk);
    let mut near = spool.follow_after("near", START_OF_ALL);
    let near_read = near.read_windows(&node.store, 40).unwrap().windows;
    let mut none = spool.follow_after("none", node.store.end_cursor());
    let status = spool.snapshot();
    // The same files with another limit: the next run has a smaller one.
    let small = Arc::new(Spool::new(status.bytes / 2));
    let mut far = small.follow_after(FAR, START_OF_ALL);
    let mut near_again = small.follow_after("near", near_read.last().unwrap().cursor);
    let (files, store): (Arc<dyn Files>, _) = (Arc::new(disk.clone()), Store::new(8, 4));
    small.hold_after("none", node.store.end_cursor());
    let recovered = recover_windows(&*files, moment(201).wall, TOMBSTONE);
    let Resumed { mut log, .. } = recovered.resume_log(&files, &store, &small, SMALL);
    // One of them has begun to read a file that is dropped now.
    let begun = far.read_windows(&store, 2).unwrap().windows;
    log.prune_files(&Known(&store, &HashMap::new())).unwrap();
    small.set_written(store.end_cursor());
    assert!(small.snapshot().bytes <= status.bytes / 2, "{:?}", small.snapshot());
    let (rest, missed) = read_all(&mut far, &store);
    let (near_rest, near_missed) = read_all(&mut near_again, &store);
    let all = all_records(&node);
    assert_eq!(records(&begun) + records(&rest) + dropped(&small, FAR), all);
    assert_eq!(records(&near_read) + records(&near_rest) + dropped(&small, "near"), all);
    assert!(dropped(&small, FAR) > dropped(&small, "near") && dropped(&small, "near") > 0);
    assert_eq!((missed, near_missed, dropped(&small, "none")), (0, 0, 0));
    assert!(read_all(&mut none, &node.store).0.is_empty());
    let newest = node.written.last().unwrap();
    assert_eq!(seen(&rest.last().unwrap().published), newest.1, "the newest arrive");
}

#[test]
fn a_size_of_zero_keeps_nothing_and_what_memory_loses_is_told() {
    let disk = Disk::default();
    let spool = held(0);
    let mut node = Node::with_spool(&disk, 3, 4, SMALL, &spool);
    let mut follower = spool.follow_after(FAR, START_OF_ALL);
    node.run_for(40, &disk);
    let (first, missed) = read_all(&mut follower, &node.store);
    assert!(!first.is_empty() && missed == 0);
    node.live(40..600);
    assert!(disk.names("spool-").is_empty());
    let (rest, missed) = read_all(&mut follower, &node.store);
    assert_eq!(records(&first) + records(&rest) + missed, all_records(&node));
    assert!(missed > 0 && dropped(&spool, FAR) == 0);
}

#[test]
fn a_start_reads_no_file_that_is_kept_for_publishers() {
    let disk = Disk::default();
    let mut node = Node::with_spool(&disk, 3, 4, SMALL, &held(MIB));
    node.run_for(300, &disk);
    let disk = disk.mended();
    let (log, ..) = next_run(&disk, 301);
    let reads = disk.0.lock().unwrap().reads.clone();
    assert!(reads.iter().all(|name| !name.starts_with("spool-")), "{reads:?}");
    assert!(!reads.is_empty() && !disk.names("spool-").is_empty());
    let numbers = disk.names("spool-").iter().filter_map(|name| name.get(6..16)?.parse::<u64>().ok()).max();
    assert!(Some(log.file_number()) > numbers, "a number is not used twice");
}

#[test]
fn a_long_absence_loses_nothing_of_containers_that_are_long_gone() {
    let disk = Disk::default();
    let mut node = Node::with_spool(&disk, 3, 4, SMALL, &held(MIB));
    node.run_for(120, &disk);
    let ended = moment(100).wall;
    node.finished.extend((0..2).map(|n| (Allocation(n), ended)));
    node.live(120..240);
    let who = |n| {
        Known(&node.store, &node.finished)
            .find_who(Allocation(n), &origin(usize::try_from(n).unwrap()))
            .unwrap()
    };
    let changes = (0..2).map(|n| ContainerChange::Is(Allocation(n), who(n)));
    let changes: Vec<_> = changes.chain([ContainerChange::Forgotten(Allocation(2))]).collect();
    node.log.append_changes(&changes).unwrap();
    // The next agent starts a day later: no tombstone is left, and nothing of them is restored.
    let disk = disk.mended();
    let (mut log, store, mut follower) = next_run(&disk, 86_400);
    assert!(store.kept_after(0).is_empty());
    log.prune_files(&Known(&store, &HashMap::new())).unwrap();
    assert!(disk.names("windows-").is_empty() && !disk.names("spool-").is_empty(), "{:?}", disk.names(""));
    let (windows, missed) = read_all(&mut follower, &store);
    let read: Vec<_> = windows.iter().map(|window| seen(&window.published)).collect();
    let written: Vec<_> = node.written.iter().map(|(_, seen)| seen.clone()).collect();
    assert_eq!((read, missed), (written, 0));
    let last_of = |name: &str| {
        windows.iter().rfind(|window| window.published.origin().container_id.as_str() == name).unwrap()
    };
    assert_eq!((last_of("c1").ended, last_of("c2").ended), (Some(ended), None));
}

#[test]
fn every_window_that_was_open_gets_a_birth_of_its_own_and_keeps_it() {
    let disk = Disk::default();
    let open = |number: u64, key: crate::window_log::entry::ContainerKey, container: usize| {
        let mut segment = LogSegment::create(&disk, OPEN, number, 7, FORMAT).unwrap();
        let who = Who { origin: origin(container), alias: None, opened: moment(0).wall, finished: None };
        segment.ensure_container(key, || who);
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
        aggregator.ingest_datagram(b"a:1|c\nb:2|c", moment(1), None);
        segment.put_open_window(key, &aggregator.peek_open_window(moment(2).wall));
        segment.write_buffer().unwrap();
    };
    // Two of them have the same number, in different epochs.
    for (number, (epoch, allocation)) in (1..).zip([(6, 3), (7, 3), (7, 4)]) {
        let key = crate::window_log::entry::ContainerKey { epoch, allocation: Allocation(allocation) };
        open(number, key, usize::try_from(number).unwrap());
    }
    let (_log, store, mut follower) = next_run(&disk, 20);
    let (windows, _) = read_all(&mut follower, &store);
    let ends: Vec<_> = windows.iter().map(|window| window.cursor).collect();
    assert_eq!(windows.len(), 3);
    assert!(
        births(&windows).iter().zip(&ends).all(|(birth, end)| birth.epoch == 7 && birth < end),
        "{ends:?}"
    );
    assert!(ends.iter().zip(births(&windows).iter().skip(1)).all(|(end, next)| end < next), "{ends:?}");
    // A publisher that has the first two gets the third, from files and from what memory restored.
    let spool = Arc::new(Spool::new(MIB));
    let mut follower = spool.follow_after(FAR, ends[1]);
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let store = Store::new(9, 4);
    recover_windows(&*files, moment(30).wall, TOMBSTONE).resume_log(&files, &store, &spool, SMALL);
    spool.set_written(store.end_cursor());
    assert_eq!(births(&read_all(&mut follower, &store).0), births(&windows[2..]));
}

#[test]
fn what_is_open_after_a_recovery_that_was_cut_short_comes_after_what_it_has_written() {
    let disk = Disk::default();
    for container in [1, 2] {
        let mut segment = LogSegment::create(&disk, OPEN, container as u64, 7, FORMAT).unwrap();
        let allocation = Allocation(container as u64);
        let key = crate::window_log::entry::ContainerKey { epoch: 7, allocation };
        let who = Who { origin: origin(container), alias: None, opened: moment(0).wall, finished: None };
        segment.ensure_container(key, || who);
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
        aggregator.ingest_datagram(b"a:1|c", moment(1), None);
        segment.put_open_window(key, &aggregator.peek_open_window(moment(2).wall));
        segment.write_buffer().unwrap();
    }
    let run = |epoch: u64, most: usize| {
        let (files, store): (Arc<dyn Files>, _) = (Arc::new(disk.clone()), Store::new(epoch, 4));
        let recovered = recover_windows(&*files, moment(20).wall, TOMBSTONE);
        let Resumed { mut log, unwritten } = recovered.resume_log(&files, &store, &no_spool(), SMALL);
        let births: Vec<_> = unwritten.iter().take(most).map(|(birth, _)| *birth).collect();
        log.append_born(&unwritten[..most.min(unwritten.len())], &Known(&store, &HashMap::new())).unwrap();
        births
    };
    // The second window alone was on the disk when the agent was killed again.
    let (first, second) = (run(8, 1), run(9, 2));
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(first[0] < second[0], "{first:?} {second:?}");
    assert!(run(10, 2).is_empty());
}

/// The sums of the counter `a` in windows, of what they became and of what was added.
fn sums<'w>(windows: impl Iterator<Item = &'w Published>) -> (f64, f64) {
    let of = |window: &Window| {
        let sum = |record: crate::aggregate::Record<'_>| match record.view {
            View::Counter { counter, .. } => counter.sum,
            _ => 0.0,
        };
        window.records().map(sum).sum::<f64>()
    };
    windows.fold((0.0, 0.0), |(became, added), published| {
        (became + of(published.window()), added + of(published.added_window().unwrap()))
    })
}

#[test]
fn what_was_added_is_kept_beside_what_a_record_became_on_every_way() {
    let disk = Disk::default();
    let spool = held(MIB);
    let mut node = Node::with_spool(&disk, 1, 30, MIB, &spool);
    let late = |secs: u64, at: i64| format!("a:{secs}|c|T{}", START + at);
    for (secs, line) in [(1, "a:1|c".to_owned()), (12, late(20, 1)), (25, late(300, 11)), (26, late(4000, 2))]
    {
        node.roll(secs);
        node.aggregators[0].ingest_datagram(line.as_bytes(), moment(secs), None);
    }
    node.roll(40);
    node.follow().unwrap();
    // 1, 21 and 4021 of the first interval, and 300 of the second.
    let wanted = (1.0 + 21.0 + 4021.0 + 300.0, 4321.0);
    let of_store = |store: &Store| sums(store.kept_after(0).iter().map(|published| &**published));
    assert_eq!(of_store(&node.store), wanted);
    let from_files = |disk: &Disk| {
        let (_, store, mut follower) = next_run(&disk.mended(), 50);
        let (windows, _) = read_all(&mut follower, &store);
        (of_store(&store), sums(windows.iter().map(|window| &*window.published)))
    };
    assert_eq!(from_files(&disk), (wanted, wanted), "restored, and read by a publisher");
    let (mut sent, mut received) = (SentStore::default(), ReceivedStore::default());
    received.add(&node.store.next_part(&mut sent, usize::MAX).bytes).unwrap();
    assert_eq!(of_store(&received.into_store(30).unwrap()), wanted, "handed over");
}

#[test]
fn a_revision_whose_additions_are_damaged_is_not_taken_for_what_was_added() {
    let disk = Disk::default();
    let mut node = Node::on(&disk, 1, 30, MIB);
    for (secs, line) in [(1, "a:1|c".to_owned()), (12, format!("a:20|c|T{}", START + 1))] {
        node.roll(secs);
        node.aggregators[0].ingest_datagram(line.as_bytes(), moment(secs), None);
    }
    node.roll(20);
    node.follow().unwrap();
    let (name, bytes) = disk.files().into_iter().next().unwrap();
    // Each frame in turn is damaged.
    let starts: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"\xf1Tpw")).collect();
    let mut unknown = 0;
    for start in starts {
        let broken = disk.mended();
        broken.0.lock().unwrap().files.get_mut(&name).unwrap()[start + 20] ^= 0x41;
        let (_, store, mut follower) = next_run(&broken, 30);
        for window in read_all(&mut follower, &store).0 {
            let revised = window.published.revision_counts().contains(&1);
            match window.published.added_window() {
                Some(_) if revised => assert!(window.published.added_apart().is_some(), "frame at {start}"),
                Some(added) => assert_eq!(seen_window(added), seen_window(window.published.window())),
                None => unknown += 1,
            }
        }
    }
    assert_eq!(unknown, 1, "one frame says what was added");
}

fn seen_window(window: &Window) -> String {
    format!("{:?}", window.records().collect::<Vec<_>>())
}

#[test]
fn a_damaged_file_costs_its_damaged_windows_alone_and_is_set_aside() {
    let disk = Disk::default();
    let mut node = Node::with_spool(&disk, 3, 4, SMALL, &held(MIB));
    node.run_for(300, &disk);
    let disk = disk.mended();
    let kept = disk.names("spool-");
    let all = node.written.len();
    {
        let mut platter = disk.0.lock().unwrap();
        let bytes = platter.files.get_mut(&kept[1]).unwrap();
        let third = bytes.len() / 3;
        bytes[third..2 * third].fill(0);
    }
    let (mut log, store, mut follower) = next_run(&disk, 301);
    let (windows, missed) = read_all(&mut follower, &store);
    let status = log.shared_spool().snapshot();
    assert!(windows.len() < all && windows.len() > all / 2, "{} of {all}", windows.len());
    assert_eq!(records(&windows) + missed, all_records(&node));
    assert!(missed > 0 && (status.damage.parts, status.set_aside) == (1, 0), "{status:?}");
    log.shared_spool().hold_after(FAR, windows.last().unwrap().cursor);
    log.prune_files(&Known(&store, &HashMap::new())).unwrap();
    let aside = kept[1].replacen("spool-", "damaged-", 1);
    assert_eq!((disk.names("spool-"), disk.names("damaged-")), (vec![], vec![aside]));
    assert_eq!(log.shared_spool().snapshot().set_aside, 1);
}

#[test]
fn a_file_that_cannot_be_read_is_tried_again_and_left_out_in_the_end() {
    let disk = Disk::default();
    let mut node = Node::with_spool(&disk, 3, 4, SMALL, &held(MIB));
    node.run_for(300, &disk);
    let disk = disk.mended();
    let kept = disk.names("spool-");
    let (log, store, mut follower) = next_run(&disk, 301);
    let set = |names: &[String]| disk.0.lock().unwrap().unreadable = names.iter().cloned().collect();
    set(&kept[..1]);
    for _ in 0..3 {
        assert!(follower.read_windows(&store, 100).is_err());
    }
    set(&[]);
    let (windows, missed) = read_all(&mut follower, &store);
    assert_eq!((windows.len(), missed), (node.written.len(), 0), "it was a passing error");
    set(&kept[..1]);
    let mut follower = log.shared_spool().follow_after("other", START_OF_ALL);
    let mut errors = 0;
    let windows = loop {
        match follower.read_windows(&store, usize::MAX) {
            Ok(SpoolBatch { windows, .. }) => break windows,
            Err(_) => errors += 1,
        }
    };
    assert!(errors > 3 && !windows.is_empty() && windows[0].birth.seq > 1, "{errors} errors");
    assert_eq!(log.shared_spool().snapshot().damage.files, 1);
}

#[test]
fn a_full_disk_costs_the_oldest_of_what_is_kept_for_publishers_and_nothing_that_is_new() {
    let disk = Disk::default();
    let spool = held(MIB);
    let mut node = Node::with_spool(&disk, 3, 8, SMALL, &spool);
    node.run_for(300, &disk);
    let used: usize = disk.files().values().map(Vec::len).sum();
    disk.set(Trouble::Full(used + 2000));
    node.live(300..400);
    while node.follow().is_err() {}
    assert!(dropped(&spool, FAR) > 0, "{:?}", spool.snapshot());
    let (windows, missed) = read_all(&mut spool.follow_after(FAR, START_OF_ALL), &node.store);
    assert_eq!(records(&windows) + missed + dropped(&spool, FAR), all_records(&node));
    assert_eq!(missed, 0, "the sequence starts after what was dropped");
    assert_eq!(seen(&windows.last().unwrap().published), node.written.last().unwrap().1);
    // Another failure is no reason to drop anything.
    let before = disk.names("spool-");
    disk.set(Trouble::None);
    node.log.make_room(&io::Error::other("the disk is broken")).unwrap();
    assert!(before.iter().all(|name| disk.names("spool-").contains(name)));
}

#[test]
fn while_the_log_fails_a_publisher_goes_on_from_memory_and_is_told_what_it_has_missed() {
    let disk = Disk::default();
    let spool = held(MIB);
    let mut node = Node::with_spool(&disk, 3, 4, SMALL, &spool);
    node.run_for(60, &disk);
    node.store.hold_back_at_most(0);
    let mut follower = spool.follow_after(FAR, START_OF_ALL);
    let (first, _) = read_all(&mut follower, &node.store);
    for secs in 60..200 {
        node.roll(secs);
        (1..3).for_each(|n| node.send(n, secs));
    }
    // The writer is late: it may still have what memory has lost.
    let batch = follower.read_windows(&node.store, 100).unwrap();
    assert_eq!((batch.windows.len(), batch.missed, batch.cursor), (0, 0, first.last().unwrap().cursor));
    spool.set_failing(true);
    let (rest, missed) = read_all(&mut follower, &node.store);
    assert!(missed > 0 && !rest.is_empty());
    assert_eq!(records(&first) + missed + records(&rest), all_records(&node));
}

#[test]
fn without_a_log_a_publisher_has_what_memory_has_and_before_the_log_is_open_it_waits() {
    let mut node = Node::on(&Disk::default(), 2, 4, MIB);
    node.store.note_written(u64::MAX);
    for secs in 1..100 {
        node.roll(secs);
        (0..2).for_each(|n| node.send(n, secs));
    }
    let from = Cursor { epoch: 7, seq: 1 };
    let waiting = Arc::new(Spool::new(MIB)).follow_after(FAR, from).read_windows(&node.store, 9).unwrap();
    assert_eq!((waiting.windows.len(), waiting.missed, waiting.cursor), (0, 0, from));
    let (windows, missed) =
        read_all(&mut Arc::new(Spool::without_files()).follow_after(FAR, from), &node.store);
    assert_eq!(records(&windows) + missed + 1, all_records(&node));
    assert!(missed > 0 && windows.len() == node.store.kept_after(1).len());
}

#[test]
fn a_cursor_that_was_never_given_out_starts_with_this_run_and_a_publisher_that_has_left_gets_nothing() {
    let disk = Disk::default();
    let spool = held(MIB);
    let mut node = Node::with_spool(&disk, 2, 4, SMALL, &spool);
    node.run_for(60, &disk);
    for cursor in [Cursor { epoch: 99, seq: 5 }, Cursor { epoch: 7, seq: u64::MAX }] {
        let (windows, _) = read_all(&mut spool.follow_after(FAR, cursor), &node.store);
        assert_eq!(windows.len(), node.written.len(), "{cursor}");
    }
    let mut follower = spool.follow_after(FAR, START_OF_ALL);
    spool.release_publisher(FAR);
    assert!(follower.read_windows(&node.store, 9).unwrap().windows.is_empty());
    assert!(spool.snapshot().publishers.is_empty());
}

#[test]
fn the_survey_before_a_hand_over_knows_the_last_window_of_each_file() {
    let disk = Disk::default();
    Node::on(&disk, 3, 30, SMALL).run_for(200, &disk);
    let last = |depth| {
        let files = read_or_report(&disk, depth).files;
        files.into_iter().map(|file| (file.number, file.windows.last)).collect::<Vec<_>>()
    };
    assert!(last(Depth::Windows).iter().all(|(_, last)| last.is_some()));
    assert_eq!(last(Depth::Windows), last(Depth::Containers));
}

#[test]
fn a_death_at_any_call_keeps_every_written_window_for_a_publisher_that_is_far_behind() {
    let whole = Disk::default();
    Node::with_spool(&whole, 3, 4, SMALL, &held(MIB)).run_for(300, &whole);
    assert!(whole.names("spool-").len() > 2);
    for at in 0..whole.calls() {
        let disk = Disk::with(Trouble::Death(at));
        let mut node = Node::with_spool(&disk, 3, 4, SMALL, &held(MIB));
        assert_eq!(node.run_for(300, &disk), Some(at));
        let (_, store, mut follower) = next_run(&disk.mended(), 300);
        let (windows, _) = read_all(&mut follower, &store);
        assert!(births(&windows).is_sorted_by(|a, b| a < b), "call {at}");
        let read: HashMap<_, _> = windows.iter().map(|w| (w.birth.seq, seen(&w.published))).collect();
        for (first, seen) in &node.written {
            assert_eq!(read.get(first), Some(seen), "call {at}: window {first}");
        }
    }
}

#[test]
fn a_call_that_fails_once_costs_a_publisher_nothing() {
    let whole = Disk::default();
    Node::with_spool(&whole, 3, 8, SMALL, &held(MIB)).run_for(300, &whole);
    assert!(whole.names("spool-").len() > 1);
    for at in 0..whole.calls() {
        let (disk, spool) = (Disk::with(Trouble::Once(at)), held(MIB));
        let mut node = Node::with_spool(&disk, 3, 8, SMALL, &spool);
        node.run_for(300, &disk);
        node.follow().unwrap();
        let (windows, missed) = read_all(&mut spool.follow_after(FAR, START_OF_ALL), &node.store);
        let read: Vec<_> = windows.iter().map(|w| (w.birth.seq, seen(&w.published))).collect();
        assert_eq!((read, missed), (node.written, 0), "call {at}");
        assert_eq!(spool.snapshot().files, disk.names("spool-").len(), "call {at}");
    }
}
