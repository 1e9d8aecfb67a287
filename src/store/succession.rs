//! Taking in what an earlier process had: windows that were read from disk, or a store that is passed to this process part
//! by part, each with the changes since the previous one.
//!
//! Parts are small, so that neither process holds much beside the windows themselves. Each is put in place as it comes,
//! while windows are still being closed, so that little is left to do while receiving is paused. The contents of the last
//! part cannot be read meanwhile; it is as small as what was closed since the previous part.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::history::{self, HistoryError, Published};
use super::names::{Changed, NameChange, Names};
use super::past::{self, Past, PastChanges};
use super::snapshot::{LossChanges, Losses, StoreSnapshot};
use super::{Cursor, History, Inner, Store};
use crate::aggregate::{ContainerSummary, Layout, encode};
use crate::model::{Allocation, Origin, Timestamp};

/// How much of the store has been sent to the other process.
#[derive(Debug, Default)]
pub struct SentStore {
    seq: u64,
    containers: HashMap<Allocation, history::SentHistory>,
    past: past::KnownTotals,
    /// The place among changes of names.
    names: Option<u64>,
    /// How many forgotten containers it knows.
    forgotten: u64,
}

/// The received part of a store.
#[derive(Debug, Default)]
pub struct ReceivedStore {
    end: Option<Cursor>,
    restored: u64,
    containers: HashMap<Allocation, history::ReceivedHistory>,
    losses: Losses,
    past: past::KnownTotals,
    names: Names,
    /// The series of each container whose names are claimed.
    named: HashMap<Allocation, (Arc<Origin>, Layout)>,
}

/// An encoded part.
#[derive(Debug)]
pub struct StorePart {
    /// The encoded bytes.
    pub bytes: Vec<u8>,
    /// Whether nothing was left to send at that moment.
    pub is_complete: bool,
}

#[derive(Serialize, Deserialize)]
struct PartV5 {
    /// The epoch, and the last assigned place.
    end: (u64, u64),
    /// The last place of windows that were restored at the beginning of the run.
    restored: u64,
    /// All containers in the store.
    here: Vec<Allocation>,
    /// What is new in the histories that have changed.
    histories: Vec<(Allocation, Bytes)>,
    past: PastChanges,
    losses: LossChanges,
    /// Whether the names replace all earlier ones, the changes of names, and their time; `None` if nothing has changed.
    names: Option<(bool, Vec<NameChange>, Timestamp)>,
}

/// What is new for a container.
type New = (Allocation, Arc<Origin>, history::HistoryHead, Vec<Arc<Published>>, Option<ContainerSummary>);

impl Store {
    /// The changes since the previous part; at first, everything. A part has about `most` bytes of windows.
    #[must_use]
    pub fn next_part(&self, sent: &mut SentStore, most: usize) -> StorePart {
        // Only pointers are copied under the lock; they are walked afterwards.
        let inner = self.read();
        let (snapshot, past) = (inner.snapshot_after(sent.seq), inner.past.all_totals());
        let names = inner.names.changes_after(sent.names.unwrap_or(u64::MAX));
        let names_at = inner.names.newest_end();
        drop(inner);
        sent.names = Some(names.next());
        let names = names.into_changes();
        let is_news = names.whole || !names.changes.is_empty();
        let names = is_news.then_some((names.whole, names.changes, names_at));
        let (seq, new) = (snapshot.last, snapshot.by_container(sent.seq));
        let here: Vec<_> = snapshot.containers.keys().copied().collect();
        let past = sent.past.learn_changes(&past);
        let known: HashSet<_> = here.iter().copied().collect();
        sent.containers.retain(|allocation, _| known.contains(allocation));
        let (mut histories, mut room, mut is_complete) = (Vec::new(), most, true);
        for (allocation, origin, head, published, summary) in new {
            let first = !sent.containers.contains_key(&allocation);
            if room == 0 {
                is_complete = false;
                break;
            }
            let of_it = sent.containers.entry(allocation).or_default();
            if first || !of_it.is_current(&published, summary.as_ref()) {
                let (part, all) = of_it.write_part(&origin, &head, &published, summary.as_ref(), room);
                room = room.saturating_sub(part.len());
                is_complete &= all;
                histories.push((allocation, part.into()));
            }
        }
        if is_complete {
            sent.seq = seq;
        }
        let losses = snapshot.losses.changes_since(&mut sent.forgotten);
        let (end, restored) = ((self.epoch, seq), self.restored_place());
        let part = PartV5 { end, restored, here, histories, past, losses, names };
        StorePart { bytes: encode(&part), is_complete }
    }
}

impl StoreSnapshot {
    /// The windows published after a place, by container and in order, with each container's summary.
    fn by_container(&self, seq: u64) -> Vec<New> {
        let mut published: HashMap<Allocation, Vec<_>> = HashMap::new();
        for new in self.published_after(seq, Published::last_seq) {
            published.entry(new.allocation()).or_default().push(new);
        }
        let new = self.containers.iter().map(|(allocation, history)| {
            let published = published.remove(allocation).unwrap_or_default();
            let (origin, summary) = (Arc::clone(history.origin()), history.summary().cloned());
            (*allocation, origin, history.to_head(), published, summary)
        });
        new.collect()
    }
}

impl ReceivedStore {
    /// Applies a part.
    ///
    /// # Errors
    /// When the bytes are not a part, have another version, are damaged, or do not follow the previous part.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), HistoryError> {
        let part: PartV5 = crate::wal::decode(bytes).ok_or(HistoryError::Damaged)?;
        let here: HashSet<_> = part.here.iter().copied().collect();
        self.containers.retain(|allocation, _| here.contains(allocation));
        if let Some((whole, changes, at)) = part.names {
            if whole {
                (self.names, self.named) = (Names::default(), HashMap::new());
            }
            self.names.restore_changes(changes, at);
        }
        for (allocation, bytes) in part.histories {
            let known = self.containers.remove(&allocation);
            let history = history::ReceivedHistory::add(known, allocation, &bytes)?;
            self.containers.insert(allocation, history);
        }
        self.losses.apply_changes(part.losses);
        self.past.apply_changes(part.past);
        self.claim_names();
        self.end = Some(Cursor { epoch: part.end.0, seq: part.end.1 });
        self.restored = part.restored.min(part.end.1);
        Ok(())
    }

    /// Claims the names of added series, and releases those of removed series.
    fn claim_names(&mut self) {
        let gone = self.named.keys().filter(|allocation| !self.containers.contains_key(*allocation));
        for allocation in gone.copied().collect::<Vec<_>>() {
            let Some((origin, before)) = self.named.remove(&allocation) else { continue };
            self.names.update_series_unlimited(
                Changed::from_series(&origin, iter::empty(), before.iter().flatten()),
                None,
            );
        }
        for (allocation, history::ReceivedHistory { history, .. }) in &self.containers {
            let Some(layout) = history.summary().map(|summary| summary.ledger.layout()) else { continue };
            let named = self.named.get(allocation);
            if named.is_some_and(|(_, before)| Arc::ptr_eq(before, layout)) {
                continue;
            }
            let before = named.into_iter().flat_map(|(_, before)| before.iter().flatten());
            let changed = Changed::from_series(history.origin(), layout.iter().flatten(), before);
            self.names.update_series_unlimited(changed, history.newest_end());
            self.named.insert(*allocation, (Arc::clone(history.origin()), Arc::clone(layout)));
        }
    }

    /// The store, which continues the previous process's sequence, so that its cursors stay valid. `None` if no part
    /// has been received.
    #[must_use]
    pub fn into_store(self, keep: usize) -> Option<Store> {
        let end = self.end?;
        let mut inner = Inner { last: end.seq, past: Past::from_known(self.past), ..Inner::default() };
        inner.names = self.names;
        inner.losses = self.losses;
        for (allocation, history::ReceivedHistory { mut history, .. }) in self.containers {
            let _dropped = history.drop_beyond(keep);
            inner.losses.record_loss(history.last_gone_seq());
            inner.past.add_container(history.origin());
            // Ended containers are counted as alone later, when the table adopts them: datagrams must not wait for
            // that.
            inner.held.add(history.held_bytes());
            inner.log.extend(
                history.published_windows().map(|published| (published.first_seq(), Arc::clone(published))),
            );
            inner.containers.insert(allocation, Arc::new(history));
        }
        let store = Store::with_inner(end.epoch, keep, inner);
        store.restored.store(self.restored, Ordering::Release);
        Some(store)
    }
}

impl Store {
    /// Adopts windows of an earlier run of the agent, as of `now`. They get places in this run's sequence, in their
    /// original order. Containers that are already in the store are unchanged. Returns the windows, each with its
    /// original place.
    ///
    /// Windows that start after `now` come from a clock that was ahead. They are kept and readable, but never take
    /// precedence over windows of this run.
    pub fn adopt_histories(
        &self,
        histories: Vec<(Allocation, History)>,
        now: Timestamp,
    ) -> Vec<(u64, Arc<Published>)> {
        let mut adopted = Vec::new();
        let last = {
            let mut guard = self.write();
            let inner = &mut *guard;
            let is_beginning = self.restored_place() == inner.last;
            let (mut all, mut came) = (Vec::new(), BTreeSet::new());
            for (allocation, mut history) in histories {
                if inner.containers.contains_key(&allocation) {
                    continue;
                }
                let _gone = history.drop_beyond(self.keep);
                all.extend(history.take_windows().into_iter().map(|published| (allocation, published)));
                inner.past.add_container(history.origin());
                inner.name_all(&history);
                inner.containers.insert(allocation, Arc::new(history));
                came.insert(allocation);
            }
            all.sort_by_key(|(_, published)| published.first_seq());
            for (allocation, published) in all {
                let Some(history) = inner.containers.get_mut(&allocation) else { continue };
                let old = published.first_seq();
                let published = Arc::new(published.with_place(allocation, inner.last + 1));
                adopted.push((old, Arc::clone(&published)));
                inner.last = published.last_seq();
                inner.log.insert(published.first_seq(), Arc::clone(&published));
                let history = Arc::make_mut(history);
                if published.window().span.start > now {
                    history.keep_ahead(published);
                } else {
                    history.keep_window(published);
                }
            }
            inner.count_alone(came);
            if is_beginning {
                self.restored.store(inner.last, Ordering::Release);
            }
            inner.last
        };
        self.newest.send_if_modified(|newest| std::mem::replace(newest, last) != last);
        adopted
    }
}

impl Inner {
    /// Counts the memory of adopted containers, which have no aggregator yet.
    fn count_alone(&mut self, came: BTreeSet<Allocation>) {
        for allocation in came {
            let Some(history) = self.containers.get_mut(&allocation) else { continue };
            let history = Arc::make_mut(history);
            history.set_alone(Some(history.shared_bytes()));
            self.held.add(history.held_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::aggregate::{Aggregator, AggregatorSettings, Bounds, Counting, GaugeSign};
    use crate::model::{ContainerId, Generation, Labels, Moment, TaskId};

    const KEEP: usize = 4;

    fn moment(secs: u64) -> Moment {
        let mono = Duration::from_secs(secs);
        Moment { wall: Timestamp::from_secs(1_767_225_600).saturating_add(mono), mono }
    }

    fn origin(n: u64) -> Arc<Origin> {
        Arc::new(Origin {
            container_id: ContainerId::new(&format!("c{n}")).unwrap(),
            generation: Generation(1),
            task_id: TaskId::new("web.1").unwrap(),
            labels: Labels::new(),
        })
    }

    /// A store and the containers that send to it.
    struct Node {
        store: Store,
        containers: Vec<(Allocation, Aggregator)>,
        now: u64,
    }

    impl Node {
        fn new(containers: u64) -> Self {
            let mut node = Self { store: Store::new(7, KEEP), containers: Vec::new(), now: 1 };
            (0..containers).for_each(|n| node.open(n));
            node
        }

        fn open(&mut self, n: u64) {
            let bounds = Bounds::new(&[10.0], 0).unwrap();
            let counting = Counting::Classic { timers: bounds.clone(), values: bounds };
            let settings = Arc::new(AggregatorSettings { counting, ..AggregatorSettings::default() });
            let aggregator = Aggregator::new(settings, GaugeSign::Delta, moment(self.now).wall);
            self.store.open(Allocation(n), origin(n), moment(self.now).wall);
            self.containers.push((Allocation(n), aggregator));
        }

        /// Closes this many ten-second windows, each with a late sample for the previous one.
        fn run(&mut self, windows: u64) {
            for _ in 0..windows {
                let late = 1_767_225_600 + i64::try_from(self.now).unwrap() - 10;
                for (allocation, aggregator) in &mut self.containers {
                    let lines = format!(
                        "a:1|c\nn.x:1|c|#t.u:1,t_u:1\nn_x:1|c\nb{}:2|g\nt:7:70|ms\na:5|c|T{late}",
                        self.now % 3
                    );
                    aggregator.ingest_datagram(lines.as_bytes(), moment(self.now), None);
                    let closed = aggregator.roll_window(moment(self.now + 10).wall).unwrap();
                    self.store.push(*allocation, closed);
                }
                self.now += 10;
            }
        }

        fn forget(&mut self, n: u64) {
            self.containers.retain(|(allocation, _)| *allocation != Allocation(n));
            self.store.forget_container(Allocation(n));
        }
    }

    /// All that a reader can see.
    fn seen(store: &Store) -> String {
        let (histories, past, marks) = store.snapshot_at_level(crate::render::prometheus::Level::Low);
        let histories: Vec<_> = histories
            .iter()
            .map(|(allocation, history)| {
                let records: Vec<_> = history
                    .published_windows()
                    .map(|p| {
                        format!(
                            "{} {:?} {:?}",
                            p.first_seq(),
                            p.allocation(),
                            p.numbered_records().collect::<Vec<_>>()
                        )
                    })
                    .collect();
                format!("{allocation} {:?} {records:?} {:?}", history.opened_at(), history.summary())
            })
            .collect();
        let mut past: Vec<_> =
            past.values().flat_map(|gone| gone.iter()).map(|counted| format!("{counted:?}")).collect();
        past.sort_unstable();
        let since: Vec<_> = (0..=store.end_cursor().seq)
            .map(|seq| store.read_since(Cursor { epoch: 7, seq }).map(|since| since.published.len()))
            .collect();
        let mut marks: Vec<_> = marks.keys().map(|workload| format!("{workload:?}")).collect();
        marks.sort_unstable();
        let marks = (marks, store.name_meetings(usize::MAX));
        format!("{histories:#?} {past:#?} {:?} {since:?} {marks:?}", store.end_cursor())
    }

    #[test]
    fn what_comes_in_parts_is_what_was_there_at_the_last() {
        let mut node = Node::new(3);
        let (mut sent, mut received) = (SentStore::default(), ReceivedStore::default());
        let mut send =
            |node: &Node| received.add(&node.store.next_part(&mut sent, usize::MAX).bytes).unwrap();
        send(&node);
        node.run(3);
        send(&node);
        node.run(2);
        node.forget(1);
        node.open(9);
        send(&node);
        send(&node);
        node.run(2 + KEEP as u64);
        node.forget(0);
        send(&node);
        assert_eq!(seen(&received.into_store(KEEP).unwrap()), seen(&node.store));
    }

    #[test]
    fn windows_that_fill_many_parts_are_put_together_in_order() {
        let mut node = Node::new(3);
        let (mut sent, mut received) = (SentStore::default(), ReceivedStore::default());
        node.run(KEEP as u64);
        let most = 300;
        let total_bytes = node.store.next_part(&mut SentStore::default(), usize::MAX).bytes.len();
        let mut parts = 0;
        loop {
            let part = node.store.next_part(&mut sent, most);
            received.add(&part.bytes).unwrap();
            parts += 1;
            if part.is_complete {
                break;
            }
            if parts == 3 {
                // Meanwhile windows are closed, one container is forgotten, and another comes.
                node.run(1);
                node.forget(1);
                node.open(9);
            }
        }
        assert!(parts >= 5, "{parts} parts of {total_bytes} bytes");
        received.add(&node.store.next_part(&mut sent, usize::MAX).bytes).unwrap();
        assert_eq!(seen(&received.into_store(KEEP).unwrap()), seen(&node.store));
    }

    #[test]
    fn a_part_has_no_more_windows_than_fit() {
        let mut node = Node::new(3);
        node.run(KEEP as u64);
        let part_bytes = |most| node.store.next_part(&mut SentStore::default(), most).bytes.len();
        // Only windows are limited; names and totals are always sent completely.
        let (without_windows, with_one) = (part_bytes(0), part_bytes(1));
        let window = with_one - without_windows;
        assert!(without_windows > 0 && window > 0);
        let largest = part_bytes(3 * window);
        assert!(
            largest <= without_windows + 5 * window,
            "{largest} bytes, though a window takes {window} and all else {without_windows}"
        );
        assert!(part_bytes(usize::MAX) > without_windows + 6 * window);
    }

    #[test]
    fn forgotten_containers_are_sent_once_and_known_by_the_next_process() {
        let mut node = Node::new(500);
        node.run(1);
        let (mut sent, mut received) = (SentStore::default(), ReceivedStore::default());
        received.add(&node.store.next_part(&mut sent, usize::MAX).bytes).unwrap();
        (0..400).for_each(|n| node.forget(n));
        let with = node.store.next_part(&mut sent, usize::MAX).bytes;
        let without = node.store.next_part(&mut sent, usize::MAX).bytes;
        (400..499).for_each(|n| node.forget(n));
        for part in [&with, &without, &node.store.next_part(&mut sent, usize::MAX).bytes] {
            received.add(part).unwrap();
        }
        assert!(without.len() < 1_000, "{} bytes in which nothing is new", without.len());
        let next = received.into_store(KEEP).unwrap();
        for n in [0, 399, 400, 498, 499] {
            let of_it = |origin: &Origin| origin.container_id.as_str() == format!("c{n}");
            let [there, here] = [&next, &node.store].map(|store| {
                let begin = Cursor { epoch: 7, seq: 0 };
                store.since_of(begin, of_it).map(|since| since.published.len())
            });
            assert_eq!((there, here.is_err()), (here, n != 499), "c{n}");
        }
    }

    #[test]
    fn windows_of_a_clock_that_was_ahead_stay_set_aside_in_the_process_that_takes_over() {
        let mut node = Node::new(1);
        node.run(3);
        let image = node.store.find_history(Allocation(0)).unwrap().to_image();
        let mut later = Node { store: Store::new(7, KEEP), containers: Vec::new(), now: 1 };
        // At the time of the first of the three windows, the others are in the future.
        let history = History::from_image(&image).unwrap();
        later.store.adopt_histories(vec![(Allocation(0), history)], moment(9).wall);
        later.open(0);
        let (mut sent, mut received) = (SentStore::default(), ReceivedStore::default());
        received.add(&later.store.next_part(&mut sent, usize::MAX).bytes).unwrap();
        let store = received.into_store(KEEP).unwrap();
        assert_eq!(store.find_history(Allocation(0)).unwrap().future_interval_count(), 2);
        assert_eq!(seen(&store), seen(&later.store));
    }

    #[test]
    fn a_follower_of_one_container_learns_of_its_losses_only_in_the_next_process_too() {
        let mut node = Node::new(2);
        node.run(1);
        node.forget(1);
        let mut received = ReceivedStore::default();
        received.add(&node.store.next_part(&mut SentStore::default(), usize::MAX).bytes).unwrap();
        let store = received.into_store(KEEP).unwrap();
        let of = |n: u64| {
            let id = format!("c{n}");
            store.since_of(Cursor { epoch: 7, seq: 0 }, |origin| origin.container_id.as_str() == id).is_ok()
        };
        assert_eq!([of(0), of(1)], [true, false]);
    }

    #[test]
    fn a_part_has_only_what_the_one_before_had_not() {
        let mut node = Node::new(2);
        let mut sent = SentStore::default();
        node.run(KEEP as u64);
        let everything = node.store.next_part(&mut sent, usize::MAX).bytes.len();
        let nothing = node.store.next_part(&mut sent, usize::MAX).bytes.len();
        assert!(nothing < 16, "{nothing} bytes");
        node.run(1);
        let one = node.store.next_part(&mut sent, usize::MAX).bytes.len();
        assert!(one < everything / 2, "{one} of {everything} bytes");
        node.run(1);
        let another = node.store.next_part(&mut sent, usize::MAX).bytes.len();
        assert!(
            another < one + one / 4,
            "{another} of {everything} bytes, where {one} were one window of each"
        );
    }

    #[test]
    fn a_part_that_follows_another_is_refused() {
        let mut node = Node::new(1);
        let (mut sent, mut received) = (SentStore::default(), ReceivedStore::default());
        node.run(2);
        received.add(&node.store.next_part(&mut sent, usize::MAX).bytes).unwrap();
        node.run(1);
        let skipped = node.store.next_part(&mut sent, usize::MAX).bytes;
        node.run(1);
        assert_eq!(
            received.add(&node.store.next_part(&mut sent, usize::MAX).bytes),
            Err(HistoryError::Damaged)
        );
        assert_eq!(ReceivedStore::default().add(&skipped), Err(HistoryError::Damaged));
        assert_eq!(ReceivedStore::default().add(b"x"), Err(HistoryError::Damaged));
        assert!(ReceivedStore::default().into_store(KEEP).is_none(), "nothing has come");
    }

    #[test]
    fn fewer_windows_are_kept_where_fewer_are_wanted() {
        let mut node = Node::new(1);
        node.run(KEEP as u64);
        let mut received = ReceivedStore::default();
        received.add(&node.store.next_part(&mut SentStore::default(), usize::MAX).bytes).unwrap();
        let store = received.into_store(2).unwrap();
        assert_eq!(store.find_history(Allocation(0)).unwrap().kept_intervals().count(), 2);
        let end = store.end_cursor();
        assert!(store.read_since(Cursor { seq: 0, ..end }).is_err() && store.read_since(end).is_ok());
    }
}
