//! What publishers lose with a file is recorded before the file goes.

use super::spool::{FAR, START_OF_ALL, all_records, dropped, held, read_all, records};
use super::*;
use crate::window_log::spool::{DropRecorder, SpoolDrop};

#[derive(Debug, Default)]
struct Recorder {
    disk: Disk,
    /// Each drop, and the number of spool files then.
    drops: Mutex<Vec<(SpoolDrop, usize)>>,
}

impl DropRecorder for Recorder {
    fn record_drop(&self, publisher: &str, dropped: SpoolDrop) {
        assert_eq!(publisher, FAR);
        self.drops.lock().unwrap().push((dropped, self.disk.names("spool-").len()));
    }
}

#[test]
fn what_is_lost_is_recorded_before_the_file_goes_with_what_is_in_hand() {
    let disk = Disk::default();
    let spool = held(MIB);
    let recorder = Arc::new(Recorder { disk: disk.clone(), ..Recorder::default() });
    spool.record_drops_with(Arc::clone(&recorder) as Arc<dyn DropRecorder>);
    let mut node = Node::with_spool(&disk, 3, 4, SMALL, &spool);
    node.run_for(300, &disk);
    let mut follower = spool.follow_after(FAR, START_OF_ALL);
    let done = follower.read_windows(&node.store, 2).unwrap();
    spool.hold_after(FAR, done.cursor);
    let mut in_hand = Vec::new();
    for _ in 0..3 {
        // A batch ends with a file.
        in_hand.extend(follower.read_windows(&node.store, 20).unwrap().windows);
    }
    let handed = follower.handed_cursor();
    let files = disk.names("spool-").len();
    assert!(files > 2, "{files}");
    // A reload leaves no room.
    spool.set_limit(0);
    node.prune_files();
    let drops = recorder.drops.lock().unwrap().clone();
    let left: Vec<_> = drops.iter().map(|(_, files)| *files).collect();
    assert_eq!(left, (1..=files).rev().collect::<Vec<_>>(), "each is recorded while the file is there");
    assert!(drops.iter().all(|(drop, _)| drop.handed == handed), "{drops:?}");
    assert_eq!(drops.iter().map(|(drop, _)| drop.in_hand).sum::<u64>(), records(&in_hand));
    assert!(drops.iter().filter(|(drop, _)| drop.in_hand > 0).count() > 1, "it is in more than one file");
    // Of a kill before the next file goes, what is in hand and in that file is not lost.
    assert!(drops[0].0.through < handed && drops.is_sorted_by_key(|(drop, _)| drop.through));
    let untaken: u64 = drops.iter().map(|(drop, _)| drop.untaken).sum();
    assert_eq!(untaken, dropped(&spool, FAR));
    assert_eq!(drops.last().map(|(drop, _)| drop.through), Some(spool.snapshot().publishers[0].taken));
    let (rest, missed) = read_all(&mut follower, &node.store);
    let got = records(&done.windows) + records(&in_hand) + records(&rest);
    assert_eq!((got + untaken, missed), (all_records(&node), 0));
}
