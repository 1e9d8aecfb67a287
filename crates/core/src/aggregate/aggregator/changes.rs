//! Encodes an aggregator in two parts: a snapshot, and later the changes since then.
//!
//! Changes are a [`DocumentFormat`] document with the mark `TPAC`. They name their snapshot by its checksum.
//!
//! Within a window only samples change a series, and a series keeps its place unless it is evicted. So changes are
//! small if few series had samples meanwhile. Once the window is closed, they can no longer be determined.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tallyport_wal::DocumentFormat;
pub use tallyport_wal::checksum_of;

use super::columns::SeriesRow;
use super::snapshot::{LateV1, MANY, SNAPSHOT_VERSION, SlotV1, SnapshotError, StateV1};
use super::{Aggregator, Habits, LedgerRow};
use crate::aggregate::accounting::Accounting;
use crate::aggregate::histogram::Histogram;
use crate::aggregate::record::RecentEvents;
use crate::aggregate::table::Place;
use crate::aggregate::window::Layout;
use crate::model::{Series, Timestamp};

const FORMAT: DocumentFormat = DocumentFormat { mark: *b"TPAC", version: SNAPSHOT_VERSION };

/// What must be remembered about a snapshot to determine the changes since then.
#[derive(Debug)]
pub(super) struct SentSnapshot {
    checksum: u64,
    layout: Layout,
    /// Values and events accepted by then.
    values: u64,
    events: u64,
    /// By place.
    seen: Box<[ChangeStamp]>,
}

/// A series' number of samples in the open window, and the last change of its ledger.
type ChangeStamp = (u64, Timestamp);

fn change_stamp(row: &SeriesRow<'_>) -> ChangeStamp {
    (row.state.sample_count(), row.ledger.last_seen)
}

#[derive(Serialize, Deserialize)]
struct ChangesV1<S = Series> {
    /// The checksum of the snapshot that these changes are relative to.
    of: u64,
    habits: Habits,
    accounting: Accounting,
    overflow: Option<Place>,
    /// `None` if no value has arrived since.
    values: Option<ValuesV1<S>>,
    /// All events of the open window; `None` if none has arrived since.
    events: Option<RecentEvents>,
}

#[derive(Serialize, Deserialize)]
struct ValuesV1<S = Series> {
    /// Changed series, by place.
    changed: Vec<(Place, LedgerRow, StateV1)>,
    /// New series, at the places after those of the snapshot.
    new: Vec<SlotV1<S>>,
    /// All histograms.
    histograms: Vec<(Place, Histogram)>,
    late: LateV1,
}

impl Aggregator {
    /// A snapshot, on which [`Aggregator::changes_since`] can follow.
    #[must_use]
    pub fn snapshot_ahead(&mut self) -> Vec<u8> {
        let snapshot = self.encode_snapshot();
        self.sent_ahead = checksum_of(&snapshot).map(|checksum| SentSnapshot {
            checksum,
            layout: self.current_layout(),
            values: self.accounting.values,
            events: self.accounting.events,
            seen: self
                .columns
                .iter_places()
                .map(|row| row.map_or((0, Timestamp::MIN), |row| change_stamp(&row)))
                .collect(),
        });
        snapshot
    }

    /// The changes since the snapshot with this checksum. `None` if they cannot be determined and a new snapshot is
    /// needed: the window was closed meanwhile, or series were evicted.
    #[must_use]
    pub fn changes_since(&self, of: u64) -> Option<Vec<u8>> {
        let known = self.sent_ahead.as_ref().filter(|known| known.checksum == of)?;
        let values = match known.values == self.accounting.values {
            true => None,
            false => Some(self.changed_values(known)?),
        };
        let changes = ChangesV1 {
            of,
            habits: self.habits,
            accounting: self.accounting.clone(),
            overflow: self.overflow,
            values,
            events: (known.events != self.accounting.events).then(|| self.events.clone()),
        };
        Some(FORMAT.encode_document(&changes))
    }

    fn changed_values(&self, known: &SentSnapshot) -> Option<ValuesV1<&Series>> {
        let mut rows = self.columns.iter_places();
        let mut changed = Vec::new();
        let late = self.late_by_place();
        for (series, before) in known.layout.iter().zip(&known.seen) {
            let row = match (series, rows.next()?) {
                (None, None) => continue,
                (Some(series), Some(row)) if Arc::ptr_eq(series, row.series) => row,
                _ => return None,
            };
            // Late samples can change a level without a sample in the open window.
            if change_stamp(&row) != *before || late.contains_key(&row.place) {
                changed.push((row.place, *row.ledger, StateV1::from(row.state)));
            }
        }
        let new = rows.map(|row| row.map(SlotV1::from)).collect::<Option<Vec<_>>>()?;
        let histograms =
            self.histograms.iter().map(|(place, histogram)| (place, histogram.clone())).collect();
        Some(ValuesV1 { changed, new, histograms, late: self.late_to_bytes() })
    }

    /// Applies the changes since the snapshot that this aggregator was restored from; `of` is the checksum of that
    /// snapshot. After an error the aggregator must no longer be used.
    ///
    /// # Errors
    /// When the bytes are not changes, have an unknown version, are damaged, or are relative to another snapshot.
    pub fn apply_changes(&mut self, of: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        let changes: ChangesV1 = FORMAT.decode_document(bytes)?;
        if changes.of != of || !changes.accounting.is_plausible(MANY) || !changes.habits.is_plausible(MANY) {
            return Err(SnapshotError::Damaged);
        }
        (self.habits, self.accounting) = (changes.habits, changes.accounting);
        if let Some(events) = changes.events {
            self.events = events;
        }
        if let Some(values) = changes.values {
            self.change_values(values)?;
        }
        self.overflow = changes.overflow;
        self.check_overflow()?;
        self.count_restored();
        Ok(())
    }

    fn change_values(&mut self, values: ValuesV1) -> Result<(), SnapshotError> {
        for (place, ledger, state) in values.changed {
            self.restore_state(place, ledger, state)?;
        }
        for slot in values.new {
            self.restore_slot(Some(slot))?;
        }
        self.restore_histograms(values.histograms)?;
        self.restore_late(values.late)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::aggregate::aggregator::snapshot::sealed_again;
    use crate::aggregate::{AggregatorSettings, Counting, GaugeSign, Limits};
    use crate::model::Moment;

    const START: i64 = 1_767_225_600;

    fn at(secs: u64) -> Moment {
        let mono = Duration::from_secs(secs);
        Moment { wall: Timestamp::from_secs(START).saturating_add(mono), mono }
    }

    /// Two windows of every type, and late samples; the second window is open.
    fn busy(settings: &Arc<AggregatorSettings>) -> Aggregator {
        let mut aggregator = Aggregator::new(Arc::clone(settings), GaugeSign::Auto, at(0).wall);
        aggregator.ingest_datagram(
            b"c:1|c\ng:5|g\nt:1:2:3|ms\ns:a|s\nd:4|d\nidle:1|c\nlevel:7|g",
            at(1),
            None,
        );
        aggregator.ingest_datagram(b"_sc|up|0\n_e{1,1}:a|b", at(2), None);
        let _closed = aggregator.roll_window(at(10).wall);
        aggregator.ingest_datagram(b"c:1|c\nt:9|ms\nd:1|d", at(11), None);
        aggregator
    }

    /// The checksum of the aggregator's snapshot, and an aggregator restored from it.
    fn sent(aggregator: &mut Aggregator) -> (u64, Aggregator) {
        let snapshot = aggregator.snapshot_ahead();
        let other = Aggregator::from_snapshot(Arc::clone(&aggregator.settings), &snapshot).unwrap();
        (checksum_of(&snapshot).unwrap(), other)
    }

    #[test]
    fn a_snapshot_and_its_changes_are_what_a_later_snapshot_is() {
        let counting =
            Arc::new(AggregatorSettings { counting: Counting::Native, ..AggregatorSettings::default() });
        for settings in [Arc::default(), counting] {
            let mut aggregator = busy(&settings);
            let (of, mut other) = sent(&mut aggregator);
            let late = format!("c:1|c|T{0}\nlevel:3|g|T{0}\nt:4|ms|T{0}", START + 3);
            let datagrams: [&[u8]; 6] = [
                b"c:5|c|@0.5\ng:+1|g\nt:7|ms\ns:b:c|s",
                b"new:1|c\nother:2|h|#a:b",
                b"new:1|c",
                b"_sc|up|2|m:down\n_e{1,1}:c|d",
                b"nonsense",
                late.as_bytes(),
            ];
            for (n, datagram) in (12..).zip(datagrams) {
                aggregator.ingest_datagram(datagram, at(n), None);
                let changes = aggregator.changes_since(of).unwrap();
                let (_, mut other) = sent_again(&other);
                other.apply_changes(of, &changes).unwrap();
                assert_eq!(
                    other.encode_snapshot(),
                    aggregator.encode_snapshot(),
                    "{}",
                    String::from_utf8_lossy(datagram)
                );
            }
            other.apply_changes(of, &aggregator.changes_since(of).unwrap()).unwrap();
            assert_eq!(other.open_values(), aggregator.open_values());
            assert_eq!(other.series_count(), aggregator.series_count());
            let (closed, expected) =
                (other.roll_window(at(20).wall).unwrap(), aggregator.roll_window(at(20).wall).unwrap());
            assert_eq!(closed.values, expected.values);
            assert_eq!(other.encode_snapshot(), aggregator.encode_snapshot(), "both go on alike");
        }
    }

    /// A copy.
    fn sent_again(aggregator: &Aggregator) -> (u64, Aggregator) {
        let snapshot = aggregator.encode_snapshot();
        (0, Aggregator::from_snapshot(Arc::clone(&aggregator.settings), &snapshot).unwrap())
    }

    #[test]
    fn changes_are_as_small_as_what_has_changed() {
        let length = |series: usize| {
            let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, at(0).wall);
            (0..series).for_each(|n| aggregator.ingest_datagram(format!("a{n}:1|c").as_bytes(), at(1), None));
            let (of, _) = sent(&mut aggregator);
            let unchanged = aggregator.changes_since(of).unwrap().len();
            aggregator.ingest_datagram(b"a3:1|c", at(2), None);
            (unchanged, aggregator.changes_since(of).unwrap().len())
        };
        let (small, large) = (length(10), length(2000));
        // Larger datagram counts take a byte or two more.
        assert!(large.0 <= small.0 + 16 && large.1 <= small.1 + 16, "{small:?} {large:?}");
        assert!(small.1 < 300, "{small:?}");
    }

    #[test]
    fn nothing_follows_where_changes_cannot_be_told() {
        let fresh = || {
            let settings =
                AggregatorSettings { series_idle: Duration::ZERO, ..AggregatorSettings::default() };
            let mut aggregator = busy(&Arc::new(settings));
            let (of, _) = sent(&mut aggregator);
            (aggregator, of)
        };
        let (aggregator, of) = fresh();
        assert!(aggregator.changes_since(of).is_some());
        assert!(aggregator.changes_since(of ^ 1).is_none(), "another snapshot");
        let (mut aggregator, of) = fresh();
        let _closed = aggregator.roll_window(at(20).wall);
        assert!(aggregator.changes_since(of).is_none(), "the window was closed");
        let (mut aggregator, of) = fresh();
        let _lost = aggregator.begin_again(at(12).wall);
        assert!(aggregator.changes_since(of).is_none(), "it began again after a panic");
        let (mut aggregator, of) = fresh();
        let limits = Limits { series: aggregator.series_count(), ..Limits::default() };
        aggregator.apply_settings(&AggregatorSettings {
            limits,
            series_idle: Duration::ZERO,
            ..AggregatorSettings::default()
        });
        assert!(aggregator.changes_since(of).is_none(), "its settings changed");
        let (of, _) = sent(&mut aggregator);
        aggregator.ingest_datagram(b"new:1|c", at(12), None);
        assert_eq!(aggregator.accounting().evicted, 1);
        assert!(aggregator.changes_since(of).is_none(), "a series has made way for another");
    }

    #[test]
    fn changes_that_are_damaged_are_an_error_and_no_panic() {
        let mut aggregator = busy(&Arc::default());
        let (of, other) = sent(&mut aggregator);
        aggregator.ingest_datagram(b"c:1|c\nnew:1|ms", at(12), None);
        aggregator.ingest_datagram(format!("c:1|c|T{}", START + 3).as_bytes(), at(12), None);
        let changes = aggregator.changes_since(of).unwrap();
        let change = |of, bytes: &[u8]| sent_again(&other).1.apply_changes(of, bytes);
        assert_eq!(change(of, &changes), Ok(()));
        assert_eq!(change(of ^ 1, &changes), Err(SnapshotError::Damaged), "of another snapshot");
        assert_eq!(change(of, &other.encode_snapshot()), Err(SnapshotError::NotASnapshot));
        for at in 0..changes.len() {
            assert!(change(of, &changes[..at]).is_err());
            let mut damaged = changes.clone();
            damaged[at] ^= 0x55;
            assert!(change(of, &damaged).is_err(), "byte {at}");
            // With a valid checksum: any contents are either rejected or accepted, without a panic.
            let _either_way = change(of, &sealed_again(&damaged));
        }
    }

    #[test]
    fn the_bytes_of_both_parts_are_those_that_earlier_builds_read_and_write() {
        let digits = |byte: &u8| format!("{byte:02x}");
        let hex = |bytes: &[u8]| bytes.iter().map(digits).collect::<String>();
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, at(0).wall);
        aggregator.ingest_datagram(b"a:1|c", at(1), None);
        let snapshot = aggregator.snapshot_ahead();
        let golden = "5450414708000100000000000000808082e288d2a30680dac6eb88d2a306808082e288d2a306010101610000008089fc\
            e288d2a3060000000000000000008089fce288d2a3060000018080808080808008000000000000f03f00000000000105\
            000101000000000000000000000000000000000001000000000000000000000000000000000000000000000000000000\
            00000000000000018089fce288d2a30600f93e6007c189e70d";
        assert_eq!(hex(&snapshot), golden);
        aggregator.ingest_datagram(b"a:2|c", at(2), None);
        let changes = aggregator.changes_since(checksum_of(&snapshot).unwrap()).unwrap();
        let golden = "545041430800f9fd80bb90b8e2f30d0000000000020a0002020000000000000000000000000000000000020000000000\
            0000000000000000000000000000000000000000000000000000000000018092f6e388d2a30600010100000000000000\
            0000008089fce288d2a306000002808080808080801000000000000008400000000000277def3116e585a8";
        assert_eq!(hex(&changes), golden);
    }
}
