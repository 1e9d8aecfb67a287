//! What the archive refuses, what it deletes, and what it does without room.

use std::time::Duration;

use rusqlite::Connection;

use super::World;
use crate::aggregate::{Aggregator, AggregatorSettings, GaugeSign, View};
use crate::archive::FoldCounts;
use crate::archive::database::{ArchiveError, FILE, open_for_writing, read_cursor, read_size};
use crate::archive::policy::POLICY;
use crate::archive::reader::ArchiveReader;
use crate::archive::sweep::{Swept, sweep_slots};
use crate::archive::writer::fold_windows;
use crate::model::{Allocation, ContainerId, Generation, Labels, Origin, TaskId, Timestamp};
use crate::store::{Cursor, Published};
use crate::window_log::moment;
use std::sync::Arc;

const HOUR: u64 = 3_600;

fn origin() -> Arc<Origin> {
    Arc::new(Origin {
        container_id: ContainerId::new("c0").unwrap(),
        generation: Generation(1),
        task_id: TaskId::new("web").unwrap(),
        labels: Labels::new(),
    })
}

/// Windows of a length, in each of which these lines arrive.
fn windows(
    length: u64,
    starts: impl Iterator<Item = u64>,
    lines: impl Fn(u64) -> String,
) -> Vec<Arc<Published>> {
    let mut seq = 0;
    let window = |start: u64| {
        let window = Duration::from_secs(length);
        let settings = AggregatorSettings { window, ..AggregatorSettings::default() };
        let mut aggregator = Aggregator::new(Arc::new(settings), GaugeSign::Delta, moment(start).wall);
        aggregator.ingest_datagram(lines(start).as_bytes(), moment(start), None);
        let closed = aggregator.roll_window(moment(start + length).wall).unwrap().window;
        seq += 1000;
        Arc::new(Published::new(Allocation(1), &origin(), closed.into(), seq))
    };
    starts.map(window).collect()
}

fn join_lines(count: u64, line: impl Fn(u64) -> String) -> String {
    (0..count).map(line).collect::<Vec<_>>().join("\n")
}

fn fold(connection: &mut Connection, windows: &[Arc<Published>], now: Timestamp) -> FoldCounts {
    let before = read_cursor(connection).unwrap();
    fold_windows(connection, windows, (before, Cursor { epoch: 1, seq: 1 }), now).unwrap()
}

fn sums(directory: &tempfile::TempDir) -> Vec<Vec<f64>> {
    let mut reader = ArchiveReader::open(&directory.path().join(FILE)).unwrap().unwrap();
    let containers = reader.find_containers("web").unwrap();
    POLICY
        .into_iter()
        .map(|granularity| {
            let read =
                reader.read_slots(&containers[0], granularity, (Timestamp::MIN, Timestamp::MAX)).unwrap();
            let sum = |slot: &crate::aggregate::Window| match slot.records().next().unwrap().view {
                View::Counter { counter, .. } => counter.sum,
                _ => 0.0,
            };
            read.slots.iter().map(sum).collect()
        })
        .collect()
}

#[test]
fn windows_that_do_not_fit_into_slots_are_in_one_each_and_longer_ones_in_coarser_slots_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut connection = open_for_writing(&directory.path().join(FILE)).unwrap();
    let odd = windows(45, (0..8).map(|n| n * 45), |_| "c:1|c".to_owned());
    fold(&mut connection, &odd, moment(HOUR).wall);
    // They start at 0, 45, 90, 135, 180, 225, 270 and 315 seconds.
    assert_eq!(sums(&directory), [vec![2.0, 1.0, 1.0, 2.0, 1.0, 1.0], vec![8.0]]);
    let long = windows(300, [900, 1_200].into_iter(), |_| "c:1|c".to_owned());
    fold(&mut connection, &long, moment(HOUR).wall);
    assert_eq!(sums(&directory), [vec![2.0, 1.0, 1.0, 2.0, 1.0, 1.0], vec![8.0, 1.0, 1.0]]);
    let longest = windows(900, [1_800].into_iter(), |_| "c:1|c".to_owned());
    let counts = fold(&mut connection, &longest, moment(HOUR).wall);
    assert_eq!(counts, FoldCounts { long: 1, ..FoldCounts::default() });
}

#[test]
fn windows_that_another_process_folded_meanwhile_are_not_folded_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let (mut predecessor, mut successor) =
        (open_for_writing(&path).unwrap(), open_for_writing(&path).unwrap());
    let all = windows(10, [0, 10].into_iter(), |_| "c:1|c".to_owned());
    let (before, after) = (read_cursor(&successor).unwrap(), Cursor { epoch: 1, seq: 2000 });
    fold_windows(&mut predecessor, &all, (before, after), moment(20).wall).unwrap();
    let refused = fold_windows(&mut successor, &all, (before, after), moment(20).wall).unwrap_err();
    assert!(matches!(refused, ArchiveError::CursorMoved), "{refused}");
    assert_eq!(sums(&directory), [vec![2.0], vec![2.0]]);
    assert_eq!(read_cursor(&successor).unwrap(), Some(after));
}

#[test]
fn what_is_too_far_ahead_or_older_than_everything_is_refused_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let mut connection = open_for_writing(&directory.path().join(FILE)).unwrap();
    let all = windows(10, [0, 540, 600, 610, 30 * 86_400].into_iter(), |_| "c:1|c".to_owned());
    let counts = fold(&mut connection, &all, moment(0).wall);
    assert_eq!(counts, FoldCounts { folded: 3, ahead: 2, ..FoldCounts::default() });
    let counts = fold(&mut connection, &all[..2], moment(31 * 86_400).wall);
    assert_eq!(counts, FoldCounts { late: 2, ..FoldCounts::default() });
    let counts = fold(&mut connection, &all[..1], moment(2 * 86_400).wall);
    assert_eq!(counts, FoldCounts { folded: 1, ..FoldCounts::default() }, "only ten minutes have it");
}

#[test]
fn slots_go_by_the_clock_and_then_the_finest_oldest_first_and_the_file_shrinks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let mut connection = open_for_writing(&path).unwrap();
    let lines = |start: u64| join_lines(40, |n| format!("series.number.{n}:{start}|ms"));
    let day = windows(10, (0..1_440).map(|n| n * 60), lines);
    fold(&mut connection, &day, moment(24 * HOUR).wall);
    let count = |connection: &Connection, seconds: i64| -> (i64, Option<i64>) {
        let query = "SELECT count(*), min(start) FROM slot WHERE seconds = ?1";
        connection.query_row(query, [seconds], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    assert_eq!((count(&connection, 60).0, count(&connection, 600).0), (1_440, 144));
    let start = moment(0).wall.as_secs();
    let swept = sweep_slots(&connection, moment(26 * HOUR).wall, 1 << 30).unwrap();
    // A slot is kept for a day after its end.
    assert_eq!(
        (swept, count(&connection, 60)),
        (Swept { expired: 119, for_size: 0 }, (1_321, Some(start + 119 * 60)))
    );
    let (before, _) = read_size(&connection).unwrap();
    let limit = before / 2;
    let swept = sweep_slots(&connection, moment(26 * HOUR).wall, limit).unwrap();
    let (minutes, tens) = (count(&connection, 60), count(&connection, 600));
    assert!(swept.for_size > 300 && minutes.1 > Some(start + 500 * 60), "{swept:?} {minutes:?}");
    assert_eq!(tens, (144, Some(start)), "ten minutes stay while there are minutes");
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() <= limit);
    let swept = sweep_slots(&connection, moment(40 * 24 * HOUR).wall, 1 << 30).unwrap();
    assert_eq!((swept.expired, count(&connection, 600).0), (144 + minutes.0.cast_unsigned(), 0));
    let left: i64 = connection
        .query_row("SELECT (SELECT count(*) FROM series) + (SELECT count(*) FROM container)", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(left, 0, "lists of series go with the last slot");
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 100_000);
}

#[test]
fn a_full_disk_stops_archiving_and_it_goes_on_at_its_cursor() {
    let mut world = World::new();
    let mut sent = world.live(1..101);
    world.run_round(101);
    for round in 0..6 {
        // SQLite meets the end of the disk in the middle of a transaction.
        let connection = world.task.connection.as_ref().unwrap();
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        connection
            .query_row(&format!("PRAGMA max_page_count = {}", pages + round % 2), [], |_| Ok(()))
            .unwrap();
        let begin = 101 + round.unsigned_abs() * 600;
        // Enough for new pages.
        sent += world.live_noisily(begin..begin + 600);
        world.run_round(begin + 600);
        let failing = world.archive.load_status().failing.unwrap();
        assert!(failing.contains("full"), "{failing}");
        let connection = world.task.connection.as_ref().unwrap();
        connection.query_row("PRAGMA max_page_count = 1000000", [], |_| Ok(())).unwrap();
        world.run_round(begin + 601);
        let status = world.archive.load_status();
        assert_eq!((status.failing, status.missed), (None, 0));
        assert_eq!(POLICY.map(|granularity| world.sum(granularity)), [sent, sent]);
    }
}

#[test]
fn a_container_that_makes_new_series_all_the_time_has_no_endless_list_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut connection = open_for_writing(&directory.path().join(FILE)).unwrap();
    let lines = |start: u64| join_lines(500, |n| format!("s.{start}.{n}:1|c"));
    for start in 0..30 {
        let one = windows(10, [start * 60].into_iter(), lines);
        fold(&mut connection, &one, moment(HOUR).wall);
    }
    let lists: Vec<i64> = {
        let mut statement = connection.prepare("SELECT count(*) FROM series GROUP BY container").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert!(lists.len() >= 2 && lists.iter().all(|series| *series <= 7_000), "{lists:?}");
    let mut reader = ArchiveReader::open(&directory.path().join(FILE)).unwrap().unwrap();
    let containers = reader.find_containers("web").unwrap();
    assert_eq!((containers.len(), containers[0].numbers.len()), (1, lists.len()));
    let read = reader.read_slots(&containers[0], POLICY[0], (Timestamp::MIN, Timestamp::MAX)).unwrap();
    assert_eq!((read.slots.len(), read.damaged), (30, 0));
}
