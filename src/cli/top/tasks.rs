//! The tasks of the node, and how fast their counts grow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::args::TaskColumn;
use super::super::listing::SortCell;
use super::listing::SortColumn;
use crate::model::Timestamp;
use crate::wire::{TaskChanges, TaskRow};

/// Looks that are kept of a task for its trend, two seconds apart.
const KEPT_LOOKS: usize = 31;
/// Looks that a rate covers. Fewer would jump with every datagram of a slow sender.
const RATE_LOOKS: usize = 6;

impl SortColumn for TaskColumn {
    const ALL: &'static [Self] = &[
        Self::Task,
        Self::State,
        Self::Values,
        Self::Series,
        Self::Dropped,
        Self::Rejected,
        Self::Folded,
        Self::Last,
    ];

    fn is_largest_first(self) -> bool {
        !matches!(self, Self::Task | Self::State)
    }
}

/// Values accepted up to a moment.
#[derive(Copy, Clone, Debug)]
struct CountLook {
    at: Timestamp,
    values: u64,
}

/// A task and its last counts.
#[derive(Debug)]
pub(super) struct ObservedTask {
    pub(super) row: TaskRow,
    looks: VecDeque<CountLook>,
}

impl ObservedTask {
    fn look(&mut self, at: Timestamp) {
        let look = CountLook { at, values: self.row.values };
        // Counts that go back are those of other containers.
        if self.looks.back().is_some_and(|last| last.values > look.values || last.at >= at) {
            self.looks.clear();
        }
        self.looks.push_back(look);
        if self.looks.len() > KEPT_LOOKS {
            self.looks.pop_front();
        }
    }

    /// Values per second lately; `None` until the second look.
    pub(super) fn values_per_second(&self) -> Option<f64> {
        let last = self.looks.back()?;
        let first = self.looks.get(self.looks.len().saturating_sub(RATE_LOOKS))?;
        rate_between(*first, *last)
    }

    /// Values per second between looks, the oldest first.
    pub(super) fn list_rates(&self) -> Vec<Option<f64>> {
        let next = self.looks.iter().skip(1);
        self.looks.iter().zip(next).map(|(first, last)| rate_between(*first, *last)).collect()
    }

    /// Datagrams and values dropped, by the kernel or by limits.
    pub(super) fn count_dropped(&self) -> u64 {
        self.row.kernel_drops.saturating_add(self.row.dropped)
    }

    /// What it is sorted by.
    pub(super) fn sort_cell(&self, column: TaskColumn) -> SortCell<'static> {
        let number = |count: u64| SortCell::Number(count as f64);
        match column {
            TaskColumn::Task => SortCell::Text(self.row.task_id.clone().into()),
            TaskColumn::State => SortCell::Text(self.row.state.to_string().into()),
            TaskColumn::Values => SortCell::from_number(self.values_per_second()),
            TaskColumn::Series => number(self.row.series as u64),
            TaskColumn::Dropped => number(self.count_dropped()),
            TaskColumn::Rejected => number(self.row.rejected),
            TaskColumn::Folded => number(self.row.folded),
            TaskColumn::Last => SortCell::from_moment(self.row.last_datagram),
        }
    }
}

fn rate_between(first: CountLook, last: CountLook) -> Option<f64> {
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    (seconds > 0.0).then(|| last.values.saturating_sub(first.values) as f64 / seconds)
}

/// Sums over all tasks.
#[derive(Copy, Clone, PartialEq, Debug, Default)]
pub(super) struct NodeSums {
    pub(super) values_per_second: f64,
    pub(super) series: usize,
    pub(super) dropped: u64,
    pub(super) rejected: u64,
    pub(super) folded: u64,
}

/// All tasks, as the agent's stream describes them.
#[derive(Debug, Default)]
pub(super) struct TaskList {
    tasks: BTreeMap<String, ObservedTask>,
    /// The agent's time of the last event.
    at: Option<Timestamp>,
    /// Whether the next event describes every task, as the first of a connection does.
    begins: bool,
}

impl TaskList {
    /// The next event is the first of a connection. Rates begin again: what was counted meanwhile is unknown.
    pub(super) fn begin_connection(&mut self) {
        self.begins = true;
        self.tasks.values_mut().for_each(|task| task.looks.clear());
    }

    pub(super) fn apply_changes(&mut self, changes: TaskChanges) {
        if std::mem::take(&mut self.begins) {
            let named: BTreeSet<&str> = changes.tasks.iter().map(|row| row.task_id.as_str()).collect();
            self.tasks.retain(|id, _| named.contains(id.as_str()));
        }
        for id in &changes.gone {
            self.tasks.remove(id);
        }
        for row in changes.tasks {
            match self.tasks.get_mut(&row.task_id) {
                Some(task) => task.row = row,
                None => {
                    let id = row.task_id.clone();
                    self.tasks.insert(id, ObservedTask { row, looks: VecDeque::new() });
                }
            }
        }
        // Tasks that are not named have not changed.
        self.tasks.values_mut().for_each(|task| task.look(changes.at));
        self.at = Some(changes.at);
    }

    pub(super) fn all_tasks(&self) -> &BTreeMap<String, ObservedTask> {
        &self.tasks
    }

    /// The agent's time of what is shown; `None` before the first event.
    pub(super) fn shown_at(&self) -> Option<Timestamp> {
        self.at
    }

    /// Whether any task has something to show in this column: a name, or a number that is not zero.
    pub(super) fn has_content(&self, column: TaskColumn) -> bool {
        self.tasks.values().any(|task| task.sort_cell(column).has_content())
    }

    pub(super) fn sum_counts(&self) -> NodeSums {
        self.tasks.values().fold(NodeSums::default(), |sums, task| NodeSums {
            values_per_second: sums.values_per_second + task.values_per_second().unwrap_or(0.0),
            series: sums.series + task.row.series,
            dropped: sums.dropped.saturating_add(task.count_dropped()),
            rejected: sums.rejected.saturating_add(task.row.rejected),
            folded: sums.folded.saturating_add(task.row.folded),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// An event at this second; each row is completed with zeros.
    pub(in super::super) fn sample_changes(at: i64, rows: &[Value], gone: &[&str]) -> TaskChanges {
        let complete = |row: &Value| {
            let mut whole = json!({
                "state": "listening", "finished": false, "generation": 1, "containers": 1, "series": 1,
                "last_datagram": Timestamp::from_secs(at), "received": 0, "values": 0, "kernel_drops": 0, "dropped": 0,
                "rejected": 0, "events": 0,
            });
            whole.as_object_mut().unwrap().extend(row.as_object().unwrap().clone());
            whole
        };
        let rows: Vec<Value> = rows.iter().map(complete).collect();
        let document = json!({"at": Timestamp::from_secs(at), "ready": true, "degraded": [], "memory": 0,
            "last_scrape": null, "tasks": rows, "gone": gone});
        serde_json::from_value(document).unwrap()
    }

    fn rate(list: &TaskList, id: &str) -> Option<f64> {
        list.all_tasks()[id].values_per_second()
    }

    #[test]
    fn a_rate_is_the_difference_of_counts_over_ten_seconds() {
        let mut list = TaskList::default();
        for n in 0..10 {
            list.apply_changes(sample_changes(n * 2, &[json!({"task_id": "a", "values": n * n})], &[]));
        }
        // 81 values less 16, in ten seconds.
        assert_eq!(rate(&list, "a"), Some(6.5));
        assert_eq!(list.all_tasks()["a"].list_rates().len(), 9);
    }

    #[test]
    fn a_task_that_is_not_named_has_sent_nothing() {
        let mut list = TaskList::default();
        list.apply_changes(sample_changes(0, &[json!({"task_id": "a", "values": 5})], &[]));
        assert_eq!(rate(&list, "a"), None, "one look is no rate");
        list.apply_changes(sample_changes(2, &[], &[]));
        assert_eq!(rate(&list, "a"), Some(0.0));
    }

    #[test]
    fn counts_that_go_back_begin_again() {
        let mut list = TaskList::default();
        list.apply_changes(sample_changes(0, &[json!({"task_id": "a", "values": 500})], &[]));
        list.apply_changes(sample_changes(2, &[json!({"task_id": "a", "values": 3})], &[]));
        assert_eq!(rate(&list, "a"), None);
        list.apply_changes(sample_changes(4, &[json!({"task_id": "a", "values": 5})], &[]));
        assert_eq!(rate(&list, "a"), Some(1.0));
    }

    #[test]
    fn the_first_event_of_a_connection_names_every_task() {
        let mut list = TaskList::default();
        let (a, b) = (json!({"task_id": "a"}), json!({"task_id": "b"}));
        list.apply_changes(sample_changes(0, &[a, b.clone()], &[]));
        list.begin_connection();
        assert_eq!(list.all_tasks().len(), 2, "what is known is kept until the agent answers");
        list.apply_changes(sample_changes(60, &[b], &[]));
        assert_eq!(list.all_tasks().keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(rate(&list, "b"), None);
        list.apply_changes(sample_changes(62, &[], &["b"]));
        assert!(list.all_tasks().is_empty());
    }
}
