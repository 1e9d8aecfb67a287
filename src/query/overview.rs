//! How every task stands, and what has changed since the last look.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::documents::{generation_document, state_of};
use super::sink::{append_json, format_event};
use crate::aggregate::Accounting;
use crate::containers::TaskContainers;
use crate::model::{TaskId, Timestamp};
use crate::shard::StatsByContainer;
use crate::wire;

type OverviewRow = wire::TaskRow<TaskId>;

fn task_row(listed: &TaskContainers, stats_by_container: &StatsByContainer) -> OverviewRow {
    let mut counts = Accounting::default();
    let mut series = 0;
    for stats in listed.containers.iter().filter_map(|info| stats_by_container.get(&info.allocation)) {
        counts.merge(&stats.accounting);
        series += stats.series;
    }
    let state = state_of(listed);
    OverviewRow {
        task_id: listed.task_id.clone(),
        state: state.as_str().into(),
        finished: state.is_finished(),
        generation: generation_document(listed),
        containers: listed.containers.len(),
        series,
        last_datagram: counts.last_datagram,
        received: counts.received,
        values: counts.values,
        kernel_drops: counts.kernel_drops,
        dropped: counts.dropped.total_count(),
        rejected: counts.rejected.total_count(),
        events: counts.events,
    }
}

/// How tasks stood at the last look, each as a hash of its row: all that a stream needs to see that a task has changed.
pub type Rows = BTreeMap<TaskId, u64>;

/// The agent at the moment of a look.
#[derive(Clone, Debug)]
pub struct Look {
    /// The moment.
    pub at: Timestamp,
    /// Whether everything that the agent needs works.
    pub ready: bool,
    /// What does not work as configured.
    pub degraded: Vec<wire::DegradedDocument>,
    /// Bytes that all aggregators hold.
    pub memory: usize,
    /// When the node was scraped last.
    pub last_scrape: Option<Timestamp>,
}

/// Writes an event of the tasks that have changed since `before`. Returns the rows of all tasks.
pub fn write_rows(
    text: &mut Vec<u8>,
    look: Look,
    tasks: &[TaskContainers],
    stats_by_container: &StatsByContainer,
    before: &Rows,
) -> Rows {
    let (mut rows, mut changed) = (Rows::new(), Vec::new());
    let mut row_text = Vec::new();
    for row in tasks.iter().map(|listed| task_row(listed, stats_by_container)) {
        row_text.clear();
        append_json(&mut row_text, &row);
        let hash = xxh3_64(&row_text);
        rows.insert(row.task_id.clone(), hash);
        if before.get(&row.task_id) != Some(&hash) {
            changed.push(row);
        }
    }
    let gone = before.keys().filter(|id| !rows.contains_key(*id));
    let Look { at, ready, degraded, memory, last_scrape } = look;
    let (tasks, gone): (Vec<&OverviewRow>, Vec<&TaskId>) = (changed.iter().collect(), gone.collect());
    let changes = wire::TaskChanges { at, ready, degraded, memory, last_scrape, tasks, gone };
    text.extend_from_slice(format_event("tasks", None, &changes).as_bytes());
    rows
}
