//! Histories of what memory has, written to a buffer.

use serde::Serialize;
use serde_json::Value;

use super::*;
use crate::aggregate::{Aggregator, AggregatorSettings, GaugeSign};
use crate::archive::POLICY;
use crate::config::{AgentConfig, ProcessEnvironment};
use crate::model::{Allocation, ContainerId, Generation, Labels, Moment, TaskId};
use crate::query::{Filters, Query};
use crate::store::Store;
use crate::window_log::Spool;

/// 2026-01-01T00:00:00Z
const START: i64 = 1_767_225_600;
const MINUTES: u64 = 60;
const SERIES: usize = 2_000;

/// A document in memory, and the most that was held for it at a time.
#[derive(Default)]
struct Buffer(Vec<u8>);

impl Sink for Buffer {
    type Stop = Error;

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn write_json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer(&mut self.0, value).unwrap();
        Ok(())
    }

    fn hold_bytes(&mut self, _bytes: usize) {}

    fn goes_on(&self) -> bool {
        true
    }

    fn ensure_wanted(&self) -> Result<(), Error> {
        Ok(())
    }
}

fn moment(secs: u64) -> Moment {
    let mono = Duration::from_secs(secs);
    Moment { wall: Timestamp::from_secs(START).saturating_add(mono), mono }
}

/// An hour of a container with many series, in windows of half a minute.
fn task() -> HistoryTask {
    let origin = Arc::new(Origin {
        container_id: ContainerId::new("c").unwrap(),
        generation: Generation(1),
        task_id: TaskId::new("web").unwrap(),
        labels: Labels::new(),
    });
    let store = Arc::new(Store::new(7, 1_000));
    store.open(Allocation(1), Arc::clone(&origin), moment(0).wall);
    let settings = AggregatorSettings { window: Duration::from_secs(30), ..AggregatorSettings::default() };
    let mut aggregator = Aggregator::new(Arc::new(settings), GaugeSign::Delta, moment(0).wall);
    for half in 0..MINUTES * 2 {
        for n in 0..SERIES {
            aggregator.ingest_datagram(format!("s{n}:1|c").as_bytes(), moment(half * 30), None);
        }
        let closed = aggregator.roll_window(moment((half + 1) * 30).wall).unwrap();
        store.push(Allocation(1), closed);
    }
    let history = store.find_history(Allocation(1)).unwrap();
    let kept = history.published_windows().map(|kept| (kept.birth_in(7), Arc::clone(kept))).collect();
    let config = AgentConfig::from_toml("", &ProcessEnvironment).unwrap();
    HistoryTask {
        task: describe_archived_task("web", &[]),
        sources: vec![HistorySource { origin, archived: None, kept }],
        reader: None,
        archive: Archive::new(&config, store, Arc::new(Spool::without_files())),
    }
}

fn select(raw: &str, step: Duration) -> HistorySelection {
    let filters = Filters::read(&Query::read(raw, &HISTORY).unwrap()).unwrap();
    let (from, until) = (moment(0).wall, moment(MINUTES * 60).wall);
    HistorySelection { from, until, step, granularity: POLICY[0], hdr: false, filters }
}

fn write(task: &mut HistoryTask, selection: &HistorySelection) -> Result<Vec<Value>, Error> {
    let mut buffer = Buffer::default();
    write_history(&mut buffer, ("n", 7), task, selection, moment(MINUTES * 60 - 1).wall)?;
    let document: Value = serde_json::from_slice(&buffer.0).unwrap();
    assert_eq!(document["step"], selection.step.as_secs());
    Ok(document["metrics"].as_array().unwrap().clone())
}

#[test]
fn an_answer_that_would_be_too_long_is_refused_with_what_to_do() {
    let mut task = task();
    let minute = Duration::from_mins(1);
    let mut buffer = Buffer::default();
    let error =
        write_history(&mut buffer, ("n", 7), &mut task, &select("", minute), moment(0).wall).unwrap_err();
    assert!(matches!(error, Error::TooManyRecords { most: MOST_RECORDS }) && buffer.0.is_empty(), "{error}");
    assert!(error.to_string().contains("a longer step"), "{error}");
    // Windows are more than the limit, but steps are not.
    let steps = write(&mut task, &select("", Duration::from_mins(10))).unwrap();
    assert_eq!(steps.len(), 6 * SERIES);
    assert!(steps.iter().all(|record| record["agg"]["sum"] == 20.0 && record["covered"] == 600));
    let few = write(&mut task, &select("name=s7", minute)).unwrap();
    assert_eq!(few.len(), 60);
}

#[test]
fn records_are_in_the_order_of_time_and_then_of_names_and_the_last_step_is_open() {
    let mut task = task();
    let few = write(&mut task, &select("name=s1?", Duration::from_mins(10))).unwrap();
    let keys: Vec<_> =
        few.iter().map(|record| (record["start"].to_string(), record["name"].to_string())).collect();
    assert!(keys.is_sorted() && keys.len() == 60, "{keys:?}");
    let open: Vec<_> = few.iter().filter(|record| record["open"] == true).collect();
    assert!(
        open.len() == 10 && open.iter().all(|record| record["end"] == "2026-01-01T01:00:00Z"),
        "{open:?}"
    );
}
