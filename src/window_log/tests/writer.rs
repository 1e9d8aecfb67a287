//! The writer itself, beside a store that keeps one window of each container, on a disk that hangs for a while.

use std::sync::Condvar;

use super::spool::{FAR, START_OF_ALL, held, read_all, records};
use super::*;
use crate::net::clock::Clock;
use crate::shard::{ShardPlan, ShardPool};
use crate::window_log::{LogStatus, LogWriter, WindowLogSettings, WriterSources};

/// A disk on which no file can be created before it is let go.
#[derive(Clone, Debug, Default)]
struct HangingDisk {
    disk: Disk,
    state: Arc<(Mutex<HangState>, Condvar)>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
enum HangState {
    #[default]
    Idle,
    /// A call waits.
    Hanging,
    Free,
}

impl HangingDisk {
    fn set(&self, to: HangState) {
        let (state, changed) = &*self.state;
        *state.lock().unwrap() = to;
        changed.notify_all();
    }

    fn wait_for(&self, wanted: HangState) {
        let (state, changed) = &*self.state;
        drop(changed.wait_while(state.lock().unwrap(), |state| *state != wanted).unwrap());
    }
}

impl Files for HangingDisk {
    fn list_names(&self) -> io::Result<Vec<String>> {
        self.disk.list_names()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.disk.read(name)
    }

    fn byte_length(&self, name: &str) -> io::Result<u64> {
        self.disk.byte_length(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Appendable>> {
        if *self.state.0.lock().unwrap() != HangState::Free {
            self.set(HangState::Hanging);
            self.wait_for(HangState::Free);
        }
        self.disk.create(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
}

fn start_writer(disk: &HangingDisk, store: &Arc<Store>, spool: &Arc<Spool>) -> (LogWriter, Arc<LogStatus>) {
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let plan = ShardPlan {
        shards: 1,
        memory_limit: usize::MAX,
        remembered: 1000,
        gather: Duration::ZERO,
        not_before: None,
    };
    let pool = ShardPool::start(&plan, store, &Arc::default(), Clock::default()).unwrap();
    let (pool, directory) = (Arc::new(pool), Arc::default());
    let sources = WriterSources { store: Arc::clone(store), pool, directory, spool: Arc::clone(spool) };
    let status = Arc::new(LogStatus::default());
    let recovered = recover_windows(&*files, moment(0).wall, TOMBSTONE);
    let settings = WindowLogSettings { checkpoint: Duration::ZERO, checkpoint_rate: 1, size: MIB };
    (LogWriter::start(&files, recovered, sources, settings, &status).unwrap(), status)
}

#[tokio::test]
async fn what_is_evicted_and_forgotten_while_the_disk_hangs_is_written_or_counted_once_by_all() {
    for (held_back, is_lost) in [(usize::MAX, false), (0, true)] {
        let (disk, spool, store) = (HangingDisk::default(), held(MIB), Arc::new(Store::new(7, 1)));
        let (writer, status) = start_writer(&disk, &store, &spool);
        disk.wait_for(HangState::Hanging);
        store.hold_back_at_most(held_back);
        for n in 0..2 {
            store.open(Allocation(n), origin(usize::try_from(n).unwrap()), moment(0).wall);
            let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
            for window in 0..5 {
                aggregator.ingest_datagram(b"a:1|c\nb:2|c", moment(window * 10 + 1), None);
                let closed = aggregator.roll_window(moment(window * 10 + 10).wall).unwrap();
                store.push(Allocation(n), closed);
            }
        }
        store.forget_container(Allocation(0));
        disk.set(HangState::Free);
        writer.write_now().await;
        let missed = status.snapshot().missed;
        assert_eq!(missed, if is_lost { 18 } else { 0 });
        let (windows, publisher_missed) = read_all(&mut spool.follow_after(FAR, START_OF_ALL), &store);
        assert_eq!((records(&windows) + missed, publisher_missed), (store.end_cursor().seq, missed));
        writer.finish_in_order().await;
        assert_eq!(store.written_place(), None, "nothing is held back any more");
        assert_eq!(status.snapshot().missed, missed);
    }
}
