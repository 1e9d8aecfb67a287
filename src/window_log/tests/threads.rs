//! The writer of the log and publishers on threads of their own, as in the agent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::spool::{START_OF_ALL, all_records, dropped};
use super::*;
use crate::window_log::spool::{SpoolFollower, SpoolHandout};

/// Reads until the writer is done and nothing is left. Returns the number of records, and of those that were missed.
fn follow_to_end(
    mut follower: SpoolFollower,
    (spool, store): (Arc<Spool>, Arc<Store>),
    (name, most): (&'static str, usize),
    is_over: Arc<AtomicBool>,
) -> JoinHandle<(u64, u64)> {
    std::thread::spawn(move || {
        let (mut records, mut missed, mut last) = (0, 0, START_OF_ALL);
        loop {
            let was_over = is_over.load(Ordering::SeqCst);
            if follower.check_handout(&store) == SpoolHandout::Closed {
                std::thread::yield_now();
                continue;
            }
            let batch = follower.read_ahead(&store, most).unwrap();
            if !follower.hand_out_through(batch.cursor) {
                continue;
            }
            for window in &batch.windows {
                assert!(window.birth > last, "{name} got {} after {last}", window.birth);
                last = window.cursor;
                records += window.published.window().len() as u64;
            }
            missed += batch.missed;
            spool.hold_after(name, batch.cursor);
            if was_over && batch.windows.is_empty() && batch.missed == 0 && !batch.is_waiting {
                return (records, missed);
            }
        }
    })
}

#[test]
fn publishers_beside_the_writer_see_every_record_once_or_it_is_counted() {
    for limit in [u64::MAX, 40 << 10] {
        let (disk, spool) = (Disk::default(), Arc::new(Spool::new(limit)));
        let mut node = Node::with_spool(&disk, 4, 3, SMALL, &spool);
        let is_over = Arc::new(AtomicBool::new(false));
        let paces = [("near", 1), ("lagging", 7), ("fast", 500)];
        let start = |(name, most)| {
            let follower = spool.follow_after(name, START_OF_ALL);
            let parts = (Arc::clone(&spool), Arc::clone(&node.store));
            (name, follow_to_end(follower, parts, (name, most), Arc::clone(&is_over)))
        };
        let publishers: Vec<_> = paces.into_iter().map(start).collect();
        // It has read nothing when everything is written.
        let away = spool.follow_after("away", START_OF_ALL);
        node.live(1..700);
        node.follow().unwrap();
        let parts = (Arc::clone(&spool), Arc::clone(&node.store));
        let away = ("away", follow_to_end(away, parts, ("away", 50), Arc::clone(&is_over)));
        is_over.store(true, Ordering::SeqCst);
        for (name, publisher) in publishers.into_iter().chain([away]) {
            let (records, missed) = publisher.join().unwrap();
            let dropped = dropped(&spool, name);
            assert_eq!(records + missed + dropped, all_records(&node), "{name} with {limit} bytes");
            assert_eq!(missed, 0, "{name} with {limit} bytes");
            assert!(limit < u64::MAX || dropped == 0, "{name}");
        }
    }
}
