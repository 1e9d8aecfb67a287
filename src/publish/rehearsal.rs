//! What a publisher would send of windows, without a server: for counting the instructions of a record.

use std::sync::Arc;
use std::time::Duration;

use super::parcel::{Parcel, RoundShare};
use super::round::{CutRecords, RoundRules, RoundScope};
use super::selection::SeriesSelection;
use super::sinks::{Destination, RoundStage, SinkError};
use super::totals::RunningTotals;
use crate::config::PublisherConfig;
use crate::render::prometheus::MarksOfAll;
use crate::render::publish::Encoded;
use crate::store::Published;

/// A publisher without its task, cursor and connection.
#[derive(Debug)]
pub struct RoundRehearsal {
    config: PublisherConfig,
    sink: Destination,
    totals: RunningTotals,
    marks: MarksOfAll,
}

/// What was encoded.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct RehearsedBatch {
    /// Records in requests.
    pub records: usize,
    /// Number of requests.
    pub requests: usize,
    /// Bytes of bodies as they are sent, which may be compressed.
    pub bytes: usize,
}

impl RoundRehearsal {
    /// A publisher that has sent nothing.
    ///
    /// # Errors
    /// When its destination cannot be delivered to.
    pub fn open(config: PublisherConfig) -> Result<Self, SinkError> {
        let sink = Destination::open(&config)?;
        let totals = RunningTotals::new(usize::MAX, sink.counts_in_buckets());
        Ok(Self { config, sink, totals, marks: MarksOfAll::default() })
    }

    /// Collects, merges, encodes and compresses everything that these windows make up.
    pub fn encode_windows(&mut self, windows: &[Arc<Published>]) -> RehearsedBatch {
        let selection = SeriesSelection::from_config(&self.config).unwrap_or_default();
        let PublisherConfig { interval, batch, .. } = self.config;
        let scope = RoundScope {
            rules: RoundRules { interval, batch, settle: Duration::ZERO, records: usize::MAX, floor: None },
            level: self.sink.identity_level(),
            selection: &selection,
            epoch: 1,
            reading: self.sink.record_reading(),
            group: self.sink.type_groups(),
        };
        let mut cut = CutRecords::collect_records(windows, &[], 0..=u64::MAX, scope);
        if self.sink.sends_totals() {
            cut.intervals.iter_mut().for_each(|interval| interval.stage_totals(&mut self.totals));
        }
        let rounds = cut.intervals.iter().map(|interval| {
            RoundShare::of_all(interval.as_empty_round("node", scope.epoch, &self.marks), interval)
        });
        let parcel = Parcel::new(rounds.collect(), scope.group);
        std::hint::black_box(parcel.record_keys());
        let stages = [RoundStage::Zeros, RoundStage::Records];
        let mut rehearsed = RehearsedBatch::default();
        for stage in stages.into_iter().skip(usize::from(!parcel.begins_series())) {
            self.encode_stage(&parcel, stage, &mut rehearsed);
        }
        self.totals.commit_round(true);
        rehearsed
    }

    fn encode_stage(&self, parcel: &Parcel<'_>, stage: RoundStage, rehearsed: &mut RehearsedBatch) {
        let room = Destination::request_room();
        for group in parcel.group_ranges() {
            for start in group.clone().step_by(room.records) {
                let range = start..group.end.min(start + room.records);
                let framing = |metric_type| self.sink.body_framing(metric_type);
                let encoded = parcel.encode_range(range, room, framing, |round, records| match stage {
                    RoundStage::Zeros => Encoded {
                        requests: self.sink.encode_zeros(round, records, room),
                        left_out: Vec::new(),
                    },
                    RoundStage::Records | RoundStage::Suspects => {
                        self.sink.encode_round(round, records, room)
                    }
                });
                for request in encoded.requests {
                    rehearsed.records += request.held;
                    rehearsed.requests += 1;
                    rehearsed.bytes += self.sink.measure_sent(&request);
                }
            }
        }
    }
}
