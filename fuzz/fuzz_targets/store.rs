//! The store under random operations of a few containers: its count of kept bytes is correct, no place in the sequence
//! occurs twice, and another process has the same content after a hand-over.
//!
//! ```text
//! input = step *( NUL step )
//! step  = what datagram            ; the datagram: any bytes but NUL
//! ```
//!
//! Bits 0-1 of `what` are the container; see [`Run::step`] for the others.

#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tallyport::aggregate::{Aggregator, AggregatorSettings, GaugeSign, Limits};
use tallyport::model::{Allocation, ContainerId, Generation, Moment, Origin, TaskId, Timestamp};
use tallyport::render::prometheus::Level;
use tallyport::store::{Cursor, History, PendingWindow, Published, ReceivedStore, SentStore, Store};
use tallyport_fuzz::{START, Trust};

const EPOCH: u64 = 7;
const KEEP: usize = 3;
/// The limit of remembered totals for each workload; low, so that it is reached.
const REMEMBERED: usize = 8;

fuzz_target!(|input: &[u8]| {
    let mut run = Run::new();
    for step in input.split(|byte| *byte == 0) {
        if let [what, datagram @ ..] = step {
            run.step(*what, datagram);
            run.check();
        }
    }
    run.hand_over();
    run.check();
});

/// A store, the aggregators that push into it, and a reader that follows it.
struct Run {
    store: Store,
    aggregators: BTreeMap<u64, Aggregator>,
    /// Closed windows whose late samples are being merged.
    pending: BTreeMap<u64, PendingWindow>,
    settings: Arc<AggregatorSettings>,
    now: Moment,
    /// The next container.
    next: u64,
    /// The reader's cursor.
    cursor: Cursor,
}

impl Run {
    fn new() -> Self {
        let limits = Limits { series: 20, memory: 256 << 10, ..Limits::default() };
        let settings = AggregatorSettings {
            window: Duration::from_secs(1),
            keep: KEEP,
            series_idle: Duration::from_mins(1),
            limits,
            ..AggregatorSettings::default()
        };
        let store = Store::new(EPOCH, KEEP);
        let cursor = store.end_cursor();
        let now = Moment { wall: Timestamp::from_secs(START), mono: Duration::ZERO };
        let (aggregators, pending) = Default::default();
        let settings = settings.into();
        let mut run = Self { store, aggregators, pending, settings, now, next: 0, cursor };
        run.store.remember_at_most(REMEMBERED, 10 * REMEMBERED);
        for _ in 0..4 {
            run.comes();
        }
        run
    }

    fn comes(&mut self) {
        let container_id = ContainerId::new(&format!("c-{}", self.next % 6)).expect("a good id");
        let origin = Origin {
            task_id: TaskId::from(&container_id),
            container_id,
            generation: Generation(u32::try_from(self.next).unwrap_or(u32::MAX)),
            labels: [("zone".to_owned(), (self.next % 2).to_string())].into(),
        };
        self.store.open(Allocation(self.next), Arc::new(origin), self.now.wall);
        let aggregator = Aggregator::new(Arc::clone(&self.settings), GaugeSign::Delta, self.now.wall);
        self.aggregators.insert(self.next, aggregator);
        self.next += 1;
    }

    /// ```text
    /// bits 2-4  first: nothing, a window ends, three windows end, all series become idle, it ends and another comes,
    ///           it is forgotten and its windows are adopted, another process takes over, a reader follows
    /// bits 5-7  how often the datagram is sent
    /// ```
    fn step(&mut self, what: u8, datagram: &[u8]) {
        let container = self.aggregators.keys().nth(usize::from(what & 3)).copied();
        match what >> 2 & 7 {
            1 => self.goes_on(Duration::from_secs(1)),
            2 => self.goes_on(Duration::from_secs(3)),
            3 => self.goes_on(Duration::from_secs(61)),
            4 => container.into_iter().for_each(|container| self.ends(container)),
            5 => container.into_iter().for_each(|container| self.comes_again(container)),
            6 => self.hand_over(),
            7 => self.follow(),
            _ => {}
        }
        let Some(aggregator) = container.and_then(|container| self.aggregators.get_mut(&container)) else {
            return;
        };
        for _ in 0..=what >> 5 {
            aggregator.ingest_datagram(datagram, self.now, None);
        }
        container.into_iter().for_each(|container| self.merge_one(container));
    }

    /// Publishes the windows of every other container at once; those of the others wait for their late samples to be
    /// merged.
    fn goes_on(&mut self, by: Duration) {
        self.publish_all();
        self.now = self.now.saturating_add(by);
        for (container, aggregator) in &mut self.aggregators {
            let Some(closed) = aggregator.roll_window(self.now.wall) else { continue };
            if container % 2 == 0 {
                let pending = PendingWindow::new(&self.store, Allocation(*container), closed);
                self.pending.insert(*container, pending);
                continue;
            }
            let filed = self.store.push(Allocation(*container), closed);
            assert_eq!(filed.held, self.store.kept_bytes(Allocation(*container)));
            assert_eq!(filed.lost, 0);
            aggregator.set_kept_bytes(filed.held);
        }
    }

    /// Merges a part of a container's late samples; publishes the window after the last part.
    fn merge_one(&mut self, container: u64) {
        let Some(pending) = self.pending.get_mut(&container) else { return };
        if !pending.merge_one(&self.store) {
            self.publish(container);
        }
    }

    /// Publishes a container's waiting window.
    fn publish(&mut self, container: u64) {
        let Some(mut pending) = self.pending.remove(&container) else { return };
        while pending.merge_one(&self.store) {}
        let filed = pending.publish_to(&self.store);
        assert_eq!((filed.held, filed.lost), (self.store.kept_bytes(Allocation(container)), 0));
        let aggregator = self.aggregators.get_mut(&container).expect("it has not ended");
        aggregator.set_kept_bytes(filed.held);
    }

    fn publish_all(&mut self) {
        let all: Vec<_> = self.pending.keys().copied().collect();
        all.into_iter().for_each(|container| self.publish(container));
    }

    fn ends(&mut self, container: u64) {
        self.publish(container);
        let Some(mut aggregator) = self.aggregators.remove(&container) else { return };
        self.store.push(Allocation(container), aggregator.close_final_window(self.now.wall));
        drop(aggregator);
        self.store.mark_ended(Allocation(container));
        self.check();
        self.store.forget_container(Allocation(container));
        assert!(self.store.find_history(Allocation(container)).is_none());
        self.comes();
    }

    /// Adopts windows as after a restart: they are read from an image and get new places.
    fn comes_again(&mut self, container: u64) {
        self.publish(container);
        let Some(history) = self.store.find_history(Allocation(container)) else { return };
        let image = history.to_image();
        let before = history.published_windows().count();
        drop(history);
        self.store.forget_container(Allocation(container));
        let history = History::from_image(&image).expect("it was just made");
        let adopted = self.store.adopt_histories(vec![(Allocation(container), history)], self.now.wall);
        assert_eq!(adopted.len(), before, "windows are lost on their way through an image");
    }

    /// Hands everything to another store, in parts; the last part follows after more changes.
    fn hand_over(&mut self) {
        let (mut sent, mut received) = (SentStore::default(), ReceivedStore::default());
        let mut is_complete = false;
        while !is_complete {
            let part = self.store.next_part(&mut sent, 4096);
            received.add(&part.bytes).expect("it was just made");
            is_complete = part.is_complete;
        }
        self.goes_on(Duration::from_secs(1));
        self.publish_all();
        received.add(&self.store.next_part(&mut sent, usize::MAX).bytes).expect("it was just made");
        let other = received.into_store(KEEP).expect("a part has come");
        assert_eq!(other.end_cursor(), self.store.end_cursor());
        let (mine, theirs) = (self.store.size(), other.size());
        assert_eq!((theirs.windows, theirs.bytes), (mine.windows, mine.bytes));
        for level in [Level::Low, Level::Orchestrator, Level::High] {
            let gone = |store: &Store| -> usize {
                store.snapshot_at_level(level).1.values().map(|gone| gone.iter().count()).sum()
            };
            assert_eq!(gone(&other), gone(&self.store), "{level:?}");
        }
        self.store = other;
        self.store.remember_at_most(REMEMBERED, 10 * REMEMBERED);
    }

    /// Reads from the cursor on, and checks that every place occurs once.
    fn follow(&mut self) {
        match self.store.read_since(self.cursor) {
            Ok(since) => {
                let mut last = self.cursor.seq;
                for published in &since.published {
                    assert!(published.last_seq() > last, "a place comes twice");
                    last = published.last_seq();
                    tallyport_fuzz::window(published.window(), false, Trust::Sampled);
                }
                assert!(last <= since.next.seq);
                self.cursor = since.next;
            }
            Err(expired) => {
                assert!(expired.oldest.epoch == EPOCH && expired.oldest.seq > self.cursor.seq);
                self.store.read_since(expired.oldest).expect("where to go on from can be followed");
                self.cursor = expired.oldest;
            }
        }
    }

    /// Compares the running counts with a complete count.
    fn check(&self) {
        let (histories, ..) = self.store.snapshot_at_level(Level::Orchestrator);
        let (mut windows, mut bytes) = (0, 0);
        for (allocation, history) in &histories {
            let kept: usize = history.published_windows().map(|published| bytes_of(published)).sum();
            assert!(self.store.kept_bytes(*allocation) >= kept, "{allocation}");
            assert!(history.kept_intervals().count() <= KEEP);
            windows += history.published_windows().count();
            bytes += kept;
        }
        let size = self.store.size();
        assert_eq!((size.windows, size.bytes), (windows, bytes));
        let waiting: usize = self.pending.values().map(PendingWindow::recount_bytes).sum();
        assert_eq!(self.store.held_bytes(), self.store.recount_held_bytes() + waiting);
    }
}

/// Bytes of a window, and of what was added by it where that is another window.
fn bytes_of(published: &Published) -> usize {
    let window = published.window();
    let added = published.added_window().filter(|added| !std::ptr::eq(*added, window));
    window.bytes() + added.map_or(0, |added| added.bytes())
}
