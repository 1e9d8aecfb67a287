//! Publishers over many runs of the agent: killed and started again, handed over, away for long, with a spool that is large
//! enough and with one that is not.

use super::spool::START_OF_ALL;
use super::*;
use crate::store::{ReceivedStore, SentStore};
use crate::window_log::spool::SpoolFollower;

const KEEP: usize = 4;
const CONTAINERS: usize = 3;
const NAMES: [&str; 3] = ["near", "lagging", "away"];

/// Numbers that look random, the same for a seed.
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What a publisher has, and how far it is done.
struct Publisher {
    name: &'static str,
    follower: SpoolFollower,
    cursor: Cursor,
    got: Vec<Got>,
    missed: u64,
    /// Dropped in earlier runs of the agent.
    dropped: u64,
}

#[derive(Clone, PartialEq, Debug)]
struct Got {
    birth: Cursor,
    end: Cursor,
    records: u64,
    seen: String,
}

struct World {
    disk: Disk,
    limit: u64,
    spool: Arc<Spool>,
    node: Node,
    /// The last number that a life of the agent has had.
    epoch: u64,
    secs: u64,
    /// Every window that was written.
    published: Vec<Got>,
    publishers: Vec<Publisher>,
}

impl World {
    fn new(limit: u64) -> Self {
        let (disk, spool) = (Disk::default(), Arc::new(Spool::new(limit)));
        let publishers = NAMES.map(|name| {
            let follower = spool.follow_after(name, START_OF_ALL);
            Publisher { name, follower, cursor: START_OF_ALL, got: Vec::new(), missed: 0, dropped: 0 }
        });
        let node = Node::with_spool(&disk, CONTAINERS, KEEP, SMALL, &spool);
        let (published, publishers) = (Vec::new(), publishers.into());
        Self { disk, limit, spool, node, epoch: 7, secs: 1, published, publishers }
    }

    /// Lets containers send for some time.
    fn live(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.secs += 1;
            self.node.roll(self.secs);
            for n in 0..CONTAINERS {
                if n > 0 || self.secs % 40 == 3 {
                    self.node.send(n, self.secs);
                }
            }
            if self.secs.is_multiple_of(10) {
                self.write();
            }
        }
    }

    /// Writes what is closed, and remembers it.
    fn write(&mut self) {
        let store = Arc::clone(&self.node.store);
        let epoch = store.epoch();
        let since = store.read_since(Cursor { epoch, seq: self.node.cursor }).unwrap();
        self.published
            .extend(since.published.iter().map(|published| got(published, published.birth_in(epoch))));
        drop(since);
        self.node.follow().unwrap();
    }

    /// A publisher reads some windows, and may be done with them.
    fn read(&mut self, which: usize, dice: &mut Dice, is_done: bool) {
        let publisher = &mut self.publishers[which];
        for _ in 0..dice.roll(12) {
            let most = usize::try_from(1 + dice.roll(9)).unwrap();
            let batch = publisher.follower.read_windows(&self.node.store, most).unwrap();
            assert!(batch.windows.len() <= most);
            publisher.missed += batch.missed;
            publisher.got.extend(batch.windows.iter().map(|window| got(&window.published, window.birth)));
            let last = batch.windows.last().map(|last| last.cursor);
            assert!(last.is_none_or(|last| last <= batch.cursor));
            if is_done {
                publisher.cursor = batch.cursor;
                self.spool.hold_after(publisher.name, batch.cursor);
            }
        }
    }

    /// Starts a spool in which each publisher goes on where it was done.
    fn next_spool(&mut self) {
        let spool = Arc::new(Spool::new(self.limit));
        for publisher in &mut self.publishers {
            let held = self.spool.snapshot().publishers;
            let held = held.iter().find(|held| held.name == publisher.name).unwrap();
            publisher.dropped += held.dropped;
            if held.dropped > 0 {
                // What is lost stays lost: a copy of it may be in a file that is still there.
                publisher.cursor = held.taken;
            }
            publisher.got.retain(|got| got.end <= publisher.cursor);
            publisher.follower = spool.follow_after(publisher.name, publisher.cursor);
        }
        self.spool = spool;
    }

    /// The agent is killed and started again.
    fn restart(&mut self) {
        self.next_spool();
        self.epoch += 1;
        let (files, store): (Arc<dyn Files>, _) = (Arc::new(self.disk.clone()), Store::new(self.epoch, KEEP));
        let mut recovered = recover_windows(&*files, moment(self.secs).wall, TOMBSTONE);
        assert!(recovered.report.damage.is_none(), "{:?}", recovered.report);
        let origins: Vec<_> = (0..CONTAINERS).map(origin).collect();
        recovered.assign_allocations((0..).map(Allocation).zip(&origins).map(|(n, origin)| (&**origin, n)));
        let Resumed { log, unwritten } = recovered.resume_log(&files, &store, &self.spool, SMALL);
        assert!(unwritten.is_empty());
        let aggregators = (0..).zip(&origins).map(|(n, origin)| {
            store.open(Allocation(n), Arc::clone(origin), moment(0).wall);
            let now = moment(self.secs).wall;
            Aggregator::new(Arc::new(AggregatorSettings::default()), GaugeSign::Delta, now)
        });
        self.node.aggregators = aggregators.collect();
        self.go_on(log, store);
    }

    /// A new process takes over from the agent.
    fn hand_over(&mut self) {
        self.write();
        self.next_spool();
        self.epoch += 1;
        let (mut sent, mut received) = (SentStore::default(), ReceivedStore::default());
        received.add(&self.node.store.next_part(&mut sent, usize::MAX).bytes).unwrap();
        let store = received.into_store(KEEP).unwrap();
        let files: Arc<dyn Files> = Arc::new(self.disk.clone());
        let epochs = LogEpochs { keys: self.epoch, births: store.epoch() };
        let (mut log, void) = survey_log(&*files).into_replacing_log(&files, &self.spool, epochs, SMALL);
        let known = Known(&store, &self.node.finished);
        log.append_again(&store.kept_after(0), &known).unwrap();
        log.append_void(&void).unwrap();
        self.go_on(log, store);
    }

    fn go_on(&mut self, log: ClosedWindowLog, store: Store) {
        (self.node.log, self.node.store) = (log, Arc::new(store));
        self.node.cursor = self.node.store.end_cursor().seq;
        self.node.store.note_written(self.node.cursor);
        self.write();
    }

    /// Whether each publisher has, in the end, everything that was not dropped, once and in order.
    fn check_all(&mut self, seed: u64, is_complete: bool) {
        self.write();
        let all: HashMap<_, _> = self.published.iter().map(|got| (got.birth, got)).collect();
        assert_eq!(all.len(), self.published.len(), "seed {seed}: a birth is given twice");
        let wanted: u64 = self.published.iter().map(|got| got.records).sum();
        for which in 0..self.publishers.len() {
            let (publisher, store) = (&mut self.publishers[which], &self.node.store);
            loop {
                let batch = publisher.follower.read_windows(store, 100).unwrap();
                publisher.missed += batch.missed;
                publisher.got.extend(batch.windows.iter().map(|window| got(&window.published, window.birth)));
                if batch.windows.is_empty() {
                    break;
                }
            }
            let name = publisher.name;
            assert!(
                publisher.got.is_sorted_by(|a, b| a.birth < b.birth),
                "seed {seed}: {name} got one twice"
            );
            for got in &publisher.got {
                assert_eq!(Some(&got), all.get(&got.birth), "seed {seed}: {name}");
            }
            let held = self.spool.snapshot().publishers;
            let dropped = held.iter().find(|held| held.name == name).unwrap().dropped + publisher.dropped;
            let records: u64 = publisher.got.iter().map(|got| got.records).sum();
            assert_eq!((records + dropped, publisher.missed), (wanted, 0), "seed {seed}: {name}");
            assert!(!is_complete || dropped == 0, "seed {seed}: {name}");
        }
    }
}

fn got(published: &Published, birth: Cursor) -> Got {
    let records = published.window().len() as u64;
    let end = Cursor { seq: birth.seq + records - 1, ..birth };
    let added = published.added_window().map(crate::aggregate::Window::count_values);
    Got { birth, end, records, seen: format!("{} {added:?}", seen(published)) }
}

/// Lives through what the dice say. Returns how often something was dropped.
fn live_through(seed: u64, limit: u64) -> World {
    let (mut world, mut dice) = (World::new(limit), Dice(seed * 7919 + 1));
    let is_complete = limit == u64::MAX;
    for _ in 0..25 {
        match dice.roll(10) {
            0 => world.restart(),
            1 => world.hand_over(),
            2 => {
                // Nothing runs for a while.
                world.write();
                world.secs += 300;
                world.restart();
            }
            _ => {
                let seconds = 5 + dice.roll(60);
                world.live(seconds);
            }
        }
        world.read(0, &mut dice, true);
        if dice.roll(4) == 0 {
            // What is counted as dropped was handed out by no run, so a publisher that may lose some is done with all it has.
            let is_done = !is_complete || dice.roll(2) == 0;
            world.read(1, &mut dice, is_done);
        }
    }
    world.check_all(seed, is_complete);
    world
}

#[test]
fn each_publisher_sees_every_window_once_whatever_happens() {
    for seed in 0..24 {
        live_through(seed, u64::MAX);
    }
}

#[test]
fn with_a_small_spool_each_publisher_sees_every_window_once_or_is_told_exactly_what_it_has_lost() {
    let dropped = (0..24).map(|seed| {
        let world = live_through(seed, 24 << 10);
        let held = world.spool.snapshot().publishers;
        held.iter().map(|held| held.dropped).sum::<u64>()
            + world.publishers.iter().map(|publisher| publisher.dropped).sum::<u64>()
    });
    assert!(dropped.filter(|dropped| *dropped > 0).count() > 12);
}
