//! What happens between the looks of a reader at memory and at the files.

use super::*;
use crate::window_log::tests::{Disk, MIB, Node, SMALL};

const START: Cursor = Cursor { epoch: 7, seq: 0 };

/// Three containers, of which memory keeps one window each, and of which nothing is written because the log fails.
fn failing_node(spool: &Arc<Spool>) -> Node {
    let mut node = Node::with_spool(&Disk::default(), 3, 1, SMALL, spool);
    spool.set_failing(true);
    live(&mut node, 1..62);
    node
}

fn live(node: &mut Node, seconds: std::ops::Range<u64>) {
    for secs in seconds {
        node.roll(secs);
        (0..3).for_each(|n| node.send(n, secs));
    }
}

/// Reads to the end. Returns the records and those that were missed.
fn read_to_end(reader: &mut SequenceReader, store: &Store) -> (u64, u64) {
    let (mut records, mut missed) = (0, 0);
    loop {
        let batch = reader.read_windows(store, 7).unwrap();
        assert!(!batch.is_waiting);
        if batch.windows.is_empty() && batch.missed == 0 {
            return (records, missed);
        }
        missed += batch.missed;
        records += batch.windows.iter().map(|window| window.published.window().len() as u64).sum::<u64>();
    }
}

#[test]
fn what_the_log_writes_between_two_looks_at_memory_is_read_from_its_file() {
    let spool = Arc::new(Spool::new(MIB));
    spool.hold_after("far", START);
    let mut node = failing_node(&spool);
    let mut reader = spool.read_after(START);
    let lost = reader.read_memory(&node.store, 7).unwrap_err();
    assert!(matches!(reader.open_next_file(lost), Ok(AfterMemory::Rest)));
    // The disk is well again: what was held back is in a file from now on, and no longer in memory.
    spool.set_failing(false);
    node.follow().unwrap();
    let found = reader.read_rest(&node.store, lost, 7);
    assert_eq!(found.map(|found| found.missed), None);
    assert_eq!(read_to_end(&mut reader, &node.store), (node.store.end_cursor().seq, 0));
}

#[test]
fn what_the_log_is_about_to_write_between_two_looks_at_memory_is_waited_for() {
    let spool = Arc::new(Spool::new(MIB));
    spool.hold_after("far", START);
    let mut node = failing_node(&spool);
    let mut reader = spool.read_after(START);
    let lost = reader.read_memory(&node.store, 7).unwrap_err();
    assert!(matches!(reader.open_next_file(lost), Ok(AfterMemory::Rest)));
    // The writer has taken windows to write them, and they are held back no longer.
    let taken = node.store.windows_to_write(0);
    node.store.hold_back_at_most(0);
    live(&mut node, 62..80);
    spool.set_failing(false);
    let found = reader.read_rest(&node.store, lost, 7);
    assert_eq!(found.map(|found| found.missed), None);
    drop(taken);
    // Nothing more comes: then they are missed.
    spool.set_written(node.store.end_cursor());
    let (records, missed) = read_to_end(&mut reader, &node.store);
    assert!(records > 0 && missed > 0, "{records} records, {missed} missed");
}
